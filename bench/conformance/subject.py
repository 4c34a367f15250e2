"""A method under test, on tiny models: how it is put on, moved, and what it leaves in the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...methods.contract import Method
from ..anatomy import Anatomy, anatomy_of
from ..names import Name
from ..recipes import configure, resolve
from ..registry import registry
from .verdicts import CheckFailed, NotApplicable


@dataclass(frozen=True)
class Subject:
    """A method's class and its hyper-parameters."""

    kind: type[Method]
    config: Any

    def attached(self, model: nn.Module, seed: int = 1) -> Method:
        """The method on `model`, its random values drawn from `seed`."""
        torch.manual_seed(seed)
        method = self.kind(self.config)
        method.attach(anatomy_of(model))
        return method

    def declared(self, method: Method) -> dict[str, nn.Parameter]:
        """What the method trains. NotApplicable where that is a task's head alone, CheckFailed where it is nothing."""
        parameters = dict(method.adapter_parameters())
        if not parameters and "head" in self.kind.requires(self.config):
            raise NotApplicable("it trains the task's head alone")
        if not parameters:
            raise CheckFailed("it trains nothing: neither a parameter of its own nor a tensor of the backbone")
        return parameters


def subject_of(name: Name, family: str) -> Subject:
    """A method by its name, with the recipe's values of a family. Raises UsageError for a wrong name or recipe."""
    kind: type[Method] = registry("methods").load(name.id)
    return Subject(kind, configure(name.id, resolve(name.id, name.arguments, family, "tiny", "tiny")))


def anatomy_under(method: Method) -> Anatomy:
    """The anatomy that a method was attached to; CheckFailed where `attach` did not keep it."""
    if method.anatomy is None:
        raise CheckFailed("attach must set self.anatomy")
    return method.anatomy


@torch.no_grad()
def perturb(method: Method, seed: int = 2) -> None:
    """Move everything that trains, so that nothing is left at a start that hides mistakes."""
    torch.manual_seed(seed)
    for _, parameter in method.adapter_parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)


def bits(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all tensors, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether names and values are the same."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def relative(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    return float(((a - b).norm() / b.norm()).detach())


def configs(model: nn.Module) -> list[Any]:
    """The configurations of transformers that a model's modules carry, each once."""
    found = [m.config for m in model.modules() if hasattr(m, "config") and hasattr(m.config, "to_dict")]
    return list({id(config): config for config in found}.values())


def traces(model: nn.Module) -> list[str]:
    """What a method left behind in the model."""
    left = [
        f"{type(module).__name__}.{key}"
        for module in model.modules()
        for key in module.__dict__
        if key == "forward" or key.startswith("_atlas")
    ]
    left += [name for name, p in model.named_parameters() if p.requires_grad or p.grad is not None]
    left += [f"hooks of {type(m).__name__}" for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    for config in configs(model):
        left += [f"config.{key}" for key in config.__dict__ if key.startswith("_atlas")]
        if config._attn_implementation not in ("sdpa", "eager"):
            left.append(f"config implementation {config._attn_implementation}")
    return left
