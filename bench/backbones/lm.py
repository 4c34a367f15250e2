"""Language models: Llama of transformers, scored token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .text import TransformersBackbone

if TYPE_CHECKING:
    from ...tasks.contract import Split


class LanguageModelBackbone(TransformersBackbone):
    """A Llama with its output embedding. The card's option `start` is the id put before every text."""

    def build(self) -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(LlamaConfig(**self.card.options["config"]))

    def read(self, folder: str) -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(**self.card.options["config"])
        model: Any = LlamaForCausalLM
        return model.from_pretrained(folder, config=config, dtype=torch.float32)

    def prepare(self, split: Split) -> dict[str, Tensor]:
        """Besides ids and mask: "bytes", the UTF-8 bytes of the text that the kept tokens cover.

        Where truncation cuts a character that is several tokens long, the whole character counts.
        """
        texts = split.inputs["text"]
        encoded = self.tokenizer.encode(texts, self.max_tokens - 1, special=False)
        start = int(self.card.options["start"])
        prepared = self.padded([[start, *ids] for ids, _ in encoded], split)
        covered = [len(text[:end].encode()) for text, (_, end) in zip(texts, encoded, strict=True)]
        prepared["bytes"] = torch.tensor(covered)
        return prepared

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        mask = batch["attention_mask"]
        stack: Any = self.model.model
        hidden = stack(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False).last_hidden_state
        last = mask.sum(1) - 1
        return hidden[torch.arange(len(last)), last]

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
        return scores
