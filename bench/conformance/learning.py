"""Checks of how a method starts, what its gradients reach, how it trains and how many numbers it trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...methods.contract import Method
from ..anatomy import Anatomy
from .subject import Subject, anatomy_under, bits, perturb, relative, same_bits
from .tiny import tiny, tiny_on_meta
from .tiny_fit import train
from .verdicts import NotApplicable, require

ROUNDING = 1e-5  # relative, in single precision


def starts_as_claimed(subject: Subject, name: str) -> None:
    """At the start it computes bit for bit what the backbone does, exactly where `starts_as_backbone` says so."""
    t = tiny(name)
    before = t.outputs()
    method = subject.attached(t.model)
    with torch.no_grad():
        after = t.outputs()
    same = torch.equal(before, after) or (_trains_fused(t.model) and relative(after, before) < ROUNDING)
    require(
        same == method.starts_as_backbone,
        f"starts_as_backbone is {method.starts_as_backbone}, but outputs at the start "
        + ("are the backbone's" if same else f"differ from the backbone's by {relative(after, before):.1e}"),
    )
    with _kernels(t.model, method) as differ:
        again = t.outputs()
    held = relative(again, after) < ROUNDING if any(differ) else torch.equal(again, after)
    require(held, f"outputs with and without gradients differ by {relative(again, after):.1e}")


@contextmanager
def _kernels(model: nn.Module, method: Method) -> Iterator[list[bool]]:
    """Collects whether torch has other kernels with gradients: for T5's position bias when it trains, for an LSTM, for
    the matrices of its own attention."""
    differ = [any(isinstance(module, nn.RNNBase) for module in method.modules()), bool(_fused(model))]
    tables = [module for path, module in model.named_modules() if path.endswith("relative_attention_bias")]
    hooks = [table.register_forward_hook(lambda _, __, bias: differ.append(bias.requires_grad)) for table in tables]
    try:
        yield differ
    finally:
        for hook in hooks:
            hook.remove()


def _fused(model: nn.Module) -> list[nn.MultiheadAttention]:
    return [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]


def _trains_fused(model: nn.Module) -> bool:
    """Whether torch has another kernel even without gradients, because a matrix of its own attention requires one."""
    return any(parameter.requires_grad for module in _fused(model) for parameter in module.parameters())


def gradients_reach_what_trains(subject: Subject, name: str) -> None:
    """Everything that it declares gets a gradient that is finite and not zero, and nothing else gets one."""
    t = tiny(name)
    method = subject.attached(t.model)
    declared = subject.declared(method)
    perturb(method)
    t.outputs().square().sum().backward()
    for key, parameter in declared.items():
        require(parameter.grad is not None, f"{key} gets no gradient")
        assert parameter.grad is not None
        require(bool(torch.isfinite(parameter.grad).all()), f"the gradient of {key} is not finite")
        is_key_bias = "key.bias" in key or "k_proj.bias" in key  # softmax is blind to it
        require(is_key_bias or bool(parameter.grad.abs().max() > 0), f"the gradient of {key} is zero")
    trained = {id(parameter) for parameter in declared.values()}
    for key, parameter in [*t.model.named_parameters(), *method.named_parameters()]:
        frozen = parameter.grad is None and not parameter.requires_grad
        require(id(parameter) in trained or frozen, f"{key} gets a gradient and is not declared")


def training_lowers_the_loss(subject: Subject, name: str) -> None:
    """Five steps lower the loss; what is frozen keeps its bits, and `detach` then restores the rest."""
    t = tiny(name)
    before = bits(t.model)
    method = subject.attached(t.model)
    subject.declared(method)
    keys = list(t.model.state_dict())
    losses = train(t, method)
    require(losses[-1] < losses[0], f"the loss went from {losses[0]:.6g} to {losses[-1]:.6g}")
    require(list(t.model.state_dict()) == keys == list(before), "the names of the backbone's tensors changed")
    trained = {id(p) for p in method.trained_tensors().values()}
    now = t.model.state_dict()
    for key, parameter in t.model.named_parameters(remove_duplicate=False):
        require(id(parameter) in trained or torch.equal(now[key], before[key]), f"training changed the frozen {key}")
    moved = any(not torch.equal(now[key], before[key]) for key in before)
    require(moved or not method.trained_tensors(), "training changed none of the backbone's tensors that it declares")
    anatomy_under(method).detach()
    require(same_bits(bits(t.model), before), "detach did not restore the weights after training")


def same_seed_gives_the_same_training(subject: Subject, name: str) -> None:
    """Two trainings from the same seed have the same losses and end at the same function, bit for bit."""
    runs = []
    for _ in range(2):
        t = tiny(name)
        method = subject.attached(t.model)
        subject.declared(method)
        runs.append((train(t, method), t.outputs()))
    require(runs[0][0] == runs[1][0], f"the losses are {runs[0][0]} and {runs[1][0]}")
    require(torch.equal(runs[0][1], runs[1][1]), "the outputs after training differ")


def checkpointing_gives_the_same_gradients(subject: Subject, name: str) -> None:
    """With activation checkpointing, which runs operations twice, gradients are the same."""
    plain, checkpointed = _gradients(subject, name, False), _gradients(subject, name, True)
    difference = relative(plain[0], checkpointed[0])
    require(difference < 1e-12, f"outputs differ by {difference:.1e}")
    require(plain[1].keys() == checkpointed[1].keys(), "other tensors get gradients")
    for key in plain[1]:
        close = torch.allclose(plain[1][key], checkpointed[1][key], rtol=1e-10, atol=1e-10)
        require(close, f"the gradient of {key} differs by {relative(checkpointed[1][key], plain[1][key]):.1e}")


def _gradients(subject: Subject, name: str, checkpointing: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs and gradients in double precision: T5's biases take another kernel when they are checkpointed."""
    t = tiny(name, dtype=torch.float64)
    method = subject.attached(t.model).double()
    subject.declared(method)
    perturb(method)
    t.model.train()
    if checkpointing:
        _checkpoint(t.model)
    y = t.outputs()
    y.square().sum().backward()
    copy.deepcopy((t.model, method))  # nothing of the pass is kept that cannot be copied
    return y.detach(), {key: p.grad for key, p in method.adapter_parameters() if p.grad is not None}


def _checkpoint(model: Any) -> None:
    """Let the library checkpoint its blocks."""
    if hasattr(model, "gradient_checkpointing_enable"):  # transformers
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif hasattr(model, "enable_gradient_checkpointing"):  # diffusers
        model.enable_gradient_checkpointing()
    else:
        model.set_grad_checkpointing(True)


def half_precision_backbone(subject: Subject, name: str) -> None:
    """On a backbone in bfloat16, outputs are bfloat16 and everything that it declares gets a gradient."""
    t = tiny(name, dtype=torch.bfloat16)
    method = subject.attached(t.model)
    y = t.outputs()
    require(y.dtype == torch.bfloat16, f"outputs are {y.dtype}")
    declared = subject.declared(method)
    y.float().sum().backward()
    for key, parameter in declared.items():
        require(parameter.grad is not None, f"{key} gets no gradient")


ClosedForm = Callable[[Any, Anatomy], int | None]


def count_is_the_closed_form(subject: Subject, name: str, closed_form: ClosedForm | None = None) -> None:
    """The trainable count is that of `Method.closed_form`, or of another form that is given."""
    method = subject.attached(tiny(name).model)
    count = sum(parameter.numel() for _, parameter in method.adapter_parameters())
    expected = (closed_form or subject.kind.closed_form)(method.config, anatomy_under(method))
    if expected is None:
        raise NotApplicable("it gives no closed form (Method.closed_form)")
    require(count == expected, f"{count:,} numbers train, and the closed form says {expected:,}")


def meta_device_counts_the_same(subject: Subject, name: str) -> None:
    """Without values, as `bench params` counts, the same tensors train."""
    here, there = (
        {key: (tuple(p.shape), p.is_meta) for key, p in subject.attached(model).adapter_parameters()}
        for model in (tiny(name).model, tiny_on_meta(name))
    )
    shapes = [(key, shape) for key, (shape, _) in there.items()]
    require([(key, shape) for key, (shape, _) in here.items()] == shapes, "other tensors train on the meta device")
    real = [key for key, (_, is_meta) in there.items() if not is_meta]
    require(not real, f"on the meta device {', '.join(real[:1])} has values")
