"""Every way a cell or a run can end, done for real: hanging, crashing, starving, full disks, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peft_atlas.bench.records import SCHEMA_VERSION, Record, from_json
from peft_atlas.bench.runner import Limits, Listener, Runner
from peft_atlas.bench.store import Store, StoreError

PLANTED = Path(__file__).parent / "planted"
sys.path.insert(0, str(PLANTED))  # children import the planted cells by name
from planted_grid import cell, environment  # type: ignore[import-not-found]  # noqa: E402

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")


def run(folder: Path, *tasks: str, **limits: Any) -> dict[str, Record]:
    """Records by task of a run over planted cells."""
    runner = Runner(Store(folder), Limits(**{"jobs": 2, **limits}), environment(), target="planted_cells:by_task")
    return {record.cell.task.id: record for record in runner.run([cell(task) for task in tasks])}


def files(folder: Path) -> list[str]:
    """Everything in a results folder but its locks."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != ".locks")


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something that must come."""
    for _ in range(1200):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder where planted cells leave their process ids."""
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("PLANTED_MARKS", str(folder))
    return folder


def test_every_end_of_a_cell_is_a_record_and_the_others_run(tmp_path: Path) -> None:
    records = run(tmp_path, "raising", "shot", "good", "segfault", "leaving", "not_finite")
    good = records["good"]
    assert (good.status, good.phase) == ("ok", "done")
    assert good.primary is not None and good.primary.value == 0.75
    assert good.times.step is not None and good.times.step.n == 2 and good.times.step.median == pytest.approx(0.15)
    assert good.times.fit is not None and good.times.load is None
    arrays = Store(tmp_path).predictions(good)
    assert arrays is not None and arrays["per_item"].tolist() == [1, 1, 1, 0]
    ends = {task: (record.status, record.phase) for task, record in records.items()}
    assert ends == {
        "good": ("ok", "done"),
        "raising": ("error", "attach"),
        "shot": ("error", "fit"),
        "segfault": ("error", "data"),
        "leaving": ("error", "load"),
        "not_finite": ("nan", "evaluate"),
    }
    told = {task: record.error for task, record in records.items() if record.error is not None}
    assert "blocks.7" in told["raising"].message and "in raising" in told["raising"].traceback
    assert str(Path.home()) not in told["raising"].traceback or str(Path.home()) == "/"
    assert "signal 9" in told["shot"].message
    assert "SIGSEGV" in told["segfault"].message and "in segfault" in told["segfault"].traceback
    assert "code 7" in told["leaving"].message
    assert "nll" in told["not_finite"].message
    assert [point.loss for point in records["not_finite"].curve] == [2.0]
    assert {record.key for record in Store(tmp_path).records()} == {record.key for record in records.values()}


@linux
def test_out_of_memory_is_told_with_its_phase_and_the_next_cell_runs(tmp_path: Path) -> None:
    records = run(tmp_path, "hungry", "good", jobs=1, max_memory=3_000_000_000)
    assert (records["hungry"].status, records["hungry"].phase) == ("oom", "fit")
    assert records["hungry"].memory is not None and records["hungry"].memory.limit_bytes == 3_000_000_000
    assert records["good"].status == "ok"


def test_the_watchdog_ends_a_hung_cell_and_says_where_it_hung(tmp_path: Path) -> None:
    record = run(tmp_path, "asleep", stall=1.0)["asleep"]
    assert (record.status, record.phase) == ("timeout", "fit")
    assert record.error is not None and "no sign of life" in record.error.message
    assert "in asleep" in record.error.traceback


def test_a_cell_that_is_alive_but_too_slow_times_out(tmp_path: Path) -> None:
    record = run(tmp_path, "endless", timeout=1.0)["endless"]
    assert record.status == "timeout"
    assert record.error is not None and "longer than 1 s" in record.error.message


def test_ok_cells_are_not_run_again_and_failed_ones_get_a_new_attempt(tmp_path: Path) -> None:
    run(tmp_path, "good", "raising")
    records = run(tmp_path, "good", "raising")
    assert (records["good"].attempt, records["raising"].attempt) == (1, 2)
    assert [record.attempt for record in Store(tmp_path).attempts(cell("raising"))] == [1, 2]


def test_killing_a_child_leaves_a_record_and_the_others_go_on(tmp_path: Path, marks: Path) -> None:
    def shoot() -> None:
        pid = int(until(lambda: list(marks.glob("asleep-*")))[0].name.split("-")[1])
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=shoot)
    thread.start()
    records = run(tmp_path / "results", "asleep", "slow")
    thread.join()
    assert records["asleep"].status == "error" and "signal 9" in records["asleep"].error.message  # type: ignore[union-attr]
    assert records["slow"].status == "ok"


def start(results: Path, *tasks: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PLANTED / "run_planted.py"), str(results), *tasks],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal does: Ctrl-C reaches the whole group
    )


@linux
def test_ctrl_c_records_what_ran_as_cancelled_and_the_same_run_resumes(tmp_path: Path, marks: Path) -> None:
    results = tmp_path / "results"
    process = start(results, "asleep", "good", "slow")
    pid = int(until(lambda: list(marks.glob("asleep-*")))[0].name.split("-")[1])
    until(lambda: list(results.glob("planted/good/*/*/1.json")))
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    until(lambda: not alive(pid))
    left = {record.cell.task.id: record.status for record in Store(results).records()}
    assert left["asleep"] == "cancelled" and left["good"] == "ok"
    assert run(results, "good", "slow")["slow"].status == "ok"


@linux
def test_killing_the_parent_ends_its_children_leaves_no_half_record_and_the_same_run_resumes(
    tmp_path: Path, marks: Path
) -> None:
    results = tmp_path / "results"
    process = start(results, "asleep", "good")
    pid = int(until(lambda: list(marks.glob("asleep-*")))[0].name.split("-")[1])
    until(lambda: list(results.glob("planted/good/*/*/1.json")))
    process.kill()
    process.wait()
    until(lambda: not alive(pid))
    assert [record.cell.task.id for record in Store(results).records()] == ["good"]
    records = run(results, "good", "asleep", stall=0.5)
    assert (records["good"].attempt, records["asleep"].attempt) == (1, 1)


def test_two_runs_on_one_folder_share_the_work(tmp_path: Path, marks: Path) -> None:
    results = tmp_path / "results"
    process = start(results, "slow", "good")
    until(lambda: list(marks.glob("slow-*")))
    waited: list[int] = []

    class Ear(Listener):
        def waiting(self, cells: int) -> None:
            waited.append(cells)

    runner = Runner(Store(results), Limits(jobs=2), environment(), Ear(), target="planted_cells:by_task")
    records = runner.run([cell("slow"), cell("good")])
    assert process.wait() == 0
    assert {record.status for record in records} == {"ok"}
    assert waited, "the second run should have met the first one's lock"
    assert len(list(marks.glob("slow-*"))) == 1
    assert [record.attempt for record in Store(results).records()] == [1, 1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A results folder on a file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def check_full(results: Path) -> None:
    with pytest.raises(StoreError, match=r"^cannot write results to .*: (No space left on device|File too large)$"):
        run(results, "bulky", "endless")
    assert [(r.cell.task.id, r.status) for r in Store(results).records()] == [("good", "ok")]
    assert len(files(results)) == 2, "the record and the predictions of the good cell, and no litter"


def test_a_full_disk_stops_the_run_with_one_line_and_keeps_earlier_records(small_disk: Path) -> None:
    run(small_disk, "good")
    check_full(small_disk)


@linux
def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    """The same where nothing can be mounted: files may not grow beyond 1 MB."""
    run(tmp_path, "good")
    code = "\n".join(
        [
            "import resource, runpy, signal, sys",
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))",
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)",
            f"sys.path.insert(0, {str(PLANTED)!r})",
            f"sys.argv = ['run', {str(tmp_path)!r}, 'bulky']",
            "runpy.run_path(sys.path[0] + '/run_planted.py')",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "StoreError: cannot write results to" in done.stderr and "File too large" in done.stderr
    assert [r.cell.task.id for r in Store(tmp_path).records()] == ["good"]
    assert len(files(tmp_path)) == 2


def test_a_results_folder_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"^cannot write results to .*file/results: Not a directory$"):
        Store(tmp_path / "file" / "results").check_writable()


def test_children_do_not_import_the_callers_script_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; print('imported')\n"
        f"sys.path.insert(0, {str(PLANTED)!r}); sys.argv = ['x', {str(tmp_path / 'results')!r}, 'good']\n"
        "import runpy; runpy.run_path(sys.path[0] + '/run_planted.py')\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr


def test_records_are_strict_json_of_the_present_schema(tmp_path: Path) -> None:
    run(tmp_path, "good")
    (path,) = tmp_path.glob("planted/good/planted/*/1.json")
    record = from_json(path.read_text())
    assert record.schema_version == SCHEMA_VERSION and path.parent.name == record.key == cell("good").key
