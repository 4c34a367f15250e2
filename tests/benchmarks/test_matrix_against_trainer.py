"""A matrix of 24 cells through `bench run`, and one by one through a script of HF's Trainer and HF PEFT.

Both are run whole, as processes, in one go; `--matrix-cells N` takes only the first N cells of the matrix on both sides
(every method, then the next task), since all of the script's take more than half an hour on two cores. Products of the
suite are computed in bfloat16 where the processor has units for it (`--matrix-dtype` overrides); the script is left as
it comes.
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft_atlas
import pytest
from peft_atlas.bench.api import plan as plan_cells
from peft_atlas.bench.assets import asset
from peft_atlas.bench.names import parse_one
from peft_atlas.bench.plan_file import to_lines
from peft_atlas.bench.registry import registry

SCRIPT = Path(__file__).parent / "matrix" / "trainer_script.py"
PROTOCOL = SCRIPT.with_name("matrix.yaml")
TASKS = ("rotten-tomatoes", "imdb")
SEEDS = (0, 1, 2)
METHODS = {  # name there -> name here, learning rate
    "lora": ("lora(r=8, alpha=16, targets=q+v, lr={lr})", 2e-3),
    "dora": ("dora(r=8, alpha=16, targets=q+v, lr={lr})", 2e-3),
    "ia3": ("ia3(targets=k+v+down, lr={lr})", 3e-3),
    "prefix": ("prefix(tokens=20, projection=false, shift_positions=true, lr={lr})", 1e-2),
}


@dataclass(frozen=True)
class MatrixCell:
    """One cell: `method` as the script calls it."""

    method: str
    task: str
    seed: int

    @property
    def name(self) -> str:
        """The method with its arguments, as `bench run` takes it."""
        pattern, lr = METHODS[self.method]
        return str(parse_one(pattern.format(lr=lr)))


def matrix() -> Iterator[MatrixCell]:
    """All 24 cells; any first few of them hold every method, then both tasks."""
    for seed in SEEDS:
        for task in TASKS:
            for method in METHODS:
                yield MatrixCell(method, task, seed)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tasks' items as CSV files, so that the two sides see the same texts."""
    folder = tmp_path_factory.mktemp("texts")
    for task_id in TASKS:
        task = registry("tasks").load(task_id)(registry("tasks").card(task_id))
        for name in ("train", "test"):
            split = task.build(name)
            (folder / task_id).mkdir(exist_ok=True)
            with (folder / task_id / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow(["text", "label"])
                rows.writerows(zip(split.inputs["text"], split.labels.tolist(), strict=True))
    return folder


def by_suite(cells: list[MatrixCell], dtype: str, folder: Path) -> tuple[float, dict[MatrixCell, float]]:
    """Wall seconds and accuracies of one `bench run`, started as a user starts it."""
    plugin, plan = folder / "plugin", folder / "plan.jsonl"
    plugin.mkdir()
    protocol = PROTOCOL.read_text()
    (plugin / "matrix.yaml").write_text(protocol.replace("dtype: float32", f"dtype: {dtype}"))
    names = list(dict.fromkeys(cell.name for cell in cells))
    planned = plan_cells(names, list(TASKS), protocol="matrix", plugins=[plugin], results=folder / "results")
    wanted = {(cell.name, cell.task, cell.seed) for cell in cells}
    chosen = [c for c in planned.run if (c.method.name, c.task.id, c.seed) in wanted]
    assert len(chosen) == len(cells)
    plan.write_text(to_lines(chosen))
    command = [sys.executable, "-m", "peft_atlas", "run", "--plan", str(plan), "--plugin", str(plugin)]
    started = time.perf_counter()
    subprocess.run([*command, "--results", str(folder / "results")], check=True)
    wall = time.perf_counter() - started
    frame = peft_atlas.load_results(folder / "results")
    found = {(row.method_name, row.task, row.seed): row.value for row in frame.itertuples()}
    return wall, {cell: found[cell.name, cell.task, cell.seed] for cell in cells}


def by_script(cells: list[MatrixCell], texts: Path, folder: Path) -> tuple[float, dict[MatrixCell, dict[str, Any]]]:
    """Wall seconds and results of the script, one process a cell; a cell that HF PEFT cannot train has an "error"."""
    found: dict[MatrixCell, dict[str, Any]] = {}
    started = time.perf_counter()
    for number, cell in enumerate(cells):
        out = folder / f"{number}.json"
        command = [
            sys.executable,
            str(SCRIPT),
            cell.method,
            str(METHODS[cell.method][1]),
            str(cell.seed),
        ]
        command += [str(asset("minilm-l6")), str(texts / cell.task), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed = {"error": done.stderr.strip().splitlines()[-1:]}
        found[cell] = json.loads(out.read_text()) if done.returncode == 0 else failed
    return time.perf_counter() - started, found


@pytest.mark.assets
def test_matrix(benchmark: Any, texts: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("peft")
    count = request.config.getoption("--matrix-cells", default=0)
    if not count:
        pytest.skip("takes up to an hour: give --matrix-cells 24")
    cells, dtype = list(matrix())[:count], request.config.getoption("--matrix-dtype") or fast_dtype()
    suite, scores = benchmark.pedantic(lambda: by_suite(cells, dtype, tmp_path), rounds=1, warmup_rounds=0)
    script, theirs = by_script(cells, texts, tmp_path)
    print(f"\n{'cell':<34}{'suite':>8}{'script':>9}   importing, training, evaluating")
    for cell in cells:
        result = theirs[cell]
        title = f"{cell.method} {cell.task} seed {cell.seed}"
        if "error" in result:
            print(f"{title:<34}{scores[cell]:8.3f}   failed: {' '.join(result['error'])}")
            continue
        spread = 1.96 * math.sqrt(2 * 0.25 / result["items"])
        agrees = "" if abs(scores[cell] - result["accuracy"]) <= spread else "  apart by more than chance"
        seconds = ", ".join(f"{value:.0f} s" for value in result["seconds"].values())
        print(f"{title:<34}{scores[cell]:8.3f}{result['accuracy']:9.3f}   {seconds}{agrees}")
    ratio = f"ratio {script / suite:.2f} over {len(cells)} cells"
    print(f"bench run ({dtype}): {suite:.0f} s; script: {script:.0f} s; {ratio}")


def fast_dtype() -> str:
    """bfloat16 where the processor multiplies it in units of its own."""
    import torch

    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"
