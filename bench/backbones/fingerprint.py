"""Fingerprints: of weights (their identity in a cell's key) and of a loaded model's output on a fixed input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...tasks.contract import Split
from ..errors import AtlasError

if TYPE_CHECKING:
    from .contract import Backbone

SENTENCES = ("The quick brown fox jumps over the lazy dog.", "A film that is, by turns, funny and sad; see it twice.")
FRAMES = 8  # of a fixed clip
DEFAULT_SIZE = 32  # pixels of the fixed images, where the inputs name none
TOLERANCE = 1e-3  # relative: kernels of other machines round differently, other weights are far off


def weights_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits of the SHA-256 over names, shapes and fp32 bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().float().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def fixed_input(family: str, image_size: int) -> Split:
    """Two items that never change: images made by arithmetic, sentences, or both for generators of images."""
    if family == "video":
        images = fixed_input("vision", image_size).inputs["image"]
        lighter = 31 * np.arange(FRAMES).reshape(1, -1, 1, 1, 1)
        return Split({"clip": ((images[:, None] + lighter) % 256).astype(np.uint8)}, None, ("fixed/0", "fixed/1"))
    inputs: dict[str, Any] = {}
    if family in ("vision", "clip", "diffusion"):
        i, row, column, channel = np.indices((2, image_size, image_size, 3))
        inputs["image"] = ((row * row * (i + 1) // 3 + column * 7 + channel * 29) % 256).astype(np.uint8)
    if family not in ("vision", "clip"):
        inputs["text"] = list(SENTENCES)
    return Split(inputs, None, ("fixed/0", "fixed/1"))


@torch.no_grad()
def output_fingerprint(backbone: Backbone) -> dict[str, Any]:
    """Mean, deviation and the first eight numbers of the features (or token scores) of the fixed input.

    Those of a backbone with two towers are the features of both inputs, images first.
    """
    from .clip import ClipBackbone

    split = fixed_input(backbone.card.family, int(backbone.options.get("image_size", DEFAULT_SIZE)))
    batch = backbone.batch(backbone.prepare(split), torch.arange(2))
    outputs = [backbone.logits(batch) if backbone.card.family == "lm" else backbone.encode(batch)]
    if isinstance(backbone, ClipBackbone):
        outputs.append(backbone.text_features(backbone.tokens(SENTENCES)))
    flat = torch.cat([output.detach().float().flatten() for output in outputs])
    first = [round(float(value), 6) for value in flat[:8]]
    return {"mean": round(float(flat.mean()), 6), "std": round(float(flat.std()), 6), "first": first}


def verify(backbone: Backbone) -> None:
    """Compare the model's output on the fixed input with the card's; AtlasError where they differ.

    The card names the input settings it was taken with; under other settings there is nothing to compare.
    """
    expected = dict(backbone.card.output)
    if not expected or expected.pop("inputs", {}) != backbone.options:
        return
    found = output_fingerprint(backbone)
    wanted = np.array([expected["mean"], expected["std"], *expected["first"]])
    given = np.array([found["mean"], found["std"], *found["first"]])
    if not np.allclose(given, wanted, rtol=TOLERANCE, atol=TOLERANCE * abs(float(expected["std"]))):
        raise AtlasError(
            f"{backbone.card.id} does not compute what its card says: {given.round(4).tolist()} instead of "
            f"{wanted.round(4).tolist()}"
        )
