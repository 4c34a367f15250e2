"""Measure one cost profile. Runs in a child process of its own, with nothing else running.

Every method goes the way of a cell: the same loop (`trainer.Fit`), the same hooks. Only the items are made up (noise
images, long texts), so that no data are needed and every batch has the same shape. The steps of one training run are
used in turn: plain ones under the memory watch, one for each form of the ledger, one for the operations, warm-up, then
the timed ones. Memory, counting and timing never share a step; evaluation and saving never share a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..tasks.classification import Classification
from ..tasks.contract import Card, Split, Task
from ..tasks.diffusion.customisation import Customisation
from ..tasks.language_modelling import LanguageModelling
from ..tasks.openvocab.open_vocabulary import OpenVocabulary
from .anatomy import Unmergeable
from .cell import count_parameters, method_of, settle
from .costs import InferenceLedger, Operations, PeakMemory, Subject, Timing, TrainingLedger
from .drift import probe_items
from .ledger import LiveTensors, SavedTensors, pinned_attention, storage_bytes, tensors_of
from .other_load import OtherLoad
from .peak import PeakWatch
from .protocol import FamilySettings, OptimizerSettings
from .registry import registry
from .trainer import Fit

if TYPE_CHECKING:
    from ..methods.contract import Method
    from .backbones.contract import Backbone

PLAIN, WARM_UP = 2, 2  # steps under the memory watch; steps left out before timing
CANONICAL, NATIVE, COUNTED = PLAIN, PLAIN + 1, PLAIN + 2  # the steps of the ledger and of the operations
FIRST_TIMED = COUNTED + 1 + WARM_UP
TIMED_STEPS = {"vision": 15, "text": 15, "lm": 7}
LATENCY = {1: (5, 5), 32: (3, 2)}  # batch: rounds over the conditions, and timed calls of each in a round
LATENCY_WARM_UP = 1  # calls left out before those of a round
ADAPTER_ROUNDS = 5
IMAGE_SIDE = 64  # pixels; the backbone resizes
FRAMES = 8  # of a clip; the backbone chooses
SENTENCES = 12  # of a text, which makes it longer than any embedded input
INFERENCE_BATCH = 32


@dataclass
class Rig:
    """A backbone with what is on it, and items to run."""

    subject: Subject
    backbone: Backbone
    task: Task
    head: nn.Module | None
    prepared: dict[str, Tensor]
    method: Method | None = None

    @torch.no_grad()
    def forward(self, items: int) -> None:
        """One pass over the first items, as evaluation does it."""
        batch = self.backbone.batch(self.prepared, torch.arange(items))
        outputs = self.task.forward(self.backbone, self.head, batch)
        if self.method is not None:
            self.method.on_logits(outputs, batch)

    def timing(
        self, what: Any, seconds: Sequence[float], warm_up: int, batch: int | None = None, merged: bool | None = None
    ) -> Timing:
        """A condition's figures."""
        p10, median, p90 = (float(value) for value in np.quantile(seconds, (0.1, 0.5, 0.9)))
        return Timing(
            what=what,
            batch=batch,
            merged=merged,
            dtype=self.subject.dtype,
            device=self.subject.device,
            threads=self.subject.threads,
            n=len(seconds),
            warm_up=warm_up,
            median=median,
            p10=p10,
            p90=p90,
        )


def measure(subject: Subject, work: str, timed: bool = True) -> dict[str, Any]:
    """The fields of a `CostProfile` that measuring finds. `work` is a folder for the adapter's file.

    Without `timed` only what is counted: ledgers, operations, parameters, bytes; seconds where it takes a minute.
    """
    watch, others = PeakWatch(), OtherLoad()
    settle(subject.threads, subject.dtype)
    rig = _rig(subject)
    weights = sum(parameter.numel() for parameter in rig.backbone.model.parameters())
    rig.backbone.model.eval()
    bare = {batch: _calls(partial(rig.forward, batch), *LATENCY[batch]) for batch in LATENCY if timed}
    watch.restart()
    method = rig.method = method_of(subject.method)
    method.attach(rig.backbone.anatomy)
    counts = count_parameters(weights, method, rig.head)
    fit = ProfiledFit(rig, method, watch, TIMED_STEPS.get(subject.family, min(TIMED_STEPS.values())) if timed else 0)
    begun = time.perf_counter()
    fit.run()
    if method.sized_by_data:
        counts = count_parameters(weights, method, rig.head)
    whole = time.perf_counter() - begun
    notes = list(fit.notes)
    if fit.first_step is None:
        notes.append(f"no gradient descent: fit_overhead_seconds is the fit on {len(rig.prepared['index'])} items")
    timings = [] if not fit.timed else [rig.timing("train step", fit.timed, FIRST_TIMED, batch=subject.batch)]
    train_peak = watch.peak() if fit.train_peak is None else fit.train_peak
    watch.restart()
    rig.forward(INFERENCE_BATCH)
    peak = PeakMemory(
        train_rss_above_baseline=train_peak,
        inference_rss_above_baseline=watch.peak(),
        baseline_rss=watch.baseline,
    )
    ledger, operations = _inference_ledger(rig), _operations(rig)
    merged, reason = _when_merged(rig, partial(_operations, rig))
    notes += [reason] if reason else []
    file_bytes, switches = _adapter(rig, method, Path(work), timed)
    latencies = _latencies(rig, bare, mergeable=merged is not None) if timed else []
    return {
        "parameters": counts,
        "notes": tuple(notes),
        "tokens_per_item": int(rig.prepared["input_ids"].shape[1]) if "input_ids" in rig.prepared else None,
        "training": tuple(fit.ledgers[form] for form in ("canonical", "native") if form in fit.ledgers),
        "inference": ledger,
        "peak": peak,
        "operations": Operations(
            train_forward=fit.forward_operations,
            train_backward=fit.operations - fit.forward_operations,
            inference_per_item=operations // INFERENCE_BATCH,
            inference_per_item_merged=None if merged is None else merged // INFERENCE_BATCH,
        ),
        "timings": (*timings, *latencies, *switches),
        "other_load": others.mean(),
        "fit_overhead_seconds": whole if fit.first_step is None else fit.first_step - begun,
        "adapter_file_bytes": file_bytes,
    }


# training ----------------------------------------------------------------------------------------------------------


class ProfiledFit(Fit):
    """The training loop, with each step put under what it is there to be measured for.

    A method that runs the loop several times has each run measured; the largest ledger and operations count.
    """

    def __init__(self, rig: Rig, method: Method, watch: PeakWatch, timed_steps: int) -> None:
        subject = rig.subject
        steps = FIRST_TIMED + timed_steps if timed_steps else COUNTED + 1
        settings = FamilySettings(
            backbone=subject.backbone.id,
            inputs=subject.inputs,
            steps=steps,
            batch=subject.batch,
            eval_batch=INFERENCE_BATCH,
            head_lr=None if rig.head is None else 1e-3,
        )
        optimizer = OptimizerSettings(**subject.optimizer)
        super().__init__(rig.backbone, method, rig.head, rig.task, rig.prepared, settings, optimizer, seed=0)
        self.watch = watch
        self.notes: list[str] = []
        self.ledgers: dict[str, TrainingLedger] = {}
        self.timed: list[float] = []
        self.operations = self.forward_operations = 0
        self.first_step: float | None = None
        self.train_peak: int | None = None
        self._descending = False
        self._counter: FlopCounterMode | None = None
        self._forward = 0
        self._gradient_bytes = 0

    def gradient_descent(self, steps: int | None = None) -> None:
        self._descending = True
        try:
            super().gradient_descent(steps)
        finally:
            self._descending = False

    def batches(self, steps: int) -> Iterator[dict[str, Tensor]]:
        """The loop takes its batches here, so that everything until the next one is one step."""
        if not self._descending:  # a method looks at data before it trains
            yield from super().batches(steps)
            return
        for step, batch in enumerate(super().batches(steps)):
            if self.first_step is None:
                self.first_step = time.perf_counter()
            with self._instrument(step):
                yield batch
            if step >= FIRST_TIMED:
                self.timed.append(self.step_seconds[-1])

    @contextmanager
    def _instrument(self, step: int) -> Iterator[None]:
        if step == CANONICAL:
            if self.train_peak is None:
                self.train_peak = self.watch.peak()
            with pinned_attention(), self._ledger("canonical"):
                yield
        elif step == NATIVE:
            with self._ledger("native"):
                yield
        elif step == COUNTED:
            with self._count_operations():
                yield
        else:
            yield

    def outputs(self, batch: dict[str, Tensor]) -> Tensor:
        if self._counter is None:
            return super().outputs(batch)
        before = self._counter.get_total_flops()
        outputs = super().outputs(batch)
        self._forward += self._counter.get_total_flops() - before
        return outputs

    @contextmanager
    def _count_operations(self) -> Iterator[None]:
        self._forward = 0
        with FlopCounterMode(display=False) as self._counter:
            yield
        total = self._counter.get_total_flops()
        self._counter = None
        if total > self.operations:
            self.operations, self.forward_operations = total, self._forward

    @contextmanager
    def _ledger(self, form: Any) -> Iterator[None]:
        """One step with everything that it makes followed."""
        modules = (self.backbone.model, self.method, self.head)
        everything = list(tensors_of(modules))
        trained = [tensor for tensor in everything if tensor.requires_grad]
        live = LiveTensors(everything)
        with live, SavedTensors(everything, live.is_weight_copy) as saved:
            yield
        weights, state = storage_bytes(everything), self._state_bytes()
        found = TrainingLedger(
            form=form,
            frozen_weights=weights - storage_bytes(trained),
            trained_weights=storage_bytes(trained),
            gradients=self._gradient_bytes,
            optimizer_state=state,
            activations=saved.peak - saved.copies,
            weight_copies=saved.copies,
            peak=weights + state + live.peak,
        )
        if form not in self.ledgers or found.peak > self.ledgers[form].peak:
            self.ledgers[form] = found

    def _optimizer(self) -> torch.optim.Optimizer:
        self._built = super()._optimizer()
        self._built.register_step_pre_hook(self._see_gradients)
        return self._built

    def _see_gradients(self, optimizer: torch.optim.Optimizer, *details: Any) -> None:
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        self._gradient_bytes = storage_bytes(p.grad for p in parameters if p.grad is not None)

    def _state_bytes(self) -> int:
        values = (value for state in self._built.state.values() for value in state.values())
        return storage_bytes(value for value in values if isinstance(value, Tensor))


# inference ---------------------------------------------------------------------------------------------------------


def _inference_ledger(rig: Rig) -> InferenceLedger:
    everything = list(tensors_of((rig.backbone.model, rig.method, rig.head)))
    with pinned_attention(), LiveTensors(everything) as live:
        rig.forward(INFERENCE_BATCH)
    weights = storage_bytes(everything)
    return InferenceLedger(weights=weights, peak=weights + live.peak)


def _operations(rig: Rig) -> int:
    """Operations of one pass. Nothing requires a gradient meanwhile: the counter's hooks stumble over views that were
    made of parameters without one, such as prompts that are expanded to the batch."""
    parameters = [*rig.backbone.model.parameters(), *(() if rig.method is None else rig.method.parameters())]
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with FlopCounterMode(display=False) as counter:
            rig.forward(INFERENCE_BATCH)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return int(counter.get_total_flops())


def _when_merged(rig: Rig, function: Callable[[], int]) -> tuple[int | None, str]:
    """What `function` finds while the method is merged, or None and the reason why it cannot be."""
    assert rig.method is not None
    try:
        handle = rig.method.merge()
    except Unmergeable as error:
        return None, f"not merged: {error}"
    found = function()
    handle.remove()
    return found, ""


def _latencies(rig: Rig, bare: dict[int, list[float]], *, mergeable: bool) -> list[Timing]:
    """Inference with the method beside, merged, and without it; all conditions take turns.

    The bare backbone was timed before the method was attached and is timed once more after it was taken off.
    """
    method = rig.method
    assert method is not None
    found: dict[tuple[int, bool | None], list[float]] = {}
    for batch, (rounds, calls) in LATENCY.items():
        for _ in range(rounds):
            found.setdefault((batch, False), []).extend(_calls(partial(rig.forward, batch), 1, calls))
            if mergeable:
                handle = method.merge()
                found.setdefault((batch, True), []).extend(_calls(partial(rig.forward, batch), 1, calls))
                handle.remove()
    assert method.anatomy is not None
    method.anatomy.detach()
    rig.method = None
    after = {batch: _calls(partial(rig.forward, batch), *LATENCY[batch]) for batch in LATENCY}
    found.update({(batch, None): bare[batch] + after[batch] for batch in LATENCY})
    return [
        rig.timing("inference", seconds, LATENCY_WARM_UP, batch=batch, merged=merged)
        for (batch, merged), seconds in found.items()
    ]


def _calls(function: Callable[[], object], rounds: int, calls: int) -> list[float]:
    """Seconds of `rounds * calls` calls; each round begins with calls that do not count."""
    seconds = []
    for _ in range(rounds):
        for call in range(LATENCY_WARM_UP + calls):
            begun = time.perf_counter()
            function()
            if call >= LATENCY_WARM_UP:
                seconds.append(time.perf_counter() - begun)
    return seconds


def _adapter(rig: Rig, method: Method, work: Path, timed: bool) -> tuple[int | None, list[Timing]]:
    """Size of the published file; where `timed` also seconds to load it and to switch to tensors at hand."""
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in method.shipped().items()}
    if not tensors:
        return None, []
    file = work / "adapter.safetensors"
    save_file(tensors, file)
    size = file.stat().st_size
    if not timed:
        return size, []
    loading = _calls(lambda: method.load_shipped(load_file(file)), 1, ADAPTER_ROUNDS)
    switching = _calls(lambda: method.load_shipped(tensors), 1, ADAPTER_ROUNDS)
    return size, [
        rig.timing("load adapter", loading, LATENCY_WARM_UP),
        rig.timing("switch adapter", switching, LATENCY_WARM_UP),
    ]


# items -------------------------------------------------------------------------------------------------------------


def _rig(subject: Subject) -> Rig:
    kind = registry("backbones").load(subject.backbone.id)
    backbone: Backbone = kind(registry("backbones").card(subject.backbone.id), subject.inputs)
    backbone.anatomy.edits.keeps_originals = False  # copies for `detach` are no part of a method's memory
    task = _task(subject)
    prepared = backbone.prepare(_items(subject, max(2 * subject.batch, INFERENCE_BATCH)))
    prepared.pop("item", None)  # every image is a new one: features that are kept would cost nothing
    task.introduce(backbone)
    torch.manual_seed(0)
    return Rig(subject, backbone, task, task.make_head(backbone.width), prepared)


def _task(subject: Subject) -> Task:
    card = Card(
        id="profile", name="profile", version=1, family=subject.family, target="", metric="", higher_is_better=True,
        licence="", citation="", description="", classes=tuple(map(str, range(subject.classes or 0))),
        options={"templates": ["a picture of a {}."]},
    )  # fmt: skip
    if subject.family == "clip":
        return _Names(card)
    if subject.family == "diffusion":
        return _Denoising(card)
    return (_Text if subject.classes is None else _Classes)(card)


class _Given:
    """A task whose items are made here."""

    def build(self, split: Any) -> Split:
        raise NotImplementedError("a profile's items are given, not built")


class _Classes(_Given, Classification):
    pass


class _Names(_Given, OpenVocabulary):
    make = _Given.build


class _Denoising(_Given, Customisation):
    """One pass of the denoiser for each item."""

    def read_subjects(self) -> list[Any]:
        raise NotImplementedError("a profile has no subjects")

    read_prompts = read_subjects


class _Text(_Given, LanguageModelling):
    pass


def _items(subject: Subject, n: int) -> Split:
    names = tuple(f"made/{i}" for i in range(n))
    labels = None if subject.classes is None else np.arange(n, dtype=np.int64) % subject.classes
    if subject.family in ("vision", "clip"):
        images = np.random.default_rng(0).integers(0, 256, (n, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
        return Split({"image": images}, labels, names)
    if subject.family == "video":
        clips = np.random.default_rng(0).integers(0, 256, (n, FRAMES, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
        return Split({"clip": clips}, labels, names)
    sentences = probe_items("text").inputs["text"]
    if subject.family == "diffusion":
        images = np.random.default_rng(0).integers(0, 256, (n, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
        prompts = [sentences[i % len(sentences)] for i in range(n)]
        return Split({"image": images, "text": prompts, "weight": np.ones(n, dtype=np.float32)}, labels, names)
    texts = [" ".join(sentences[(i + j) % len(sentences)] for j in range(SENTENCES)) for i in range(n)]
    return Split({"text": texts}, labels, names)
