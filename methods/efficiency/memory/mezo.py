"""MeZO: full fine-tuning by forward passes alone (Malladi et al. 2023, arXiv 2305.17333, algorithm 1).

Each step draws one direction z ~ N(0, I) over all weights and estimates the slope along it (SPSA),

    g = (L(w + eps z) - L(w - eps z)) / (2 eps),        w <- w - lr (g z + weight_decay w),

on one batch. z is never stored: the weights are perturbed in place, and the same seed draws it anew for each of the
four passes over them. Activations are not kept, and there are no gradients and no optimiser state. As in the authors'
code, the loss is taken in evaluation mode and the learning rate is constant. The task's head, where there is one, is
moved like any other weight; the paper's tasks are prompts that need no new head, and MeZO depends on that.

A step is two forward passes and learns little: training takes `step_factor` times the protocol's steps.

Trainable parameters: all of the backbone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import nn

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class MeZOConfig(GradientConfig):
    """Size of the perturbation, and how many more steps than gradient descent."""

    eps: float = Field(gt=0, description="size of the perturbation")
    step_factor: int = Field(gt=0, description="steps for each step of the protocol")


class MeZO(Method):
    """Moves every weight along one random direction at a time."""

    Config = MeZOConfig
    starts_as_backbone = True
    config: MeZOConfig

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        for place in anatomy.tensors():
            place.train()

    @torch.no_grad()
    def fit(self, fit: Fit) -> None:
        config, steps = self.config, fit.steps * self.config.step_factor
        moved = [*self.trained_tensors().values(), *(fit.head.parameters() if fit.head is not None else ())]
        fit.train_mode(False)
        for step, batch in enumerate(fit.batches(steps)):
            start, seed = time.perf_counter(), int(torch.randint(2**62, ()))
            move(moved, seed, config.eps)
            above = float(fit.loss(batch))
            move(moved, seed, -2 * config.eps)
            below = float(fit.loss(batch))
            move(moved, seed, config.eps)
            slope = (above - below) / (2 * config.eps)
            move(moved, seed, -config.lr * slope, keep=1 - config.lr * config.weight_decay)
            fit.record(step, steps, (above + below) / 2, config.lr, time.perf_counter() - start)


def move(parameters: Iterable[nn.Parameter], seed: int, by: float, keep: float = 1.0) -> None:
    """w <- keep * w + by * z in place, with the z of `seed`."""
    generators: dict[torch.device, torch.Generator] = {}
    for parameter in parameters:
        device = parameter.device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(seed)
        z = torch.randn(parameter.shape, generator=generators[device], device=device, dtype=parameter.dtype)
        if keep != 1:
            parameter.mul_(keep)
        parameter.add_(z, alpha=by)
