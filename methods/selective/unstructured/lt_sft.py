"""LT-SFT: lottery-ticket sparse fine-tuning (Ansell et al. 2022, arXiv 2110.07560).

Training has two phases of the same length. In the first, every weight trains; the k weights that have moved furthest
from their pretrained values are kept as the index. Then all weights, and the task's head, are rewound, and in the
second phase only the weights of the index train. Norms are frozen in both. The paper's L1 penalty on the change is
meant for language modelling on large corpora; the authors' commands for tasks leave it out, and so does this. Outside
`fit`, as in a training loop of one's own, nothing is chosen and the weights stay spread evenly over the backbone.

Trainable parameters: floor(density * weights of the backbone without its norms). The first phase trains all of those
weights in place. Shipped besides the values: their positions.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import Tensor

from ....bench.anatomy import Anatomy
from ....bench.anatomy.chain import remove_all
from ...parts.sparse import SparseMethod, Weights, flat, parameters_of

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class LotteryTicketSparse(SparseMethod):
    """Chosen by a full training that is then undone."""

    def candidates(self, anatomy: Anatomy) -> Weights:
        norms = {
            place.parameter
            for tower in anatomy.towers.values()
            for norm in (*tower.norms, *tower.other_ops)
            for place in norm.tensors.values()
        }
        return {name: places for name, places in anatomy.weights().items() if places[0].parameter not in norms}

    def fit(self, fit: Fit) -> None:
        head = None if fit.head is None else copy.deepcopy(fit.head.state_dict())
        self.choose_largest(self._change_in_full_training(fit))
        if fit.head is not None and head is not None:
            fit.head.load_state_dict(head)
        fit.gradient_descent()

    def _change_in_full_training(self, fit: Fit) -> Tensor:
        """How far each weight moves when all train, (N,); the backbone is as before afterwards."""
        assert self.anatomy is not None
        snapshot, start = self.anatomy.snapshot(), flat(self.weights).detach()
        chosen = set(parameters_of(self.weights))
        handles = [place.train() for place in self.anatomy.tensors() if place.parameter in chosen]
        self.delta.values.requires_grad_(False)
        fit.gradient_descent()
        self.delta.values.requires_grad_(True)
        change = (flat(self.weights).detach() - start).abs()
        remove_all(handles)
        self.anatomy.restore(snapshot)
        return change
