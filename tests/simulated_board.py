"""A board with invented numbers: every kind of cell, ranking and page that the site has to show, without any record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from peft_atlas.leaderboard import published
from peft_atlas.leaderboard.board import (
    Backbone,
    Board,
    CellStatus,
    Contender,
    Cost,
    Entry,
    Interval,
    Mark,
    Method,
    Pair,
    Protocol,
    Ranking,
    Release,
    Score,
    Setting,
    Standing,
    Suite,
    Task,
    Timing,
    Tradeoff,
    TradeoffPoint,
    Trial,
    Tuning,
)

GROUPS = ("reparameterized/low-rank", "additive/prompt", "selective/structured", "hybrid", "baseline")
NAMES = ("lora", "vpt", "bitfit", "unipelt", "full", "dora", "ssf", "fishmask", "mam", "linear")
VISION = ("mnist", "emoji", "clutter", "wafer", "spectro", "dsprites-location", "count", "azimuth")
TEXT = ("rotten-tomatoes", "imdb")


class Simulation:
    """Gains of methods are drawn once, so that orders are the same in all suites."""

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self.generator = np.random.default_rng(0)
        self.names = list(names)
        self.gains = {name: float(self.generator.normal(0, 6)) for name in names}
        self.trained = {name: int(10 ** self.generator.uniform(3.5, 6.5)) for name in names}
        self.trained[self.names[-1]] = 0

    def board(self) -> Board:
        suites = (
            self.suite("vtab-embedded", VISION, "Intel Xeon, 2 cores", "maintainers"),
            self.suite("nlp-embedded", TEXT, "Intel Xeon, 2 cores", "maintainers"),
            self.suite("vtab-embedded-m2", VISION[:3], "Apple M2, 8 cores", "self-reported"),
        )
        tasks = {name: _task(name, "vision" if name in VISION else "text") for name in (*VISION, *TEXT)}
        return Board(
            version="0.1.0",
            digest="0123456789abcdef",
            records=sum(len(e.scores) for s in suites for c in s.contenders for e in c.entries),
            suites=suites,
            methods={name: self.method(place, name) for place, name in enumerate(self.names)},
            tasks=tasks,
            protocols={"embedded@1": _protocol()},
            backbones={"dinov2-small": Backbone(id="dinov2-small", title="DINOv2", parameters=1, licence="Apache-2.0")},
            costs=tuple(self.cost(name) for name in self.names),
            tuning=tuple(self.tuning(name) for name in self.names[:3]),
            published=published.tables(),
            releases=_releases(),
        )

    def method(self, place: int, name: str) -> Method:
        paper = {"title": f"On {name}", "authors": "A. Author et al.", "year": 2024, "arxiv": "2106.09685"}
        return Method(
            id=name,
            title=f"The method {name}",
            version=1,
            category=GROUPS[place % len(GROUPS)],
            families=("vision",),
            compute="own-budget" if place == 3 else "equal-steps",
            summary=f"What {name} trains, in one sentence that is as long as such sentences are in recipes.",
            paper=paper,
            checks=({"parity": f"equals another implementation of {name}"},),
            recipe="methods/reparameterized/low_rank/lora.yaml",
        )

    def suite(self, name: str, tasks: Sequence[str], machine: str, mark: Mark) -> Suite:
        plain = [self.contender(place, one, tasks, mark) for place, one in enumerate(self.names)]
        equal = [self.contender(place, one, tasks, mark, "0.5%") for place, one in enumerate(self.names[:3])]
        groups = (
            [m for m in plain if m.compute == "equal-steps"],
            equal,
            [m for m in plain if m.compute != "equal-steps"],
        )
        return Suite(
            id=name,
            name=name,
            protocol="embedded",
            protocol_version=1,
            machine=machine,
            tasks=tuple(tasks),
            contenders=(*plain, *equal),
            rankings=tuple(self.ranking(members, tasks) for members in groups if members),
            set_aside=("vpt on mnist: 1 record of an earlier configuration or version of the method",),
        )

    def contender(
        self, place: int, name: str, tasks: Sequence[str], mark: Mark, budget: str | None = None
    ) -> Contender:
        typed = name if budget is None else f"{name}(budget={budget})"
        entries = [self.entry(typed, name, task, mark) for task in tasks]
        if place == 2:
            reason = "the backbone has no bias here"
            entries[-1] = Entry(
                task=tasks[-1], backbone="", status="unsupported", reason=reason, interval=None, scores=()
            )
        if place == 1:
            entries[0] = self.entry(typed, name, tasks[0], mark, "oom")
        compute = "own-budget" if place == 3 else "equal-steps"
        return Contender(name=typed, method=name, compute=compute, budget=budget, entries=tuple(entries))

    def entry(self, typed: str, name: str, task: str, mark: Mark, status: CellStatus = "ok") -> Entry:
        mean = 70 + self.gains[name] + float(self.generator.normal(0, 5))
        ok = status == "ok"
        values = [mean + float(self.generator.normal(0, 1)) if ok else None for _ in range(3)]
        curve = tuple(float(f"{2.3 * 0.9 ** (step * (1 + self.gains[name] / 40)) + 0.1:.4g}") for step in range(25))
        scores = tuple(
            Score(
                seed=seed,
                status=status,
                value=value,
                record=f"embedded/{task}/x/0/{seed}.json",
                predictions=None,
                reason=None if ok else "can't allocate 3 GB",
                mark=mark,
                curve=curve,
                steps=100,
            )
            for seed, value in enumerate(values)
        )
        return Entry(
            task=task,
            backbone="dinov2-small",
            status=status,
            reason=None if ok else "seed 0: oom: can't allocate 3 GB",
            interval=Interval(mean=float(np.mean(values)), half_width=1.5) if ok else None,
            scores=scores,
            drift=0.25,
            trainable=self.trained[name],
            head=10,
            shipped_bytes=4 * self.trained[name],
            settings=(Setting(name="lr", value=0.004, layer="backbone", source="bench tune"),),
            method_version=1,
            commits=("0" * 40,),
            same_cell=name != "vpt",
            cost=self.names.index(name),
        )

    def ranking(self, members: Sequence[Contender], tasks: Sequence[str]) -> Ranking:
        means = {m.name: float(np.mean([e.interval.mean for e in m.entries if e.interval])) for m in members}
        order = sorted(means, key=lambda name: -means[name])
        standings = tuple(
            Standing(
                name=name,
                rank=1 + place // 2 * 2,
                means={"mean": Interval(mean=means[name], half_width=1.2), "mean natural": None},
                mean_rank=1.0 + place,
                win_rate=1 - place / max(len(order) - 1, 1),
                quality=means[name],
                seeds="3",
                imputed=(),
                failed="",
            )
            for place, name in enumerate(order)
        )
        pairs = tuple(
            Pair(
                a=a,
                b=b,
                mean=means[b] - means[a],
                half_width=1.7,
                p_holm=min(1.0, 0.4 / (1 + abs(means[b] - means[a]) ** 2)),
            )
            for place, a in enumerate(order)
            for b in order[place + 1 :]
        )
        return Ranking(
            compute=members[0].compute,
            budget=members[0].budget,
            tasks=tuple(tasks),
            lacking=(),
            standings=standings,
            pairs=pairs,
            tradeoffs=tuple(
                self.tradeoff(cost, means, members) for cost in ("trainable", "ledger_peak", "seconds_step")
            ),
            notes=("vpt on mnist: imputed by the worst score",),
        )

    def tradeoff(self, cost: str, means: dict[str, float], members: Sequence[Contender]) -> Tradeoff:
        prices = {
            m.name: self.trained[m.method] if cost == "trainable" else 100 + self.trained[m.method] / 1e4
            for m in members
        }
        best = {name: all(means[name] >= means[o] for o in means if prices[o] <= prices[name]) for name in means}
        points = tuple(
            TradeoffPoint(name=n, cost=prices[n], quality=means[n], half_width=1.2, on_front=best[n], clearly_off=False)
            for n in means
        )
        return Tradeoff(cost=cost, machine=None, points=points, lacking=())

    def cost(self, name: str) -> Cost:
        timing = {"dtype": "float32", "threads": 1, "n": 20, "median": 0.12, "p10": 0.11, "p90": 0.14}
        return Cost(
            name=name,
            method=name,
            backbone="dinov2-small",
            family="vision",
            batch=32,
            inputs={},
            machine="Intel Xeon, 2 cores",
            device="cpu",
            cpu="Intel Xeon",
            status="ok",
            reason=None,
            ledger={"weights": 10},
            ledger_peak=300 * 2**20,
            train_peak_rss=500 * 2**20,
            inference_peak_rss=None,
            train_operations=10,
            inference_operations=5,
            timings=(
                Timing(what="train step", batch=32, merged=None, **timing),
                Timing(what="inference", batch=1, merged=False, **timing),
            ),
            adapter_file_bytes=100,
            busy=False,
            record="profiles/x",
        )

    def tuning(self, name: str) -> Tuning:
        trials = tuple(
            Trial(
                values={"lr": rate},
                score=None if rate > 0.05 else 70 - 5 * abs(place - 2),
                status="nan" if rate > 0.05 else "ok",
                record="x",
                chosen=place == 2,
            )
            for place, rate in enumerate((1e-4, 1e-3, 4e-3, 1e-2, 1e-1))
        )
        where = {"protocol": "embedded", "protocol_version": 1, "machine": "Intel Xeon, 2 cores"}
        return Tuning(name=name, method=name, **where, backbone="dinov2-small", task="count", trials=trials)


def _task(name: str, family: str) -> Task:
    return Task(
        id=name,
        title=name.title(),
        version=1,
        family=family,
        group="natural" if family == "vision" else None,
        metric="accuracy",
        higher_is_better=True,
        unit="%",
        licence="CC-BY-4.0",
        citation="",
        description=f"What {name} asks of a model.",
        sizes={"train": 1000, "test": 500},
    )


def _protocol() -> Protocol:
    about = "Small backbones and tasks from packages of the package index; stand-ins, not the published benchmarks."
    return Protocol(id="embedded", version=1, title="Embedded", description=about, backbones={}, settings={})


def _releases() -> tuple[Release, ...]:
    facts = {"digest": "0" * 16, "records": 100, "archive_sha256": "0" * 64}
    steps = {"0.1": (), "0.2": ("new: vpt in vtab-embedded (equal-steps), rank 2",), "0.3": ("gone: ssf", "gone: mam")}
    return tuple(
        Release(name=name, date=f"2026-0{place + 1}-01", folder=f"releases/{name}", changes=changes, **facts)
        for place, (name, changes) in enumerate(steps.items())
    )
