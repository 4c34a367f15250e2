"""CLIPs of open_clip: by the library's names, or by a configuration of the card's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..sources import folder
from .tokens import HashTokenizer

if TYPE_CHECKING:
    from .contract import Card

LIBRARY_WORDS = 49408  # size of the vocabulary that open_clip carries


class LibraryClip:
    """A model of open_clip, always as `CustomTextCLIP`: the same function, with the text tower as one module.

    The card's options: `model` (a name that open_clip knows) or `config` (embed_dim, vision_cfg, text_cfg ...);
    `random` with a seed where the weights are drawn. Otherwise the card's first source holds them as safetensors.
    Texts go through open_clip's own tokenizer; with another vocabulary, words are hashed, behind a first and before a
    last token, at which such a tower pools.
    """

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.card = card
        self.config = self._config()
        self.width = int(self.config["embed_dim"])
        text = self.config["text_cfg"]
        self.length, self.vocabulary = int(text.get("context_length", 77)), int(text.get("vocab_size", LIBRARY_WORDS))

    def skeleton(self, size: int) -> nn.Module:
        """The architecture on the meta device."""
        with torch.device("meta"):
            return self._build(size)

    def load(self, size: int) -> nn.Module:
        """The model with its weights, its position table resampled to images of `size` pixels."""
        if "random" not in self.card.options:
            return self._read(self._build(size))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.card.options["random"])
            return self._build(size)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Ids (N, context length)."""
        if self.vocabulary == LIBRARY_WORDS:
            from open_clip.tokenizer import SimpleTokenizer

            ids: Tensor = SimpleTokenizer(context_length=self.length)(list(texts))
            return ids
        end = self.vocabulary - 1
        rows = HashTokenizer(end).encode(texts, self.length - 1, special=True)
        return torch.tensor([ids + [end] + [0] * (self.length - 1 - len(ids)) for ids, _ in rows])

    def _config(self) -> dict[str, Any]:
        """Arguments of the model's class. UsageError for a name that open_clip lacks, and for towers of a hub."""
        import open_clip

        given = self.card.options
        config: Any = deepcopy(given["config"]) if "config" in given else open_clip.get_model_config(given["model"])
        if config is None:
            raise UsageError(f"{self.card.id}: open_clip has no model {given['model']!r}")
        text = config["text_cfg"]
        if "hf_model_name" in text or "hf_tokenizer_name" in text:
            raise UsageError(f"{self.card.id}: the text tower or its tokenizer would come from a hub; see kind: pair")
        config.pop("custom_text", None)
        return dict(config)

    def _build(self, size: int) -> nn.Module:
        from open_clip.model import CustomTextCLIP

        config = deepcopy(self.config)
        config["vision_cfg"]["image_size"] = size
        return CustomTextCLIP(**config)

    def published(self) -> dict[str, Tensor]:
        """The tensors of the file, by their names in the model."""
        from open_clip.model import convert_to_custom_text_state_dict
        from safetensors.torch import load_file

        (file,) = folder(self.card.sources[0]).glob(self.card.sources[0].files[0])
        tensors: dict[str, Tensor] = convert_to_custom_text_state_dict(load_file(file))
        return tensors

    def _read(self, model: nn.Module) -> nn.Module:
        from open_clip.model import resize_pos_embed

        tensors = {name: tensor.float() for name, tensor in self.published().items()}  # half would not be resampled
        resize_pos_embed(tensors, model)
        model.load_state_dict(tensors)
        return model
