"""Embeddings of new words, behind the vocabularies of the texts that a generator draws from."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...bench.anatomy import Anatomy
from ...bench.anatomy.embedding import Concept, Embedding

Start = Literal["noun", "rare"]


class NewWords(nn.Module):
    """`rows`: for each vocabulary (words, width), for the ids behind it.

    A task that introduces more concepts than `words` gets as many. Each row starts as the mean of the words that
    describe its concept, or as a word that hardly occurs; as the mean of the vocabulary where no task has said either.
    """

    def __init__(self, anatomy: Anatomy, words: int, start: Start) -> None:
        super().__init__()
        count = max(words, len(anatomy.concepts))
        self.rows = nn.ParameterList(embedding.rows(count) for embedding in anatomy.vocabularies)
        for rows, embedding in zip(self.rows, anatomy.vocabularies, strict=True):
            if not rows.is_meta:
                _begin(rows, embedding, anatomy.concepts, start)


@torch.no_grad()
def _begin(rows: Tensor, embedding: Embedding, concepts: tuple[Concept, ...], start: Start) -> None:
    table = embedding.weight.value()
    rows.copy_(table.double().mean(0).expand_as(rows))
    for row, concept in zip(rows, concepts, strict=False):
        row.copy_(table[concept.rare] if start == "rare" else table[list(concept.noun)].double().mean(0))
