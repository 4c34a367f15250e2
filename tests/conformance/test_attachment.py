"""Methods on a model of one's own, in a training loop of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import peft_atlas as pa
import pytest
import torch
from peft_atlas.bench.errors import UsageError
from torch import Tensor, nn

from .tiny import outputs, tiny

Batch = dict[str, Tensor]


def data(items: int, size: int) -> Iterator[Batch]:
    torch.manual_seed(5)
    for _ in range(items // size):
        yield {"input_ids": torch.randint(5, 60, (size, 7)), "labels": torch.randn(size, 1)}


class Loss:
    """Mean squared error of the mean hidden state."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, batch: Batch) -> Tensor:
        hidden = self.model(input_ids=batch["input_ids"]).last_hidden_state
        return (hidden.mean((1, 2))[:, None] - batch["labels"]).square().mean()


def items(batches: Iterator[Batch]) -> list[Batch]:
    """The same data one by one."""
    return [{"input_ids": b["input_ids"][i : i + 1], "labels": b["labels"][i : i + 1]} for b in batches for i in (0, 1)]


def by_hand(batches: list[Batch], k: int) -> list[str]:
    """Names of the tensors that hold the `k` largest sums of squared gradients."""
    model = tiny("bert").model.requires_grad_(True)
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for batch in batches:
        model.zero_grad()
        Loss(model)(batch).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                total[name] += parameter.grad.square()
    least = torch.cat([value.flatten() for value in total.values()]).topk(k).values[-1]
    return [name for name, value in total.items() if value.max() >= least]


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ("fishmask(samples=5, density=0.001)", items(data(8, 2))[:5]),
        ("fishmask(samples=100, density=0.001)", items(data(8, 2))),  # all there are
        ("child-tuning(batches=3, density=0.001)", list(data(8, 2))[:3]),
    ],
    ids=["items", "all", "batches"],
)
def test_weights_are_chosen_from_the_batches_that_were_given(method: str, used: list[Batch]) -> None:
    t = tiny("bert")
    before = {name: parameter.clone() for name, parameter in t.model.named_parameters()}
    handle: Any = pa.attach(t.model, method)
    handle.prepare(data(8, 2), Loss(t.model))
    with torch.no_grad():
        handle.method.delta.values.fill_(1.0)
    handle.merge()
    moved = [name for name, parameter in t.model.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved == by_hand(used, handle.trainable)
    assert len(moved) < len(before)  # where they were spread evenly at first


def warned(handle: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        handle.parameters()
    return [str(warning.message) for warning in found]


def test_a_plain_loop_is_told_what_it_leaves_out() -> None:
    t = tiny("bert")
    handle = pa.attach(t.model, "fishmask(samples=2)")
    (text,) = warned(handle)
    assert "prepare(batches, loss)" in text
    handle.prepare(data(2, 2), Loss(t.model))
    assert warned(handle) == []
    assert warned(pa.attach(tiny("bert").model, "lora")) == []
    assert warned(pa.attach(tiny("bert").model, "prefix")) == []
    (text,) = warned(pa.attach(tiny("bert").model, "lt-sft"))
    assert "procedure of its own" in text
    (text,) = warned(pa.attach(tiny("bert").model, "sora"))
    assert "call after_step of" in text


def test_what_cannot_be_prepared_is_one_line() -> None:
    t = tiny("bert")
    with pytest.raises(UsageError, match="at least one batch"):
        pa.attach(t.model, "fishmask(samples=2)").prepare([], Loss(t.model))
    handle: Any = pa.attach(tiny("bert").model, "adalora(init_r=4, target_r=2)")
    with pytest.raises(UsageError, match="number of training steps"):
        handle.prepare([], outputs)
    handle.prepare([], outputs, steps=40)
    assert handle.method.steps == 40
