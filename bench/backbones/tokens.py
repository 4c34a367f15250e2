"""Text to token ids: the tokenizer file of an asset, or hashed words for the tiny models that need no asset."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Protocol

Encoded = tuple[list[int], int]  # ids, and the number of characters that they cover


class Tokenizer(Protocol):
    """What a text backbone needs."""

    def encode(self, texts: list[str], limit: int, special: bool) -> list[Encoded]:
        """At most `limit` ids a text; with `special`, including the model's own start and end tokens."""


class FileTokenizer:
    """A `tokenizer.json`."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer as Library

        self.tokenizer = Library.from_file(str(file))
        self.tokenizer.no_padding()

    def encode(self, texts: list[str], limit: int, special: bool) -> list[Encoded]:
        self.tokenizer.enable_truncation(limit)
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=special)
        return [(encoding.ids, max((end for _, end in encoding.offsets), default=0)) for encoding in encodings]


class HashTokenizer:
    """Words and punctuation, hashed into ids 2 .. vocabulary - 1; 1 starts a text."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def encode(self, texts: list[str], limit: int, special: bool) -> list[Encoded]:
        return [self._encode(text, limit, special) for text in texts]

    def _encode(self, text: str, limit: int, special: bool) -> Encoded:
        words = list(re.finditer(r"\w+|[^\w\s]", text))[: limit - special]
        ids = [2 + zlib.crc32(word.group().lower().encode()) % (self.vocabulary - 2) for word in words]
        return ([1] if special else []) + ids, words[-1].end() if words else 0
