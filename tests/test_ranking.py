"""Rankings: against one pair at a time, by brute force, and the cases in which a cell has no value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from peft_atlas.bench.ranking import Ranking, rank_suite
from peft_atlas.bench.statistics import holm, suite_difference, suite_estimate
from peft_atlas.bench.tradeoff import method_costs, pareto, ppt

TASKS = ["birds", "cells", "cubes"]
GROUPS = {"birds": "natural", "cells": "specialized", "cubes": "specialized"}
ITEMS = 400
Arrays = dict[str, np.ndarray]


class Results:
    """A frame and its items, filled cell by cell."""

    def __init__(self, metrics: Mapping[str, str] | None = None, higher: bool = True) -> None:
        self.metrics = metrics or dict.fromkeys(TASKS, "accuracy")
        self.higher = higher
        self.rows: list[dict[str, Any]] = []
        self.arrays: Arrays = {}

    def add(self, method: str, task: str, seed: int, values: np.ndarray | None, **other: Any) -> None:
        path = f"{task}/{method}/{seed}"
        row = {"method_name": method, "task": task, "group": GROUPS[task], "seed": seed, "path": path}
        row |= {"status": "ok", "metric": self.metrics[task], "value": None if values is None else values.mean()}
        row |= {"higher_is_better": self.higher if self.metrics[task] != "bits_per_byte" else False}
        self.rows.append(row | other)
        if values is not None:
            self.arrays[path] = values

    def values(self, method: str, task: str) -> list[np.ndarray]:
        seeds = [row["seed"] for row in self.rows if (row["method_name"], row["task"]) == (method, task)]
        return [self.arrays[f"{task}/{method}/{seed}"] for seed in seeds]

    def rank(self, imputation: str = "worst") -> Ranking:
        return rank_suite(pd.DataFrame(self.rows), self.arrays.get, TASKS, imputation)


def results(
    means: Mapping[str, float], seeds: int = 3, keep: Callable[[str, str], bool] = lambda method, task: True
) -> Results:
    """Noise around each method's mean, on items that share their difficulty."""
    generator = np.random.default_rng(0)
    found = Results()
    for task in TASKS:
        difficulty = generator.normal(0, 0.3, ITEMS)
        for method, mean in means.items():
            for seed in range(seeds):
                values = mean + difficulty + generator.normal(0, 0.01) + generator.normal(0, 0.1, ITEMS)
                if keep(method, task):
                    found.add(method, task, seed, values)
    return found


def test_pairs_are_those_of_one_pair_at_a_time() -> None:
    found = results({"one": 0.70, "two": 0.71, "three": 0.72, "four": 0.70})
    fewer = {("one", "birds"): 1} | {(method, task): 2 for method in ("two", "four") for task in TASKS}
    found.rows = [row for row in found.rows if row["seed"] < fewer.get((row["method_name"], row["task"]), 3)]
    pairs = found.rank().pairs
    references = [
        suite_difference([(found.values(a, task), found.values(b, task)) for task in TASKS])
        for a, b in zip(pairs["a"], pairs["b"], strict=True)
    ]
    assert len(references) == 6
    for name in ("mean", "half_width", "p"):
        assert pairs[name].tolist() == pytest.approx([getattr(reference, name) for reference in references], rel=1e-8)
    assert pairs["p_holm"].tolist() == pytest.approx(holm(pairs["p"].tolist()))


def test_methods_that_cannot_be_told_apart_share_a_rank() -> None:
    methods = results({"good": 0.80, "equal": 0.801, "bad": 0.60, "worse": 0.40}).rank().methods
    assert methods["rank"].to_dict() == {"good": 1, "equal": 1, "bad": 3, "worse": 4}
    assert list(methods.index)[2:] == ["bad", "worse"]


def test_one_method_under_two_names_is_a_tie() -> None:
    found = results({"first": 0.7, "other": 0.5})
    for row in [row for row in found.rows if row["method_name"] == "first"]:
        found.add("again", row["task"], row["seed"], found.arrays[row["path"]].copy())
    ranking = found.rank()
    pair = ranking.pairs.set_index(["a", "b"]).loc[("first", "again")]
    assert (pair["mean"], pair["p"], pair["p_holm"]) == (0.0, 1.0, 1.0)
    first, again = ranking.methods.loc["first"], ranking.methods.loc["again"]
    assert (first["rank"], first["mean_rank"], first["win_rate"]) == (1, 1.5, 0.75)
    assert first.drop("seeds").equals(again.drop("seeds"))


def test_a_rank_counts_the_methods_that_are_significantly_better() -> None:
    means = {f"m{number}": 0.6 + 0.004 * number for number in range(8)}
    ranking = results(means).rank()
    clear = ranking.pairs[ranking.pairs["p_holm"] < 0.05]
    assert 0 < len(clear) < len(ranking.pairs)
    for name, rank in ranking.methods["rank"].items():
        beaten = ((clear["a"] == name) & (clear["mean"] > 0)) | ((clear["b"] == name) & (clear["mean"] < 0))
        assert rank == 1 + beaten.sum()


def test_mean_rank_and_win_rate_by_hand() -> None:
    found = Results()
    scores = {"a": (0.9, 0.5, 0.5), "b": (0.8, 0.5, 0.7), "c": (0.1, 0.5, 0.6)}
    for method, row in scores.items():
        for task, score in zip(TASKS, row, strict=True):
            found.add(method, task, 0, np.full(10, score))
    methods = found.rank().methods
    assert methods["mean_rank"].to_dict() == pytest.approx({"a": 2.0, "b": 5 / 3, "c": 7 / 3})
    wins = {"a": (2 + 1 + 0) / 6, "b": (1 + 1 + 2) / 6, "c": (0 + 1 + 1) / 6}
    assert methods["win_rate"].to_dict() == pytest.approx(wins)


def test_plain_mean_and_group_means() -> None:
    found = results({"one": 0.7, "two": 0.5})
    row = found.rank().methods.loc["one"]
    tasks = [found.values("one", task) for task in TASKS]
    for title, chosen, weights in (
        ("mean", tasks, None),
        ("mean of groups", tasks, [0.5, 0.25, 0.25]),
        ("mean natural", tasks[:1], None),
        ("mean specialized", tasks[1:], None),
    ):
        reference = suite_estimate(chosen, weights)
        assert row[title] == pytest.approx(reference.mean)
        assert row[f"{title} half_width"] == pytest.approx(reference.half_width)
    assert row["mean of groups"] == pytest.approx((row["mean natural"] + row["mean specialized"]) / 2)


def test_the_items_are_brought_to_the_scale_of_the_score() -> None:
    found = results({"one": 0.7, "two": 0.5}, seeds=1)
    plain = found.rank()
    for row in found.rows:
        row["value"] *= 100
    scaled = found.rank()
    assert scaled.methods["mean"].tolist() == pytest.approx([100 * value for value in plain.methods["mean"]])
    assert scaled.pairs["half_width"].tolist() == pytest.approx([100 * width for width in plain.pairs["half_width"]])


def test_lower_is_better_where_the_metric_says_so() -> None:
    found = results({"high": 3.0, "low": 2.0})
    for row in found.rows:
        row["higher_is_better"] = False
    methods = found.rank().methods
    assert methods["rank"].to_dict() == {"low": 1, "high": 2}
    assert methods.loc["low", "mean"] == pytest.approx(2.0, abs=0.1)
    assert methods.loc["low", "mean_rank"] == 1.0


def test_several_metrics_have_no_mean_and_their_scale_does_not_matter() -> None:
    rankings = []
    for scale in (1.0, 1000.0):
        found = results({"one": 0.70, "two": 0.72, "three": 0.60})
        for row in found.rows:
            if row["task"] == "cubes":
                found.arrays[row["path"]] = scale * (2 - found.arrays[row["path"]])
                row |= {"metric": "bits_per_byte", "higher_is_better": False}
                row["value"] = found.arrays[row["path"]].mean()
        rankings.append(found.rank())
    first, second = rankings
    assert "mean" not in first.methods.columns
    assert any("several metrics" in note for note in first.notes)
    assert first.methods["rank"].equals(second.methods["rank"])
    assert first.methods["rank"].to_dict() == {"two": 1, "one": 1, "three": 3}
    assert first.pairs["p"].tolist() == pytest.approx(second.pairs["p"].tolist())


def test_a_failed_cell_counts_as_the_worst_and_is_flagged() -> None:
    found = results({"best": 0.9, "middle": 0.7, "worst": 0.5}, keep=lambda *place: place != ("best", "cells"))
    found.add("best", "cells", 0, None, status="oom")
    ranking = found.rank()
    row = ranking.methods.loc["best"]
    assert row["imputed"] == ("cells",)
    assert row["failed"] == "cells: oom (seed 0)"
    assert np.isnan(row["mean"]) and np.isnan(row["mean specialized"])
    assert row["mean natural"] == pytest.approx(0.9, abs=0.05)
    assert row["quality"] == pytest.approx((0.9 + 0.5 + 0.9) / 3, abs=0.05)
    assert row["mean_rank"] == pytest.approx((1 + 2.5 + 1) / 3)
    assert ranking.methods.loc["middle", "imputed"] == ()
    assert any("'worst'" in note for note in ranking.notes)


def test_the_rule_can_name_a_method() -> None:
    found = results({"best": 0.9, "linear": 0.7, "worst": 0.5}, keep=lambda *place: place != ("best", "cells"))
    row = found.rank(imputation="linear").methods.loc["best"]
    assert row["failed"] == "cells: missing"
    assert row["quality"] == pytest.approx((0.9 + 0.7 + 0.9) / 3, abs=0.05)


def test_one_failed_seed_of_three_is_imputed_alone() -> None:
    found = results({"best": 0.9, "worst": 0.5})
    found.rows[2] |= {"status": "nan", "value": None}
    assert (found.rows[2]["method_name"], found.rows[2]["seed"]) == ("best", 2)
    row = found.rank().methods.loc["best"]
    assert row["failed"] == "birds: nan (seed 2)"
    assert row["seeds"] == "2..3"
    assert row["quality"] == pytest.approx((8 * 0.9 + 0.5) / 9, abs=0.02)


def test_what_stands_for_a_cell_may_itself_lack_a_seed_where_all_do() -> None:
    found = results({"best": 0.9, "worst": 0.5})
    for row in found.rows:
        if row["task"] == "birds" and row["seed"] == 1:
            row |= {"status": "timeout", "value": None}
    methods = found.rank().methods
    assert methods["imputed"].tolist() == [("birds",), ("birds",)]
    assert methods.loc["best", "quality"] == pytest.approx((8 * 0.9 + 0.5) / 9, abs=0.02)
    assert methods.loc["worst", "quality"] == pytest.approx(0.5, abs=0.02)


def test_a_method_without_any_result_is_shown_without_a_rank() -> None:
    found = results({"one": 0.7, "two": 0.5})
    for task in TASKS:
        found.add("broken", task, 0, None, status="error")
    ranking = found.rank()
    row = ranking.methods.loc["broken"]
    assert pd.isna(row["rank"]) and row["seeds"] == "0"
    assert row["failed"].count("error") == 3
    assert set(ranking.pairs["a"]) | set(ranking.pairs["b"]) == {"one", "two"}


def test_scores_without_items_get_no_interval_and_beat_nobody() -> None:
    found = results({"one": 0.9, "two": 0.5})
    found.arrays = {path: values for path, values in found.arrays.items() if "/one/" not in path}
    ranking = found.rank()
    assert ranking.methods["rank"].to_dict() == {"one": 1, "two": 1}
    assert ranking.methods.loc["one", "mean"] == pytest.approx(0.9, abs=0.05)
    assert np.isnan(ranking.methods.loc["one", "mean half_width"])
    assert ranking.pairs["p"].isna().all()


def test_one_seed_is_said() -> None:
    assert any("one seed" in note for note in results({"one": 0.7, "two": 0.5}, seeds=1).rank().notes)
    assert not any("one seed" in note for note in results({"one": 0.7, "two": 0.5}, seeds=2).rank().notes)


def test_a_single_method_has_rank_one() -> None:
    ranking = results({"one": 0.7}).rank()
    assert ranking.methods["rank"].to_dict() == {"one": 1}
    assert len(ranking.pairs) == 0


def test_frames_that_cannot_be_ranked() -> None:
    found = results({"one": 0.7, "two": 0.5})
    found.add("one", "birds", 0, np.ones(ITEMS))
    with pytest.raises(ValueError, match="one x birds seed 0 occurs twice"):
        found.rank()
    with pytest.raises(ValueError, match="cells: no method has a result"):
        results({"one": 0.7, "two": 0.5}, keep=lambda method, task: task != "cells").rank()
    with pytest.raises(ValueError, match="'best' is neither 'worst' nor one of the methods"):
        results({"one": 0.7, "two": 0.5}).rank(imputation="best")
    found = results({"one": 0.7, "two": 0.5})
    found.arrays["birds/one/0"] = np.ones(ITEMS - 1)
    found.arrays["birds/one/1"] = np.ones(ITEMS - 1)
    found.arrays["birds/one/2"] = np.ones(ITEMS - 1)
    with pytest.raises(ValueError, match="different numbers of items"):
        found.rank()


def test_the_pareto_front_and_who_is_clearly_off_it() -> None:
    ranking = results({"cheap": 0.6, "waste": 0.4, "good": 0.8, "equal": 0.7995, "unknown": 0.9}).rank()
    quality = ranking.methods["quality"]
    cost = pd.Series({"cheap": 10.0, "waste": 20.0, "good": 30.0, "equal": 40.0, "unknown": np.nan})
    table = pareto(ranking, cost)
    assert list(table.index) == ["cheap", "waste", "good", "equal"]
    for name in table.index:
        dominated = [
            other
            for other in table.index
            if quality[other] >= quality[name]
            and cost[other] <= cost[name]
            and (quality[other], cost[other]) != (quality[name], cost[name])
        ]
        assert table.loc[name, "on_front"] == (not dominated)
    assert table["clearly_off"].to_dict() == {"cheap": False, "waste": True, "good": False, "equal": False}


def test_costs_average_over_tasks_and_are_unknown_where_a_task_is() -> None:
    found = results({"one": 0.7, "two": 0.5}, keep=lambda *place: place != ("two", "cells"))
    for row in found.rows:
        row["seconds"] = {"birds": 1.0, "cells": 2.0, "cubes": 6.0}[row["task"]] + row["seed"]
    costs = method_costs(pd.DataFrame(found.rows), TASKS, "seconds")
    assert costs["one"] == pytest.approx(4.0)
    assert np.isnan(costs["two"])


@pytest.mark.parametrize(
    ("score", "millions", "published"),
    [
        (0.492, 12.60, 0.35),  # COCO box AP, Partial-1
        (0.512, 3.03, 0.46),  # COCO box AP, LoRA
        (0.875, 4.57, 0.74),  # Pascal VOC, LoRA
        (0.5902, 1.19, 0.56),  # Something-Something v2, AdaptFormer
        (0.7225, 0.29, 0.71),  # VTAB-1k, LoRA
        (0.836, 0.0, 0.84),  # Pascal VOC, frozen
    ],
)
def test_ppt_gives_the_published_values(score: float, millions: float, published: float) -> None:
    """Tables of V-PETL Bench's README (github.com/synbol/Parameter-Efficient-Transfer-Learning-Benchmark)."""
    assert round(ppt(score, millions * 1e6), 2) == published
