"""Prompts with placeholders, and what a placeholder is to a model.

A placeholder is a word of its own behind the vocabulary of the text encoder. A method may give it an embedding
(Textual Inversion, Custom Diffusion); to every other method it is a rare word that the vocabulary has, as DreamBooth
takes one (Ruiz et al. 2023, arXiv:2208.12242, section 3.2). So all methods read the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...bench.anatomy.embedding import Concept
from ...bench.errors import AssetError
from ..openvocab.sentences import article

if TYPE_CHECKING:
    from torch import Tensor

    from ...bench.backbones.diffusion import DiffusionBackbone

PLACEHOLDERS = ("<new1>", "<new2>")  # as Custom Diffusion's data sets write them
RARE = (("sks</w>", "kam", "[unused1]"), ("pll</w>", "ivo", "[unused2]"))  # words of CLIP's and of BERT's vocabulary


def plain(prompt: str) -> str:
    """The prompt about anything of the class: without placeholders, "a <new1> animal" as "an animal"."""
    words = prompt.split()
    for number in reversed(range(len(words))):
        if words[number] in PLACEHOLDERS:
            del words[number]
            if number and words[number - 1] in ("a", "an") and number < len(words):
                words[number - 1] = article(words[number])
    return " ".join(words)


def check_placeholder(prompt: str, placeholder: str, where: str) -> None:
    """AssetError that names the prompt, where the placeholder does not stand in it as a word."""
    if placeholder not in prompt.split():
        raise AssetError(f"{where}: the prompt {prompt!r} lacks the placeholder {placeholder}")


def introduce(backbone: DiffusionBackbone, nouns: Sequence[str]) -> None:
    """Let the tokenizer know a placeholder for each subject, and the anatomy what it is to mean."""
    concepts = []
    for number, noun in enumerate(nouns):
        backbone.tokenizer.add_placeholder(PLACEHOLDERS[number])
        ids = backbone.tokenizer.library(noun, add_special_tokens=False)["input_ids"]
        concepts.append(Concept(tuple(ids), _rare_word(backbone, number)))
    backbone.anatomy.concepts = tuple(concepts)


def readable(backbone: DiffusionBackbone, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with rare words in place of placeholders for which no method has brought an embedding."""
    if any(embedding.added for embedding in backbone.anatomy.vocabularies):
        return batch
    ids = batch["input_ids"]
    for number, concept in enumerate(backbone.anatomy.concepts):
        ids = ids.masked_fill(ids == backbone.tokenizer.vocabulary + number, concept.rare)
    return {**batch, "input_ids": ids}


def _rare_word(backbone: DiffusionBackbone, number: int) -> int:
    """The id that stands for the placeholder `number`. AssetError where the vocabulary has none of the words."""
    known = backbone.tokenizer.library.get_vocab()
    for word in RARE[number]:
        if word in known:
            return int(known[word])
    raise AssetError(f"{backbone.card.id}: its vocabulary has none of the words {', '.join(RARE[number])}")
