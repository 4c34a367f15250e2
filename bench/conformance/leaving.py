"""Checks of what a method leaves: the file it ships, merged weights, copies, and the model after `detach`."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from torch import Tensor

from ..anatomy import Unmergeable
from .learning import ROUNDING
from .subject import Subject, anatomy_under, bits, configs, perturb, relative, same_bits, traces
from .tiny import outputs, tiny
from .tiny_fit import train
from .verdicts import CheckFailed, NotApplicable, require


def shipped_tensors_make_the_same_model(subject: Subject, name: str) -> None:
    """After training, the shipped tensors go through safetensors into a fresh model and give the same function."""
    from safetensors.torch import load, save

    t, fresh = tiny(name), tiny(name)
    method = subject.attached(t.model)
    subject.declared(method)
    train(t, method)
    file = save({key: tensor.detach().contiguous() for key, tensor in method.shipped().items()})
    other = subject.attached(fresh.model, seed=99)
    other.load_shipped(load(file))
    require(torch.equal(fresh.outputs(), t.outputs()), "the function is another one after loading")
    for wrong, what, word in (
        ({}, "a file without tensors", "lacks"),
        ({**load(file), "adapter.nobody": torch.zeros(1)}, "a file with one tensor more", "unknown tensor"),
    ):
        try:
            other.load_shipped(wrong)
        except ValueError as error:
            require(word in str(error), f"of {what}, load_shipped says {str(error)!r}, without {word!r}")
        else:
            raise CheckFailed(f"load_shipped takes {what}")


def merge_equals_unmerged(subject: Subject, name: str) -> None:
    """Merged weights compute the same, and the merge can be undone; NotApplicable where merging is refused."""
    t = tiny(name)
    backbone, before = t.outputs(), bits(t.model)
    method = subject.attached(t.model)
    perturb(method)
    unmerged, attached_bits = t.outputs(), bits(t.model)
    refusal = None
    try:
        handle = method.merge()
    except Unmergeable as error:
        refusal = str(error)
    else:
        _require_same(t.outputs(), unmerged, "merged")
        again = method.merge()  # must not fold twice
        _require_same(t.outputs(), unmerged, "merged twice")
        again.remove()
        handle.remove()
        handle.remove()
    require(torch.equal(t.outputs(), unmerged), "undoing the merge did not restore the outputs")
    require(same_bits(bits(t.model), attached_bits), "undoing the merge did not restore the weights")
    anatomy_under(method).detach()
    require(torch.equal(t.outputs(), backbone), "detach after a merge did not restore the outputs")
    require(same_bits(bits(t.model), before), "detach after a merge did not restore the weights")
    if refusal is not None:
        raise NotApplicable(f"it does not merge: {refusal}")


def _require_same(y: Tensor, unmerged: Tensor, when: str) -> None:
    difference = relative(y, unmerged)
    require(difference < ROUNDING, f"{when}, outputs differ by {difference:.1e}")


def detach_leaves_no_trace(subject: Subject, name: str) -> None:
    """After `detach` the model computes, bit for bit, what it did before, and nothing is left in it."""
    t = tiny(name)
    t.model.requires_grad_(False)
    function, before = t.outputs(), bits(t.model)
    forwards = _forwards(t.model)
    method = subject.attached(t.model)
    perturb(method)
    if t.outputs().requires_grad:
        t.outputs().sum().backward()
    anatomy = anatomy_under(method)
    anatomy.detach()
    require(torch.equal(t.outputs(), function), "the outputs are not the backbone's")
    require(same_bits(bits(t.model), before), "the weights are not the backbone's")
    left = traces(t.model)
    require(not left, f"left in the model: {', '.join(left[:3])}")
    require(_forwards(t.model) == forwards, "a forward was replaced")
    anatomy.detach()  # a second time


def _forwards(model: Any) -> dict[Any, Any]:
    return {module: module.forward.__func__ for module in model.modules()}


def attached_model_prints_and_saves(subject: Subject, name: str) -> None:
    """While it is attached, the model's configurations read as before and the model prints."""
    t = tiny(name)
    saved = [config.to_dict() for config in configs(t.model)]
    subject.attached(t.model)
    require([config.to_dict() for config in configs(t.model)] == saved, "the model's configuration changed")
    require(bool(repr(t.model)), "the model prints as nothing")


def copy_is_independent(subject: Subject, name: str) -> None:
    """A deep copy computes the same, and what is done to it does not reach the original."""
    t = tiny(name)
    backbone = t.outputs()
    method = subject.attached(t.model)
    perturb(method)
    before, attached_bits = t.outputs(), bits(t.model)
    model, twin = copy.deepcopy((t.model, method))
    require(torch.equal(outputs(model, t.inputs), before), "the copy computes something else")
    perturb(twin, seed=3)
    if list(twin.adapter_parameters()):
        require(not torch.equal(outputs(model, t.inputs), before), "the copied method does not act on the copied model")
    require(torch.equal(t.outputs(), before), "a change of the copy changes the original")
    require(same_bits(bits(t.model), attached_bits), "a change of the copy changes the original's weights")
    anatomy_under(twin).detach()
    require(torch.equal(outputs(model, t.inputs), backbone), "detach of the copy does not restore the copy")
    left = traces(model)
    require(not left, f"left in the copy: {', '.join(left[:3])}")
    require(torch.equal(t.outputs(), before), "detach of the copy changes the original")
    require(same_bits(bits(t.model), attached_bits), "detach of the copy changes the original's weights")


def pickle_keeps_the_function(subject: Subject, name: str) -> None:
    """Model and method go through pickle together, as to another process, and compute the same."""
    t = tiny(name)
    backbone = t.outputs()
    method = subject.attached(t.model)
    perturb(method)
    before = t.outputs()
    model, twin = pickle.loads(pickle.dumps((t.model, method)))
    require(torch.equal(outputs(model, t.inputs), before), "what was pickled computes something else")
    twin.anatomy.detach()
    require(torch.equal(outputs(model, t.inputs), backbone), "detach does not restore what was pickled")
