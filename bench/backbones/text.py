"""Text encoders: BERT of transformers, read out as the mean over the text's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..assets import asset
from .contract import Backbone
from .padding import shortest_first, without_common_padding
from .tokens import FileTokenizer, HashTokenizer, Tokenizer

if TYPE_CHECKING:
    from ...tasks.contract import Split

DEFAULT_TOKENS = 64


def quiet() -> None:
    """No progress bar and no report of tensors left out on purpose (BERT's pooler): a cell prints its own progress."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


class TransformersBackbone(Backbone):
    """What text encoders and decoders share. Inputs: `max_tokens`.

    The card's options: `config` (values of the model's config), `pad` (id), and `random` with a seed where the weights
    are drawn and not read; a card without assets tokenises by hashing words.
    """

    def build(self) -> nn.Module:
        """The model from its config alone."""
        raise NotImplementedError

    def read(self, folder: str) -> nn.Module:
        """The model with the weights in `folder`."""
        raise NotImplementedError

    def skeleton(self) -> nn.Module:
        with torch.device("meta"):
            return self.build()

    def load(self) -> nn.Module:
        quiet()
        if "random" in self.card.options:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.card.options["random"])
                return self.build()
        return self.read(str(self.folder))

    @property
    def folder(self) -> Path:
        """Where weights and tokenizer lie."""
        return asset(self.card.assets[0])

    def published(self) -> dict[str, Tensor]:
        """The tensors as the asset holds them."""
        from safetensors.torch import load_file

        return load_file(self.folder / "model.safetensors")

    @property
    def width(self) -> int:
        return int(self.card.options["config"]["hidden_size"])

    @property
    def tokenizer(self) -> Tokenizer:
        """The asset's tokenizer, or hashed words."""
        if self.card.assets:
            return FileTokenizer(self.folder / "tokenizer.json")
        return HashTokenizer(int(self.card.options["config"]["vocab_size"]))

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, special ones included."""
        return int(self.options.get("max_tokens", DEFAULT_TOKENS))

    def padded(self, rows: list[list[int]], split: Split) -> dict[str, Tensor]:
        """Ids and mask, padded at the right to the longest text."""
        longest = max(map(len, rows))
        pad = int(self.card.options.get("pad", 0))
        lengths = torch.tensor([len(row) for row in rows])
        prepared = {
            "input_ids": torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
            "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
            "index": torch.arange(len(split)),
        }
        if split.labels is not None:
            prepared["labels"] = torch.from_numpy(split.labels)
        return prepared

    def order(self, prepared: dict[str, Tensor]) -> Tensor:
        """Shortest first: less padding."""
        return shortest_first(prepared)

    def batch(self, prepared: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        chosen = {name: tensor[index].to(self.device) for name, tensor in prepared.items()}
        return without_common_padding(chosen)


class TextBackbone(TransformersBackbone):
    """A BERT encoder without pooler."""

    def build(self) -> nn.Module:
        from transformers import BertConfig, BertModel

        return BertModel(BertConfig(**self.card.options["config"]), add_pooling_layer=False)

    def read(self, folder: str) -> nn.Module:
        from transformers import BertConfig, BertModel

        config = BertConfig(**self.card.options["config"])
        model: Any = BertModel
        return model.from_pretrained(folder, config=config, add_pooling_layer=False, dtype=torch.float32)

    def prepare(self, split: Split) -> dict[str, Tensor]:
        inputs = split.inputs
        encoded = self.tokenizer.encode(inputs["text"], self.max_tokens, special=True, pairs=inputs.get("pair"))
        return self.padded([ids for ids, _ in encoded], split)

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        mask = batch["attention_mask"]
        hidden = self.model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)
