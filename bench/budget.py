"""Equal budgets: the size (rank, width, tokens) with which a method trains a given number of parameters.

Whole sizes alone are too coarse: one rank more is several percent. So the size is solved first, and then how many of
the method's places get the next size (`more` of `methods/contract.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import UnsupportedError, UsageError
from .names import Value
from .registry import registry
from .support import places_of

if TYPE_CHECKING:
    from ..methods.contract import Method, MethodConfig
    from .anatomy import Anatomy

TOLERANCE = 0.02  # relative, between the budget and what trains
MOST_PLACES = 4096  # more than any method has


def parse_budget(budget: Value, backbone_parameters: int) -> int:
    """Trainable parameters meant by "0.5%" (of the backbone) or by a whole number. UsageError for anything else."""
    share = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)%", str(budget))
    if share is not None and 0 < float(share[1]) <= 100:
        return max(1, round(float(share[1]) / 100 * backbone_parameters))
    if isinstance(budget, int) and not isinstance(budget, bool) and budget > 0:
        return budget
    raise UsageError(f"a budget is a share such as 0.5% or a number of parameters such as 100000, not {budget}")


def solve(method_id: str, values: Mapping[str, Any], backbone: str, budget: Value) -> dict[str, Any]:
    """The values that make `method_id` train `budget` parameters on `backbone`, within 2%; the head does not count.

    Raises UsageError for a budget that is none, and UnsupportedError for a method without a size and where no size
    comes near enough.
    """
    kind: type[Method] = registry("methods").load(method_id)
    anatomy = _anatomy(backbone)
    target = parse_budget(budget, sum(parameter.numel() for parameter in anatomy.model.parameters()))
    config = kind.Config(**values)
    size = config.sized_by
    if size is None and config.share is None:
        raise UnsupportedError(f"{method_id} has no size that a budget could set")
    if (reason := anatomy.missing(places_of(kind, config))) is not None:
        raise UnsupportedError(f"{method_id} does not fit {backbone}: {reason}")
    if size is None:
        return _share_of_weights(kind, values, anatomy, target)
    sizes = config.sizes(anatomy)

    def at(number: int, more: int = 0) -> dict[str, Any]:
        """The values with the size at place `number` (from 1) in the list of sizes."""
        return {**with_size(config, values, sizes[number - 1]), **({"more": more} if more else {})}

    def count(number: int, more: int = 0) -> int | None:
        if number > len(sizes):
            return None
        return _trainable(kind, kind.Config(**{**values, **at(number, more)}), anatomy)

    number = _largest(count, target, len(sizes))
    more = 0 if number == 0 else _largest(lambda n: count(number, n), target, MOST_PLACES)
    choices = [(max(number, 1), 0), (number + 1, 0)] + ([(number, more), (number, more + 1)] if number else [])
    found = {choice: trained for choice in choices if (trained := count(*choice)) is not None}
    if not found:
        raise UnsupportedError(f"{method_id} fits {backbone} with no {size}")
    best = min(found, key=lambda choice: (abs(found[choice] - target), choice))
    if abs(found[best] - target) > TOLERANCE * target:
        near = ", ".join(f"{size}={sizes[n - 1]} trains {found[n, 0]:,}" for n in sorted({max(number, 1), number + 1})
                         if (n, 0) in found)  # fmt: skip
        raise UnsupportedError(f"{method_id} cannot train {target:,} parameters within {TOLERANCE:.0%}: {near}")
    return at(*best)


def _share_of_weights(kind: type[Method], values: Mapping[str, Any], anatomy: Anatomy, target: int) -> dict[str, Any]:
    """The share of its weights with which a method trains `target` parameters; UnsupportedError where there is none."""
    share = kind.Config.share
    assert share is not None, "asked for by a method that has one"

    def count(value: float) -> int:
        return _trainable(kind, kind.Config(**{**values, share: value}), anatomy) or 0

    value = min(1.0, target / max(1, count(1.0)))
    found = count(value)
    if abs(found - target) > TOLERANCE * target:
        reason = f"{share}={value:.3g} trains {found:,}"
        raise UnsupportedError(f"no {share} trains {target:,} parameters within {TOLERANCE:.0%}: {reason}")
    return {share: value}


def with_size(config: MethodConfig, values: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The size and the values in proportion to it, for a method that has one; `values` are those at its size now."""
    assert config.sized_by is not None
    share = size / values[config.sized_by]
    scaled = {name: _scaled(type(config), name, values[name] * share) for name in config.scaled_with_size}
    return {config.sized_by: size, **scaled}


def _scaled(config: type[MethodConfig], name: str, value: float) -> float:
    """A value for the field `name`; whole numbers stay whole and above zero."""
    return max(1, round(value)) if config.model_fields[name].annotation is int else value


def _largest(count: Callable[[int], int | None], target: int, most: int) -> int:
    """The largest number from 1 to `most` that trains at most `target`; 0 where 1 already trains more.

    Counts grow with the number. None (too large for the backbone) counts as more than any target.
    """

    def fits(number: int) -> bool:
        found = count(number)
        return found is not None and found <= target

    if not fits(1):
        return 0
    low = 1
    while low < most and fits(2 * low):
        low *= 2
    high = 2 * low  # does not fit
    if low >= most:
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _trainable(kind: type[Method], config: MethodConfig, anatomy: Anatomy) -> int | None:
    """What the method trains, or None where its size does not fit."""
    method = kind(config)
    try:
        method.attach(anatomy)
        return sum(parameter.numel() for _, parameter in method.adapter_parameters())
    except ValueError:
        return None
    finally:
        anatomy.detach()


@lru_cache(maxsize=8)
def _anatomy(backbone: str) -> Anatomy:
    from .params import anatomy_on_meta

    return anatomy_on_meta(backbone)[0]
