"""The training of the UNet: a velocity loss, a running mean of the weights, and a state that survives being killed.

Each step draws its items, time steps and noise from its own number and the seed, so that a run that goes on from a
checkpoint takes the steps that it would have taken.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...backbones.pixel_diffusion import PixelDiffusionBackbone
from ...computation import products
from .examples import Examples

Report = Callable[[int, float], None]  # steps taken, and the loss of the last


@dataclass(frozen=True)
class Schedule:
    """What a run is made of."""

    steps: int = 4500
    batch: int = 64
    rate: float = 8e-4
    warm_up: float = 0.03  # of the steps; then the rate falls to zero as a cosine
    weight_decay: float = 0.01
    clip: float = 1.0
    dropped: float = 0.1  # captions left out, for classifier-free guidance (Ho and Salimans 2022, section 3.2)
    averaging: float = 0.999  # of the running mean, once it has seen enough steps


@dataclass
class State:
    """What changes in a run: weights (inside `unet`), their running mean, AdamW's moments, and the losses so far."""

    unet: nn.Module
    optimizer: torch.optim.AdamW
    means: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0  # of training alone, over all starts

    @property
    def step(self) -> int:
        """Steps taken."""
        return len(self.losses)


def fresh(unet: nn.Module, schedule: Schedule) -> State:
    """The state before the first step."""
    unet.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=schedule.rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
    )
    return State(unet, optimizer, {name: tensor.detach().clone() for name, tensor in unet.named_parameters()})


def train(
    backbone: PixelDiffusionBackbone,
    examples: Examples,
    state: State,
    schedule: Schedule,
    seed: int,
    dtype: str,
    report: Report,
) -> None:
    """Take the steps that are left."""
    state.unet.train()
    while state.step < schedule.steps:
        step = state.step
        generator = _generator(seed, 0, step)
        rows = _rows(len(examples.captions), schedule.batch, seed, step)
        without = torch.rand(len(rows), generator=generator) < schedule.dropped
        pixels, condition = examples.batch(rows, without, backbone.device)
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        with products(dtype, backbone.device):
            loss = backbone.squared_errors(backbone.latents(pixels), condition).mean()
        for group in state.optimizer.param_groups:
            group["lr"] = schedule.rate * _share_of_rate(step, schedule)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.unet.parameters(), schedule.clip)
        state.optimizer.step()
        state.losses.append(loss.item())
        if not math.isfinite(state.losses[-1]):
            raise FloatingPointError(f"the loss was {state.losses[-1]} at step {state.step}")
        _average(state, schedule.averaging)
        report(state.step, state.losses[-1])


def _rows(items: int, size: int, seed: int, step: int) -> Tensor:
    """The items of one step: full passes, each in an order of its own; what is left over at a pass's end is skipped."""
    steps = max(1, items // size)
    order = torch.randperm(items, generator=_generator(seed, 1, step // steps))
    return order[(step % steps) * size :][:size]


def _generator(*numbers: int) -> torch.Generator:
    """A generator of its own for each sequence of numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _share_of_rate(step: int, schedule: Schedule) -> float:
    warm = max(1, round(schedule.warm_up * schedule.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, schedule.steps - warm)))


@torch.no_grad()
def _average(state: State, decay: float) -> None:
    """The running mean starts short, so that the first weights are soon forgotten."""
    kept = min(decay, (1 + state.step) / (10 + state.step))
    for name, parameter in state.unet.named_parameters():
        state.means[name].lerp_(parameter, 1 - kept)


# checkpoints ---------------------------------------------------------------------------------------------------


def save(state: State, settings: dict[str, object], file: Path) -> None:
    """Replace the checkpoint by this state, whole or not at all."""
    from safetensors.torch import save as to_bytes

    names = [name for name, _ in state.unet.named_parameters()]
    tensors = {f"weights.{name}": tensor.detach() for name, tensor in state.unet.named_parameters()}
    tensors |= {f"means.{name}": tensor for name, tensor in state.means.items()}
    for number, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"{kind}.{names[number]}": moments[kind] for kind in ("exp_avg", "exp_avg_sq")}
    progress = {"settings": settings, "losses": state.losses, "cpu_seconds": state.cpu_seconds}
    content = to_bytes(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {"run": json.dumps(progress)}
    )
    write_whole(file, content)


def restore(state: State, settings: dict[str, object], file: Path) -> None:
    """Go on from a checkpoint. ValueError where it is of other settings."""
    from safetensors import safe_open

    with safe_open(file, "pt") as stored:
        run = json.loads(stored.metadata()["run"])
        if run["settings"] != json.loads(json.dumps(settings)):
            raise ValueError(f"{file} is of a run with other settings: {run['settings']}")
        parameters = dict(state.unet.named_parameters())
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(stored.get_tensor(f"weights.{name}"))
                state.means[name].copy_(stored.get_tensor(f"means.{name}"))
        state.losses, state.cpu_seconds = run["losses"], run["cpu_seconds"]
        moments = {
            number: {
                "step": torch.tensor(float(state.step)),
                "exp_avg": stored.get_tensor(f"exp_avg.{name}"),
                "exp_avg_sq": stored.get_tensor(f"exp_avg_sq.{name}"),
            }
            for number, name in enumerate(parameters)
        }
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})


def write_whole(file: Path, content: bytes) -> None:
    """Replace a file, so that at any moment the old one or the new one is there."""
    part = file.with_name(f".{file.name}.part")
    with open(part, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)
