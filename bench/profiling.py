"""`bench profile`: plan cost profiles, measure them one at a time, keep them, lay them out.

A profile is never taken beside other cells. One child process each, nothing else started by this suite; what else the
machine did is told by the load in the profile.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import processes
from .child import utc
from .costs import CostProfile, Subject, from_json, to_json
from .environment import environment, machine_class
from .errors import AssetError, UsageError
from .faults import report_of, status_of
from .other_load import BUSY, other_load_now
from .publish import publish
from .records import PLAIN
from .registry import registry
from .store import Store, StoreError
from .text_table import text_table

if TYPE_CHECKING:
    import pandas as pd

    from .plan import Plan
    from .protocol import Protocol
    from .records import Cell

log = logging.getLogger(__name__)
CLASSES = 10  # outputs of the head in every profile of a family with heads
NAMED = {"clip"}  # families whose classes are known by names, and need no head
MIB = 2**20


@dataclass(frozen=True)
class ProfilePlan:
    """Subjects to measure, those that have a profile of this class of machine, and what cannot be."""

    run: list[Subject]
    cached: list[CostProfile]
    unsupported: list[tuple[str, str]]  # method on backbone, reason


def subjects(protocol: Protocol, cells: Iterable[Cell]) -> list[Subject]:
    """One subject for each method configuration and backbone among `cells`."""
    found: dict[str, Subject] = {}
    for cell in cells:
        task = registry("tasks").card(cell.task.id)
        settings = protocol.family(task)
        if protocol.computation(task).model_dump() != PLAIN:
            raise UsageError(f"protocol {protocol.id}: only plain float32 is profiled")
        subject = Subject(
            method=cell.method,
            backbone=cell.backbone,
            family=task.family,
            inputs=settings.inputs,
            batch=settings.batch,
            classes=None if settings.head_lr is None and task.family not in NAMED else CLASSES,
            optimizer=protocol.optimizer.model_dump(mode="json"),
            dtype=protocol.dtype,
            device="cpu",
            threads=protocol.threads,
        )
        found.setdefault(subject.key, subject)
    return list(found.values())


def plan_profiles(planned: Plan, results: Path, *, again: bool = False) -> ProfilePlan:
    """Sort a plan's subjects by what the results folder holds; `again` measures all of them anew."""
    here = machine_class(environment(planned.protocol.threads, 1))
    run, cached = [], []
    cells = sorted(planned.cells, key=lambda cell: planned.methods.index(cell.method.name))
    for subject in subjects(planned.protocol, cells):
        found = current(results, subject, here)
        if again or found is None or found.status != "ok":
            run.append(subject)
        else:
            cached.append(found)
    pairs = {(f"{cell.method.name} on {cell.backbone.id}", reason): None for cell, reason in planned.unsupported}
    return ProfilePlan(run, cached, list(pairs))


def run_profiles(
    found: ProfilePlan, results: Path, say: Callable[[str], None] = lambda line: None
) -> list[CostProfile]:
    """Measure the plan's subjects in turn and write each profile as it comes. Raises StoreError."""
    Store(results).check_writable()
    profiles = []
    for number, subject in enumerate(found.run, 1):
        say(f"[{number}/{len(found.run)}] {subject}")
        profile = take(subject)
        write(results, profile)
        if profile.error is not None:
            say(f"  {profile.status}: {profile.error.message.splitlines()[0]}")
        profiles.append(profile)
    return profiles


def command(
    methods: str,
    tasks: str,
    *,
    protocol: str,
    results: Path,
    again: bool,
    as_json: bool,
    plugins: Sequence[Path],
) -> int:
    """The verb: plan, measure, print. The exit code is 1 where a profile failed."""
    from . import api

    planned = api.plan(methods, tasks, protocol=protocol, seeds=[0], results=results, plugins=plugins)
    found = plan_profiles(planned, results, again=again)
    tell = partial(print, file=sys.stderr, flush=True)
    if not as_json:
        tell(f"{len(found.run)} to measure, {len(found.cached)} measured already, {len(found.unsupported)} unsupported")
        for what, reason in found.unsupported:
            tell(f"  unsupported: {what}: {reason}")
        if found.run and (others := other_load_now()) > BUSY:
            tell(f"  the machine is busy (others take {others:.1f} cores): times will be worth little")
    _fetch(planned)
    measured = run_profiles(found, results, (lambda line: None) if as_json else tell)
    order = {name: place for place, name in enumerate(planned.methods)}
    profiles = sorted([*found.cached, *measured], key=lambda profile: order[profile.subject.method.name])
    if as_json:
        content = [profile.model_dump(mode="json") for profile in profiles]
        print(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    elif profiles:
        print(table(profiles))
    return 1 if any(profile.status != "ok" for profile in profiles) else 0


def _fetch(planned: Plan) -> None:
    """The backbones' weights; AssetError where they cannot be had."""
    from . import needs

    backbones = dict.fromkeys(cell.backbone.id for cell in planned.cells)
    for reason in needs.fetch(need for backbone in backbones for need in needs.of_backbone(backbone)).values():
        raise AssetError(reason)


def take(subject: Subject, *, timed: bool = True) -> CostProfile:
    """Measure one subject in a child process, or only count; a failure is a profile that says so."""
    started, load, fields = utc(), load_average(), {}
    try:
        with tempfile.TemporaryDirectory(prefix="peft-atlas-") as work:
            fields = processes.call("peft_atlas.bench.profiler:measure", subject, work, timed)
    except Exception as failure:
        fields = {"status": status_of(failure), "error": report_of(failure)}
    return CostProfile(
        key=subject.key,
        subject=subject,
        environment=environment(subject.threads, 1),
        load_average=load,
        started=started,
        finished=utc(),
        **{"status": "ok", **fields},
    )


def load_average() -> float | None:
    """Mean number of waiting or running processes in the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


# keeping -----------------------------------------------------------------------------------------------------------


def read(results: Path, folder: str = "profiles/*/*/*") -> Iterator[CostProfile]:
    """Every readable profile of a results folder, or of one folder in it; others are named in a warning."""
    for path in sorted(results.glob(f"{folder}/profile-*.json")):
        try:
            yield from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            log.warning("profile %s is skipped: %s", path, " ".join(str(error).split())[:200])


def newest(results: Path) -> list[CostProfile]:
    """The profile that counts of each subject and class of machine."""
    groups: dict[tuple[str, str], list[CostProfile]] = {}
    for profile in read(results):
        groups.setdefault((profile.key, machine_class(profile.environment)), []).append(profile)
    return [found for group in groups.values() if (found := _newest(group)) is not None]


def current(results: Path, subject: Subject, where: str) -> CostProfile | None:
    """The newest profile of a subject on one class of machine, ok ones first."""
    return _newest(p for p in read(results, str(subject.folder)) if machine_class(p.environment) == where)


def write(results: Path, profile: CostProfile) -> Path:
    """Keep a profile under the next free number. Raises StoreError."""
    folder = results / profile.subject.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = folder / f"profile-{number}.json"
            try:
                publish(path, to_json(profile).encode())
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise StoreError(f"cannot write results to {results}: {error.strerror or error}") from error


def _newest(profiles: Iterable[CostProfile]) -> CostProfile | None:
    return max(profiles, key=lambda profile: (profile.status == "ok", profile.finished), default=None)


# showing -----------------------------------------------------------------------------------------------------------


def frame(results: str | Path) -> pd.DataFrame:
    """Profiles as tidy rows: the newest of each subject and class of machine."""
    import pandas as pd

    return pd.DataFrame([row(profile) for profile in newest(Path(results))])


def row(profile: CostProfile) -> dict[str, Any]:
    """The figures of a profile; bytes, seconds, operations; None where there is none."""
    subject, training = profile.subject, profile.training[0] if profile.training else None
    step = profile.timing("train step", subject.batch)
    latency = {
        f"seconds_inference_{batch}{name}": _median(profile, batch, merged)
        for batch in (1, 32)
        for name, merged in (("", False), ("_merged", True), ("_bare", None))
    }
    return {
        "method": subject.method.id,
        "method_name": subject.method.name,
        "backbone": subject.backbone.id,
        "family": subject.family,
        "machine": machine_class(profile.environment),
        "status": profile.status,
        "trainable_parameters": profile.parameters.adapter if profile.parameters else None,
        "ledger_activations": training.activations if training else None,
        "ledger_gradients": training.gradients if training else None,
        "ledger_optimizer_state": training.optimizer_state if training else None,
        "ledger_peak": training.peak if training else None,
        "train_peak_rss": profile.peak.train_rss_above_baseline if profile.peak else None,
        "inference_peak_rss": profile.peak.inference_rss_above_baseline if profile.peak else None,
        "train_operations": (
            profile.operations.train_forward + profile.operations.train_backward if profile.operations else None
        ),
        "inference_operations": profile.operations.inference_per_item if profile.operations else None,
        "seconds_step": step.median if step else None,
        "samples_per_second": subject.batch / step.median if step else None,
        "tokens_per_second": (
            subject.batch * profile.tokens_per_item / step.median if step and profile.tokens_per_item else None
        ),
        **latency,
        "adapter_file_bytes": profile.adapter_file_bytes,
        "key": profile.key,
        "load_average": profile.load_average,
        "other_load": profile.other_load,
    }


def _median(profile: CostProfile, batch: int, merged: bool | None) -> float | None:
    timing = profile.timing("inference", batch, merged)
    return timing.median if timing else None


def table(profiles: Sequence[CostProfile]) -> str:
    """Profiles as text, one block for each backbone and class of machine."""
    groups: dict[tuple[str, str], list[CostProfile]] = {}
    for profile in profiles:
        groups.setdefault((profile.subject.backbone.id, machine_class(profile.environment)), []).append(profile)
    return "\n\n".join(_block(*group, found) for group, found in groups.items())


def _block(backbone: str, where: str, profiles: Sequence[CostProfile]) -> str:
    head = ["method", "trainable", "saved MiB", "peak MiB", "RSS MiB", "GFLOP/step", "step ms", "b1 ms", "b1 merged"]
    head += ["b32 ms", "b32 merged", "file kB"]
    lines = [_line(profile) for profile in profiles]
    _, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    rows = [[name, *(n.rjust(w) for n, w in zip(numbers, widths, strict=True))] for name, *numbers in lines]
    first = profiles[0].subject
    notes = [
        f"{backbone}, batch {first.batch}, {first.dtype}, {first.threads} thread(s); {where}",
        "saved: activations kept for backward; peak: largest sum alive in a step (both canonical); RSS: measured,",
        "above the interpreter's; step and latency: medians, with p10 and p90 in the profile",
    ]
    notes += [f"{p.subject.method.name}: {note}" for p in profiles for note in p.notes]
    if any(profile.busy for profile in profiles):
        notes.append("the machine was busy with other work: do not trust the times")
    return "\n".join([text_table(head, rows), "", *notes])


def _line(profile: CostProfile) -> list[str]:
    if profile.status != "ok":
        return [profile.subject.method.name, profile.status, *[""] * 10]
    found = row(profile)
    numbers = [
        _number(found["trainable_parameters"], 1, 0),
        _number(found["ledger_activations"], MIB, 1),
        _number(found["ledger_peak"], MIB, 1),
        _number(found["train_peak_rss"], MIB, 0),
        _number(found["train_operations"], 1e9, 3),
        _number(found["seconds_step"], 1e-3, 1),
        _number(found["seconds_inference_1"], 1e-3, 2),
        _number(found["seconds_inference_1_merged"], 1e-3, 2),
        _number(found["seconds_inference_32"], 1e-3, 1),
        _number(found["seconds_inference_32_merged"], 1e-3, 1),
        _number(found["adapter_file_bytes"], 1e3, 1),
    ]
    return [profile.subject.method.name, *numbers]


def _number(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f}"
