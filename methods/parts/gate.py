"""Gates: one number between zero and one for each sequence, computed from its hidden states."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class SequenceGate(nn.Module):
    """(B, L, width) -> (B, 1, 1): the mean over the positions of sigmoid(w x + b); padding is not left out.

    Trainable parameters: width + 1.
    """

    def __init__(self, like: Tensor, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1, device=like.device)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.to(self.linear.weight.dtype)).sigmoid().mean(1, keepdim=True)


class Gated(nn.Module):
    """x -> gate(x) * f(x)."""

    def __init__(self, f: nn.Module, gate: SequenceGate) -> None:
        super().__init__()
        self.f, self.gate = f, gate

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.f(x)
        return (y * self.gate(x)).to(y.dtype)


class LastGate:
    """x -> x, and keeps the gate's value for another op of the same pass.

    Copies and pickles without the value: a checkpointed pass may stop between the two ops and leave it here.
    """

    def __init__(self, gate: SequenceGate) -> None:
        self.gate = gate
        self.value: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        self.value = self.gate(x)
        return x

    def take(self) -> Tensor:
        """The value (B, 1, 1) of this pass."""
        value, self.value = self.value, None
        assert value is not None, "the gate's op runs first"
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {"gate": self.gate, "value": None}
