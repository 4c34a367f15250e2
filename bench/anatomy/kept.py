"""Features that are computed once, as long as what computes them stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from .edits import Edits


class Kept:
    """Rows of features by a key of each. Any edit of the model empties it."""

    def __init__(self, edits: Edits) -> None:
        self.edits = edits
        self.changes = -1
        self.kept: dict[Hashable, Tensor] = {}

    def rows(self, keys: Sequence[Hashable], compute: Callable[[list[int]], Tensor]) -> Tensor:
        """(len(keys), width), without gradient. `compute(positions)` makes the rows of keys that are not kept yet."""
        if self.changes != self.edits.changes:
            self.kept.clear()
            self.changes = self.edits.changes
        missing = [position for position, key in enumerate(keys) if key not in self.kept]
        if missing:
            with torch.no_grad():
                made = compute(missing)
            self.kept.update(zip((keys[position] for position in missing), made, strict=True))
        return torch.stack([self.kept[key] for key in keys])
