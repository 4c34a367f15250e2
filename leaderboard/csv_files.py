"""CSV for spreadsheets and scripts: a file for each kind of fact, numbers unrounded, no cell that can be a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .board import Board, Contender, Entry, Suite
from .escaping import csv_cell, slug
from .places import Places

Row = Mapping[str, Any]
COLUMNS: dict[str, tuple[str, ...]] = {
    "results": (
        *("suite", "protocol", "protocol_version", "machine", "method", "name", "compute", "budget", "task", "status"),
        *(
            "score",
            "half_width",
            "unit",
            "seeds",
            "backbone",
            "trainable",
            "head",
            "shipped_bytes",
            "ledger_peak_bytes",
        ),
        *("train_peak_rss_bytes", "seconds_step", "seconds_inference_1", "cost_machine", "ece", "drift", "reason"),
    ),
    "scores": ("suite", "machine", "name", "task", "seed", "status", "score", "unit", "record", "mark", "reason"),
    "rankings": (
        *(
            "suite",
            "protocol",
            "protocol_version",
            "machine",
            "compute",
            "budget",
            "name",
            "rank",
            "mean",
            "half_width",
        ),
        *("mean_of_groups", "mean_of_groups_half_width", "mean_rank", "win_rate", "quality", "seeds", "imputed"),
    ),
    "pairs": ("suite", "machine", "compute", "budget", "a", "b", "difference", "half_width", "p_holm"),
    "costs": (
        *("name", "backbone", "family", "batch", "machine", "status", "what", "timing_batch", "merged", "dtype"),
        *("threads", "n", "median_seconds", "p10_seconds", "p90_seconds", "busy"),
    ),
    "published": ("table", "label", "method", "task", "value", "unit", "parameters", "source"),
}


def files(board: Board, places: Places) -> dict[str, bytes]:
    """Path -> content. A file without rows has its head."""
    makers = {
        "results": _results(board),
        "scores": _scores(board),
        "rankings": _rankings(board),
        "pairs": _pairs(board),
        "costs": _costs(board),
        "published": _published(board),
    }
    found = {f"csv/{name}.csv": _text(COLUMNS[name], rows) for name, rows in makers.items()}
    for method in board.methods:
        log = list(_log(board, method))
        if log:
            found[f"methods/{slug(method)}/log.csv"] = _text(("suite", "name", "task", "seed", "step", "loss"), log)
    return found


def _text(columns: tuple[str, ...], rows: Iterable[Row]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return stream.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return csv_cell(value) if isinstance(value, str) else value


def _entries(board: Board) -> Iterator[tuple[Suite, Contender, Entry]]:
    for suite in board.suites:
        for member in suite.contenders:
            for entry in member.entries:
                yield suite, member, entry


def _arena(suite: Suite) -> dict[str, Any]:
    facts = {"protocol": suite.protocol, "protocol_version": suite.protocol_version, "machine": suite.machine}
    return {"suite": suite.id, **facts}


def _results(board: Board) -> Iterator[Row]:
    for suite, member, entry in _entries(board):
        cost = None if entry.cost is None else board.costs[entry.cost]
        step = cost.timing("train step", cost.batch) if cost else None
        latency = cost.timing("inference", 1, False) if cost else None
        yield {
            **_arena(suite),
            **member.model_dump(include={"method", "name", "compute", "budget"}),
            **entry.model_dump(
                include={"task", "status", "backbone", "trainable", "head", "shipped_bytes", "ece", "drift", "reason"}
            ),
            "score": entry.interval.mean if entry.interval else None,
            "half_width": entry.interval.half_width if entry.interval else None,
            "unit": board.tasks[entry.task].unit,
            "seeds": " ".join(str(score.seed) for score in entry.scores if score.value is not None),
            "ledger_peak_bytes": cost.ledger_peak if cost else None,
            "train_peak_rss_bytes": cost.train_peak_rss if cost else None,
            "seconds_step": step.median if step else None,
            "seconds_inference_1": latency.median if latency else None,
            "cost_machine": cost.machine if cost else None,
        }


def _scores(board: Board) -> Iterator[Row]:
    for suite, member, entry in _entries(board):
        for score in entry.scores:
            facts = score.model_dump(include={"seed", "status", "record", "mark", "reason"})
            place = {"name": member.name, "task": entry.task, "unit": board.tasks[entry.task].unit}
            yield {**_arena(suite), **place, **facts, "score": score.value}


def _rankings(board: Board) -> Iterator[Row]:
    for suite in board.suites:
        for ranking in suite.rankings:
            for standing in ranking.standings:
                mean, groups = standing.means.get("mean"), standing.means.get("mean of groups")
                facts = {"name", "rank", "mean_rank", "win_rate", "quality", "seeds"}
                yield {
                    **_arena(suite),
                    "compute": ranking.compute,
                    "budget": ranking.budget,
                    **standing.model_dump(include=facts),
                    "mean": mean.mean if mean else None,
                    "half_width": mean.half_width if mean else None,
                    "mean_of_groups": groups.mean if groups else None,
                    "mean_of_groups_half_width": groups.half_width if groups else None,
                    "imputed": " ".join(standing.imputed),
                }


def _pairs(board: Board) -> Iterator[Row]:
    for suite in board.suites:
        for ranking in suite.rankings:
            for pair in ranking.pairs:
                facts = pair.model_dump(include={"a", "b", "half_width", "p_holm"})
                place = {"compute": ranking.compute, "budget": ranking.budget}
                yield {**_arena(suite), **place, **facts, "difference": pair.mean}


def _costs(board: Board) -> Iterator[Row]:
    for cost in board.costs:
        shared = cost.model_dump(include={"name", "backbone", "family", "batch", "machine", "status", "busy"})
        for timing in cost.timings:
            times = {f"{name}_seconds": getattr(timing, name) for name in ("median", "p10", "p90")}
            facts = timing.model_dump(include={"what", "merged", "dtype", "threads", "n"})
            yield {**shared, **facts, **times, "timing_batch": timing.batch}


def _published(board: Board) -> Iterator[Row]:
    for table in board.published:
        for row in table.rows:
            for task, value in row.values.items():
                facts = {"table": table.id, "label": row.label, "method": row.method, "task": task, "value": value}
                yield {**facts, "unit": table.unit, "parameters": row.parameters, "source": table.url}


def _log(board: Board, method: str) -> Iterator[Row]:
    """The training loss of every seed, at the middle of each span of steps."""
    for suite, member, entry in _entries(board):
        if member.method == method:
            for score in entry.scores:
                for place, loss in enumerate(score.curve):
                    step = round((place + 0.5) * score.steps / len(score.curve), 1)
                    yield {"suite": suite.id, "name": member.name, "task": entry.task, "seed": score.seed,
                           "step": step, "loss": loss}  # fmt: skip
