"""One battery for the methods that bring images and texts together, on tiny random CLIPs of both kinds."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import Anatomy, Unmergeable
from peft_atlas.bench.computation import checkpoint_blocks
from peft_atlas.bench.conformance.subject import bits, perturb, relative, same_bits, traces
from peft_atlas.bench.registry import registry
from peft_atlas.bench.trainer import evaluate
from peft_atlas.methods.contract import Method
from safetensors.torch import load, save

from .tiny_pair import BACKBONES, CARD, CLASSES, SETTINGS, TinyNames, attached, backbone, fit_of, items, scores

VARIANTS = {
    "coop": ["coop(context=6)", "coop(class_specific=true, class_name=middle)"],
    "prograd": ["prograd(strength=0.5)"],
    "maple": ["maple(depth=1)", "maple(context=5)"],
    "clip-adapter": ["clip-adapter(sides=both, rectified=false)"],
    "tpt": ["tpt(views=6, confident=0.5, steps=2)"],
    "zero-shot": ["zero-shot(templates=3)"],
}
METHODS = [card.id for card in registry("methods").cards() if card.category == "application/clip"]
CASES = [case for method in METHODS for case in (method, *VARIANTS.get(method, []))]
every_cell = pytest.mark.parametrize("name", BACKBONES)
every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(autouse=True)
def _slow_path() -> Iterator[None]:
    """Without torch's fast path of attention, which rounds in another order, as in every run."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def fitted(case: str, name: str, seed: int = 1) -> tuple[Any, Method]:
    """A CLIP, and the method on it after training."""
    clip = backbone(name)
    method = attached(case, clip, seed)
    fit_of(clip, method).run()
    return clip, method


def trained(case: str) -> bool:
    """Whether the training split trains anything."""
    return registry("methods").card(case.partition("(")[0]).compute == "equal-steps"


@every_case
@every_cell
def test_start_and_detach(case: str, name: str) -> None:
    clip = backbone(name)
    batch, before = items(clip), bits(clip.model)
    with torch.no_grad():
        zero_shot = scores(clip, batch)
        method = attached(case, clip)
        same = method.starts_as_backbone or case == "zero-shot"  # with the task's own template
        assert torch.equal(scores(clip, batch), zero_shot) == same
        perturb(method)
        moved = scores(clip, batch)
        if clip.anatomy.edits.handles:  # the task's own template is no edit
            with pytest.raises(Unmergeable):
                method.merge()
        assert torch.equal(scores(clip, batch), moved)
        clip.anatomy.detach()
        assert torch.equal(scores(clip, batch), zero_shot)
    assert same_bits(bits(clip.model), before)
    assert traces(clip.model) == []


@every_case
@every_cell
def test_gradients_reach_what_trains_and_nothing_else(case: str, name: str) -> None:
    clip = backbone(name)
    method = attached(case, clip)
    method.before_fit(fit_of(clip, method))
    perturb(method)
    declared = dict(method.adapter_parameters())
    if not declared:
        assert not trained(case)
        return
    scores(clip, items(clip)).square().sum().backward()
    for key, parameter in declared.items():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key
    assert all(parameter.grad is None for parameter in clip.model.parameters())


@every_case
@every_cell
def test_training(case: str, name: str) -> None:
    """The loss falls, frozen weights keep their bits, the same seed gives the same run, and a file brings it back."""
    runs = []
    for _ in range(2):
        clip = backbone(name)
        before = bits(clip.model)
        method = attached(case, clip)
        fit = fit_of(clip, method)
        fit.run()
        assert same_bits(bits(clip.model), before)
        with torch.no_grad():
            runs.append((fit.curve, scores(clip, items(clip, "test")), method.shipped()))
    (curve, answers, shipped), (curve_again, answers_again, _) = runs
    assert [point["loss"] for point in curve] == [point["loss"] for point in curve_again]
    assert torch.equal(answers, answers_again)
    assert bool(curve) == trained(case)
    assert not curve or curve[-1]["loss"] < curve[0]["loss"]
    fresh = backbone(name)
    other = attached(case, fresh, seed=99)
    other.load_shipped(load(save({key: tensor.detach().contiguous() for key, tensor in shipped.items()})))
    with torch.no_grad():
        assert torch.equal(scores(fresh, items(fresh, "test")), answers)


@every_case
@every_cell
def test_copies_are_independent(case: str, name: str) -> None:
    clip, method = fitted(case, name)
    batch = items(clip)
    with torch.no_grad():
        before = scores(clip, batch)
        for twin_clip, twin in (copy.deepcopy((clip, method)), pickle.loads(pickle.dumps((clip, method)))):
            assert torch.equal(scores(twin_clip, batch), before)
            perturb(twin, seed=3)
            moves = bool(list(twin.adapter_parameters()))
            assert torch.equal(scores(twin_clip, batch), before) != moves
            twin_clip.anatomy.detach()
            assert traces(twin_clip.model) == []
            assert torch.equal(scores(clip, batch), before)


@every_case
@every_cell
def test_evaluation_is_repeatable_and_in_any_order(case: str, name: str) -> None:
    clip, method = fitted(case, name)
    task = TinyNames(CARD)
    split = task.build("test")
    logits = []
    for order in ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], [6, 1, 7, 0, 3, 2, 5, 4]):
        prepared = {key: column[order] for key, column in clip.prepare(split).items()}
        shown = evaluate(clip, method, None, task, split.take(torch.tensor(order).numpy()), prepared, SETTINGS)
        logits.append(torch.from_numpy(shown.columns["logits"])[torch.tensor(order).argsort()])
    assert torch.equal(logits[0], logits[1])
    assert relative(logits[2], logits[0]) < 1e-5  # batches of other items round otherwise


@every_case
@every_cell
def test_checkpointing_and_half_precision(case: str, name: str) -> None:
    gradients = []
    for dtype, checkpointing in ((torch.float64, False), (torch.float64, True), (torch.bfloat16, False)):
        clip = backbone(name)
        method = attached(case, clip)
        method.before_fit(fit_of(clip, method))
        perturb(method)
        clip.model.to(dtype)
        if dtype == torch.float64:
            method.double()
        batch = items(clip)
        batch["pixels"] = batch["pixels"].to(dtype)
        if checkpointing:
            checkpoint_blocks(clip.model)
        clip.model.train()
        out = scores(clip, batch)
        assert out.dtype == dtype and torch.isfinite(out).all()
        parameters = [parameter for _, parameter in method.adapter_parameters()]
        gradients.append(torch.autograd.grad(out.square().sum(), parameters) if parameters else ())
    for plain, checkpointed, half in zip(*gradients, strict=True):
        assert relative(checkpointed, plain) < 1e-10
        assert half.abs().max() > 0


def sizes(anatomy: Anatomy) -> tuple[int, int, int]:
    """Widths of the text's embeddings, of the image tower and of the shared space."""
    embedding = anatomy.towers["text"].embedding
    assert embedding is not None and anatomy.pair is not None
    return embedding.width, anatomy.towers["vision"].width, anatomy.pair.width


def context(config: Any, anatomy: Anatomy) -> int:
    classes = len(CLASSES) if getattr(config, "class_specific", False) else 1
    return int(classes * config.context * sizes(anatomy)[0])


def cocoop(config: Any, anatomy: Anatomy) -> int:
    texts, _, shared = sizes(anatomy)
    hidden = shared // config.reduction
    return context(config, anatomy) + shared * hidden + hidden + hidden * texts + texts


def maple(config: Any, anatomy: Anatomy) -> int:
    texts, images, _ = sizes(anatomy)
    return int(config.depth * (config.context * texts + texts * images + images))


def clip_adapter(config: Any, anatomy: Anatomy) -> int:
    shared = sizes(anatomy)[2]
    return 2 * shared * (shared // config.reduction) * (2 if config.sides == "both" else 1)


CLOSED_FORMS: dict[str, Callable[[Any, Anatomy], int]] = {
    "coop": context,
    "prograd": context,
    "tpt": context,
    "cocoop": cocoop,
    "maple": maple,
    "clip-adapter": clip_adapter,
    "tip-adapter": lambda config, anatomy: 0,
    "tip-adapter-f": lambda config, anatomy: 0,  # before there are items
    "zero-shot": lambda config, anatomy: 0,
}


@every_case
@every_cell
def test_trainable_count_is_the_closed_form_with_and_without_values(case: str, name: str) -> None:
    found = []
    for meta in (False, True):
        clip = backbone(name, meta)
        method = attached(case, clip)
        parameters = dict(method.adapter_parameters())
        assert all(parameter.is_meta == meta for parameter in parameters.values())
        found.append({key: tuple(parameter.shape) for key, parameter in parameters.items()})
        count = sum(parameter.numel() for parameter in parameters.values())
        assert count == CLOSED_FORMS[case.partition("(")[0]](method.config, clip.anatomy)
    assert found[0] == found[1]
