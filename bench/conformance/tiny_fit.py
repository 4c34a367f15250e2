"""A few steps of training on one batch of a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...methods.contract import Method
from .tiny import Tiny, outputs


class TinyFit:
    """Gradient descent as the trainer does it: the method's hooks in their order, on one batch."""

    def __init__(self, case: Tiny, method: Method, steps: int = 5) -> None:
        self.tiny, self.method, self.steps = case, method, steps
        self.losses: list[float] = []
        self.head = None
        torch.manual_seed(7)
        self.target = torch.randn_like(case.outputs().detach())

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Mean square distance of the outputs from a fixed random target."""
        y = outputs(self.tiny.model, {**self.tiny.inputs, **batch})
        return (y - self.target[: len(y)]).square().mean()

    def batches(self, steps: int) -> Iterator[dict[str, Tensor]]:
        """The one batch, `steps` times."""
        for _ in range(steps):
            yield {key: value for key, value in self.tiny.inputs.items() if isinstance(value, Tensor)}

    def train_mode(self, on: bool) -> None:
        """Training or evaluation mode."""
        self.tiny.model.train(on)

    def record(self, step: int, steps: int, loss: float, lr: float, seconds: float) -> None:
        """Keep the loss of a step that a method took by itself."""
        self.losses.append(loss)

    def gradient_descent(self) -> None:
        """AdamW steps; the loss before each and after the last are kept."""
        method = self.method
        optimizer = torch.optim.AdamW(method.parameter_groups(), lr=3e-3, weight_decay=0.0)
        for step in range(self.steps):
            method.before_step(step)
            optimizer.zero_grad()
            self.losses.append(float(method.compute_gradients(self, self.tiny.inputs)))  # type: ignore[arg-type]
            method.after_backward(step)
            optimizer.step()
            method.after_step(step)
        self.losses.append(float(self.loss(self.tiny.inputs).detach()))


def train(case: Tiny, method: Method) -> list[float]:
    """Let the method train as it does in a run; returns the losses."""
    fit = TinyFit(case, method)
    method.before_fit(fit)  # type: ignore[arg-type]
    method.fit(fit)  # type: ignore[arg-type]
    return fit.losses
