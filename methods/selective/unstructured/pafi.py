"""PaFi: the weights of the smallest magnitude train, whatever the task (Liao et al. 2023, arXiv 2305.16742).

The choice needs no data and is the same for all tasks. It is taken over the whole backbone at once.

Trainable parameters: floor(density * weights of the backbone). Shipped besides: their positions.
"""

from __future__ import annotations

from ....bench.anatomy import Anatomy
from ...parts.sparse import SparseMethod, flat


class PaFi(SparseMethod):
    """Chosen by the pretrained weights alone."""

    def attach(self, anatomy: Anatomy) -> None:
        super().attach(anatomy)
        if not self.delta.index.is_meta:
            self.choose_largest(-flat(self.weights).abs())
