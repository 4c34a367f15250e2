"""What a task is: data in two splits, a head, a loss, predictions per item and a score.

A task is one Python file and one YAML card beside it. The card (id, version, family, metric, licence, citation,
fingerprints ...) is read without importing the code, see `Card`. A task never changes once records of it are
published: a fix is a new version.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ..bench.sources import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..bench.backbones.contract import Backbone

SplitName = Literal["train", "test"]


@dataclass(frozen=True)
class Card:
    """The header of a task, as its YAML states it."""

    id: str
    name: str
    version: int
    family: str  # "vision", "text", "lm", later "clip", "video", "diffusion"
    target: str  # "module:Class", module beside the card
    metric: str  # the primary metric, a key of what `Task.score` returns
    higher_is_better: bool
    licence: str
    citation: str
    description: str
    group: str | None = None  # natural, specialized, structured (vision)
    classes: tuple[str, ...] = ()  # label i means classes[i]
    class_count: int = 0  # where the source numbers its classes and does not name them
    assets: tuple[str, ...] = ()  # ids of bench/assets.yaml
    sources: tuple[Source, ...] = ()  # repositories of a hub, folders of the user
    sizes: Mapping[str, int] = field(default_factory=dict)  # items per split
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # split -> Split.fingerprint()
    options: Mapping[str, Any] = field(default_factory=dict)  # what the class needs (columns, folder)
    superseded_by: str | None = None

    @property
    def outputs(self) -> int:
        """Number of classes, 0 where there are none."""
        return len(self.classes) or self.class_count


@dataclass(frozen=True)
class Split:
    """Items of one split, before any backbone has touched them.

    `inputs` maps a column name to N values: "image" uint8 (N, H, W, 3) or "text" list of N strings.
    A second text of each item is in the column "pair"; the group of classes that compete for it, in "group" (int64).
    `labels` is int64 (N,), in regression float64 (N,), or None where the target is the input itself (language
    modelling).
    `items` names each item stably, so that predictions of different runs can be paired.
    """

    inputs: Mapping[str, Any]
    labels: np.ndarray | None
    items: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items)

    def take(self, index: np.ndarray) -> Split:
        """The items at `index`, in that order."""
        inputs = {
            name: column[index] if isinstance(column, np.ndarray) else [column[int(i)] for i in index]
            for name, column in self.inputs.items()
        }
        labels = None if self.labels is None else self.labels[index]
        return Split(inputs, labels, tuple(self.items[int(i)] for i in index))

    def fingerprint(self) -> str:
        """16 hex digits of the SHA-256 over items, labels and raw input bytes, in order."""
        digest = hashlib.sha256("\n".join(self.items).encode())
        if self.labels is not None:
            digest.update(self.labels.astype("<f8" if self.labels.dtype.kind == "f" else "<i8").tobytes())
        for name in sorted(self.inputs):
            column = self.inputs[name]
            digest.update(name.encode())
            if isinstance(column, np.ndarray):
                digest.update(np.ascontiguousarray(column).tobytes())
            else:
                for text in column:
                    digest.update(text.encode() + b"\0")
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Predictions:
    """What evaluation leaves behind for each item, enough to recompute every metric.

    `columns` maps a name to N numbers (float32, int64 or (N, C) float32): for classification "logits" (N, C).
    """

    items: tuple[str, ...]
    columns: Mapping[str, np.ndarray]


class Task(ABC):
    """One task. Subclasses are built with their card and keep no state besides."""

    Outputs: ClassVar[str] = "what `forward` returns is opaque to everyone but the task"
    shown: ClassVar[tuple[str, ...]] = ()  # columns of `predict` that `sheet` shows and no file stores

    def __init__(self, card: Card) -> None:
        self.card = card

    @abstractmethod
    def build(self, split: SplitName) -> Split:
        """Make a split, deterministically, from assets or from a fixed generator seed."""

    def complete(self, train: Split, backbone: Backbone) -> Split:
        """The items to train on, once what only the untouched backbone can give has been added to them."""
        return train

    def introduce(self, backbone: Backbone) -> None:  # noqa: B027 (most tasks have nothing to tell)
        """Tell a backbone, before a method is attached to it, what it must know of the task (names of classes)."""

    @abstractmethod
    def make_head(self, width: int) -> nn.Module | None:
        """A fresh head for features of `width`, or None where the backbone's own output is used."""

    @abstractmethod
    def forward(self, backbone: Backbone, head: nn.Module | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Outputs for a batch of prepared inputs (see `Backbone.prepare`)."""

    def respond(self, backbone: Backbone, head: nn.Module | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """What evaluation asks of the model, which `predict` reads: the outputs, unless a task samples instead."""
        return self.forward(backbone, head, batch)

    @abstractmethod
    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Scalar mean loss of a batch."""

    def terms(self, batch: dict[str, torch.Tensor]) -> int:
        """How many terms the mean of `loss` is over: items, unless a task says otherwise."""
        return len(next(iter(batch.values())))

    @abstractmethod
    def predict(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """Columns of `Predictions` for a batch."""

    @abstractmethod
    def score(self, predictions: Predictions, split: Split) -> dict[str, float]:
        """Every metric, from stored predictions alone. Contains `card.metric`."""

    @abstractmethod
    def per_item(self, predictions: Predictions, split: Split) -> np.ndarray:
        """float64 (N,): each item's contribution, whose mean is the primary metric up to the metric's own scale."""

    def sheet(self, predictions: Predictions, split: Split) -> bytes | None:
        """A picture of the predictions to be kept beside the record, as a PNG of at most 200 kB; None for none."""
        return None
