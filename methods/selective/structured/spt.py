"""SPT: the weights that a task is most sensitive to, or low-rank updates where they crowd (He et al. 2023, arXiv
2303.08566).

Before training, the sensitivity of each weight is its squared gradient, summed over a few batches: to first order, how
much one step of gradient descent on it would lower the loss. The most sensitive weights within the budget train. A
matrix of which at least `threshold` * r (d_in + d_out) weights are among them gets a low-rank update of rank r instead
(structured tuning; its size times 1 / alpha in the authors' scripts, its size in the paper). Candidates are the weights
of the blocks and of the final norm; the authors freeze the patch and position embeddings too, and train the class
token, which is left out here. They also train every vector in full of which a fifth is chosen, and come as near to the
budget as steps of 20,000 let them; here the budget is used up exactly (see `parts.allocation`).

Trainable parameters: floor(density * candidate weights), whatever the data choose (fewer only where every matrix has an
update and every other weight trains). Until `before_fit` has run, and on the meta device, all of them are single
weights, spread evenly. Shipped besides: the positions of single weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.chain import Handle, remove_all
from ...contract import parameter_name
from ...parts.allocation import allocate
from ...parts.importance import squared_gradients
from ...parts.sparse import SparseConfig, SparseDelta, SparseMethod, Weights
from ...reparameterized.low_rank.lora import LowRank

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class SPTConfig(SparseConfig):
    """The budget is `density`; when a matrix gets an update, and of which rank."""

    r: int = Field(gt=0, description="rank of the low-rank updates")
    threshold: float = Field(gt=0, le=1, description="chosen weights of a matrix that call for an update, in its size")
    batches: int = Field(gt=0, description="training batches for the sensitivity")


class SPT(SparseMethod):
    """Chosen once by gradients: single weights and low-rank updates."""

    Config = SPTConfig
    config: SPTConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        self.matrices = anatomy.linears("all")
        self.updates, self.handles = nn.ModuleDict(), list[Handle]()
        super().attach(anatomy)

    def candidates(self, anatomy: Anatomy) -> Weights:
        modules = [block.module for block in anatomy.blocks]
        modules += [tower.output.carrier for tower in anatomy.towers.values() if tower.output is not None]
        inside = {parameter for module in modules for parameter in module.parameters()}
        return {name: places for name, places in anatomy.weights().items() if places[0].parameter in inside}

    def before_fit(self, fit: Fit) -> None:
        scores = squared_gradients(fit, self.weights, fit.batches(self.config.batches))
        sizes = [places[0].shape.numel() for places in self.weights.values()]
        budget = len(self.delta.index)
        updated, single = allocate(scores, sizes, self._costs(), budget, self.config.threshold)
        self._arrange([name for i, name in enumerate(self.weights) if i in updated], len(single))
        self.delta.choose(single)

    def _costs(self) -> list[int]:
        """The size of a low-rank update of each weight; 0 for what is no matrix of a block."""
        matrices = [self.matrices.get(name) for name in self.weights]
        return [0 if place is None else self.config.r * (place.d_in + place.d_out) for place in matrices]

    def _arrange(self, updated: list[str], single: int) -> None:
        """Put low-rank updates on the named matrices, and room for so many single weights."""
        remove_all(self.handles)
        self.delta.remove()
        dtype = self.delta.values.dtype
        self.delta, self.updates = SparseDelta(self.weights, single).to(dtype), nn.ModuleDict()
        for name in updated:
            place = self.matrices[name]
            update = LowRank(place.weight(), self.config.r, 1.0, 0.0, "kaiming").to(dtype)
            self.updates[parameter_name(name)] = update
            self.handles.append(place.delta(update))

    def load_shipped(self, tensors: dict[str, Tensor]) -> None:
        """Takes over the file's choice of matrices."""
        if "adapter.delta.index" in tensors:
            updated = [name for name in self.matrices if f"adapter.updates.{parameter_name(name)}.a" in tensors]
            self._arrange(updated, len(tensors["adapter.delta.index"]))
        super().load_shipped(tensors)
