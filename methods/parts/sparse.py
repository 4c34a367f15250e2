"""A few trainable numbers that are added to chosen weights of the backbone, wherever they lie.

What trains is one vector; where it is added is an index. A mask over dense parameters would do the same to the model,
but its optimiser states would be as large as the backbone, and AdamW would decay what the mask freezes.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ...bench.anatomy.chain import remove_all
from ..contract import GradientConfig, Method, MethodConfig

if TYPE_CHECKING:
    from ...bench.anatomy import Anatomy
    from ...bench.anatomy.tensors import TensorPlace

Weights = dict[str, tuple["TensorPlace", ...]]  # see `Anatomy.weights`


class SparseDelta(nn.Module):
    """`values` (k,), zero at the start, added to the weights at `index` (k,).

    The index is ascending and counts the numbers of all weights laid end to end. At first it is spread evenly.
    """

    index: Tensor

    def __init__(self, weights: Weights, k: int) -> None:
        super().__init__()
        first = next(iter(weights.values()))[0].value()
        self.starts = [0, *accumulate(places[0].shape.numel() for places in weights.values())]
        self.values = nn.Parameter(torch.zeros(k, device=first.device))
        self.register_buffer("index", torch.arange(k, device=first.device) * self.starts[-1] // k)
        self.cuts: list[int] = []
        if not first.is_meta:
            self.cut()
        self.handles = [
            place.reparam(AddSparse(self, i)) for i, places in enumerate(weights.values()) for place in places
        ]

    def remove(self) -> None:
        """Take the values out of the backbone."""
        remove_all(self.handles)

    def choose(self, index: Tensor) -> None:
        """Move to other positions, (k,) in any order."""
        self.index.copy_(index.sort().values)
        self.cut()

    def cut(self) -> None:
        """Find which part of the index lies in which weight; needed whenever the index has changed."""
        starts = torch.tensor(self.starts, device=self.index.device)
        self.cuts = torch.searchsorted(self.index, starts).tolist()

    def part(self, weight: int) -> tuple[Tensor, Tensor]:
        """Positions in one weight, and the values there."""
        inside = slice(self.cuts[weight], self.cuts[weight + 1])
        return self.index[inside] - self.starts[weight], self.values[inside]

    def sizes(self) -> list[int]:
        """How many positions lie in each weight."""
        return [after - before for before, after in pairwise(self.cuts)]


class AddSparse:
    """W -> W with its part of the values added."""

    def __init__(self, delta: SparseDelta, weight: int) -> None:
        self.delta, self.weight = delta, weight

    def __call__(self, value: Tensor) -> Tensor:
        index, values = self.delta.part(self.weight)
        if not len(index):
            return value
        return value.reshape(-1).index_add(0, index, values.to(value.dtype)).view(value.shape)


class SparseConfig(GradientConfig):
    """How many weights train."""

    share: ClassVar[str | None] = "density"

    density: float = Field(gt=0, le=1, description="share of the backbone's weights that train")


class SparseMethod(Method):
    """Base of methods that differ in which weights they choose, and when."""

    Config: ClassVar[type[MethodConfig]] = SparseConfig
    starts_as_backbone = True
    config: SparseConfig

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.weights = self.candidates(anatomy)
        total = sum(places[0].shape.numel() for places in self.weights.values())
        self.delta = SparseDelta(self.weights, max(1, int(self.config.density * total)))

    def candidates(self, anatomy: Anatomy) -> Weights:
        """The weights to choose from."""
        return anatomy.weights()

    def choose_largest(self, scores: Tensor) -> None:
        """Train where the scores, one for each candidate weight laid end to end, are largest."""
        self.delta.choose(scores.topk(len(self.delta.index)).indices)

    def load_shipped(self, tensors: dict[str, Tensor]) -> None:
        super().load_shipped(tensors)
        self.delta.cut()


def flat(weights: Weights, parts: dict[nn.Parameter, Tensor] | None = None) -> Tensor:
    """All weights laid end to end; or, for each parameter, the tensor of its shape that `parts` gives it."""
    pieces = []
    for places in weights.values():
        place = places[0]
        pieces.append((place.value() if parts is None else place.part_of(parts[place.parameter])).flatten())
    return torch.cat(pieces)


def parameters_of(weights: Weights) -> list[nn.Parameter]:
    """The parameters that hold the weights, each once."""
    return list(dict.fromkeys(places[0].parameter for places in weights.values()))
