"""A comparison in words: plain text, Markdown for a pull request, JSON for machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .compare import ROUNDING
from .findings import Comparison, Finding, Incomplete

SHOWN = 20  # names in a list before it is cut


def as_text(comparison: Comparison) -> str:
    """A line for each finding, then what was compared and what was not."""
    lines = [str(finding) for finding in comparison.findings]
    return "\n".join([*lines, *_remarks(comparison), headline(comparison)])


def as_markdown(comparison: Comparison) -> str:
    """A summary for a pull request; names and messages cannot break out of their cells."""
    lines = [f"### {_escaped(headline(comparison))}", ""]
    if comparison.findings:
        lines += ["| verdict | what | methods | tasks |", "|---|---|---|---|"]
        lines += [_row(finding) for finding in comparison.findings] + [""]
    return "\n".join([*lines, *(f"- {_escaped(remark)}" for remark in _remarks(comparison))]) + "\n"


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """For JSON."""
    return {
        "a": comparison.a,
        "b": comparison.b,
        "exit_code": comparison.exit_code,
        "pairs": comparison.pairs,
        "pairs_compared_bit_for_bit": comparison.exact,
        "findings": [finding.as_dict() for finding in comparison.findings],
        "only_in_a": comparison.only_a,
        "only_in_b": comparison.only_b,
        "incomplete_suites": [
            {"suite": one.suite, "method": one.method, "lacks": list(one.lacks), "machines_differ": one.split}
            for one in comparison.incomplete
        ],
    }


def headline(comparison: Comparison) -> str:
    """How it ended, in one line."""
    counts = {
        verdict: sum(finding.verdict == verdict for finding in comparison.findings)
        for verdict in ("regression", "drift", "improvement")
    }
    plural = {"regression": "regressions", "drift": "drifts of the pipeline", "improvement": "improvements"}
    single = {"regression": "regression", "drift": "drift of the pipeline", "improvement": "improvement"}
    parts = [f"{n} {single[verdict] if n == 1 else plural[verdict]}" for verdict, n in counts.items() if n]
    return f"{', '.join(parts) or 'no change'} in {_cells(comparison.pairs)} of {comparison.a} and {comparison.b}"


def _cells(number: int) -> str:
    return f"{number:,} cell{'' if number == 1 else 's'}"


def _remarks(comparison: Comparison) -> list[str]:
    """What was compared how, and what could not be."""
    remarks = []
    if comparison.exact:
        remarks.append(f"{_cells(comparison.exact)} of one machine class: loss traces and scores compared bit for bit")
    if comparison.rounded:
        remarks.append(
            f"{_cells(comparison.rounded)} of different machines or versions: loss traces compared within {ROUNDING:g}"
        )
    if comparison.only_a:
        remarks.append(f"only in {comparison.a}: {_list(comparison.only_a)}")
    if comparison.only_b:
        remarks.append(f"new in {comparison.b}: {_list(comparison.only_b)}")
    return [*remarks, *_incomplete(comparison.incomplete)]


def _incomplete(suites: Sequence[Incomplete]) -> list[str]:
    """One line for each suite and reason."""
    methods: dict[tuple[str, str], list[str]] = {}
    for one in suites:
        why = "tasks that ran on different machines" if one.split else f"without {', '.join(one.lacks)}"
        methods.setdefault((one.suite, why), []).append(one.method)
    return [f"{suite} is not compared for {_list(names)}: {why}" for (suite, why), names in methods.items()]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _row(finding: Finding) -> str:
    cells = (finding.verdict, finding.text, ", ".join(finding.methods) or "pipeline", ", ".join(finding.tasks))
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    """Text without meaning to Markdown or HTML, on one line."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~!@])", r"\\\1", plain)
