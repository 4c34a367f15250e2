"""From names to records: plans, real smoke runs in child processes, what is shown, and what bad input gets."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import peft_atlas as pa
import pytest
from peft_atlas.bench import api
from peft_atlas.bench.display import RichDisplay, make_display, plan_text, resume_command
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.names import Name
from peft_atlas.bench.plan import Design, Existing, Plan, make_plan
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.records import ErrorReport, ParameterCounts, Primary, Record, Status
from peft_atlas.bench.store import Store
from peft_atlas.bench.tables import result_table

sys.path.insert(0, str(Path(__file__).parent / "planted"))
from planted_grid import cell, environment  # type: ignore[import-not-found]


def record(task: str, status: Status, value: float = 0.5, seed: int = 0, attempt: int = 1) -> Record:
    one = cell(task, seed)
    ok = status == "ok"
    return Record(
        key=one.key,
        attempt=attempt,
        status=status,
        phase="done" if ok else "fit",
        error=None if ok else ErrorReport(type="X", message="what happened\nmore", traceback=""),
        cell=one,
        metrics={"accuracy": value} if ok else {},
        primary=Primary(name="accuracy", value=value, higher_is_better=True) if ok else None,
        parameters=ParameterCounts(backbone=100, adapter=1234, head=20, total_trainable=1254, shipped_bytes=1),
        environment=environment(),
        started="",
        finished="",
    )


STATUSES: tuple[Status, ...] = ("ok", "oom", "nan", "timeout", "error", "unsupported", "cancelled")


def synthetic_plan(store: Store, tasks: list[str], existing: Existing = "failed") -> Plan:
    design = Design([cell(task) for task in tasks], [(cell("impossible"), "it has no biases")])
    return make_plan(load_protocol("smoke"), [Name("planted")], [*tasks, "impossible"], design, store, existing)


@pytest.mark.parametrize(
    ("existing", "run"),
    [
        ("missing", {"absent", "cancelled"}),
        ("failed", {"absent", "cancelled", "oom", "nan", "timeout", "error"}),
        ("all", {"absent", *STATUSES}),
        ("never", set()),
    ],
)
def test_existing_cells_are_run_as_asked(tmp_path: Path, existing: Existing, run: set[str]) -> None:
    store = Store(tmp_path)
    for status in STATUSES:
        store.add(record(status, status))
    plan = synthetic_plan(store, ["absent", *STATUSES], existing)
    assert {one.task.id for one in plan.run} == run
    rest = {one.task.id for one, _ in plan.cached} | {one.task.id for one in plan.skipped}
    assert rest == {"absent", *STATUSES} - run
    assert len(plan.cells) == 1 + len(STATUSES)


def test_the_table_shows_failures_by_name_and_wraps_without_cutting_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for status in ("oom", "nan"):
        store.add(record(status, status))
    for number in range(6):
        store.add(record(f"task-{number}", "ok", value=number / 8))
    tasks = [*(f"task-{number}" for number in range(6)), "oom", "nan", "absent"]
    table = result_table(synthetic_plan(store, tasks), store)
    for width in (70, 100, 400):
        text = table.text(width)
        blocks, notes = text.split("\n\n")[:-1], text.split("\n\n")[-1]
        assert all(len(line) <= width for block in blocks for line in block.splitlines())
        words = " ".join(blocks).split()
        assert {"0.0", "12.5", "62.5", "oom", "nan", "?", "-", "1,234", "20"} <= set(words)
        assert "unsupported: planted x impossible: it has no biases" in notes
        assert "planted: oom in fit: what happened (oom seed 0)" in notes and "accuracy in %" in notes
    assert len(table.text(400).split("\n\n")) == 2


def test_a_suite_gets_a_mean_only_where_one_metric_serves_all_its_tasks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    protocol = load_protocol("embedded")
    vision, text = protocol.resolve_tasks("vtab"), protocol.resolve_tasks("nlp")
    for index, task in enumerate([*vision, *text]):
        store.add(record(task, "ok", value=index / 8))
    plan = make_plan(
        protocol, [Name("planted")], [*vision, *text], Design([cell(t) for t in [*vision, *text]], []), store, "never"
    )
    header, _, row = result_table(plan, store).text(1000).splitlines()[:3]
    assert "vtab-embedded mean" in header and "nlp-embedded mean" not in header
    assert row[header.index("vtab-embedded mean") :].split()[0] == "43.8"  # (0 + 1 + ... + 7) / 8 / 8


def test_smoke_cells_run_resume_and_repeat_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(existing: Existing = "failed") -> api.RunOutcome:
        return pa.run(
            ["lora", "bitfit,linear"],
            "smoke",
            protocol="smoke",
            results=tmp_path,
            existing=existing,
            display="plain",
        )

    first = run()
    shown = capsys.readouterr()
    assert first.exit_code == 0
    assert {record.status for record in first} == {"ok"} and len(first) == 7
    assert {(one.method.id, one.task.id) for one, _ in first.plan.unsupported} == {
        ("bitfit", "smoke-lm"),
        ("linear", "smoke-lm"),
    }
    assert "7 to run, 0 cached, 2 unsupported" in shown.out and "[7/7]" in shown.err
    assert "tiny-llama: it has no biases" in shown.out
    for one in first:
        assert one.parameters is not None and one.parameters.total_trainable > 0
        assert one.data is not None and one.data.matches_card and one.data.test is not None
        assert one.times.load is not None and one.times.evaluate is not None
        assert one.memory is not None and one.memory.peak_rss_above_baseline_bytes > 0
    curves = [one.curve for one in first if one.cell.method.id != "linear"]
    assert all(len(curve) == 10 for curve in curves)
    second = run()
    assert not second.plan.run and len(second.plan.cached) == 7
    assert capsys.readouterr().err == ""
    again = run("all")
    assert {one.attempt for one in again} == {2}
    for before, after in zip(first, again, strict=True):
        assert (before.metrics, before.curve) == (after.metrics, after.curve)
        old, new = Store(tmp_path).predictions(before), Store(tmp_path).predictions(after)
        assert old is not None and new is not None
        assert all(old[name].tobytes() == new[name].tobytes() for name in old)
    frame = pa.load_results(tmp_path)
    assert sorted(frame["method"].unique()) == ["bitfit", "linear", "lora"] and len(frame) == 7


def test_a_loss_that_explodes_is_a_nan_record_and_the_command_that_resumes_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = pa.run("lora(lr=1e30),lora", "smoke-text", protocol="smoke", seeds=[3], results=tmp_path, display="plain")
    assert outcome.exit_code == 1
    exploded, fine = outcome
    assert (exploded.status, exploded.phase) == ("nan", "fit") and fine.status == "ok"
    assert 0 < len(exploded.curve) < 10 and exploded.parameters is not None
    shown = capsys.readouterr().out
    assert (
        f"bench run --methods 'lora(lr=1e+30),lora' --tasks smoke-text --protocol smoke --seeds 3 --results {tmp_path}"
        in shown
    )


@pytest.mark.parametrize(
    ("methods", "tasks", "message"),
    [
        ("lore", "smoke", "unknown method 'lore'. Did you mean lora"),
        ("lora", "smoke-visio", "unknown task or suite 'smoke-visio'"),
        ("lora(rank=2)", "smoke", "lora has no argument 'rank'"),
        ("lora(r=0)", "smoke", "lora(r=0): r must be greater than 0"),
        ("lora(targets=x)", "smoke", "lora(targets=x): "),
    ],
)
def test_wrong_requests_are_one_line_and_write_nothing(tmp_path: Path, methods: str, tasks: str, message: str) -> None:
    results = tmp_path / "results"
    with pytest.raises(UsageError) as caught:
        pa.run(methods, tasks, protocol="smoke", results=results, display="none")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert not results.exists()


@pytest.mark.parametrize("wrong", [{"seeds": [-1]}, {"seeds": []}, {"max_memory": "lots"}, {"existing": "some"}])
def test_wrong_options_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        pa.run("lora", "smoke-text", protocol="smoke", results=tmp_path / "results", display="none", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "results").exists()


def test_cells_whose_asset_cannot_be_had_are_left_out_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PEFT_ATLAS_OFFLINE", "1")
    able = api.plan("lora", "smoke-vision", protocol="smoke", results=tmp_path).run
    unable = api.plan("lora", "count", results=tmp_path).run
    cells, blocked = api.fetch_assets([*able, *unable], make_display("none"))
    assert cells == able and [one for one, _ in blocked] == unable
    (line,) = capsys.readouterr().err.splitlines()
    assert "dinov2" in line and "bench assets fetch" in line
    outcome = pa.run("lora", "count", results=tmp_path / "results", display="none")
    assert outcome.exit_code == 1 and not outcome.records and len(outcome.blocked) == 1


def test_names_that_mean_the_same_cell_run_once(tmp_path: Path) -> None:
    plan = api.plan("lora,lora(r=8),lora(r=4)", "smoke-text", protocol="smoke", seeds=[0, 1, 1], results=tmp_path)
    same = api.plan("lora(r=4)", "smoke-text", protocol="smoke", results=tmp_path).run
    by_name = {name: [one for one in plan.run if one.method.name == name] for name in plan.methods}
    assert len(by_name["lora(r=4)"]) == 2 and same[0].key in {one.key for one in by_name["lora(r=4)"]}
    default = by_name["lora"][0].method.config["r"]
    assert len(plan.run) == (4 if default in (4, 8) else 6)
    assert "(seeds 0,1)" in plan_text(plan)


def test_live_progress_shows_each_running_cell_and_what_it_does() -> None:
    from rich.console import Console

    out = io.StringIO()
    shown = RichDisplay(Console(file=out, force_terminal=True, width=110, height=20, highlight=False))
    with shown.cells(2):
        shown.started(cell("first"))
        shown.started(cell("second", 7))
        shown.progress(cell("second", 7), {"phase": "fit", "step": 30, "steps": 100, "loss": 1.25})
        shown.finished(cell("first"), record("first", "oom"))
    text = out.getvalue()
    assert "planted x second x seed 7" in text and "30/100" in text and "loss 1.250" in text
    assert "planted x first x seed 0: oom in fit: what happened" in text
    assert "1/2, 1 failed" in text


def test_the_resume_command_can_be_pasted_into_a_shell() -> None:
    options = {"methods": "lora(r=16, targets=q+v),vpt", "tasks": "vtab", "protocol": None, "plugin": ["a b"]}
    assert resume_command(options) == "bench run --methods 'lora(r=16, targets=q+v),vpt' --tasks vtab --plugin 'a b'"


def test_a_target_that_the_backbone_lacks_is_unsupported_before_anything_runs(tmp_path: Path) -> None:
    planned = api.plan(
        ["lora(targets=gate)", "lora(targets=all)"], "smoke-text,smoke-lm", protocol="smoke", results=tmp_path
    )
    found = {(cell.method.name, cell.task.id): reason for cell, reason in planned.unsupported}
    assert list(found) == [("lora(targets=gate)", "smoke-text")]
    assert "no gate" in found["lora(targets=gate)", "smoke-text"]


def test_the_control_differs_from_its_protocol_in_nothing_but_the_weights() -> None:
    trained, random = load_protocol("embedded"), load_protocol("embedded-random")
    for family, settings in random.families.items():
        assert settings.backbone == f"{trained.families[family].backbone}-random"
        assert settings.model_copy(update={"backbone": trained.families[family].backbone}) == trained.families[family]
    assert (random.optimizer, random.dtype) == (trained.optimizer, trained.dtype)
    for name, suite in random.suites.items():
        assert set(suite.tasks) <= set(trained.suites[name].tasks)
