"""The training of an alignment: pictures and sentences come as what the frozen parts of the towers made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .material import Material
from .objective import contrastive_loss
from .towers import SplitTowers

Report = Callable[[int, float], None]  # step and its loss

LARGEST_SCALE = math.log(100.0)  # as CLIP clips it


@dataclass(frozen=True)
class Schedule:
    """What a run is made of."""

    steps: int = 600
    batch: int = 64  # pictures
    negatives: int = 384  # sentences of other pictures that join those of the batch
    rate_blocks: float = 1e-4
    rate_ends: float = 1e-3  # projections, norms and scale
    rate_sentences: float = 1e-4  # what acts on the text tower's output
    weight_decay: float = 0.05
    warm_up: float = 0.05  # of the steps; then the rates fall to zero as a cosine
    averaged: float = 0.3  # of the steps, the last ones, whose weights are averaged


@dataclass(frozen=True)
class Examples:
    """Material behind the frozen parts: tokens (N, T, width) and the bank's moments (M, width).

    `truths` (N, K) holds the numbers of the sentences that are true of each picture, padded with -1.
    """

    tokens: Tensor
    moments: Tensor
    truths: Tensor

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """One true sentence for each row, drawn evenly: (len(rows),)."""
        truths = self.truths[rows]
        known = (truths >= 0).sum(dim=1)
        drawn = (torch.rand(len(rows), generator=generator) * known).long()
        return truths.gather(1, drawn[:, None]).squeeze(1)

    def truth(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """bool (len(rows), len(chosen)): which of the chosen sentences are true of which rows."""
        column = torch.full((len(self.moments) + 1,), len(chosen))
        column[chosen] = torch.arange(len(chosen))
        marked = torch.zeros(len(rows), len(chosen) + 1, dtype=torch.bool)
        return marked.scatter(1, column[self.truths[rows]], True)[:, :-1]


def examples_of(material: Material, towers: SplitTowers) -> Examples:
    """Run the frozen parts once over all pictures and all different sentences."""
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(sentence, len(numbers)) for sentence in truths] for truths in material.truths]
    longest = max(map(len, rows))
    truths = torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
    return Examples(towers.lower(material.images), towers.moments(list(numbers)), truths)


@torch.no_grad()
def centre(towers: SplitTowers, examples: Examples) -> None:
    """Start with features that are zero in the mean over all examples, and with sentences as their tower has them.

    The norms' biases take the mean away: neither projection has a bias.
    """
    trunk = towers.visual.trunk
    sample = examples.tokens[:: max(1, len(examples.tokens) // 512)].float()
    trunk.norm.bias -= trunk.norm(trunk.blocks[towers.first :](sample))[:, 0].mean(dim=0)
    towers.last_norm.bias.copy_(-(examples.moments * towers.last_norm.weight).mean(dim=0))
    torch.nn.init.eye_(towers.text.proj.weight)


def train(towers: SplitTowers, examples: Examples, schedule: Schedule, seed: int, report: Report) -> None:
    """Train what `towers.trained()` names, and leave the mean of the last weights in the model."""
    generator = torch.Generator().manual_seed(seed)
    trained = towers.trained()
    for tensor in trained.values():
        tensor.requires_grad_(True)
    optimiser = torch.optim.AdamW(_groups(trained, schedule))
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, schedule))
    first_averaged = schedule.steps - max(1, round(schedule.averaged * schedule.steps))
    means = {name: torch.zeros_like(tensor) for name, tensor in trained.items()}
    for step, rows in zip(
        range(schedule.steps), _batches(len(examples.tokens), schedule.batch, generator), strict=False
    ):
        loss = _loss(towers, examples, rows, schedule.negatives, generator)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimiser.step()
        rates.step()
        towers.scale.data.clamp_(max=LARGEST_SCALE)
        report(step, loss.item())
        if step >= first_averaged:
            for name, tensor in trained.items():
                means[name] += tensor.detach() / (schedule.steps - first_averaged)
    for name, tensor in trained.items():
        tensor.requires_grad_(False).copy_(means[name])


def _loss(towers: SplitTowers, examples: Examples, rows: Tensor, negatives: int, generator: torch.Generator) -> Tensor:
    others = torch.randint(len(examples.tokens), (negatives,), generator=generator)
    chosen = examples.sample(torch.cat([rows, others]), generator).unique()
    with torch.autocast("cpu", torch.bfloat16):
        images = towers.image_features(examples.tokens[rows].float())
    texts = towers.text_features(examples.moments[chosen])
    return contrastive_loss(images.float(), texts, towers.scale, examples.truth(rows, chosen))


def _groups(trained: dict[str, Tensor], schedule: Schedule) -> list[dict[str, object]]:
    """One group for each tensor; vectors do not decay."""

    def rate(name: str) -> float:
        if name.startswith("visual.trunk.blocks."):
            return schedule.rate_blocks
        return schedule.rate_sentences if name.startswith("text.") else schedule.rate_ends

    return [
        {"params": [tensor], "lr": rate(name), "weight_decay": schedule.weight_decay * (tensor.dim() > 1)}
        for name, tensor in trained.items()
    ]


def _rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then a cosine to zero."""
    warm = max(1, round(schedule.warm_up * schedule.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, schedule.steps - warm)))


def _batches(items: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless rows, each item once before any comes again."""
    while True:
        yield from torch.randperm(items, generator=generator).split(size)
