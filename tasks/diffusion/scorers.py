"""The models that look at generated images: features of images, and how well an image fits a text.

They are backbones of the suite that no generator is conditioned by. DreamBooth (arXiv:2208.12242, section 4.1) scores
with DINO ViT-S/16 and CLIP ViT-B/32; a task's card says which models stand here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Split

if TYPE_CHECKING:
    from ...bench.backbones.contract import Backbone

BATCH = 32


def image_features(scorer: Mapping[str, Any], images: np.ndarray) -> np.ndarray:
    """float32 (N, width) of length one, of images uint8 (N, H, W, 3).

    `scorer` names a `backbone` and may give its inputs (`image_size`, `normalisation`).
    """
    import torch

    backbone = _scorer(scorer)
    prepared = backbone.prepare(Split({"image": images}, None, tuple(map(str, range(len(images))))))
    with torch.no_grad():
        parts = [backbone.encode(backbone.batch(prepared, i)) for i in torch.arange(len(images)).split(BATCH)]
    return _of_length_one(torch.cat(parts).float().cpu().numpy())


def text_features(scorer: Mapping[str, Any], texts: Sequence[str]) -> np.ndarray:
    """float32 (N, width) of length one, in the space of `image_features`. The scorer must have two towers."""
    import torch

    backbone: Any = _scorer(scorer)
    with torch.no_grad():
        features = backbone.text_features(backbone.tokens(texts))
    return _of_length_one(features.float().cpu().numpy())


def mean_similarity(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float32 (N,): the mean cosine of each of N features with all others, both of length one."""
    similarity: np.ndarray = (features @ others.T).mean(axis=1)
    return similarity.astype(np.float32)


def _of_length_one(features: np.ndarray) -> np.ndarray:
    unit: np.ndarray = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit.astype(np.float32)


def _scorer(scorer: Mapping[str, Any]) -> Backbone:
    inputs = {name: value for name, value in scorer.items() if name != "backbone"}
    return _loaded(str(scorer["backbone"]), tuple(sorted(inputs.items())))


@lru_cache(maxsize=4)
def _loaded(backbone_id: str, inputs: tuple[tuple[str, Any], ...]) -> Backbone:
    from ...bench.registry import registry

    kind: type[Backbone] = registry("backbones").load(backbone_id)
    return kind(registry("backbones").card(backbone_id), dict(inputs))
