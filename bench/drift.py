"""Forgetting: how far an adapted backbone has drifted from the pretrained one on inputs that no task contains.

The probes are fixed: 64 crops of the two photographs that come with scikit-learn, 64 clips that pan over them, or the
48 sentences of `probe_sentences.txt`, written for this suite. The adapted backbone is compared with itself before the
method was attached, without any head.

- Encoders: one minus the linear CKA of the two sets of features (Kornblith et al. 2019, arXiv:1905.00414, section 3).
  0: the same geometry up to rotation and a common scale; 1: nothing of it is left. A generator's features are what it
  predicts for half noised photographs under a sentence each.
- Language models: rise of the bits per byte of the probe's text, the loss on a domain that was not trained, as in
  Biderman et al. 2024 (arXiv:2405.09673, section 3). Negative: the text has become more likely.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..tasks.contract import Split
from .records import Drift

if TYPE_CHECKING:
    from .backbones.contract import Backbone

PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # 427 x 640 pixels each
ROWS, COLUMNS, CROP = 4, 8, 112  # crops of each photograph, and their side in pixels
FRAMES, PAN = 8, 4  # of a clip, and pixels from frame to frame
ENCODER_BATCH, DECODER_BATCH = 32, 8


class Probe:
    """A backbone's answers to the probe before anything was attached to it."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.prepared = backbone.prepare(probe_items(backbone.card.family))
        self.before = self._answers()

    def drift(self) -> Drift:
        """Compare with the backbone as it is now. The model must be in evaluation mode."""
        after = self._answers()
        if self.backbone.card.family == "lm":
            rise = float(after.sum() - self.before.sum()) / math.log(2) / int(self.prepared["bytes"].sum())
            return Drift(measure="bits_per_byte_rise", value=rise, items=len(after))
        return Drift(measure="cka_distance", value=1 - linear_cka(self.before, after), items=len(after))

    @torch.no_grad()
    def _answers(self) -> Tensor:
        """Features (items, width), or each item's nats (items,); float64, in the order of `Backbone.order`."""
        decoder = self.backbone.card.family == "lm"
        parts = []
        for index in self.backbone.order(self.prepared).split(DECODER_BATCH if decoder else ENCODER_BATCH):
            batch = self.backbone.batch(self.prepared, index)
            parts.append((self._nats(batch) if decoder else self.backbone.encode(batch)).double().cpu())
        return torch.cat(parts)

    def _nats(self, batch: dict[str, Tensor]) -> Tensor:
        scores, ids = self.backbone.logits(batch)[:, :-1].float(), batch["input_ids"][:, 1:]
        nats = functional.cross_entropy(scores.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape)
        return (nats * batch["attention_mask"][:, 1:]).sum(1)


def linear_cka(one: Tensor, other: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features (N, p) and (N, q), in 0..1.

    ||Y'X||^2 / (||X'X|| ||Y'Y||) with centred columns and Frobenius norms, computed on the N x N Gram matrices. Two
    sets without any spread count as alike, one such set as unlike.
    """
    grams = []
    for features in (one, other):
        centred = features.double() - features.double().mean(0)
        grams.append(centred @ centred.T)
    norms = [float(gram.norm()) for gram in grams]
    if not all(norms):
        return float(norms[0] == norms[1])
    return min(1.0, float((grams[0] * grams[1]).sum()) / (norms[0] * norms[1]))


@cache
def probe_items(family: str) -> Split:
    """The probe of a task family: photographs, clips, sentences, or for generators photographs with sentences."""
    if family == "video":
        return _pans(probe_items("vision"))
    text = Path(__file__).with_name("probe_sentences.txt").read_text(encoding="utf-8").splitlines()
    if family not in ("vision", "clip", "diffusion"):
        return Split({"text": text}, None, tuple(f"sentence/{i}" for i in range(len(text))))
    inputs: dict[str, Any] = {"image": np.stack([crop for name in PHOTOGRAPHS for crop in _crops(name)])}
    count = len(inputs["image"])
    if family == "diffusion":
        inputs["text"] = [text[i % len(text)] for i in range(count)]
    return Split(inputs, None, tuple(f"photograph/{i}" for i in range(count)))


def _pans(pictures: Split) -> Split:
    """Clips that pan over pictures to the right."""
    side = CROP - FRAMES * PAN
    frames = [pictures.inputs["image"][:, :side, PAN * i : PAN * i + side] for i in range(FRAMES)]
    return Split({"clip": np.stack(frames, axis=1)}, None, pictures.items)


def _crops(name: str) -> list[np.ndarray]:
    from PIL import Image

    spec = find_spec("sklearn")  # its location only: the import takes longer than a small cell
    assert spec is not None and spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0], "datasets", "images", name)
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    tops = np.linspace(0, pixels.shape[0] - CROP, ROWS).astype(int)
    lefts = np.linspace(0, pixels.shape[1] - CROP, COLUMNS).astype(int)
    return [pixels[top : top + CROP, left : left + CROP] for top in tops for left in lefts]
