"""One view of every transformer the suite knows: a method asks for places by name and never sees the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .chain import Handle
from .edits import Edits
from .embedding import Concept, Embedding
from .linear import LinearPlace
from .pair import Pair
from .tensors import TensorPlace
from .tower import Block, Tower

ATTENTION = ("q", "k", "v", "o")
FEEDFORWARD = ("gate", "up", "down")
TARGETS = {**{name: (name,) for name in (*ATTENTION, *FEEDFORWARD)},
           "attention": ATTENTION, "feedforward": FEEDFORWARD, "all": ATTENTION + FEEDFORWARD}  # fmt: skip


HEADS = {"classifier", "score", "head", "qa_outputs", "classification_head", "pre_classifier"}
LIBRARIES = {"timm", "transformers", "open_clip", "diffusers"}
HEADLESS = {"open_clip"}  # what is called a head there projects into the space that images and texts share


def target_names(query: str) -> tuple[str, ...]:
    """The short names in a query such as ``q+v``, ``attention`` or ``all``; a ValueError names a wrong word."""
    names: list[str] = []
    for word in query.split("+"):
        if word.strip() not in TARGETS:
            raise ValueError(f"unknown target {word.strip()!r}; targets are {', '.join(TARGETS)}, joined by +")
        names.extend(name for name in TARGETS[word.strip()] if name not in names)
    return tuple(names)


class Anatomy:
    """The towers of one model, and the record of what was done to them.

    The model's parameters are frozen on construction, except those outside the towers (a classifier that a user put on
    top stays as it is).
    """

    def __init__(self, model: nn.Module, towers: dict[str, Tower], edits: Edits) -> None:
        self.model, self.towers, self.edits = model, towers, edits
        self.pair: Pair | None = None  # where images meet the names of classes; a backbone of two towers sets it
        self.aside: dict[str, Tower] = {}  # see `set_aside`
        self.concepts: tuple[Concept, ...] = ()  # what new words are to mean; a task sets them
        head = {id(parameter) for parameter in self.head_parameters()}
        for parameter in model.parameters():
            if id(parameter) not in head:
                parameter.requires_grad_(False)

    # reading ---------------------------------------------------------------------------------------------------

    @property
    def blocks(self) -> list[Block]:
        """The blocks of all towers."""
        return [block for tower in self.towers.values() for block in tower.blocks]

    @property
    def vocabularies(self) -> list[Embedding]:
        """The token embeddings, also those of towers that were set aside."""
        towers = (*self.towers.values(), *self.aside.values())
        return [tower.embedding for tower in towers if tower.embedding is not None]

    def linears(self, query: str) -> dict[str, LinearPlace]:
        """The matrices that a query such as ``q+v`` names, in all blocks, by their names in the anatomy.

        A name that an architecture lacks (``gate``) selects nothing; a query that selects nothing at all is an error.
        """
        names = target_names(query)
        found: dict[str, LinearPlace] = {}
        for block in self.blocks:
            for attention in block.attentions:
                found.update(_chosen(attention.name, attention.linears, names))
            found.update(_chosen(block.feedforward.name, block.feedforward.linears, names))
        if not found:
            raise ValueError(f"targets {query!r} name no matrix of this model")
        return found

    def tensors(self) -> list[TensorPlace]:
        """Every parameter of the backbone once (tied ones under their first name), with its name in the model."""
        first: dict[int, TensorPlace] = {}
        for place in self._owned():
            first.setdefault(id(place.parameter), place)
        return list(first.values())

    def weights(self) -> dict[str, tuple[TensorPlace, ...]]:
        """Every number of the backbone once: the matrices of the blocks (slices of a fused one apart) by their names
        in the anatomy, then the other parameters by their names in the model.

        A tied parameter is one entry with a place for each of its owners: what is done to it is done to all of them.
        """
        matrices = self.linears("all")
        held = {id(place.parameter) for place in matrices.values()}
        others: dict[int, list[TensorPlace]] = {}
        for place in self._owned():
            if id(place.parameter) not in held:
                others.setdefault(id(place.parameter), []).append(place)
        found: dict[str, tuple[TensorPlace, ...]] = {name: (place,) for name, place in matrices.items()}
        found.update({places[0].name: tuple(places) for places in others.values()})
        return found

    def _owned(self) -> Iterator[TensorPlace]:
        """Each parameter of the backbone at each module that owns it."""
        head = {id(parameter) for parameter in self.head_parameters()}
        readers = {owner: reader for tower in self.towers.values() for owner, reader in tower.readers.items()}
        for prefix, module in self.model.named_modules():
            for attribute, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in head:
                    name, reader = f"{prefix}.{attribute}".lstrip("."), readers.get(module)
                    yield TensorPlace(self.edits, module, attribute, name, reader=reader)

    def biases(self) -> list[TensorPlace]:
        """Every bias vector (of linears, norms, the patch embedding)."""
        return [place for place in self.tensors() if place.attribute.endswith("bias") and place.parameter.dim()]

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of a classifier on top, which stay as the user left them.

        In a model of a library these are the modules that carry a head's usual name; in a class of the user's own, also
        everything outside the towers and the libraries' models that hold them. Projections and output embeddings of a
        library's model belong to the backbone, and so do the convolutions of a UNet around its towers.
        """
        inside = {id(p) for module in self._models() for p in module.parameters()}
        library = _library(self.model)
        for name, parameter in self.model.named_parameters():
            named = library not in HEADLESS and not HEADS.isdisjoint(name.split("."))
            if named or id(parameter) not in inside:
                yield parameter

    def _models(self) -> set[nn.Module]:
        """The towers' modules, and every library's model that holds one of them."""
        stacks = {tower.module for tower in self.towers.values()}
        holders = (module for module in self.model.modules() if _library(module) in LIBRARIES)
        return stacks | {module for module in holders if not stacks.isdisjoint(module.modules())}

    def missing(self, requires: tuple[str, ...]) -> str | None:
        """Why a method that needs these places cannot be attached, or None when all are there."""
        for query in requires:
            if query not in PLACES:
                raise ValueError(f"unknown place {query!r}; places are {', '.join(PLACES)}")
            present, reason = PLACES[query]
            if not present(self):
                return reason
        return None

    # changing --------------------------------------------------------------------------------------------------

    def set_aside(self, name: str) -> None:
        """Take a tower out of what methods find: it stays frozen, and only its vocabulary can get new words. So is the
        text encoder of a generator of which the rest is adapted."""
        self.aside[name] = self.towers.pop(name)

    def trained(self) -> dict[str, nn.Parameter]:
        """Backbone tensors that a method declared trainable."""
        return dict(self.edits.trained)

    def merge(self) -> Handle:
        """Fold all edits into weights; raises `Unmergeable` when one of them cannot be."""
        return self.edits.merge()

    def detach(self) -> None:
        """Undo everything: the model computes, bit for bit, what it did before."""
        self.edits.undo()

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of all backbone tensors."""
        return {place.name: place.parameter.detach().clone() for place in self.tensors()}

    def restore(self, snapshot: dict[str, Tensor]) -> None:
        """Put a snapshot's values back."""
        with torch.no_grad():
            for place in self.tensors():
                place.parameter.copy_(snapshot[place.name])


def _library(module: nn.Module) -> str:
    """The package that a module's class comes from."""
    return type(module).__module__.partition(".")[0]


def _chosen(prefix: str, linears: dict[str, LinearPlace], names: tuple[str, ...]) -> dict[str, LinearPlace]:
    return {f"{prefix}.{name}": place for name, place in linears.items() if name in names}


def _all(check: Callable[[Tower], bool]) -> Callable[[Anatomy], bool]:
    return lambda anatomy: all(check(tower) for tower in anatomy.towers.values())


def _any(check: Callable[[Tower], bool]) -> Callable[[Anatomy], bool]:
    return lambda anatomy: any(check(tower) for tower in anatomy.towers.values())


def _attends_elsewhere(tower: Tower) -> bool:
    return any(attention.is_cross for block in tower.blocks for attention in block.attentions)


PLACES: dict[str, tuple[Callable[[Anatomy], bool], str]] = {
    "attention": (_all(lambda t: all(b.attentions for b in t.blocks)), "it has no attention projections"),
    "feedforward": (_all(lambda t: bool(t.blocks)), "it has no feed-forward layers"),
    "gate": (
        _any(lambda t: any(b.feedforward.gate is not None for b in t.blocks)),
        "its feed-forward layers have no gate",
    ),
    "core": (
        _all(lambda t: all(a.core is not None for b in t.blocks for a in b.attentions)),
        "its attention core cannot be wrapped (no place for keys and values)",
    ),
    "tokens": (_all(lambda t: t.tokens.available), "its blocks take no extra tokens"),
    "prompt": (_any(lambda t: t.takes_prompt), "it has no input embeddings to put a prompt before"),
    "embedding": (_any(lambda t: t.embedding is not None), "it has no token embedding"),
    "cross-attention": (_any(_attends_elsewhere), "it attends to no other sequence than its own"),
    "condition": (
        lambda anatomy: (
            bool(anatomy.vocabularies) and _any(lambda t: _attends_elsewhere(t) and t.embedding is None)(anatomy)
        ),
        "it draws nothing that texts ask for",
    ),
    "norms": (_all(lambda t: bool(t.norms)), "it has no norms"),
    "biases": (lambda anatomy: bool(anatomy.biases()), "it has no biases"),
    "ladder": (_all(lambda t: t.exit is not None), "its last hidden states leave through no module of their own"),
    "grid": (_any(lambda t: t.grid is not None), "it has no grid of patches"),
    "pair": (lambda anatomy: anatomy.pair is not None, "it does not bring images and texts together"),
    "frames": (_any(lambda t: t.frames is not None), "it sees no clips (an image encoder within FrameAverage does)"),
    "hf-peft-forward": (lambda anatomy: False, "it is called without HF PEFT's own forward, where this type acts"),
    "same-width": (
        _all(lambda t: len({block.width for block in t.blocks}) == 1),
        "its blocks differ in width",
    ),
}
