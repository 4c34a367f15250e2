"""Cells as an array of Slurm jobs, submitted by submitit. Results lie in a folder that all machines share.

Each job runs a shard of the plan by the same call as `bench run --plan plan.jsonl --shard 3/8`. A job that is preempted
or reaches its time limit is queued again and goes on with the cells that have no record. What machines must share, and
what happens where they do not hold each other's locks, is told in `store`.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import submitit
from pydantic import Field
from submitit.helpers import DelayedSubmission

from ..errors import UsageError
from ..plan_file import to_lines
from ..records import Cell, Record
from ..runner import CELL_TARGET
from . import Executor, Work, handed_over

FOLDER = ".jobs"  # in the results folder: plans, and what submitit keeps of each job
LOOK = {"local": 0.5, "slurm": 10.0}  # seconds between two looks for new records


class Slurm(Executor):
    """An array of `workers` jobs. `cluster="local"` runs them as processes of this machine."""

    workers: int = Field(8, gt=0, description="jobs of the array; each takes an equal share of the cells")
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    minutes: int = Field(60, gt=0, description="time limit of a job; at its end it is queued again")
    requeues: int = Field(3, ge=0, description="how often a job may reach its time limit")
    jobs: int = Field(1, gt=0, description="cells at once in a job")
    cpus: int | None = Field(None, gt=0, description="of a job; what its cells at once need when not given")
    gpus: int = Field(0, ge=0, description="of a job")
    memory_gb: float | None = Field(None, gt=0, description="of a job")
    at_once: int | None = Field(None, gt=0, description="jobs that run at the same time at most")
    cluster: Literal["slurm", "local"] = "slurm"

    def run(self, work: Work) -> list[Record]:
        if work.again:
            raise UsageError("executor slurm: a job that is queued again could not tell what --existing all has run")
        if work.target != CELL_TARGET:
            raise UsageError("executor slurm runs the cells of a plan and nothing else")
        folder = work.store.root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        workers = min(self.workers, len(work.cells))
        before = {cell.key: work.store.next_attempt(cell) for cell in work.cells}
        jobs = self._submit(self._shards(work, folder, workers), workers, folder, work)
        try:
            records = _wait(jobs, work, before, LOOK[self.cluster])
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise
        for number, job in enumerate(jobs, 1):
            if (fault := job.exception()) is not None:
                work.display.warn(f"job {job.job_id}, shard {number}/{workers}: {' '.join(str(fault).split())[:300]}")
        return records

    def _shards(self, work: Work, folder: Path, workers: int) -> ShardJob:
        descriptor, name = tempfile.mkstemp(prefix="plan-", suffix=".jsonl", dir=folder)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(to_lines(work.cells))
        limits = work.limits
        return ShardJob(
            name, str(work.store.root), workers, self.jobs, limits.timeout, limits.max_memory, handed_over()
        )

    def _submit(self, job: ShardJob, workers: int, folder: Path, work: Work) -> list[Any]:
        """Submit the array. UsageError where there is no Slurm."""
        try:
            executor = submitit.AutoExecutor(
                folder=str(folder / "%j"), cluster=self.cluster, slurm_max_num_timeout=self.requeues
            )
        except RuntimeError as error:
            raise UsageError(f"executor slurm: {error}") from None
        slurm = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "array_parallelism": self.at_once,
        }
        executor.update_parameters(
            name="peft-atlas",
            timeout_min=self.minutes,
            cpus_per_task=self.cpus or work.threads * self.jobs,
            gpus_per_node=self.gpus,
            **({} if self.memory_gb is None else {"mem_gb": self.memory_gb}),
            **{f"slurm_{name}": value for name, value in slurm.items() if value is not None},
        )
        jobs: list[Any] = executor.map_array(job, range(1, workers + 1))
        return jobs


@dataclass(frozen=True)
class ShardJob:
    """What a job does: it may be interrupted at any moment and called again."""

    plan: str
    results: str
    shards: int
    jobs: int
    timeout: float
    max_memory: int | None
    variables: dict[str, str]

    def __call__(self, shard: int) -> int:
        """Run a shard; the exit code of `bench run`."""
        from ..api import run

        os.environ.update(self.variables)
        outcome = run(
            plan_file=self.plan,
            shard=f"{shard}/{self.shards}",
            results=self.results,
            jobs=self.jobs,
            timeout=self.timeout,
            max_memory=self.max_memory,
            display="plain",
        )
        return outcome.exit_code

    def checkpoint(self, shard: int) -> DelayedSubmission:
        """What submitit queues again: the same call, since what is done is not done again."""
        return DelayedSubmission(self, shard)

    __submitit_checkpoint__ = checkpoint  # its name in releases after 1.5


def _wait(jobs: list[Any], work: Work, before: dict[str, int], look: float) -> list[Record]:
    """Watch the results folder until all jobs have ended; the new records, in the order they were seen."""
    waiting = {cell.key: cell for cell in work.cells}
    records: list[Record] = []
    while True:
        done = all(job.done() for job in jobs)
        for key, cell in list(waiting.items()):
            if (record := _newest(work, cell, before[key])) is not None:
                del waiting[key]
                records.append(record)
                work.display.finished(cell, record)
        if done or not waiting:
            return records
        time.sleep(look)


def _newest(work: Work, cell: Cell, since: int) -> Record | None:
    """The newest attempt that began after the run."""
    return next((record for record in reversed(work.store.attempts(cell)) if record.attempt >= since), None)
