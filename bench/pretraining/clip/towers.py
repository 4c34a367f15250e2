"""The pair of towers cut in two: what stays frozen is computed once, what trains is computed from it.

Of the image tower the last blocks and what follows them train; of the text tower only the last LayerNorm's affine part
and the projection, so that the sentences' space keeps its shape for names that the alignment never shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...backbones.clip import ClipBackbone

BATCH = 128


class SplitTowers:
    """A `ClipBackbone` of kind `pair` whose image blocks from number `first` on train."""

    def __init__(self, backbone: ClipBackbone, first: int) -> None:
        model: Any = backbone.model
        self.backbone, self.first = backbone, first
        self.visual, self.text, self.scale = model.visual, model.text, model.logit_scale
        self.last_norm = self.text.transformer.encoder.layer[-1].output.LayerNorm

    def trained(self) -> dict[str, Tensor]:
        """The tensors that train, by their names in the model."""
        layers = len(self.text.transformer.encoder.layer)
        prefixes = (
            *(f"visual.trunk.blocks.{number}." for number in range(self.first, len(self.visual.trunk.blocks))),
            *("visual.trunk.norm.", "visual.head.", "text.proj.", "logit_scale"),
            f"text.transformer.encoder.layer.{layers - 1}.output.LayerNorm.",
        )
        named = self.backbone.model.named_parameters()
        return {name: tensor for name, tensor in named if name.startswith(prefixes)}

    @torch.no_grad()
    def lower(self, images: Any) -> Tensor:
        """uint8 images (N, 56, 56, 3) -> tokens before block `first`, float16 (N, T, width)."""
        trunk, kept = self.visual.trunk, []
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
            pixels = (pixels - self.backbone.mean) / self.backbone.std
            with torch.autocast("cpu", torch.bfloat16):
                found = trunk.forward_intermediates(
                    pixels,
                    indices=[self.first - 1],
                    return_prefix_tokens=True,
                    output_fmt="NLC",
                    intermediates_only=True,
                    stop_early=True,
                )
            patches, prefix = found[0]
            kept.append(torch.cat([prefix, patches], dim=1).half())
        return torch.cat(kept)

    def image_features(self, tokens: Tensor) -> Tensor:
        """Tokens before block `first` (B, T, width) -> projected features (B, shared width)."""
        trunk = self.visual.trunk
        features: Tensor = self.visual.head(trunk.forward_head(trunk.norm(trunk.blocks[self.first :](tokens))))
        return features

    @torch.no_grad()
    def moments(self, sentences: Sequence[str]) -> Tensor:
        """(M, width): the mean over a sentence's tokens of what the last LayerNorm's affine part takes in."""
        order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
        rows: list[Tensor] = []
        for start in range(0, len(order), BATCH):
            ids = self.backbone.tokens([sentences[index] for index in order[start : start + BATCH]])["input_ids"]
            mask = (ids != self.text.config.pad_token_id).long()
            with torch.autocast("cpu", torch.bfloat16):
                hidden = self.text.transformer(input_ids=ids, attention_mask=mask)
            hidden.last_hidden_state = hidden.last_hidden_state.float()
            rows.append((self.text.pooler(hidden, mask) - self.last_norm.bias) / self.last_norm.weight)
        return torch.cat(rows)[torch.tensor(order).argsort()]

    def text_features(self, moments: Tensor) -> Tensor:
        """What `moments` returned -> projected features (M, shared width)."""
        features: Tensor = self.text.proj(moments * self.last_norm.weight + self.last_norm.bias)
        return features
