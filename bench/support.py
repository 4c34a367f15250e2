"""Whether a cell can be, known before anything runs: the places a method needs against those a backbone has."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .backbones.contract import Backbone
from .registry import registry

if TYPE_CHECKING:
    from ..methods.contract import Method
    from ..tasks.contract import Card as TaskCard
    from .anatomy import Anatomy
    from .backbones.contract import Card as BackboneCard

HEADLESS = {"lm", "clip", "diffusion"}  # families whose tasks score the backbone's own output


@lru_cache(maxsize=32)
def _meta_anatomy(backbone_id: str) -> Anatomy:
    kind: type[Backbone] = registry("backbones").load(backbone_id)
    return kind(registry("backbones").card(backbone_id), {}, meta=True).anatomy


def unsupported_reason(
    method: type[Method], config: Any, backbone: BackboneCard, task: TaskCard | None = None
) -> str | None:
    """Why `method` cannot run with `backbone` (on `task`), naming what is missing; None where it can."""
    if "head" in method.requires(config) and task is not None:
        if task.family in HEADLESS:
            return f"{task.id} has no task head to train"
        if task.options.get("head", "linear") != "linear":
            return f"{task.id} has a head of several layers, which no closed form solves"
    reason = _meta_anatomy(backbone.id).missing(places_of(method, config))
    return None if reason is None else f"{backbone.id}: {reason}"


def places_of(method: type[Method], config: Any) -> tuple[str, ...]:
    """Places of the backbone that a method needs; the head is none."""
    named = getattr(config, "named_places", ())
    return (*(place for place in method.requires(config) if place != "head"), *named)
