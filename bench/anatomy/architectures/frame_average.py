"""An image tower that sees clips frame by frame: the tower as its own architecture has it, which knows its frames."""

from __future__ import annotations

from ...errors import UsageError
from ..builder import Builder
from ..frames import FrameAverage, FrameLayout
from ..tower import Tower
from . import describer


def tower(builder: Builder, stack: FrameAverage) -> Tower:
    """The encoder's one tower. UsageError where it holds no known stack of blocks, or one without a grid of patches."""
    for module in stack.encoder.modules():
        describe = describer(module)
        if describe is not None:
            found = describe(builder, module)
            break
    else:
        raise UsageError(f"{type(stack.encoder).__name__} has no known stack of blocks to see frames with")
    if found.grid is None:
        raise UsageError(f"{type(stack.encoder).__name__} has no grid of patches, which frames need")
    _, rows, columns = found.grid
    found.frames = FrameLayout(stack.frames, rows, columns, "items")
    return found
