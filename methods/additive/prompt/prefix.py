"""Prefix-tuning: learned keys and values before those of every attention (Li and Liang 2021, arXiv 2101.00190).

With `projection`, the prefix is W_2 tanh(W_1 e + b_1) + b_2 of a smaller table e while it trains (section 4.3), and
only its values are kept afterwards. The text keeps its own positions; HF PEFT hands the prefix over as a key/value
cache and thereby numbers the text from `tokens` on, which `shift_positions` reproduces.

Trainable parameters, with D = the sum of 2 * kv_heads * head_dim over all attentions: tokens * D without the
projection; tokens * width + width * hidden + hidden + hidden * D + D with it. Shipped: tokens * D.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.attention import Attention, Context
from ...contract import GradientConfig, Method, MethodConfig

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class PrefixConfig(GradientConfig):
    """Length of the prefix and the network that makes it."""

    tokens: int = Field(gt=0, description="key and value vectors in each attention")
    projection: bool = Field(description="make the prefix by an MLP that is dropped after training")
    hidden: int = Field(gt=0, description="width of that MLP")
    init_std: float = Field(gt=0, description="deviation of the table's first values")
    shift_positions: bool = Field(False, description="number the text's positions from `tokens`, as HF PEFT does")

    @property
    def sized_by(self) -> str | None:
        """Nearly all that trains is the network, where there is one."""
        return "hidden" if self.projection else "tokens"


class PrefixOp:
    """Puts this attention's part of the prefix before its keys and values."""

    def __init__(self, values: nn.Module, start: int, heads: int, dim: int) -> None:
        self.values, self.start, self.heads, self.dim = values, start, heads, dim

    def __call__(self, next: Any, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        keys, values = self.pair(k)
        batch, n = k.shape[0], keys.shape[2]
        wide = context.widen(n, q.shape[2], k.shape[2], k.device)
        k = torch.cat([keys.expand(batch, -1, -1, -1), k], dim=2)
        return next(q, k, torch.cat([values.expand(batch, -1, -1, -1), v], dim=2), wide)

    def pair(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """This attention's prefix of keys and of values, each (B or 1, heads, tokens, dim), in the dtype of `like`."""
        width = self.heads * self.dim
        part = self.values()[:, self.start : self.start + 2 * width].to(like.dtype)
        keys, values = part.view(-1, 2, self.heads, self.dim).permute(1, 2, 0, 3).unsqueeze(1).unbind(0)
        return keys, values


class PrefixValues(nn.Module):
    """() -> (tokens, D), all attentions side by side."""

    def __init__(self, like: Tensor, width: int, total: int, config: PrefixConfig) -> None:
        super().__init__()
        columns = width if config.projection else total
        self.table = nn.Parameter(torch.empty(config.tokens, columns, device=like.device))
        nn.init.normal_(self.table, std=config.init_std)
        self.projection: nn.Module | None = None
        if config.projection:
            self.projection = nn.Sequential(
                nn.Linear(width, config.hidden, device=like.device),
                nn.Tanh(),
                nn.Linear(config.hidden, total, device=like.device),
            )

    def forward(self) -> Tensor:
        return self.table if self.projection is None else self.projection(self.table)

    @torch.no_grad()
    def drop_projection(self) -> None:
        """Keep the values and forget the network that made them."""
        values = self.forward().detach().clone()
        self.projection = None
        self.table = nn.Parameter(values)


class Prefix(Method):
    """One table of keys and values for all attentions."""

    Config: ClassVar[type[MethodConfig]] = PrefixConfig
    config: PrefixConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("core",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        attentions = [attention for block in anatomy.blocks for attention in block.attentions]
        total = sum(2 * attention.kv_heads * attention.head_dim for attention in attentions)
        self.values = PrefixValues(attentions[0].q.weight(), anatomy.blocks[0].width, total, self.config)
        start = 0
        for attention in attentions:
            assert attention.core is not None
            attention.core.around(self.op(attention, start))
            start += 2 * attention.kv_heads * attention.head_dim
        if self.config.shift_positions:
            for tower in anatomy.towers.values():
                tower.shift_positions(self.config.tokens)

    def op(self, attention: Attention, start: int) -> PrefixOp:
        """The op of one attention, whose part of the values begins at column `start`."""
        return PrefixOp(self.values, start, attention.kv_heads, attention.head_dim)

    def fit(self, fit: Fit) -> None:
        fit.gradient_descent()
        self.values.drop_projection()

    def shipped(self) -> dict[str, Tensor]:
        """The values alone, also while a projection still makes them; and whatever a subclass adds."""
        others = {key: tensor for key, tensor in super().shipped().items() if not key.startswith("adapter.values.")}
        return {"adapter.values.table": self.values().detach(), **others}

    def load_shipped(self, tensors: dict[str, Tensor]) -> None:
        self.values.drop_projection()
        super().load_shipped(tensors)
