"""Zero-shot scores of a CLIP on probes, with 95% intervals over what the probe shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ....tasks.contract import Split
from ...backbones.clip import ClipBackbone
from ...statistics import interval
from .probes import Probe

BATCH = 128


@dataclass(frozen=True)
class Score:
    """Shares of right answers, in 0..1."""

    probe: str
    top1: float
    half_width: float  # of the 95% interval over units
    top5: float
    chance: float
    units: int

    def __str__(self) -> str:
        lead = f"{self.probe:18s} {100 * self.top1:5.1f} ± {100 * self.half_width:4.1f} %"
        return f"{lead}  top-5 {100 * self.top5:5.1f}  chance {100 * self.chance:4.1f}  n {self.units}"


@torch.no_grad()
def scores(backbone: ClipBackbone, probes: Sequence[Probe]) -> list[Score]:
    """One score for each probe."""
    return [_score(backbone, probe) for probe in probes]


def _score(backbone: ClipBackbone, probe: Probe) -> Score:
    sentences = list(dict.fromkeys(sentence for options in probe.options for sentence in options))
    number = {sentence: index for index, sentence in enumerate(sentences)}
    texts, images = _text_features(backbone, sentences), _image_features(backbone, probe.images)
    ranks = np.empty(len(images))
    for item, (options, answer) in enumerate(zip(probe.options, probe.answers.tolist(), strict=True)):
        found = texts[[number[sentence] for sentence in options]] @ images[item]
        ranks[item] = int((found > found[answer]).sum())
    right = _by_unit(ranks == 0, probe.units)
    estimate = interval([right])
    top5 = float(_by_unit(ranks < 5, probe.units).mean())
    return Score(probe.name, estimate.mean, estimate.half_width or 0.0, top5, probe.chance, len(right))


def _by_unit(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The mean of each unit."""
    means: np.ndarray = np.bincount(units, weights=values) / np.bincount(units)
    return means


def _image_features(backbone: ClipBackbone, images: np.ndarray) -> Tensor:
    prepared = backbone.prepare(Split({"image": images}, None, tuple(map(str, range(len(images))))))
    batches = torch.arange(len(images)).split(BATCH)
    return torch.cat([normalize(backbone.image_features(backbone.batch(prepared, rows)), dim=-1) for rows in batches])


def _text_features(backbone: ClipBackbone, sentences: Sequence[str]) -> Tensor:
    rows = range(0, len(sentences), BATCH)
    found = [backbone.text_features(backbone.tokens(sentences[start : start + BATCH])) for start in rows]
    return normalize(torch.cat(found), dim=-1)
