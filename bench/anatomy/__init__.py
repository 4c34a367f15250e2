"""The anatomy: named places in any transformer, and the verbs by which a method changes them."""

from __future__ import annotations

from torch import nn

from ..errors import UsageError
from .anatomy import Anatomy, target_names
from .architectures import describer, known, register
from .builder import Builder
from .chain import Handle, around
from .edits import Edits, Unmergeable
from .tower import Tower

__all__ = ["Anatomy", "Handle", "Unmergeable", "anatomy_of", "around", "register", "target_names"]


def anatomy_of(model: nn.Module) -> Anatomy:
    """Find the stacks of blocks in `model` and describe them.

    An unknown architecture is a `UsageError`, and so is a model whose modules HF PEFT has replaced.
    """
    if hasattr(model, "peft_config"):
        raise UsageError(f"{type(model).__name__} carries adapters of HF PEFT already: detach or unload them first")
    edits = Edits()
    builder = Builder(model, edits)
    towers: dict[str, Tower] = {}
    inside: set[nn.Module] = set()
    for module in model.modules():
        describe = describer(module)
        if describe is None or module in inside:
            continue
        tower = describe(builder, module)
        inside.update(tower.module.modules())
        if tower.name in towers:
            tower.rename(f"{tower.name}{len(towers)}")
        towers[tower.name] = tower
    if not towers:
        raise UsageError(f"{type(model).__name__} has no known stack of blocks; known: {', '.join(known())}")
    return Anatomy(model, towers, edits)
