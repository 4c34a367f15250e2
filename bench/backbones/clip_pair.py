"""A CLIP made of an image and a text backbone that have cards of their own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import AssetError
from ..registry import registry

if TYPE_CHECKING:
    from .contract import Backbone, Card
    from .text import TextBackbone
    from .tokens import Tokenizer

IMAGE_INPUTS = ("image_size", "normalisation")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # CLIP trains without


class PairedTowers:
    """open_clip's `CustomTextCLIP` around a `TimmModel` and an `HFTextEncoder`.

    The card's options: `width` of the shared space; `image` and `text`, each with `backbone` (the card of the tower),
    `pool` (timm: token, avg; text: mean_pooler, cls_last_hidden_state_pooler) and `projection` (linear, mlp, or none
    where the tower has the shared width); `trained`, a safetensors file beside the card, whose tensors take the place
    of the towers' own by their names in the model; `random`, the seed of projections that no file holds.
    """

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.card, self.options = card, options
        self.width = int(card.options["width"])
        self.texts: TextBackbone = self._tower("text", meta=True)

    def skeleton(self, size: int) -> nn.Module:
        """All of it on the meta device."""
        return self._around(self._tower("image", meta=True), self.texts)

    def load(self, size: int) -> nn.Module:
        """Both towers with their weights, then what was trained for this pair."""
        model: Any = self._around(self._tower("image"), self._tower("text"))
        generator = torch.Generator().manual_seed(int(self.card.options.get("random", 0)))
        for part in (model.visual.head, model.text.proj):
            _draw(part, generator)
        model.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())  # as CLIP starts
        if "trained" in self.card.options:
            self._read(model)
        return model

    def published(self) -> dict[str, Tensor]:
        """By their names in the model: the tensors that the towers' own cards publish, under those trained for this."""
        towers = {"visual.trunk.": self._tower("image", meta=True), "text.transformer.": self.texts}
        own = {
            f"{prefix}{name}": tensor for prefix, tower in towers.items() for name, tensor in tower.published().items()
        }
        return own | self._trained()

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Ids (N, L), padded at the right."""
        encoded = self._tokenizer.encode(texts, self.texts.max_tokens, special=True)
        rows = [torch.tensor(ids) for ids, _ in encoded]
        pad = float(self.texts.card.options.get("pad", 0))
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return self.texts.tokenizer

    def _tower(self, side: str, meta: bool = False) -> Any:
        backbones = registry("backbones")
        card = backbones.card(self.card.options[side]["backbone"])
        names = IMAGE_INPUTS if side == "image" else ("max_tokens",)
        if side == "text":
            card = replace(card, options={**card.options, "config": {**card.options["config"], **NO_DROPOUT}})
        inputs = {name: self.options[name] for name in names if name in self.options}
        return backbones.load(card.id)(card, inputs, meta=meta)

    def _around(self, image: Backbone, text: Backbone) -> nn.Module:
        """The towers under open_clip's classes; the projections have no values yet."""
        from open_clip.hf_model import HFTextEncoder
        from open_clip.model import CustomTextCLIP

        images, texts = self.card.options["image"], self.card.options["text"]
        vision: Any = {
            "timm_model_name": image.card.options["model"],
            "timm_pool": images["pool"],
            "timm_proj": "none",
        }
        nothing: Any = {"width": 8, "heads": 1, "layers": 1, "context_length": 1, "vocab_size": 1}
        trunk: Any = image.model
        tower: Any = text.model
        projection = None if texts["projection"] == "none" else texts["projection"]
        with torch.device("meta"):
            model: Any = CustomTextCLIP(self.width, vision, nothing)
            model.text = HFTextEncoder("", self.width, tower.config, texts["pool"], projection)
            model.visual.head = _image_projection(images["projection"], trunk.num_features, self.width)
        trunk.reset_classifier(0, images["pool"])
        model.visual.trunk, model.text.transformer = trunk, tower
        model.visual.image_size = trunk.patch_embed.img_size
        model.context_length, model.vocab_size = model.text.context_length, model.text.vocab_size
        return model

    def _trained(self) -> dict[str, Tensor]:
        """What lies beside the card."""
        from safetensors.torch import load_file

        return load_file(registry("backbones").folder(self.card.id) / self.card.options["trained"])

    def _read(self, model: nn.Module) -> None:
        name = self.card.options["trained"]
        found = model.load_state_dict(self._trained(), strict=False)
        towers = ("visual.trunk.", "text.transformer.")
        missing = [tensor for tensor in found.missing_keys if not tensor.startswith(towers)]
        if wrong := sorted([*found.unexpected_keys, *missing]):
            more = f" (and {len(wrong) - 1} more)"
            raise AssetError(f"{self.card.id}: {name} does not fit the towers at {wrong[0]}{more}")


def _image_projection(kind: str, width: int, shared: int) -> nn.Sequential:
    """What `TimmModel` puts behind a tower, which it makes for the width that the tower's name stands for."""
    from timm.layers import Mlp

    if kind == "linear":
        return nn.Sequential(OrderedDict(proj=nn.Linear(width, shared, bias=False)))
    if kind == "mlp":
        return nn.Sequential(OrderedDict(mlp=Mlp(width, 2 * shared, shared, bias=(True, False))))
    return nn.Sequential()


@torch.no_grad()
def _draw(part: nn.Module, generator: torch.Generator) -> None:
    """Matrices of normal numbers that keep a vector's length, biases of zero."""
    part.to_empty(device="cpu")
    for parameter in part.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter.shape[1] ** -0.5, generator=generator)
        else:
            parameter.zero_()
