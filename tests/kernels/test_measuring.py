"""What is measured decides: thresholds from rows, the committed files, the dispatcher, the report's words."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_atlas.bench import cli, kernel_report, kernel_rows
from peft_atlas.bench.kernel_rows import Row
from peft_atlas.kernels import catalog, thresholds
from peft_atlas.kernels.case import Case
from peft_atlas.kernels.dispatch import forced, prefers_kernel
from peft_atlas.kernels.scale_shift.apply import scale_shift

pytestmark = pytest.mark.kernels


def row(provider: str, p50: float, work: int = 100, **other: object) -> Row:
    known = {
        "kernel": "scale_shift", "provider": provider, "mode": "forward", "launch": "stream", "shape": f"shape{work}",
        "size": f"rows={work}", "work": work, "dtype": "bfloat16", "p50": p50, "p20": p50, "p80": p50, "peak_mb": 1.5,
        "bytes": 10, "flops": 20, "roofline": 0.5, "gpu": "Some GPU", "torch": "2.11", "triton": "3.6", "driver": "1",
        "commit": "abc", "time": "2026-01-01T00:00:00",
    }  # fmt: skip
    return Row(**{**known, **other})  # type: ignore[arg-type]


def picks(entries: list[dict[str, str | int]], kernel: Row, fallback: str) -> bool:
    found = {tuple(entry[key] for key in thresholds.KEYS): int(entry["work"]) for entry in entries}
    return kernel.work >= found.get((kernel.gpu, kernel.kernel, kernel.dtype, kernel.mode, fallback), thresholds.NEVER)


def test_never_picks_what_was_more_than_three_percent_slower() -> None:
    """Random times at random shapes: winners may be missed, losers are never taken; where all win, all are."""
    draw = random.Random(0)
    taken = 0
    for _ in range(200):
        works = draw.sample(range(1000), 6)
        rows = [row(p, draw.uniform(1, 2), work) for p in ("triton", "algebra", "compile") for work in works]
        entries = kernel_rows.thresholds(rows)
        for fallback in ("algebra", "compile"):
            for kernel, other in kernel_rows.pairs(rows, fallback):
                if picks(entries, kernel, fallback):
                    taken += 1
                    assert kernel.p50 <= 1.03 * other.p50
    assert taken > 100
    (one, two) = kernel_rows.thresholds(
        [row(p, 1.0, work) for p in ("triton", "algebra", "compile") for work in (5, 7)]
    )
    assert one["work"] == two["work"] == 5


def test_cpu_rows_and_graph_launches_make_no_threshold() -> None:
    assert kernel_rows.thresholds([row("triton", 1, gpu="cpu"), row("algebra", 2, gpu="cpu")]) == []
    assert kernel_rows.thresholds([row("triton", 1, launch="graph"), row("algebra", 2, launch="graph")]) == []


def test_committed_thresholds_are_those_of_the_committed_rows() -> None:
    rows = kernel_rows.read([thresholds.MEASURED] if thresholds.MEASURED.exists() else [])
    assert thresholds.THRESHOLDS.read_text(encoding="utf-8") == kernel_rows.thresholds_text(rows)
    for fallback in ("algebra", "compile"):
        for kernel, other in kernel_rows.pairs(rows, fallback):
            if kernel.launch == "stream" and picks(json.loads(thresholds.THRESHOLDS.read_text()), kernel, fallback):
                assert kernel.p50 <= 1.03 * other.p50


def test_dispatcher_asks_the_thresholds_also_inside_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ("Some GPU", "scale_shift", "float32", "both", "compile")
    monkeypatch.setattr(thresholds, "entries", lambda: {entry: 50})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")

    def at_a_time(x: torch.Tensor) -> torch.Tensor:
        least = thresholds.least_work("scale_shift", 0, "float32", "both", "compile")
        return x + 1 if x.numel() >= least else x - 1

    compiled = torch.compile(at_a_time, fullgraph=True, backend="eager", dynamic=False)
    assert compiled(torch.zeros(50)).eq(1).all()
    assert compiled(torch.zeros(49)).eq(-1).all()
    assert thresholds.least_work("scale_shift", 0, "bfloat16", "both", "compile") == thresholds.NEVER


def test_cpu_is_plain_torch_to_the_bit() -> None:
    x, gain, shift = torch.randn(3, 4), torch.randn(4), torch.randn(4)
    assert not prefers_kernel("scale_shift", 10**9, x)
    assert torch.equal(scale_shift(x, gain, shift), x * gain + shift)
    with forced(True):
        assert prefers_kernel("scale_shift", 0, x)
        with forced(False):
            assert not prefers_kernel("scale_shift", 0, x)


def test_rows_survive_a_file(tmp_path: Path) -> None:
    rows = [row("triton", 1.25), row("algebra", 2.0, peak_mb=None, roofline=None, triton=None, commit=None)]
    kernel_rows.write(tmp_path / "rows.csv", rows)
    assert kernel_rows.read([tmp_path / "rows.csv"]) == rows


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", ",".join(kernel_rows.FIELDS) + "\n" + "x," * 20 + "x\n"])
def test_a_file_that_holds_no_rows_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.csv").write_text(text)
    assert cli.main(["kernels", "report", str(tmp_path / "other.csv")]) == 2
    assert "other.csv" in capsys.readouterr().err


def test_report_says_where_the_kernel_loses(tmp_path: Path) -> None:
    rows = [
        row("triton", 3.0),
        row("algebra", 2.0),
        row("compile", 4.0),
        row("triton", 1.0, 200),
        row("algebra", 2, 200),
    ]
    page = kernel_report.markdown(rows)
    assert "- Loses to algebra at shape100, bfloat16, forward, stream: 3.0 µs against 2.0 µs, 1.50 times" in page
    assert page.count("Loses to") == 1
    assert "| shape200 | bfloat16 | forward | stream | 2.0 |  | 1.0 | 50% |" in page
    assert "loses nowhere" in kernel_report.markdown(rows[3:])
    for file in kernel_report.plots(rows, tmp_path):
        assert file.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_report_without_a_gpu_claims_nothing() -> None:
    page = kernel_report.markdown([row("algebra", 2.0, gpu="cpu", roofline=None)])
    assert kernel_report.UNMEASURED in page
    assert "lose" not in page
    assert kernel_report.losses([row("algebra", 2.0)]) == ["The kernel itself was not measured."]


def test_measuring_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three timed calls of each way, so that the rows are there and say where they are from."""
    from peft_atlas.bench import kernel_timing

    if torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(kernel_timing, "BUDGET_MS", 0)
    monkeypatch.setattr(catalog.cases("dora_rownorm"), "SHAPES", {"tiny": {"out": 4, "in": 8, "rank": 2}})
    monkeypatch.setattr(kernel_timing.torch, "compile", lambda function, **options: function)
    out = tmp_path / "rows.csv"
    assert cli.main(["kernels", "bench", "--kernels", "dora_rownorm", "--out", str(out)]) == 0
    assert "no GPU" in capsys.readouterr().err
    rows = kernel_rows.read([out])
    assert {r.provider for r in rows} >= {"eager", "algebra", "compile"}
    assert {r.mode for r in rows} == {"forward", "backward", "both"}
    assert {(r.gpu, r.launch, r.roofline) for r in rows} == {("cpu", "stream", None)}
    assert all(0 < r.p20 <= r.p50 <= r.p80 for r in rows)
    assert cli.main(["kernels", "bench", "--out", str(out)]) == 2


def test_correctness_verb_fails_on_a_wrong_kernel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = catalog.cases("scale_shift")
    monkeypatch.setattr(module, "EDGES", module.EDGES[:1])
    assert cli.main(["kernels", "test", "--kernels", "scale_shift"]) == 0
    assert "all within their limits" in capsys.readouterr().out
    right = module.make

    def wrong(*arguments: Any) -> Case:
        return dataclasses.replace(right(*arguments), fused=lambda x, gain, shift: x * gain + 1.01 * shift)

    monkeypatch.setattr(module, "make", wrong)
    assert cli.main(["kernels", "test", "--kernels", "scale_shift"]) == 1
    assert "results are off" in capsys.readouterr().out


def test_unknown_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kernels", "bench", "--kernels", "scale_shft"]) == 2
    assert "no kernel 'scale_shft'. Did you mean scale_shift?" in capsys.readouterr().err
