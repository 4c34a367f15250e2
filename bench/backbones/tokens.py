"""Text to token ids: a tokenizer file, or hashed words for the tiny models that need no asset."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

Encoded = tuple[list[int], int]  # ids, and the number of characters that they cover


class Tokenizer(Protocol):
    """What a text backbone needs."""

    def encode(
        self, texts: Sequence[str], limit: int, special: bool, pairs: Sequence[str] | None = None
    ) -> list[Encoded]:
        """At most `limit` ids a text; with `special`, including the model's own start and end tokens.

        With `pairs`, a second text follows each; the longer of the two is cut first.
        """


class FileTokenizer:
    """A `tokenizer.json`."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer as Library

        self.tokenizer: Any = Library.from_file(str(file))
        self.tokenizer.no_padding()

    def encode(
        self, texts: Sequence[str], limit: int, special: bool, pairs: Sequence[str] | None = None
    ) -> list[Encoded]:
        self.tokenizer.enable_truncation(limit)
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        encodings = self.tokenizer.encode_batch(inputs, add_special_tokens=special)
        return [(encoding.ids, max((end for _, end in encoding.offsets), default=0)) for encoding in encodings]


class ConvertedTokenizer(FileTokenizer):
    """The tokenizer of a folder that holds a SentencePiece model, as transformers converts it."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
        self.tokenizer.no_padding()


class HashTokenizer:
    """Words and punctuation, hashed into ids 2 .. vocabulary - 1; 1 starts a text."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def encode(
        self, texts: Sequence[str], limit: int, special: bool, pairs: Sequence[str] | None = None
    ) -> list[Encoded]:
        seconds = [""] * len(texts) if pairs is None else pairs
        return [self._encode(f"{text} {second}", limit, special) for text, second in zip(texts, seconds, strict=True)]

    def _encode(self, text: str, limit: int, special: bool) -> Encoded:
        words = list(re.finditer(r"\w+|[^\w\s]", text))[: limit - special]
        ids = [2 + zlib.crc32(word.group().lower().encode()) % (self.vocabulary - 2) for word in words]
        return ([1] if special else []) + ids, words[-1].end() if words else 0
