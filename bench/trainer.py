"""The one training loop. It knows the hooks of `Method` and no method by name.

Evaluation never happens inside a training time, and the test split cannot be reached from here: a `Fit` holds the
training items only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..tasks.contract import Predictions, Split, Task
from .backbones.contract import Backbone
from .computation import parts, products

if TYPE_CHECKING:
    from ..methods.contract import Method
    from .protocol import FamilySettings, OptimizerSettings

Report = Callable[[dict[str, Any]], None]


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite; the cell ends here, with status `nan`."""


class Fit:
    """One training run: what a method may see and use while it trains.

    `prepared` holds the training items, see `Backbone.prepare`. `curve` has one entry a step: step, loss, learning rate
    of the first group. `step_seconds` times each step from batch to optimiser, nothing else.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        head: nn.Module | None,
        task: Task,
        prepared: dict[str, Tensor],
        settings: FamilySettings,
        optimizer: OptimizerSettings,
        seed: int,
        steps: int | None = None,
        report: Report = lambda message: None,
        dtype: str = "float32",
    ) -> None:
        self.backbone, self.method, self.head, self.task = backbone, method, head, task
        self.prepared, self.settings, self.optimizer_settings = prepared, settings, optimizer
        self.seed, self.report, self.dtype = seed, report, dtype
        self.steps = settings.steps if steps is None else steps
        self.curve: list[dict[str, float]] = []
        self.step_seconds: list[float] = []

    def run(self) -> None:
        """Train by the method's own `fit`, then put everything into evaluation mode."""
        self.train_mode(True)
        self.method.before_fit(self)
        self.method.fit(self)
        self.train_mode(False)

    # what a method uses ----------------------------------------------------------------------------------------

    def outputs(self, batch: dict[str, Tensor]) -> Tensor:
        """The task's outputs for a batch, through backbone and head."""
        return outputs_of(self.task, self.backbone, self.head, batch, self.dtype)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The task's mean loss of a batch."""
        return self.task.loss(self.outputs(batch), batch)

    def batches(self, steps: int) -> Iterator[dict[str, Tensor]]:
        """`steps` batches: full passes in an order drawn from the seed alone, the same for every method.

        With `buckets` of the protocol above 1, so many batches are drawn together, cut after sorting their items by
        length, and taken in random order.
        """
        generator = torch.Generator().manual_seed(self.seed)
        n, size = len(self.prepared["index"]), min(self.settings.batch, len(self.prepared["index"]))
        buckets = self.settings.buckets
        place = self.backbone.order(self.prepared).argsort() if buckets > 1 else None  # of each item, shortest first
        order, ready = torch.empty(0, dtype=torch.long), list[Tensor]()
        for _ in range(steps):
            if not ready:
                while len(order) < buckets * size:
                    order = torch.cat([order, torch.randperm(n, generator=generator)])
                drawn, order = order[: buckets * size], order[buckets * size :]
                if place is not None:
                    cut = drawn[place[drawn].argsort(stable=True)].view(buckets, size)
                    drawn = cut[torch.randperm(buckets, generator=generator)].flatten()
                ready = list(drawn.split(size))
            yield self.backbone.batch(self.prepared, ready.pop(0))

    @torch.no_grad()
    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Pooled features (N, width) and labels (N,) of the training items, in evaluation mode."""
        self.train_mode(False)
        order, chunks, done = self.backbone.order(self.prepared), [], 0
        for index in order.split(self.settings.eval_batch):
            with products(self.dtype, self.backbone.device):
                features = self.backbone.encode(self.backbone.batch(self.prepared, index))
            chunks.append(features.float().cpu().numpy())
            done += len(index)
            self.report({"phase": "features", "step": done, "steps": len(order)})
        self.train_mode(True)
        return np.concatenate(chunks)[order.argsort().numpy()], self.prepared["labels"].cpu().numpy()

    def train_mode(self, on: bool) -> None:
        """Dropout and the like, for backbone, method and head together."""
        for module in (self.backbone.model, self.method, self.head):
            if module is not None:
                module.train(on)

    # gradient descent ------------------------------------------------------------------------------------------

    def gradient_descent(self, steps: int | None = None) -> None:
        """AdamW with linear warm-up and the protocol's decay to zero; all hooks of the method are called."""
        steps = self.steps if steps is None else steps
        optimizer, method = self._optimizer(), self.method
        peaks = [group["lr"] for group in optimizer.param_groups]
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for step, batch in enumerate(self.batches(steps)):
            start = time.perf_counter()
            factor = self._schedule(step, steps)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            method.before_step(step)
            optimizer.zero_grad(set_to_none=True)
            loss = self._gradients(batch, trained)
            method.after_backward(step)
            torch.nn.utils.clip_grad_norm_(trained, self.optimizer_settings.clip)
            optimizer.step()
            method.after_step(step)
            value = float(loss)
            self.record(step, steps, value, peaks[0] * factor, time.perf_counter() - start)

    def _gradients(self, batch: dict[str, Tensor], trained: list[nn.Parameter]) -> Tensor:
        """Fill `.grad` of what trains; the batch's detached loss."""
        if self.settings.accumulate == 1:
            return self.method.compute_gradients(self, batch)
        losses: list[Tensor] = []
        sums: dict[nn.Parameter, Tensor | None] = dict.fromkeys(trained)
        for part, share in parts(batch, self.settings.accumulate, self.task):
            losses.append(share * self.method.compute_gradients(self, part))
            for parameter in trained:
                if (gradient := parameter.grad) is not None:
                    before = sums[parameter]
                    sums[parameter] = gradient * share if before is None else before.add_(gradient, alpha=share)
                parameter.grad = None
        for parameter, gradient in sums.items():
            parameter.grad = gradient
        return torch.stack(losses).sum()

    def record(self, step: int, steps: int, loss: float, lr: float, seconds: float) -> None:
        """Note one step and tell of it. Raises `NonFiniteLoss`, which ends the cell."""
        self.step_seconds.append(seconds)
        if not math.isfinite(loss):
            raise NonFiniteLoss(f"the loss was {loss} at step {step + 1} of {steps}")
        self.curve.append({"step": step, "loss": loss, "lr": lr})
        self.report({"phase": "fit", "step": step + 1, "steps": steps, "loss": loss})

    def _schedule(self, step: int, steps: int) -> float:
        warmup = max(1, round(self.optimizer_settings.warmup * steps))
        if step < warmup:
            return (step + 1) / warmup
        passed = (step - warmup) / max(1, steps - warmup)
        if self.optimizer_settings.schedule == "linear":
            return 1 - passed
        return 0.5 * (1 + math.cos(math.pi * passed))

    def _optimizer(self) -> torch.optim.Optimizer:
        settings, config = self.optimizer_settings, self.method.config
        lr: float | None = getattr(config, "lr", None)
        decay: float = getattr(config, "weight_decay", 0.0)
        groups = [{"lr": lr, "weight_decay": decay, **group} for group in self.method.parameter_groups()]
        if self.head is not None:
            head_lr = self.settings.head_lr or lr
            head = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
            groups.append({"params": head, "lr": head_lr, "weight_decay": settings.head_weight_decay})
        return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps)


def outputs_of(task: Task, backbone: Backbone, head: nn.Module | None, batch: dict[str, Tensor], dtype: str) -> Tensor:
    """The task's outputs in float32, whatever the products of the pass are computed in."""
    with products(dtype, backbone.device):
        return _in_full(task.forward(backbone, head, batch))


def _in_full(outputs: Tensor) -> Tensor:
    """Outputs in float32 where they are in half precision."""
    return outputs.float() if outputs.dtype == torch.bfloat16 else outputs


@torch.no_grad()
def evaluate(
    backbone: Backbone,
    method: Method,
    head: nn.Module | None,
    task: Task,
    split: Split,
    prepared: dict[str, Tensor],
    settings: FamilySettings,
    report: Report = lambda message: None,
    dtype: str = "float32",
) -> Predictions:
    """Predictions for every item of `split` (`prepared` holds the same items), in order."""
    for module in (backbone.model, method, head):
        if module is not None:
            module.eval()
    columns: dict[str, list[np.ndarray]] = {}
    order, done = backbone.order(prepared), 0
    for index in order.split(settings.eval_batch):
        batch = backbone.batch(prepared, index)
        with products(dtype, backbone.device):
            responses = _in_full(task.respond(backbone, head, batch))
        outputs = method.on_logits(responses, batch)
        for name, column in task.predict(outputs, batch).items():
            columns.setdefault(name, []).append(column)
        done += len(index)
        report({"phase": "evaluate", "step": done, "steps": len(split)})
    back = order.argsort().numpy()
    return Predictions(split.items, {name: np.concatenate(parts)[back] for name, parts in columns.items()})
