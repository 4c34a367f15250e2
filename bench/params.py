"""`bench params METHOD --backbone NAME`: exact counts from the architecture alone, on the meta device.

A backbone is one of the registry (`bench ls backbones`) or an architecture of `bench/architectures`. The method is
attached as in a run, and its tensors are counted: no formula of ours stands between.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

from . import architectures
from .errors import UnsupportedError, UsageError, did_you_mean
from .names import Name, parse_one
from .recipes import configure, resolve
from .registry import registry
from .support import places_of
from .text_table import Cell, text_table

if TYPE_CHECKING:
    from torch import nn

    from ..methods.contract import Method
    from .anatomy import Anatomy
    from .anatomy.pair import TwoTowers


@dataclass(frozen=True)
class SharedSpace:
    """What a count needs of two towers: the length of the features that they project to."""

    width: int


@dataclass(frozen=True)
class TensorCount:
    """One trainable tensor: its name in the method, `backbone.` and its name there, or `head.` and its name there."""

    name: str
    shape: tuple[int, ...]
    numel: int


@dataclass(frozen=True)
class ParamCount:
    """Numbers of parameters; tied ones count once, buffers never."""

    method: str  # canonical name
    backbone: str
    classes: int | None
    trainable: int  # adapter + head
    adapter: int  # what the method trains, in the backbone or beside it
    head: int  # features * classes + classes of a linear head; 0 without classes
    backbone_parameters: int  # before anything is added
    total: int  # backbone, everything added (frozen or not), head
    share_percent: float  # 100 * trainable / total
    tensors: tuple[TensorCount, ...]  # what trains, one by one

    def to_json(self, verbose: bool = False) -> str:
        """One JSON object; the tensors only where `verbose`."""
        content = asdict(self)
        if not verbose:
            del content["tensors"]
        return json.dumps(content, indent=1)


def count(method: str, backbone: str, classes: int | None = None) -> ParamCount:
    """Count what `method` ("lora(r=8, targets=q+v)") trains on `backbone`, and a linear head of `classes` outputs.

    The features that the head reads are those of the vision tower where there is one, else of the text tower.
    Raises UsageError for an unknown name or argument and for a size that the backbone has no room for (a rank above
    a matrix), and UnsupportedError naming the place that the backbone lacks.
    """
    if classes is not None and classes < 1:
        raise UsageError(f"classes must be at least 1, not {classes}")
    name = parse_one(method)
    registry("methods").entry(name.id)  # a wrong name is told before anything heavy is imported
    family = _family(backbone)
    attached, model, width = _attach(name, backbone, family)

    present = list(model.parameters())
    trained = dict(attached.adapter_parameters())
    tensors = [TensorCount(key, tuple(p.shape), p.numel()) for key, p in _once(trained.items())]
    adapter = sum(tensor.numel for tensor in tensors)
    head_tensors = [] if classes is None else _head(width, classes)
    head = sum(tensor.numel for tensor in head_tensors)
    base = sum(p.numel() for p in present)
    known = {id(p) for p in present}
    added = sum(p.numel() for p in attached.parameters() if id(p) not in known)
    total, trainable = base + added + head, adapter + head
    return ParamCount(
        method=str(name),
        backbone=backbone,
        classes=classes,
        trainable=trainable,
        adapter=adapter,
        head=head,
        backbone_parameters=base,
        total=total,
        share_percent=100 * trainable / total,
        tensors=(*tensors, *head_tensors),
    )


def command(method: str, backbone: str, classes: int | None, as_json: bool, verbose: bool = False) -> str:
    """The text that `bench params` prints."""
    counts = count(method, backbone, classes)
    if as_json:
        return counts.to_json(verbose)
    head = "no head" if classes is None else f"linear, {classes:,} classes"
    rows: list[list[Cell]] = [
        ["trainable", counts.trainable, f"{counts.share_percent:.4g} % of the total"],
        ["  adapter", counts.adapter, counts.method],
        ["  head", counts.head, head],
        ["backbone", counts.backbone_parameters, counts.backbone],
        ["total", counts.total, ""],
    ]
    text = text_table(["", "parameters", ""], rows)
    if verbose:
        tensors: list[list[Cell]] = [[t.name, " x ".join(map(str, t.shape)), t.numel] for t in counts.tensors]
        text += "\n\n" + text_table(["trainable tensor", "shape", "parameters"], tensors)
    return text


def _family(backbone: str) -> str:
    """The layer of recipes that fits `backbone`. Raises UsageError for a name that neither list has."""
    backbones, known = registry("backbones"), architectures.names()
    if backbone in backbones:
        return backbones.card(backbone).family
    if backbone in known:
        return architectures.read(backbone).family
    every = sorted({*backbones.ids(), *known})
    near = did_you_mean(backbone, every) or f" Known: {', '.join(every)}."
    raise UsageError(f"unknown backbone {backbone!r}.{near}")


def _attach(name: Name, backbone: str, family: str) -> tuple[Method, nn.Module, int]:
    """The method on a model of its own on the meta device, that model, and the length of its features."""
    kind: type[Method] = registry("methods").load(name.id)
    config = configure(name.id, resolve(name.id, name.arguments, family, backbone, ""))
    anatomy, width = anatomy_on_meta(backbone)
    reason = anatomy.missing(places_of(kind, config))
    if reason is not None:
        raise UnsupportedError(f"{name} does not fit {backbone}: {reason}")
    method = kind(config)
    try:
        method.attach(anatomy)
    except ValueError as error:
        raise UsageError(f"{name} on {backbone}: {error}") from None
    except (RuntimeError, TypeError) as error:
        if "verflow" not in str(error) and "can't allocate" not in str(error):
            raise
        raise UsageError(f"{name} on {backbone}: a tensor of that size cannot be made") from None
    return method, anatomy.model, width


def anatomy_on_meta(backbone: str) -> tuple[Anatomy, int]:
    """A backbone of the registry or an architecture by name, without values, and the length of its features."""
    if backbone in registry("backbones"):
        loaded = registry("backbones").load(backbone)(registry("backbones").card(backbone), {}, meta=True)
        return loaded.anatomy, loaded.width
    from .anatomy import anatomy_of
    from .anatomy.pair import Pair

    architecture = architectures.read(backbone)
    anatomy = anatomy_of(architectures.build(architecture))
    if (width := architecture.shared_width) is not None:
        anatomy.pair = Pair(anatomy.edits, cast("TwoTowers", SharedSpace(width)))
    tower = anatomy.towers.get("vision") or next(iter(anatomy.towers.values()))
    return anatomy, tower.width


def _once(named: Iterable[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
    """Each parameter under the first of its names."""
    seen: dict[int, tuple[str, nn.Parameter]] = {}
    for name, parameter in named:
        seen.setdefault(id(parameter), (name, parameter))
    return list(seen.values())


def _head(width: int, classes: int) -> list[TensorCount]:
    return [
        TensorCount("head.weight", (classes, width), classes * width),
        TensorCount("head.bias", (classes,), classes),
    ]
