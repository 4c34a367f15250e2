"""Selective methods against what their papers define, computed by hand on a plain copy of the model, in double."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import Anatomy, anatomy_of
from peft_atlas.bench.conformance.tiny_fit import TinyFit
from torch import Tensor, nn

from .test_parity import assert_same, ours
from .tiny import NAMES, outputs, tiny


@pytest.fixture(autouse=True)
def _double(_deterministic: None) -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def laid_out(anatomy: Anatomy, tensors: dict[nn.Parameter, Tensor]) -> Tensor:
    """Tensors of the parameters' shapes in the order of `Anatomy.weights`, by the places' documented meaning."""
    pieces = []
    for places in anatomy.weights().values():
        tensor = tensors[places[0].parameter]
        if getattr(places[0], "transposed", False):
            tensor = tensor.t()
        pieces.append((tensor if places[0].rows is None else tensor[places[0].rows]).reshape(-1))
    return torch.cat(pieces)


def numbered(model: nn.Module) -> dict[nn.Parameter, Tensor]:
    """A number of its own for each entry of each parameter."""
    found, start = {}, 0
    for parameter in model.parameters():
        found[parameter] = torch.arange(start, start + parameter.numel()).view(parameter.shape)
        start += parameter.numel()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_every_number_of_the_backbone_once(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    anatomy = anatomy_of(t.model)
    total = sum(parameter.numel() for parameter in t.model.parameters())
    assert laid_out(anatomy, numbered(t.model)).sort().values.tolist() == list(range(total))
    for places in anatomy.weights().values():
        assert torch.equal(places[0].part_of(places[0].parameter), places[0].value())


@pytest.mark.parametrize("name", ["vit", "bert", "gpt2", "bloom", "t5"])
def test_fishmask_takes_the_largest_squared_gradients_of_single_items(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    method = ours("fishmask", t.model, density=0.02, samples=2)
    fit = TinyFit(t, method)
    method.before_fit(fit)  # type: ignore[arg-type]
    assert method.anatomy is not None
    plain = copy.deepcopy(tiny(name, dtype=torch.float64).model).requires_grad_(True)
    fisher = {parameter: torch.zeros_like(parameter) for parameter in plain.parameters()}
    for i in range(2):
        item = {k: v[i : i + 1] if isinstance(v, Tensor) else v for k, v in t.inputs.items()}
        y = outputs(plain, item)
        (y - fit.target[: len(y)]).square().mean().backward()
        for parameter in plain.parameters():
            fisher[parameter] += 0 if parameter.grad is None else parameter.grad.square()
            parameter.grad = None
    pairs = zip(t.model.parameters(), plain.parameters(), strict=True)
    scores = laid_out(method.anatomy, {here: fisher[there] for here, there in pairs})
    index = method.delta.index
    assert len(index.unique()) == len(index) == int(0.02 * len(scores))
    left_out = torch.ones(len(scores), dtype=torch.bool).index_fill(0, index, False)
    assert scores[index].min() >= scores[left_out].max() * (1 - 1e-9)
    assert not any(parameter.requires_grad for parameter in t.model.parameters())


@pytest.mark.parametrize("name", ["vit", "bert", "gpt2", "t5", "clip-text"])
def test_a_sparse_step_is_a_dense_step_under_the_mask(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    method = ours("fishmask", t.model, density=0.1, samples=1)
    method.before_fit(TinyFit(t, method))  # type: ignore[arg-type]
    assert method.anatomy is not None
    plain = copy.deepcopy(tiny(name, dtype=torch.float64).model).requires_grad_(True)
    pairs = dict(zip(t.model.parameters(), plain.parameters(), strict=True))
    numbers = numbered(t.model)
    chosen = laid_out(method.anatomy, numbers)[method.delta.index]
    mask = {parameter: torch.isin(where, chosen).double() for parameter, where in numbers.items()}
    for model, sgd in ((t.model, torch.optim.SGD([method.delta.values], 0.1)), (plain, None)):
        outputs(model, t.inputs).square().mean().backward()
        if sgd is not None:
            sgd.step()
    with torch.no_grad():
        for here, there in pairs.items():
            there -= 0.1 * mask[here] * (torch.zeros_like(there) if there.grad is None else there.grad)
    before = outputs(tiny(name, dtype=torch.float64).model, t.inputs)
    assert_same(t.outputs() - before, outputs(plain, t.inputs) - before)


@pytest.mark.parametrize("name", NAMES)
def test_sparse_values_merge(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    method = ours("pafi", t.model, density=0.1)
    with torch.no_grad():
        method.delta.values.normal_(std=0.3)
    before = t.outputs()
    handle = method.merge()
    assert_same(t.outputs(), before)
    plain = tiny(name, dtype=torch.float64)
    plain.model.load_state_dict(t.model.state_dict())
    assert_same(plain.outputs(), before)
    handle.remove()
    assert torch.equal(t.outputs(), before)


@pytest.mark.parametrize("name", ["vit", "gpt2"])
def test_pafi_trains_the_smallest_weights(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    method = ours("pafi", t.model, density=0.03)
    assert method.anatomy is not None
    sizes = laid_out(method.anatomy, {parameter: parameter.detach().abs() for parameter in t.model.parameters()})
    chosen = torch.zeros(len(sizes), dtype=torch.bool).index_fill(0, method.delta.index, True)
    assert int(chosen.sum()) == int(0.03 * len(sizes))
    assert sizes[chosen].max() <= sizes[~chosen].min()
    index, fit = method.delta.index.clone(), TinyFit(t, method)
    method.before_fit(fit)  # type: ignore[arg-type]
    method.fit(fit)  # type: ignore[arg-type]
    assert torch.equal(method.delta.index, index)


def test_changes_of_a_tensor_are_folded_before_those_of_what_reads_it() -> None:
    """A norm's weight and a bias under their ops: sizes first, then the affine around them."""
    t = tiny("bert", dtype=torch.float64)
    anatomy = anatomy_of(t.model)
    block = anatomy.blocks[0]
    bias = block.attention.q.bias()
    assert bias is not None
    block.attention.q.affine(scale=torch.rand(32) + 0.5)
    block.norms[0].affine(scale=torch.rand(32) + 0.5, shift=torch.randn(32))
    for place in (bias, *block.norms[0].tensors.values()):
        place.reparam(torch.sin)
    before = t.outputs()
    handle = anatomy.merge()
    assert_same(t.outputs(), before)
    with pytest.raises(RuntimeError, match="is merged"):
        bias.reparam(torch.cos)
    handle.remove()
    assert torch.equal(t.outputs(), before)


class Recording(TinyFit):
    """Also keeps a copy of the backbone at the start of each run of gradient descent, and at its end."""

    states: list[dict[str, Tensor]]

    def gradient_descent(self) -> None:
        self.states = getattr(self, "states", [])
        for run in (lambda: None, super().gradient_descent):
            run()
            self.states.append({k: v.detach().clone() for k, v in self.tiny.model.state_dict().items()})


@pytest.mark.parametrize("name", ["vit", "t5"])
def test_lt_sft_rewinds_and_trains_what_full_training_moved_most(name: str) -> None:
    t = tiny(name, dtype=torch.float64)
    t.model.requires_grad_(False)
    method = ours("lt-sft", t.model, density=0.05)
    fit = Recording(t, method)
    fit.head = nn.Linear(3, 2)
    head = copy.deepcopy(fit.head.state_dict())
    method.fit(fit)  # type: ignore[arg-type]
    start, full, again, end = fit.states
    assert all(torch.equal(start[key], again[key]) and torch.equal(start[key], end[key]) for key in start)
    assert all(torch.equal(head[key], value) for key, value in fit.head.state_dict().items())
    assert method.anatomy is not None
    moved = {p: (full[n] - start[n]).abs() for n, p in t.model.named_parameters()}
    change = torch.cat([places[0].part_of(moved[places[0].parameter]).flatten() for places in method.weights.values()])
    rest = torch.ones(len(change), dtype=torch.bool).index_fill(0, method.delta.index, False)
    assert change[method.delta.index].min() >= change[rest].max() > 0
    frozen = [key for key in start if "norm" in key.lower()]
    assert frozen and all(torch.equal(full[key], start[key]) for key in frozen)


def test_child_tuning_d_is_adamw_with_masked_gradients() -> None:
    t = tiny("bert", dtype=torch.float64)
    method = ours("child-tuning", t.model, density=0.3, batches=1)
    fit = TinyFit(t, method)
    method.before_fit(fit)  # type: ignore[arg-type]
    assert method.anatomy is not None
    chosen = laid_out(method.anatomy, numbered(t.model))[method.delta.index]
    plain = tiny("bert", dtype=torch.float64)
    plain.model.requires_grad_(True)
    masks = {parameter: torch.isin(where, chosen) for parameter, where in numbered(plain.model).items()}
    optimizer = torch.optim.AdamW(plain.model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(fit.steps):
        optimizer.zero_grad()
        (plain.outputs() - fit.target).square().mean().backward()
        for parameter, mask in masks.items():
            parameter.grad.mul_(mask)  # type: ignore[union-attr]
        optimizer.step()
    fit.gradient_descent()
    start = tiny("bert", dtype=torch.float64).outputs()
    assert_same(t.outputs() - start, plain.outputs() - start)


def test_child_tuning_f_keeps_the_gradient_in_expectation() -> None:
    t = tiny("vit", dtype=torch.float64)
    method = ours("child-tuning", t.model, mode="F", density=0.25)
    parameters = method.trained_tensors().values()
    total, zeros, draws = 0.0, 0.0, 400
    for _ in range(draws):
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        method.after_backward(0)
        gradient = torch.cat([parameter.grad.flatten() for parameter in parameters])  # type: ignore[union-attr]
        assert set(gradient.unique().tolist()) == {0.0, 4.0}
        total, zeros = total + gradient, zeros + float((gradient == 0).double().mean()) / draws
    assert abs(zeros - 0.75) < 1e-3  # five deviations of a share of 400 x 27,000 draws are 7e-4
    assert abs(float((total / draws).mean()) - 1) < 4e-3
    assert float((total / draws - 1).abs().max()) < 6 * (3 / draws) ** 0.5


def test_mezo_moves_along_the_gradients_share_of_the_drawn_direction() -> None:
    t = tiny("vit", dtype=torch.float64)
    method = ours("mezo", t.model, eps=1e-4, lr=1e-3, step_factor=1)
    fit = TinyFit(t, method, steps=1)
    parameters = list(method.trained_tensors().values())
    gradient = torch.autograd.grad(fit.loss(t.inputs), parameters)
    before = [parameter.detach().clone() for parameter in parameters]
    torch.manual_seed(5)
    method.fit(fit)  # type: ignore[arg-type]
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    z = [torch.randn(parameter.shape, generator=generator) for parameter in parameters]
    slope = sum(float((g * part).sum()) for g, part in zip(gradient, z, strict=True))
    for now, old, part in zip(parameters, before, z, strict=True):
        assert torch.allclose(now - old, -1e-3 * slope * part, rtol=1e-4, atol=1e-9)
    assert all(parameter.grad is None for parameter in parameters)
