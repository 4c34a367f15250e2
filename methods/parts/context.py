"""Trained vectors in place of words of the texts that stand for classes (Zhou et al. 2021, arXiv 2109.01134).

A text "X X X X cat." is tokenised as it stands, and the embeddings of its first words are replaced by the vectors, so
that positions, the mask and the place where the tower pools are the library's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn

from ..contract import GradientConfig

if TYPE_CHECKING:
    from ...bench.anatomy import Anatomy

WORD = "X"  # what the vectors stand in for
RANDOM = "random"
DEVIATION = 0.02  # of random vectors, in the authors' code of CoOp and of what builds on it


class ContextConfig(GradientConfig):
    """How many vectors, and where they start."""

    context: int = Field(gt=0, description="context vectors")
    init: str = Field(
        description="words, joined by _, whose embeddings the vectors start from; words beyond `context` stay in the "
        "text. With fewer words than that, or `random`, all vectors are normal with deviation 0.02"
    )


class Context(nn.Module):
    """`vectors` (n, width), or (classes, n, width) where each class has its own, in the texts of all classes.

    The vectors stand before the class's name, or with `middle` half of them before and half behind it. As an op of the
    embedding: (ids (C, L), embeddings (C, L, width)) -> embeddings. `shift` (width,), where set, is added to every
    vector. While `active` is false, the texts are the task's own.
    """

    shift: Tensor | None
    places: Tensor | None  # where the vectors stood in the last texts, columns (C, n)

    def __init__(self, anatomy: Anatomy, config: ContextConfig, classes: int = 0, middle: bool = False) -> None:
        super().__init__()
        embedding = anatomy.towers["text"].embedding
        assert anatomy.pair is not None and embedding is not None, "places that a method with contexts requires"
        if middle and config.context < 2:
            raise ValueError("context=1 cannot stand on both sides of the class's name")
        words, self.count = [] if config.init == RANDOM else config.init.split("_"), config.context
        has_words = len(words) >= self.count
        self.before = self.count // 2 if middle else self.count
        self.rest = words[self.count :] if has_words else []
        table = embedding.weight.value()
        start = torch.empty(*([classes] if classes else []), self.count, embedding.width, device=table.device)
        if has_words and not table.is_meta:
            start.copy_(table[_ids(anatomy, words[: self.count])])
        else:
            nn.init.normal_(start, std=DEVIATION)
        self.vectors = nn.Parameter(start)
        self.active, self.shift, self.places = True, None, None
        anatomy.pair.rewrite(self.template)
        embedding.rewrite(self)

    def template(self, given: str) -> str:
        """The template of all classes, whatever the task's own is."""
        if not self.active:
            return given
        return " ".join([WORD] * self.before + self.rest + ["{}"] + [WORD] * (self.count - self.before)) + "."

    def forward(self, ids: Tensor, embedded: Tensor) -> Tensor:
        if not self.active:
            return embedded
        self.places = self._found(ids)
        return put(embedded, self.places, self.vectors if self.shift is None else self.vectors + self.shift)

    def _found(self, ids: Tensor) -> Tensor:
        """Where the vectors belong in texts (C, L). ValueError where a text has no room for them."""
        length, behind = ids.shape[1], self.count - self.before
        columns = torch.arange(length, device=ids.device)
        places = [columns[1 : 1 + self.before].expand(len(ids), -1)]
        if behind:  # the last of the words; the name before them may hold the same word
            is_word = ids == ids[:, 1:2]
            places.append(torch.where(is_word, columns, 0).topk(min(behind, length), dim=1).values.flip(1))
        found = torch.cat(places, dim=1)
        if found.shape[1] < self.count or bool((found[:, self.before :] <= self.before).any()):
            raise ValueError(f"texts of {length} tokens have no room for {self.count} context vectors")
        return found


def put(hidden: Tensor, places: Tensor, vectors: Tensor) -> Tensor:
    """Hidden states (C, L, width) with vectors (n, width) or (C, n, width) at the columns `places` (C, n).

    Raises ValueError where each class has vectors of its own and these are not the classes.
    """
    if vectors.dim() == 3 and len(vectors) != len(hidden):
        raise ValueError(f"contexts of {len(vectors)} classes do not fit the texts of {len(hidden)}")
    index = places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
    return hidden.scatter(1, index, vectors.to(hidden.dtype).expand(index.shape))


def _ids(anatomy: Anatomy, words: list[str]) -> Tensor:
    """The token of each word. ValueError where one of them is more than one token."""
    assert anatomy.pair is not None
    tokens = anatomy.pair.towers.tokens([" ".join([*words, WORD]), WORD])["input_ids"]
    if tokens[0, 1 + len(words)] != tokens[1, 1]:
        raise ValueError(f"init: one of the words {' '.join(words)!r} is more than one token")
    return tokens[0, 1 : 1 + len(words)]
