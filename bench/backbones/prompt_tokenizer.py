"""Prompts to token ids by the fast tokenizers of transformers, as diffusers' pipelines use them."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UsageError

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}  # BERT's


class PromptTokenizer:
    """A fast tokenizer, padding at the right, to which placeholders for new concepts can be added.

    `library` is the tokenizer itself. With `whole`, prompts are padded to its longest input, else to the batch's.
    """

    def __init__(self, library: Any, vocabulary: int, whole: bool = False) -> None:
        if len(library) != vocabulary:
            raise UsageError(f"the tokenizer has {len(library)} words, the text encoder {vocabulary} embeddings")
        self.library, self.vocabulary, self.whole = library, vocabulary, whole

    def encode(self, texts: Sequence[str], length: int | None = None) -> dict[str, Tensor]:
        """ "input_ids" and "attention_mask" (N, L), of `length` tokens each where that is given."""
        limit = self.library.model_max_length if length is None else length
        padding = "max_length" if self.whole or length is not None else "longest"
        found = self.library(list(texts), padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "attention_mask")}

    def add_placeholder(self, token: str) -> int:
        """The id of a new word, the next one behind the vocabulary: a row of `Embedding.rows` of the text tower.

        The same word again is the same id. UsageError where it is a word of the vocabulary.
        """
        if token in self.library.get_vocab():
            known = int(self.library.convert_tokens_to_ids(token))
            if known < self.vocabulary:
                raise UsageError(f"{token!r} is a known word already: a placeholder must be a new one")
            return known
        self.library.add_tokens([token])
        return int(self.library.convert_tokens_to_ids(token))


def file_tokenizer(file: Path, limit: int) -> Any:
    """The tokenizer of a BERT's `tokenizer.json`; at most `limit` tokens a prompt."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(file), model_max_length=limit, **SPECIAL)


def letter_tokenizer(vocabulary: int, limit: int) -> Any:
    """Words of ASCII in lower case, letter by letter, for tiny models that need no asset; unused words fill up."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = [*SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters)]
    words += [f"[unused{i}]" for i in range(vocabulary - len(words))]
    ids = {word: i for i, word in enumerate(words)}
    library = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return PreTrainedTokenizerFast(tokenizer_object=library, model_max_length=limit, **SPECIAL)
