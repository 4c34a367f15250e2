"""How long 100,000 simulated records take to load, rank and compare through the index, and how much memory.

    pytest tests/benchmarks/test_scale.py -s [--records 1000000]

The goal: 10 s and 2 GB for 100,000, 60 s for 1,000,000. Writing the records and building the index come before and are
printed apart. What is measured runs in a process of its own, its imports included: it checks every file for changes,
loads the frame, ranks the methods of `vtab-embedded`, and compares all cells with a version where 5 of the 125 methods
train otherwise and score lower. The records have no predictions, so seeds are compared, not items.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from peft_atlas.bench.records import (
    BackboneIdentity,
    Cell,
    CurvePoint,
    DataFingerprints,
    Environment,
    MethodIdentity,
    ParameterCounts,
    Primary,
    ProtocolIdentity,
    Record,
    TaskIdentity,
    TrainedTensors,
    to_json,
)
from peft_atlas.bench.registry import registry

METHODS = 125
MEASURED = """
import json, resource, sys, time
start = time.perf_counter()
from dataclasses import replace
from pathlib import Path
from peft_atlas.bench.compare import compare
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.ranking import rank_suite
from peft_atlas.bench.sides import folder_side
from peft_atlas.bench.store import Store

def lap(name):
    global start
    now = time.perf_counter()
    told[name] = now - start
    told["cpu"] = time.process_time()
    start = now

told = {}
root = Path(sys.argv[1])
lap("import")
frame = Store(root).frame()
lap("load")
ranking = rank_suite(frame, lambda path: None, load_protocol("embedded").suites["vtab"].tasks)
lap("rank")
a = folder_side(root, "a")
moved = a.cells["method_name"].isin([f"lora(r={n})" for n in range(1, 6)])
losses = a.cells["losses"].mask(moved, "[0.5,0.25]")
digest = a.cells["loss_digest"].mask(moved, "other")
b = replace(a, name="b", cells=a.cells.assign(losses=losses, loss_digest=digest, value=a.cells["value"] - 0.05 * moved))
comparison = compare(a, b)
lap("compare")
told["records"], told["ranked"] = len(frame), len(ranking.methods)
told["found"] = sorted({name for finding in comparison.findings for name in finding.methods})
told["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
print(json.dumps(told))
"""


def template() -> Record:
    """A record as a cell of `vtab-embedded` leaves it: 100 steps of loss, four metrics, what trains by name."""
    cell = Cell(
        protocol=ProtocolIdentity(id="embedded", version=1, hash="0" * 16),
        method=MethodIdentity(id="lora", name="lora", version=1, config={"lr": 0.004, "r": 8, "targets": "q+v"}),
        task=TaskIdentity(id="mnist", version=1),
        backbone=BackboneIdentity(id="dinov2-small", weights="f" * 16),
        seed=0,
    )
    trained = {
        f"factors.vision_blocks_*_attention_{place}": TrainedTensors(tensors=12, parameters=36864) for place in "qv"
    }
    facts: dict[str, Any] = {
        "metrics": {"accuracy": 0.5, "macro_f1": 0.5, "nll": 1.5, "ece": 0.1},
        "primary": Primary(name="accuracy", value=0.5, higher_is_better=True),
        "curve": tuple(CurvePoint(step=step, loss=2.3 - 0.0123456789 * step, lr=0.001) for step in range(100)),
        "parameters": ParameterCounts(
            backbone=21_536_640,
            adapter=147_456,
            head=3850,
            total_trainable=151_306,
            shipped_bytes=589_824,
            trained=trained,
        ),
        "data": DataFingerprints(train="0" * 16, test="1" * 16, matches_card=False),
        "environment": Environment(
            commit="0" * 40,
            dirty=False,
            versions={"python": "3.11", "torch": "2.8"},
            platform="Linux",
            cpu="simulated",
            cores=2,
            threads=1,
            jobs=2,
            device="cpu",
        ),
    }
    return Record(
        key=cell.key, attempt=1, status="ok", phase="done", cell=cell, started="2026", finished="2026", **facts
    )


def simulate(root: Path, records: int) -> None:
    """Write cells of `METHODS` methods on the eight tasks with as many seeds as it takes."""
    tasks = registry("protocols").card("embedded").suites["vtab"].tasks
    seeds = records // (METHODS * len(tasks))
    base = template()
    data = json.loads(to_json(base))
    for number in range(records):
        method, rest = number % METHODS + 1, number // METHODS
        task, seed = tasks[rest % len(tasks)], rest // len(tasks) % max(seeds, 1)
        identity = base.cell.method.model_copy(update={"name": f"lora(r={method})", "config": {"r": method}})
        changes = {"method": identity, "task": TaskIdentity(id=task, version=1), "seed": seed}
        cell = base.cell.model_copy(update=changes)
        value = 0.5 + method / 1000 + 0.00001 * ((7919 * number) % 997)
        data |= {"key": cell.key, "cell": cell.model_dump(mode="json"), "metrics": {"accuracy": value}}
        data["primary"]["value"] = value
        folder = root / cell.folder
        folder.mkdir(parents=True)
        (folder / "1.json").write_text(json.dumps(data), encoding="utf-8")


def test_many_records(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    records = request.config.getoption("--records")
    start = time.perf_counter()
    simulate(tmp_path, records)
    print(f"\n{records:,} records written in {time.perf_counter() - start:.0f} s")
    time.sleep(2.1)  # folders that changed a moment ago are not trusted yet
    start = time.perf_counter()
    build = f"from peft_atlas.bench.store import Store; print(len(Store({str(tmp_path)!r}).frame()))"
    subprocess.run([sys.executable, "-c", build], check=True, capture_output=True)
    print(f"index built in {time.perf_counter() - start:.0f} s")
    done = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path)], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    laps = {name: told[name] for name in ("import", "load", "rank", "compare")}
    print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in laps.items()))
    print(f"together {sum(laps.values()):.1f} s ({told['cpu']:.1f} s of processor), peak {told['peak_gb']:.2f} GB")
    assert told["records"] == records and told["ranked"] == METHODS
    assert told["found"] == sorted(f"lora(r={number})" for number in range(1, 6))
