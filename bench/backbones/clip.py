"""Two towers, of images and of texts, that project into one space: CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..anatomy.pair import Pair
from ..errors import UsageError
from .clip_library import LibraryClip
from .clip_pair import PairedTowers
from .vision import VisionBackbone

if TYPE_CHECKING:
    from ...tasks.contract import Split

KINDS: dict[str, type[PairedTowers] | type[LibraryClip]] = {"pair": PairedTowers, "open_clip": LibraryClip}


class ClipBackbone(VisionBackbone):
    """An open_clip `CustomTextCLIP`. Inputs: those of `VisionBackbone`, and `max_tokens`.

    The card's options: `kind`, and what that says: `pair` (`PairedTowers`: two towers of other cards) or `open_clip`
    (`LibraryClip`: a model of that library).

    Its text tower is a module of its own in either kind: images enter by `visual`, texts by `text`, the scale by the
    model's own call, so that ops on any tensor fire.
    """

    def __init__(self, card: Any, options: Mapping[str, Any], meta: bool = False) -> None:
        kind = card.options.get("kind")
        if kind not in KINDS:
            raise UsageError(f"{card.id}: kind must be {' or '.join(KINDS)}, not {kind!r}")
        self.maker = KINDS[kind](card, options)
        self._prepared = 0  # items so far
        super().__init__(card, options, meta)
        if {"vision", "text"} <= self.anatomy.towers.keys():
            self.anatomy.pair = Pair(self.anatomy.edits, self)

    def skeleton(self) -> nn.Module:
        return self.maker.skeleton(self.size)

    def load(self) -> nn.Module:
        return self.maker.load(self.size)

    def published(self) -> dict[str, Tensor]:
        """The tensors as files hold them, by their names in the model."""
        return self.maker.published()

    @property
    def width(self) -> int:
        """Length of what both towers project to."""
        return self.maker.width

    def prepare(self, split: Split) -> dict[str, Tensor]:
        """Besides pixels, labels and index: columns of numbers that the split has, and "item".

        "item" numbers all items that this backbone has prepared. Features of untouched towers are kept under it: a
        batch whose pixels were changed goes on without it.
        """
        prepared = super().prepare(split)
        for name, column in split.inputs.items():
            if name != "image" and isinstance(column, np.ndarray):
                prepared[name] = torch.from_numpy(column)
        prepared["item"] = self._prepared + prepared["index"]
        self._prepared += len(split)
        return prepared

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        return self.image_features(batch)

    def image_features(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, width) of "pixels", projected and not normalised."""
        features: Tensor = self.model.visual(batch["pixels"])  # type: ignore[operator]
        return features

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Ids (N, L) as "input_ids", on the model's device, as `text_features` takes them."""
        return {"input_ids": self.maker.tokens(texts).to(self.device)}

    def text_features(self, tokens: dict[str, Tensor]) -> Tensor:
        """(N, width), projected and not normalised."""
        features: Tensor = self.model.text(tokens["input_ids"])  # type: ignore[operator]
        return features

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by to be logits."""
        scale: Tensor = self.model()[2]
        return scale
