"""What a comparison found: named facts about methods and tasks, each with a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "status",
    "parameters",
    "trained tensors",
    "data",
    "training",
    "evaluation",
    "score",
    "duplicate",
    "quality",
    "suite",
    "settings",
    "declared",
    "missing",
    "untested",
    "costs",
    "time",
]
Verdict = Literal["regression", "drift", "improvement", "declared", "note"]
VERDICTS: tuple[Verdict, ...] = ("regression", "drift", "improvement", "declared", "note")
FAILING: frozenset[Verdict] = frozenset({"regression", "drift"})
MOST = 0.5  # share of the methods beyond which a change is the pipeline's
FEWEST = 3  # methods on a task, for "most" to mean anything


@dataclass(frozen=True)
class Finding:
    """One fact. Without methods it is about the pipeline: most methods move together."""

    kind: Kind
    verdict: Verdict
    text: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...] = ()

    def __str__(self) -> str:
        subject = ", ".join(self.methods) or "pipeline"
        return f"{self.verdict}: {subject}: {self.text} ({', '.join(self.tasks)})"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "verdict": self.verdict,
            "text": self.text,
            "tasks": list(self.tasks),
            "methods": list(self.methods),
        }


@dataclass(frozen=True)
class Incomplete:
    """A suite that cannot be compared for a method: it lacks tasks, or they ran on different pairs of machines."""

    suite: str
    method: str
    lacks: tuple[str, ...]
    split: bool = False

    def __str__(self) -> str:
        why = "its tasks ran on different machines" if self.split else f"lacks {', '.join(self.lacks)}"
        return f"{self.suite}: {self.method}: {why}"


@dataclass(frozen=True)
class Comparison:
    """Two sides, cell by cell. `findings` come worst first."""

    a: str
    b: str
    findings: list[Finding]
    places: list[tuple[str, str, str]]  # (protocol, task, method) of what was compared
    pairs: int
    exact: int  # of them, pairs of one machine class: loss traces and scores compared bit for bit
    rounded: int  # pairs of different ones: within a tolerance; the rest differ in settings, recipe, data or status
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    incomplete: list[Incomplete] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 where something got worse or drifted."""
        return 1 if any(finding.verdict in FAILING for finding in self.findings) else 0


def most(moved: int, methods: int) -> bool:
    """Whether so many methods moved that it is the pipeline that moved."""
    return methods >= FEWEST and moved > MOST * methods


def grouped(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first; one finding where the same is said of one method on several tasks."""
    tasks: dict[tuple[Kind, Verdict, str, tuple[str, ...]], dict[str, None]] = {}
    for finding in findings:
        key = (finding.kind, finding.verdict, finding.text, finding.methods)
        tasks.setdefault(key, {}).update(dict.fromkeys(finding.tasks))
    joined = [
        Finding(kind, verdict, text, tuple(found), methods) for (kind, verdict, text, methods), found in tasks.items()
    ]
    return sorted(joined, key=lambda finding: VERDICTS.index(finding.verdict))
