"""What a method is, readable in one sitting.

A method is one Python file and one recipe (YAML) beside it. It is written once against the anatomy, never against a
model, and its parameters live in the method itself (an `nn.Module` beside the backbone): the backbone's own keys never
change. The trainer calls the hooks below and knows no method by name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from ..bench.anatomy import Anatomy, Handle, target_names

if TYPE_CHECKING:
    from ..bench.trainer import Fit

T = TypeVar("T")
MOST = 2**20  # a size beyond which nothing grows any more


class MethodConfig(BaseModel):
    """Hyper-parameters of a method. Unknown names and non-finite numbers are errors that name the field.

    `size` names the whole number (rank, width, tokens) that the trainable count grows with, None where there is none;
    `in_proportion` those that grow with it when a budget sets the size (LoRA's alpha). `share` names in its place the
    share of the weights that trains, where a method has such a share.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    size: ClassVar[str | None] = None
    in_proportion: ClassVar[tuple[str, ...]] = ()
    share: ClassVar[str | None] = None

    more: int = Field(0, ge=0, description="how many places, first ones first, are one size larger; a budget sets it")

    @model_validator(mode="after")
    def _more_of_a_size(self) -> MethodConfig:
        if self.more and self.sized_by is None:
            raise ValueError("more: this method has no size")
        return self

    @property
    def sized_by(self) -> str | None:
        """The field that a budget sets: `size`, where a subclass does not go by its other values."""
        return self.size

    @property
    def scaled_with_size(self) -> tuple[str, ...]:
        """The fields that a budget sets in proportion: `in_proportion`, or as a subclass says."""
        return self.in_proportion

    def sizes(self, anatomy: Anatomy) -> Sequence[int]:
        """The sizes that there are, in order; fewer than all whole numbers where a size has to divide a width."""
        return range(1, MOST + 1)

    def one_size_larger(self, anatomy: Anatomy) -> MethodConfig:
        """The same values with the next size; a ValueError where there is none."""
        assert self.sized_by is not None, "asked of a method that has a size"
        sizes, now = self.sizes(anatomy), getattr(self, self.sized_by)
        index = bisect_right(sizes, now)
        if index == len(sizes):
            raise ValueError(f"more={self.more}: no {self.sized_by} above {now} fits")
        return self.model_copy(update={self.sized_by: sizes[index]})

    def identity(self) -> dict[str, Any]:
        """All values as JSON; `more` only where it says something, so that it is no news to older records."""
        return self.model_dump(mode="json", exclude=None if self.more else {"more"})


class GradientConfig(MethodConfig):
    """Hyper-parameters of a method that trains by gradient descent."""

    lr: float = Field(gt=0, description="peak learning rate of the method's parameters")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of the method's parameters")


class TargetedConfig(GradientConfig):
    """Hyper-parameters of a method that is put on chosen matrices."""

    targets: str = Field(description="matrices: q, k, v, o, gate, up, down, attention, feedforward or all, joined by +")

    @property
    def named_places(self) -> tuple[str, ...]:
        """Places that `targets` names one by one and that not every architecture has."""
        return ("gate",) if "gate" in self.targets.split("+") else ()

    @field_validator("targets")
    @classmethod
    def _known(cls, value: str) -> str:
        target_names(value)
        return value


def parameter_name(place: str) -> str:
    """A place's name as a key of `nn.ModuleDict`, which allows no dots."""
    return place.replace(".", "_")


class Method(nn.Module):
    """Base class. A subclass sets `Config` and implements `attach`; every other hook has a sensible default."""

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    starts_as_backbone: ClassVar[bool] = False  # whether the attached model computes, bit for bit, what it did before
    sized_by_data: ClassVar[bool] = False  # whether `before_fit` decides how many numbers train or are shipped

    def __init__(self, config: MethodConfig) -> None:
        super().__init__()
        self.config = config
        self.anatomy: Anatomy | None = None

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        """Places that must exist, as queries of `Anatomy.missing` ("blocks.attention.q", "blocks.norms.bias" ...)."""
        return ()

    @classmethod
    def closed_form(cls, config: Any, anatomy: Anatomy) -> int | None:
        """The trainable count by the docstring's formula, for `bench validate` to compare; None where not given."""
        return None

    def attach(self, anatomy: Anatomy) -> None:
        """Create parameters and add ops to the anatomy's places. Must work on the meta device: read no values."""
        raise NotImplementedError

    def sized(self, places: Iterable[T]) -> Iterator[T]:
        """Go through places; while one of the first `more` is at hand, `self.config` has the next size."""
        assert self.anatomy is not None, "attach sets it first"
        config = self.config
        larger = config.one_size_larger(self.anatomy) if config.more else config
        for number, place in enumerate(places):
            self.config = larger if number < config.more else config
            try:
                yield place
            finally:
                self.config = config

    # what trains -----------------------------------------------------------------------------------------------

    def trained_tensors(self) -> dict[str, nn.Parameter]:
        """Tensors of the backbone itself that this method trains, by their name in the backbone."""
        return {} if self.anatomy is None else self.anatomy.trained()

    def adapter_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All trainable parameters except the head's: the method's own, then the backbone's."""
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                yield name, parameter
        for name, parameter in self.trained_tensors().items():
            yield f"backbone.{name}", parameter

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups; each may set "lr" and "weight_decay" (defaults: the config's)."""
        parameters = [parameter for _, parameter in self.adapter_parameters()]
        return [{"params": parameters}] if parameters else []

    # hooks of the training loop --------------------------------------------------------------------------------

    def before_fit(self, fit: Fit) -> None:
        """Once, before the first step (data and loss are reachable through `fit`)."""

    def before_step(self, step: int) -> None:
        """Random draws and schedules belong here, never in an op (checkpointing runs ops twice)."""

    def extra_loss(self) -> Tensor | None:
        """A term added to the task's loss, or None."""
        return None

    def compute_gradients(self, fit: Fit, batch: dict[str, Tensor]) -> Tensor:
        """Fill `.grad` of what trains and return the detached loss."""
        loss = fit.loss(batch)
        extra = self.extra_loss()
        (loss if extra is None else loss + extra).backward()
        return loss.detach()

    def after_backward(self, step: int) -> None:
        """Edit or read gradients, before clipping and the optimiser's step."""

    def after_step(self, step: int) -> None:
        """After the optimiser's step (proximal operators, rank changes)."""

    def fit(self, fit: Fit) -> None:
        """Train. Override where training is not one run of gradient descent."""
        fit.gradient_descent()

    # evaluation and shipping -----------------------------------------------------------------------------------

    def on_logits(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Change the task's outputs at evaluation."""
        return outputs

    def merge(self) -> Handle:
        """Fold the method into the backbone's weights; the handle undoes it.

        Raises `Unmergeable` where an edit is no change of weights.
        """
        assert self.anatomy is not None, "attach first"
        return self.anatomy.merge()

    def shipped(self) -> dict[str, Tensor]:
        """What a user would publish: the method's tensors and the backbone tensors it trained."""
        tensors = {f"adapter.{name}": tensor for name, tensor in self.state_dict().items()}
        tensors.update({f"backbone.{name}": tensor.data for name, tensor in self.trained_tensors().items()})
        return tensors

    def load_shipped(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `shipped`; missing, extra or ill-shaped tensors are an error that names them."""
        own = self.shipped()
        if missing := sorted(own.keys() - tensors.keys()):
            raise ValueError(f"adapter file lacks {missing[0]} (and {len(missing) - 1} more)")
        if extra := sorted(tensors.keys() - own.keys()):
            raise ValueError(f"adapter file has the unknown tensor {extra[0]} (and {len(extra) - 1} more)")
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise ValueError(
                    f"{name} has shape {tuple(tensors[name].shape)} in the file, {tuple(tensor.shape)} here"
                )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])
