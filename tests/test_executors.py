"""Cells on other machines: a cluster of Ray with a lost worker, and an array of jobs that are queued again."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import peft_atlas as pa
import psutil
import pytest
from peft_atlas.bench import api
from peft_atlas.bench.display import Display
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.executors import Executor, Work, make_executor
from peft_atlas.bench.records import Cell, Record
from peft_atlas.bench.runner import CELL_TARGET, Limits
from peft_atlas.bench.store import Store

PLANTED = Path(__file__).parent / "planted"
sys.path.insert(0, str(PLANTED))
from planted_grid import cell  # type: ignore[import-not-found]  # noqa: E402


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something that must come."""
    for _ in range(12_000):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def work(folder: Path, *cells: Cell, target: str = "planted_cells:by_task") -> Work:
    return Work(cells, Store(folder), Limits(timeout=120), Display(), threads=1, target=target)


def kept(folder: Path) -> list[tuple[str, int, str, int]]:
    """(task, seed, status, attempt) of every record."""
    return sorted((r.cell.task.id, r.cell.seed, r.status, r.attempt) for r in Store(folder).records())


# without an engine -------------------------------------------------------------------------------------------------


def test_an_unknown_executor_is_refused_before_anything_is_planned() -> None:
    with pytest.raises(UsageError, match="unknown executor 'dask': there are ray, slurm"):
        pa.run("lora", "smoke", protocol="smoke", executor="dask", display="none")


def test_an_executor_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "peft_atlas.bench.executors.on_slurm", raising=False)
    with pytest.raises(UsageError, match=r"--executor slurm needs submitit: pip install 'peft-atlas\[slurm\]'"):
        make_executor("slurm")


# Ray ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """Two machines of one core each, and the folder where cells leave marks."""
    pytest.importorskip("ray", reason="needs the extra peft-atlas[ray]")
    from ray.cluster_utils import Cluster

    marks = tmp_path_factory.mktemp("marks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(PLANTED), os.environ.get("PYTHONPATH")))))
        patch.setenv("PLANTED_MARKS", str(marks))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield cluster, marks
        cluster.shutdown()


def shoot_the_worker_of(marks: Path, mark: str) -> int:
    """Kill the process of Ray above the cell that left a mark; the cell's own process is its server's child."""
    pid = int(until(lambda: list(marks.glob(f"{mark}-*")))[0].name.split("-")[1])
    server = psutil.Process(pid).parent()
    worker = server.parent() if server else None
    assert worker is not None and worker.name().startswith("ray::")
    os.kill(worker.pid, signal.SIGKILL)
    return pid


def test_a_lost_worker_loses_and_doubles_nothing(cluster: tuple[Any, Path], tmp_path: Path) -> None:
    ray, marks = cluster
    victims: list[int] = []
    thread = threading.Thread(target=lambda: victims.append(shoot_the_worker_of(marks, "asleep_at_first")))
    thread.start()
    cells = [cell("asleep_at_first"), *(cell("good", seed) for seed in range(4)), cell("raising")]
    records = make_executor(f"ray(address={ray.address})").run(work(tmp_path, *cells))
    thread.join()
    assert len(list(marks.glob("asleep_at_first-*"))) == 2, "the lost cell ran again"
    assert not psutil.pid_exists(victims[0]), "the lost cell's process ended with its worker"
    expected = [
        ("asleep_at_first", 0, "ok", 1),
        *(("good", seed, "ok", 1) for seed in range(4)),
        ("raising", 0, "error", 1),
    ]
    assert kept(tmp_path) == sorted(expected)
    assert sorted(r.key for r in records) == sorted(one.key for one in cells)
    arrays = Store(tmp_path).predictions(next(r for r in records if r.cell.task.id == "good"))
    assert arrays is not None and arrays["per_item"].tolist() == [1, 1, 1, 0]
    again = make_executor(f"ray(address={ray.address})").run(work(tmp_path, *cells))
    assert len(again) == 6 and kept(tmp_path) == sorted([*expected, ("raising", 0, "error", 2)])


def test_a_cell_whose_workers_are_all_lost_has_a_record_that_says_so(cluster: tuple[Any, Path], tmp_path: Path) -> None:
    ray, marks = cluster
    thread = threading.Thread(target=lambda: shoot_the_worker_of(marks, "asleep"))
    thread.start()
    (record,) = make_executor(f"ray(address={ray.address}, retries=0)").run(work(tmp_path, cell("asleep")))
    thread.join()
    assert record.status == "error" and record.error is not None
    assert record.error.type == "Worker" and record.error.message.startswith("lost its worker 1 times")
    assert kept(tmp_path) == [("asleep", 0, "error", 1)]


def test_what_no_machine_of_the_cluster_has_is_told(
    cluster: tuple[Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray
    from peft_atlas.bench.executors import on_ray

    ray.init(address=cluster[0].address, log_to_driver=False)
    try:
        on_ray._tell_what_lacks({"num_cpus": 1, "num_gpus": 0}, Display())
        assert capsys.readouterr().err == ""
        on_ray._tell_what_lacks({"num_cpus": 1, "num_gpus": 2}, Display())
        assert "no machine of the cluster has 1 CPU, 2 GPU for a cell" in capsys.readouterr().err
    finally:
        ray.shutdown()


def test_a_worker_with_another_release_refuses_the_cell() -> None:
    on_ray = pytest.importorskip("peft_atlas.bench.executors.on_ray", reason="needs the extra peft-atlas[ray]")
    one = api.plan("lora", "smoke-text", protocol="smoke", results="nowhere").run[0]
    other = one.model_copy(update={"method": one.method.model_copy(update={"version": 99})})
    with pytest.raises(UsageError, match="planned with another method: 99, here it is"):
        on_ray.run_one(other.model_dump_json(), Limits(), 1, CELL_TARGET, {})


# Slurm, by submitit's executor for one machine -----------------------------------------------------------------------


@pytest.fixture
def smoke_cells(tmp_path: Path) -> list[Cell]:
    planned = api.plan("lora", "smoke-text", protocol="smoke", seeds=[0, 1, 2], results=tmp_path / "results")
    return planned.run


def running_jobs() -> list[psutil.Process]:
    """The processes of submitit's jobs below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "submitit.core._submit" in process.cmdline():
                found.append(process)
    return found


def test_a_job_that_is_queued_again_goes_on_where_it_was(smoke_cells: list[Cell], tmp_path: Path) -> None:
    """Two jobs; the one whose second cell is held up here is told by the scheduler to make room."""
    pytest.importorskip("submitit", reason="needs the extra peft-atlas[slurm]")
    results = tmp_path / "results"
    lock = Store(results).lock(smoke_cells[2])
    assert lock is not None
    seen: list[str] = []
    requeued: list[int] = []

    class Ear(Display):
        def finished(self, cell: Cell, record: Record) -> None:
            seen.append(cell.key)

    def make_room() -> None:
        until(lambda: len(list(results.glob("smoke/*/*/*/1.json"))) == 2)
        (job,) = until(lambda: found if len(found := running_jobs()) == 1 else None)
        job.send_signal(signal.SIGUSR2)
        logs = [*results.glob(".jobs/*/*.out"), *results.glob(".jobs/*/*.err")]
        until(lambda: any("Requeued job" in log.read_text() for log in logs))
        requeued.append(job.pid)
        lock.release()

    thread = threading.Thread(target=make_room)
    thread.start()
    executor = make_executor("slurm(workers=2, minutes=60, cluster=local)")
    records = executor.run(Work(smoke_cells, Store(results), Limits(timeout=120), Ear(), threads=1))
    thread.join()
    assert len(requeued) == 1
    assert sorted(seen) == sorted(r.key for r in records) == sorted(one.key for one in smoke_cells)
    assert [(r.status, r.attempt) for r in Store(results).records()] == [("ok", 1)] * 3


def test_what_a_queued_job_could_not_repeat_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs the extra peft-atlas[slurm]")
    executor: Executor = make_executor("slurm(workers=2, cluster=local)")
    with pytest.raises(UsageError, match="could not tell what --existing all has run"):
        executor.run(Work([cell("t")], Store(tmp_path), Limits(), Display(), threads=1, again=True))
    with pytest.raises(UsageError, match=r"executor slurm has no argument 'partitoin'\. Did you mean partition"):
        make_executor("slurm(partitoin=gpu)")
    with pytest.raises(UsageError, match=r"slurm\(workers=0\): workers: Input should be greater than 0"):
        make_executor("slurm(workers=0)")
    with pytest.raises(UsageError, match="jobs is how many cells run at once on this machine"):
        pa.run("lora", "smoke", protocol="smoke", executor="slurm", jobs=2, display="none")
