"""Models from a hub: the weights and read-outs that papers start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AssetError
from ..sources import folder
from .text import TextBackbone
from .tokens import ConvertedTokenizer, FileTokenizer, Tokenizer
from .vision import VisionBackbone


class HubTextBackbone(TextBackbone):
    """An encoder of transformers, read out at its first token as its sequence classifiers are. Inputs: `max_tokens`.

    The card's options: `class` (in transformers), `config`, `arguments` of the class, `pad` (id).
    """

    def build(self) -> nn.Module:
        kind = self._class()
        model: nn.Module = kind(self._config(kind), **self.card.options.get("arguments", {}))
        return model

    def read(self, folder: str) -> nn.Module:
        kind = self._class()
        model, report = kind.from_pretrained(
            folder,
            config=self._config(kind),
            dtype=torch.float32,
            use_safetensors=True,  # a pickle is never read
            output_loading_info=True,
            **self.card.options.get("arguments", {}),
        )
        if missing := sorted(report["missing_keys"]):  # the library would draw them at random
            raise AssetError(f"{self.card.id}: the weights in {folder} lack {missing[0]} (and {len(missing) - 1} more)")
        loaded: nn.Module = model
        return loaded

    def _class(self) -> Any:
        import transformers

        return getattr(transformers, self.card.options["class"])

    def _config(self, kind: Any) -> Any:
        return kind.config_class(**self.card.options["config"])

    @property
    def folder(self) -> Path:
        return folder(self.card.sources[0])

    @property
    def tokenizer(self) -> Tokenizer:
        """`tokenizer.json` where the repository has one, else its SentencePiece model, converted."""
        file = self.folder / "tokenizer.json"
        return FileTokenizer(file) if file.is_file() else ConvertedTokenizer(self.folder)

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        hidden = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        first: Tensor = hidden[:, 0]
        return first


class HubVisionBackbone(VisionBackbone):
    """A timm ViT from a hub, without the classifier that its file may hold. Inputs and options as `VisionBackbone`."""

    @property
    def folder(self) -> Path:
        return folder(self.card.sources[0])

    def published(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in super().published().items() if not name.startswith("head.")}
