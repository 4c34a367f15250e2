"""What a backbone is: a pretrained model behind one entrance, with its anatomy.

A backbone is one Python file per kind and one YAML card per set of weights. Everything enters the model through
`Backbone` (never through the model's own methods), so that ops at the root of a tower always fire.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..sources import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ...tasks.contract import Split
    from ..anatomy import Anatomy


@dataclass(frozen=True)
class Card:
    """The header of a backbone, as its YAML states it."""

    id: str  # dinov2-small
    name: str  # DINOv2 ViT-S/14
    family: str  # the task family it serves: "vision", "text", "lm"
    target: str  # "module:Class" beside the card
    licence: str
    citation: str
    description: str  # says what was done to the weights (a decoder restored from 4 bits says so)
    parameters: int  # exact count of the frozen model
    version: int = 1
    assets: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()  # a repository of a hub
    packages: tuple[str, ...] = ()  # Python packages that are needed beyond this package's own
    # identity in cell keys: 16 hex digits over all tensors (name, shape, fp32 bytes), sorted by name; of weights from a
    # hub, the first 16 of the commit that pins them
    weights: str = ""
    output: Mapping[str, Any] = field(default_factory=dict)  # {"mean":..,"std":..,"first":[8 floats]} on a fixed input
    options: Mapping[str, Any] = field(default_factory=dict)  # what the class needs (architecture name, sizes)


class Backbone(ABC):
    """A loaded model. `options` are the protocol's input settings for this family (image_size, max_tokens ...).

    With `meta`, the architecture alone, on the meta device: enough to count and to see whether a method fits.
    """

    def __init__(self, card: Card, options: Mapping[str, Any], meta: bool = False) -> None:
        self.card = card
        self.options = dict(options)
        self.model: nn.Module = self.skeleton() if meta else self.load()
        self.model.requires_grad_(False)
        self.model.eval()
        from ..anatomy import anatomy_of

        self.anatomy: Anatomy = anatomy_of(self.model)
        if not meta:
            from .fingerprint import verify

            verify(self)

    @abstractmethod
    def load(self) -> nn.Module:
        """The pretrained model in fp32 on the CPU. Random-weight backbones seed their own generator."""

    @abstractmethod
    def skeleton(self) -> nn.Module:
        """The architecture on the meta device, without reading any asset."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Length of a feature vector."""

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    @abstractmethod
    def prepare(self, split: Split) -> dict[str, torch.Tensor]:
        """All items as CPU tensors whose first dimension is the item (compact: uint8 pixels, padded token ids).

        Keys are those of `batch`; "labels" (int64) is there when the split has labels, "index" (int64) always.
        """

    @abstractmethod
    def batch(self, prepared: dict[str, torch.Tensor], index: torch.Tensor) -> dict[str, torch.Tensor]:
        """The items at `index` as model inputs (normalised floats, trimmed padding), on the model's device."""

    def order(self, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        """A permutation of the items whose consecutive batches are cheap: alike in length, shortest first."""
        import torch

        return torch.arange(len(prepared["index"]))

    @abstractmethod
    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, width) pooled features."""

    def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, L, vocabulary) next-token scores, for language models."""
        raise NotImplementedError(f"{self.card.id} has no token scores")
