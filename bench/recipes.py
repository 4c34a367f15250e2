"""Recipes: a method's YAML, its hyper-parameters in layers, and where each value came from.

Layers, later ones win: the default in the method's code -> defaults -> family -> backbone -> task -> arguments in the
name. Every value of a recipe states its source. A recipe cannot override its protocol: it knows no such keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .cards import fault, shown, unknown_key
from .errors import UsageError, did_you_mean
from .names import Name, Value, format_value, parse
from .registry import Entry, registry

if TYPE_CHECKING:
    from pydantic import ValidationError

    from ..methods.contract import MethodConfig

FAMILIES = ("vision", "text", "lm", "clip", "video", "diffusion")
LAYERS = ("defaults", "family", "backbone", "task")
BUDGET = "budget"  # the argument that every method takes
MORE = "more"  # the field that a budget sets; it is shown where it is set


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    title: str
    authors: str
    year: int
    arxiv: str | None = None
    doi: str | None = None
    url: str | None = None
    venue: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class MethodCard:
    """The header of a recipe. `hyperparameters` holds the layers, see `resolve`."""

    id: str
    name: str
    version: int
    category: str  # "reparameterized/low-rank": a group of the survey's taxonomy and its sub-group
    families: tuple[str, ...]  # as published
    compute: Literal["equal-steps", "own-budget", "training-free"]
    target: str  # "module:Class", module beside the recipe
    summary: str
    paper: Paper
    checks: tuple[Mapping[str, str], ...] = ()  # outside checks that a test of this repository runs
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=lambda: {"lr": [1e-4, 1e-2]})  # see `bench/tune.py`


@dataclass(frozen=True)
class Resolved:
    """Hyper-parameters of one method in one cell."""

    method: Name
    values: Mapping[str, Any]
    sources: Mapping[str, tuple[str, str]]  # name -> (layer, where the value is from)


def expand(names: str | Iterable[str | Name]) -> list[Name]:
    """Methods by name; a group (`reparameterized`, `all`) stands for its methods. No doubles, order kept."""
    methods = registry("methods")
    typed = parse(names) if isinstance(names, str) else [n for name in names for n in _as_names(name)]
    found: dict[Name, None] = {}
    for name in typed:
        members = [name.id] if name.id in methods else methods.group(name.id)
        if not members:
            cards = methods.cards(library=True)
            groups = {part for card in cards for part in (card.category, card.category.partition("/")[0])}
            near = did_you_mean(name.id, {*methods.ids(library=True), *groups, "all"})
            raise UsageError(f"unknown method {name.id!r}.{near or ' `bench ls methods` lists them.'}")
        found.update(dict.fromkeys(Name(member, name.arguments) for member in members))
    return list(found)


def _as_names(name: str | Name) -> list[Name]:
    return [name] if isinstance(name, Name) else parse(name)


def resolve(method_id: str, arguments: Mapping[str, Value], family: str, backbone: str, task: str) -> Resolved:
    """Hyper-parameters of a method in one cell, with the layer and the source of each.

    Every method takes the argument `budget` ("0.5%" of the backbone, or a number of parameters), which sets its size.
    Raises UsageError for an unknown argument, and for a recipe's key that the method's Config does not know;
    UnsupportedError where no size meets the budget.
    """
    entry = registry("methods").entry(method_id)
    registry("methods").card(method_id)  # checks the layers' form
    known = _config_class(method_id).model_fields
    values: dict[str, Any] = {}
    sources: dict[str, tuple[str, str]] = {}
    for name, info in known.items():
        if not info.is_required() and name != MORE:
            values[name] = info.get_default(call_default_factory=True)
            sources[name] = ("code", "default of the method's Config")
    choice = {"family": family, "backbone": backbone, "task": task}
    for path, leaf in _leaves(entry.data):
        if path[-1] not in known:
            raise unknown_key(entry.file, path, known)
        layer = path[1]
        if layer == "defaults" or choice[layer] == path[2]:
            values[path[-1]] = leaf["value"]
            sources[path[-1]] = (layer if layer == "defaults" else f"{layer} {path[2]}", leaf["source"])
    for name, value in without_budget(arguments).items():
        if name not in known:
            near = did_you_mean(name, known) or f" It has {', '.join(one for one in known if one != MORE)}."
            raise UsageError(f"{method_id} has no argument {name!r}.{near}")
        values[name] = value
        sources[name] = ("argument", "given in the name")
    if BUDGET in arguments:
        from .budget import solve

        for name, value in solve(method_id, values, backbone, arguments[BUDGET]).items():
            values[name] = value
            sources[name] = (BUDGET, f"solved for {arguments[BUDGET]} of {backbone}")
    return Resolved(Name(method_id, dict(arguments)), values, sources)


def without_budget(arguments: Mapping[str, Value]) -> dict[str, Value]:
    """The arguments that are the method's own."""
    return {name: value for name, value in arguments.items() if name != BUDGET}


def with_budget(names: Iterable[Name], budget: str | None) -> list[Name]:
    """The names with a budget, where they have none of their own."""
    if budget is None:
        return list(names)
    value = int(budget) if budget.isdecimal() else budget
    return [Name(name.id, {BUDGET: value, **name.arguments}) for name in names]


def configure(method_id: str, resolved: Resolved) -> MethodConfig:
    """The method's Config. Raises UsageError naming method and field: `lora(r=-1): r must be greater than 0`."""
    from pydantic import ValidationError

    config_class = _config_class(method_id)
    for name, value in resolved.values.items():
        if isinstance(value, bool) and config_class.model_fields[name].annotation in (int, float):
            raise UsageError(f"{resolved.method}: {name} must be a number, not {format_value(value)}")
    try:
        return config_class(**resolved.values)
    except ValidationError as error:
        raise UsageError(_one_line(error, resolved)) from None


def check_layers(entry: Entry) -> None:
    """Raise UsageError (file, line, key) unless each hyper-parameter lies in a known layer with value and source."""
    top = ("hyperparameters",)
    for layer, content in entry.data.get("hyperparameters", {}).items():
        if layer not in LAYERS:
            raise unknown_key(entry.file, (*top, layer), LAYERS)
        inner = content if isinstance(content, Mapping) and layer != "defaults" else {layer: content}
        for key, values in inner.items():
            if layer == "family" and key not in FAMILIES:
                raise unknown_key(entry.file, (*top, layer, key), FAMILIES)
            if not isinstance(values, Mapping):
                raise fault(entry.file, (*top, layer, key), f"{key} must hold hyper-parameters, not {values!r}")
    for path, leaf in _leaves(entry.data):
        if not isinstance(leaf, Mapping):
            raise fault(entry.file, path, f"{path[-1]} must be {{value: ..., source: ...}}")
        for key in leaf:
            if key not in ("value", "source"):
                raise unknown_key(entry.file, (*path, key), ("value", "source"))
        for key in ("value", "source"):
            if leaf.get(key) is None and not (key == "value" and key in leaf):
                raise fault(entry.file, path, f"{path[-1]} has no {key}")


def _leaves(recipe: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, leaf) of every hyper-parameter, weakest layer first."""
    layers = recipe.get("hyperparameters", {})
    for layer in LAYERS:
        content = layers.get(layer, {})
        if layer == "defaults":
            yield from ((("hyperparameters", layer, name), leaf) for name, leaf in content.items())
        else:
            for choice, inner in content.items():
                yield from ((("hyperparameters", layer, choice, name), leaf) for name, leaf in inner.items())


def _config_class(method_id: str) -> type[MethodConfig]:
    config: type[MethodConfig] = registry("methods").load(method_id).Config
    return config


def _one_line(error: ValidationError, resolved: Resolved) -> str:
    """The first fault of a Config, with the recipe's file where the value is not the user's own."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if not first["loc"]:
        return f"{resolved.method}: {message}"
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{resolved.method}: {name} has no value in the recipe and none was given"
    where = resolved.sources[name][0]
    file = "" if where == "argument" else f" ({shown(registry('methods').entry(resolved.method.id).file)}, {where})"
    return f"{resolved.method}: {name} {message}{file}"
