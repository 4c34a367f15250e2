"""What the harness adds to a cell: everything that is neither a training step nor evaluation, process start included.

Runs the smoke protocol and prints each cell's wall time once the server that cells are forked from is warm; with
`--main-job` also the main job (two methods, eight tasks, one seed), which takes minutes and needs its assets.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import peft_atlas
import pytest


def overhead(times: Any) -> float:
    """Seconds of a cell outside training and evaluation."""
    return float(times.total - times.fit - times.evaluate)


def test_smoke_cells(benchmark: Any, tmp_path: Path) -> None:
    folders = iter(range(100))

    def run() -> Any:
        return peft_atlas.run(
            "lora,vpt", "smoke", protocol="smoke", results=tmp_path / str(next(folders)), display="none"
        )

    outcome = benchmark.pedantic(run, rounds=2, warmup_rounds=1)
    for record in outcome:
        cell = f"{record.cell.method.id} x {record.cell.task.id}"
        print(f"\n{cell}: {record.times.total:.2f} s, of which overhead {overhead(record.times):.2f} s")
    benchmark.extra_info["slowest cell"] = max(record.times.total for record in outcome)


@pytest.mark.assets
def test_main_job(benchmark: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--main-job", default=False):
        pytest.skip("takes minutes: give --main-job")
    start = time.perf_counter()
    outcome = benchmark.pedantic(
        lambda: peft_atlas.run("lora,vpt", "vtab", results=tmp_path, display="plain"), rounds=1, warmup_rounds=0
    )
    print(f"\nmain job: {time.perf_counter() - start:.0f} s for {len(outcome)} cells")
    shares = [overhead(record.times) / record.times.total for record in outcome]
    peaks = [record.memory.peak_rss_bytes / 1e9 for record in outcome if record.memory.peak_rss_bytes]
    print(f"overhead: {min(shares):.1%} to {max(shares):.1%} of a cell; largest process {max(peaks):.2f} GB")
