"""One cell: load, probe, data, attach, fit, evaluate. Runs in a child process, knows no method or task by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .attempt import Attempt
from .computation import checkpoint_blocks
from .drift import Probe
from .names import Name
from .protocol import load_protocol
from .recipes import configure
from .records import DataFingerprints, MethodIdentity, ParameterCounts, TrainedTensors
from .registry import registry
from .trainer import Fit, evaluate

if TYPE_CHECKING:
    from ..methods.contract import Method
    from ..tasks.contract import Card, Split, Task
    from .backbones.contract import Backbone


def run_cell(attempt: Attempt) -> None:
    """Train and score one cell, leaving what it finds in `attempt`. Any failure is an exception."""
    cell = attempt.cell
    protocol = load_protocol(cell.protocol.id)
    settle(protocol.threads, protocol.dtype)
    task: Task = registry("tasks").load(cell.task.id)(registry("tasks").card(cell.task.id))
    settings = protocol.family(task.card)
    with attempt.phase("load"):
        kind = registry("backbones").load(cell.backbone.id)
        backbone: Backbone = kind(registry("backbones").card(cell.backbone.id), settings.inputs)
        backbone.anatomy.edits.keeps_originals = False  # copies for `detach` are no part of a method's memory
        attempt.computation = protocol.computation(task.card)
    with attempt.phase("probe"):
        probe = Probe(backbone)
    with attempt.phase("data"):
        train = task.build("train")
        attempt.data = _fingerprints(task.card, train, None)
        train, held_out = _hold_out(train, protocol.tuning.selection) if cell.selection else (train, None)
        prepared = backbone.prepare(task.complete(train, backbone))
    with attempt.phase("attach"):
        counted = sum(parameter.numel() for parameter in backbone.model.parameters())
        torch.manual_seed(cell.seed)
        head = task.make_head(backbone.width)
        task.introduce(backbone)
        torch.manual_seed(cell.seed)  # the method's draws do not depend on the head's size
        method = method_of(cell.method)
        method.attach(backbone.anatomy)
        attempt.parameters = count_parameters(counted, method, head)
        if settings.checkpointing:
            checkpoint_blocks(backbone.model)
        if settings.compile:
            backbone.model.compile()
    with attempt.phase("fit"):
        torch.manual_seed(cell.seed)
        fit = Fit(
            *(backbone, method, head, task, prepared, settings, protocol.optimizer, cell.seed),
            steps=cell.steps,
            report=attempt.report,
            dtype=protocol.dtype,
        )
        attempt.curve, attempt.step_seconds = fit.curve, fit.step_seconds  # grow while it trains
        fit.run()
        if method.sized_by_data:
            attempt.parameters = count_parameters(counted, method, head)
    with attempt.phase("data"):  # the test split does not exist before training has ended
        split = task.build("test") if held_out is None else held_out
        if held_out is None:
            attempt.data = _fingerprints(task.card, None, split, attempt.data)
        prepared = backbone.prepare(split)
    with attempt.phase("evaluate"):
        predictions = evaluate(
            backbone, method, head, task, split, prepared, settings, attempt.report, dtype=protocol.dtype
        )
        attempt.score(task.score(predictions, split), task.card.metric, higher_is_better=task.card.higher_is_better)
        items = np.asarray(predictions.items, dtype=np.str_)
        per_item = np.asarray(task.per_item(predictions, split), dtype=np.float64)
        stored = {name: column for name, column in predictions.columns.items() if name not in task.shown}
        attempt.arrays = {"items": items, "per_item": per_item, **stored}
        attempt.sheet = task.sheet(predictions, split)
    with attempt.phase("probe"), torch.compiler.set_stance("force_eager"):  # as the backbone answered before
        attempt.drift = probe.drift()


def settle(threads: int, dtype: str = "float32") -> None:
    """The same arithmetic in every run: threads, no fast path of another rounding, deterministic kernels.

    On a CPU, torch's fused attention takes several times as long in bfloat16 as in float32 (a third of a step of
    MiniLM); plain products do not, so they compute attention there.
    """
    torch.set_num_threads(threads)
    if dtype == "bfloat16" and not torch.cuda.is_available():
        torch.backends.cuda.enable_flash_sdp(False)  # the switch holds for the CPU too
    torch.backends.mha.set_fastpath_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=False)


def method_of(identity: MethodIdentity) -> Method:
    """A fresh method, not yet attached."""
    from .recipes import Resolved

    values = identity.config
    config = configure(identity.id, Resolved(Name(identity.id), values, dict.fromkeys(values, ("", ""))))
    method: Method = registry("methods").load(identity.id)(config)
    return method


def _hold_out(train: Split, share: float) -> tuple[Split, Split]:
    """The first items for training, the last `share` of them for selection."""
    kept = len(train) - round(share * len(train))
    order = np.arange(len(train))
    return train.take(order[:kept]), train.take(order[kept:])


def _fingerprints(
    card: Card, train: Split | None, test: Split | None, known: DataFingerprints | None = None
) -> DataFingerprints:
    """Hashes of the splits built so far, and whether they are the card's."""
    seen: dict[str, str | None] = {"train": known.train if known else None, "test": known.test if known else None}
    for name, split in (("train", train), ("test", test)):
        if split is not None:
            seen[name] = split.fingerprint()
    matches = all(value is None or card.fingerprints.get(name) == value for name, value in seen.items())
    stated = matches if card.fingerprints else None
    return DataFingerprints(train=str(seen["train"]), test=seen["test"], matches_card=stated)


def count_parameters(backbone: int, method: Method, head: Any) -> ParameterCounts:
    """Counts of an attached method; `backbone` is the number of its parameters before anything was added."""
    adapter = dict(method.adapter_parameters())
    in_head = {} if head is None else {f"head.{name}": p for name, p in head.named_parameters() if p.requires_grad}
    numbers = [sum(parameter.numel() for parameter in part.values()) for part in (adapter, in_head)]
    return ParameterCounts(
        backbone=backbone,
        adapter=numbers[0],
        head=numbers[1],
        total_trainable=sum(numbers),
        shipped_bytes=sum(tensor.numel() * tensor.element_size() for tensor in method.shipped().values()),
        trained=_by_pattern({**adapter, **in_head}),
    )


def _by_pattern(named: Mapping[str, Tensor]) -> dict[str, TrainedTensors]:
    """What trains, by name with every number written as `*`."""
    found: dict[str, list[int]] = {}
    for name, tensor in named.items():
        found.setdefault(re.sub(r"\d+", "*", name), []).append(tensor.numel())
    return {name: TrainedTensors(tensors=len(sizes), parameters=sum(sizes)) for name, sizes in sorted(found.items())}
