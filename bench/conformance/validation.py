"""`bench validate NAME`: every check on the tiny model of every architecture, for a method from anywhere."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..anatomy import anatomy_of
from ..budget import with_size
from ..errors import UsageError, did_you_mean
from ..names import Name, parse_one
from ..recipes import BUDGET, MethodCard, configure, resolve
from ..registry import registry
from ..support import places_of
from . import learning, leaving
from .subject import Subject, subject_of
from .tiny import NAMES, family_of, tiny
from .verdicts import CheckFailed, NotApplicable

Check = Callable[[Subject, str], None]
Outcome = Literal["ok", "failed", "not applicable"]
CHECKS: dict[str, Check] = {
    "start": learning.starts_as_claimed,
    "gradients": learning.gradients_reach_what_trains,
    "training": learning.training_lowers_the_loss,
    "repeat": learning.same_seed_gives_the_same_training,
    "shipping": leaving.shipped_tensors_make_the_same_model,
    "merge": leaving.merge_equals_unmerged,
    "detach": leaving.detach_leaves_no_trace,
    "config": leaving.attached_model_prints_and_saves,
    "copy": leaving.copy_is_independent,
    "pickle": leaving.pickle_keeps_the_function,
    "recompute": learning.checkpointing_gives_the_same_gradients,
    "half": learning.half_precision_backbone,
    "count": learning.count_is_the_closed_form,
    "meta": learning.meta_device_counts_the_same,
}
SMALL = {"r": 4, "tokens": 3, "bottleneck": 4, "hidden": 8, "terms": 4}  # what fits a width of 32
SMALL_SIZE = 4  # of a method's own `size`


@dataclass(frozen=True)
class Finding:
    """How one check ended on one tiny model; `reason` is empty where it held."""

    check: str
    model: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Validation:
    """What validation found of one method."""

    method: str  # as it was asked for
    version: int
    lowered: dict[str, Any]  # sizes of the recipe that tiny models have no room for, and what they were set to
    findings: tuple[Finding, ...]

    @property
    def models(self) -> list[str]:
        """The tiny models, in their order."""
        return list(dict.fromkeys(finding.model for finding in self.findings))

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing failed."""
        outcomes = {finding.outcome for finding in self.findings}
        return "ok" in outcomes and "failed" not in outcomes


def validate(
    text: str, models: Sequence[str] = NAMES, progress: Callable[[str], None] = lambda model: None
) -> Validation:
    """Run every check of the method named by `text` on each tiny model, whose name `progress` is told before.

    Raises UsageError for an unknown name or argument, and for a recipe that cannot be read (file, line, key).
    """
    for model in models:
        if model not in NAMES:
            near = did_you_mean(model, NAMES) or f" There are {', '.join(NAMES)}."
            raise UsageError(f"unknown tiny model {model!r}.{near}")
    name = parse_one(text)
    methods = registry("methods")
    if BUDGET in name.arguments:
        raise UsageError("a budget is a share of one backbone; validate a method with its size itself")
    if methods.entry(name.id).is_library:
        raise UsageError(f"{name.id} is another library's code, which has other names for the backbone's tensors")
    card = methods.card(name.id)
    lowered: dict[str, Any] = {}
    findings: list[Finding] = []
    for model in models:
        progress(model)
        findings += _on_model(name, card, model, lowered)
    return Validation(str(name), card.version, lowered, tuple(findings))


def _on_model(name: Name, card: MethodCard, model: str, lowered: dict[str, Any]) -> Iterable[Finding]:
    """One finding for each check; `lowered` gets the sizes that were set for it."""
    family = family_of(model)
    try:
        sizes = _lowered(name, family)
        subject = subject_of(Name(name.id, {**sizes, **name.arguments}), family)
    except UsageError as error:
        if family in card.families:
            raise
        return _none_apply(model, str(error))
    lowered.update(sizes)
    reason = anatomy_of(tiny(model).model).missing(places_of(subject.kind, subject.config))
    if reason is not None:
        return _none_apply(model, reason)
    return [Finding(check, model, *_outcome(function, subject, model)) for check, function in CHECKS.items()]


def _none_apply(model: str, reason: str) -> list[Finding]:
    return [Finding(check, model, "not applicable", reason) for check in CHECKS]


def _lowered(name: Name, family: str) -> dict[str, Any]:
    """Sizes for tiny models, where the recipe's are larger and the name gives none."""
    resolved = resolve(name.id, name.arguments, family, "tiny", "tiny")
    values, config = resolved.values, configure(name.id, resolved)

    def is_too_large(key: str, limit: int) -> bool:
        return key not in name.arguments and type(values.get(key)) is int and values[key] > limit

    lowered: dict[str, Any] = {key: limit for key, limit in SMALL.items() if is_too_large(key, limit)}
    if config.sized_by is not None and is_too_large(config.sized_by, SMALL_SIZE):
        lowered |= with_size(config, values, SMALL_SIZE)
    return {key: value for key, value in lowered.items() if key not in name.arguments}


def _outcome(check: Check, subject: Subject, model: str) -> tuple[Outcome, str]:
    try:
        check(subject, model)
    except NotApplicable as reason:
        return "not applicable", str(reason)
    except CheckFailed as found:
        return "failed", str(found)
    except Exception as error:  # the method's own code, of which anything may be expected
        return "failed", _one_line(error, subject.kind)
    return "ok", ""


def _one_line(error: Exception, kind: type[Any]) -> str:
    """What was raised, and the innermost line of the method's own file that led to it."""
    file = inspect.getfile(kind)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" ({file.rpartition('/')[2]}:{lines[-1]})" if lines else ""
    message = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {message}{where}"
