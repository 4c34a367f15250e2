"""A training step and the saved activations of every method that HF PEFT has too, against HF PEFT.

    pytest tests/benchmarks/test_speed_against_peft.py [--rounds 60] [-k dora]

Both sides run in every round, in turns as to which is first, because machines drift. The ratio is that of the medians;
its 95% interval is a bootstrap over blocks of neighbouring rounds, which keeps the pairs and what drifts slowly. Bars:
the interval's upper end is at most 1.05, and at most 0.8 for DoRA, LoKr, OFT and BOFT; saved activations are at most
HF PEFT's. What trains and what is compared is in `against_peft`. One thread, optimiser step included. Rows of runs with
enough rounds go to `output/speed_against_peft.csv`, activations to `output/activations_against_peft.csv`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from .against_peft import SHAPES, SHARED, Shared, pair

peft = pytest.importorskip("peft", reason="the extra `peft` is not installed: nothing to compare with")

WARMUP, BLOCK, RESAMPLES = 5, 5, 4000
ENOUGH = 30  # rounds below which an interval says nothing
BAR, LOW_BAR = 1.05, 0.8
TO_BEAT = {"dora", "lokr", "oft", "boft"}
OUTPUT = Path(__file__).parent / "output"
every_method = pytest.mark.parametrize("shared", SHARED, ids=lambda shared: shared.id)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Rows by file; written at the end, in place of those of the same methods."""
    found: dict[str, list[dict[str, Any]]] = {}
    yield found
    for name, new in found.items():
        file = OUTPUT / f"{name}.csv"
        frame = pd.DataFrame(new)
        if file.exists():
            old = pd.read_csv(file)
            frame = pd.concat([old[~old["method"].isin(frame["method"])], frame])
        frame.sort_values("method").to_csv(file, index=False, float_format="%.5g")


def facts(shared: Shared) -> dict[str, Any]:
    """What a row is about."""
    shape = SHAPES[shared.backbone]
    return {
        "method": shared.id,
        "ours": shared.ours,
        "backbone": shape.build.__name__,
        "batch": shape.batch,
        "tokens": shape.tokens,
        "torch": torch.__version__.partition("+")[0],
        "peft": peft.__version__,
    }


def ratio_of_medians(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """(ratio, ends of its 95% interval) of paired times, from blocks of neighbouring rounds drawn with return."""
    starts = np.arange(len(ours) - BLOCK + 1)
    draws = np.random.default_rng(0).choice(starts, (RESAMPLES, -(-len(ours) // BLOCK)))
    index = (draws[:, :, None] + np.arange(BLOCK)).reshape(RESAMPLES, -1)[:, : len(ours)]
    ratios = np.median(ours[index], axis=1) / np.median(theirs[index], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(np.median(ours) / np.median(theirs)), float(low), float(high)


@every_method
def test_step(benchmark: Any, shared: Shared, rows: dict[str, Any], request: pytest.FixtureRequest) -> None:
    sides = pair(shared)
    dtypes = [{str(parameter.dtype) for parameter in side.trained} for side in sides]
    assert dtypes == [{"torch.float32"}] * 2, "the comparison states single precision for both"
    seconds: list[tuple[float, float]] = []

    def one_round() -> None:
        times = [0.0, 0.0]
        for number in (0, 1) if len(seconds) % 2 else (1, 0):
            start = time.perf_counter()
            sides[number].step()
            times[number] = time.perf_counter() - start
        seconds.append((times[0], times[1]))

    rounds = request.config.getoption("--rounds", default=40)
    benchmark.pedantic(one_round, rounds=rounds, warmup_rounds=WARMUP)
    if rounds < ENOUGH:
        pytest.skip(f"{rounds} rounds are too few for an interval: nothing is judged or written")
    ours, theirs = np.array(seconds[WARMUP:]).T
    ratio, low, high = ratio_of_medians(ours, theirs)
    bar = LOW_BAR if shared.id in TO_BEAT else BAR
    times = {"ours_ms": 1e3 * np.median(ours), "peft_ms": 1e3 * np.median(theirs), "rounds": len(ours)}
    what = {"backbone_dtype": "float32", "adapter_dtype": "float32", "threads": 1}
    trained = {"ours_trainable": sides[0].trainable, "peft_trainable": sides[1].trainable}
    row = {**facts(shared), **what, **trained, **times, "ratio": ratio, "low": low, "high": high, "bar": bar}
    rows.setdefault("speed_against_peft", []).append(row)
    benchmark.extra_info["ratio"] = f"{ratio:.3f} ({low:.3f} to {high:.3f})"
    print(f"\n{shared.id}: {ratio:.3f} of HF PEFT's step, 95% interval {low:.3f} to {high:.3f}, bar {bar}")
    assert high <= bar


@every_method
def test_saved_activations(shared: Shared, rows: dict[str, Any]) -> None:
    ours, theirs = (side.saved() for side in pair(shared))
    row = {**facts(shared), "ours_bytes": ours, "peft_bytes": theirs, "ratio": ours / theirs}
    rows.setdefault("activations_against_peft", []).append(row)
    assert ours <= theirs, f"{ours / theirs:.4f} of HF PEFT's"
