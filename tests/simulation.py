"""Simulated suites whose truth is known, for the statistics' coverage, false alarms and power.

The generating model. Method m on task t with seed s has the expected score

    a[m, t, s] = score[t] + gain[m] + sd[t] * (sqrt(common) * g[t, s] + sqrt(1 - common) * h[m, t, s])

and its item i has the latent value

    z[m, t, s, i] = sqrt(0.5) * d[t, i] + sqrt(0.2) * e[m, t, i] + sqrt(0.3) * r[m, t, s, i]

g, h, d, e and r are independent standard normal: the seed's effect that all methods share (its data order) and that of
one method, the item's difficulty, the method's own view of the item, and the rest.

    accuracy: y = 1 where z < quantile(a) of the normal distribution, else 0, so that E[y] = a for a given seed
    real:     y = a + 0.3 * (exp(z / 2) - exp(1 / 8)), skewed as bits per byte are, so that E[y] = a for a given seed

The truth of a suite mean is the mean of score[t] + gain[m]. The scores run from 0.40 to 0.92 over eight tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from peft_atlas.bench.moderation import task_differences, task_estimates
from peft_atlas.bench.statistics import interval, suite_difference, suite_estimate
from scipy.special import ndtri

SCORES = np.array([0.40, 0.92, 0.55, 0.85, 0.47, 0.78, 0.62, 0.70])
SEED_DEVIATIONS = {
    "none": np.zeros(8),
    "alike": np.full(8, 0.007),
    "spread": np.array([0.005, 0.002, 0.02, 0.004, 0.007, 0.003, 0.010, 0.014]),  # 0.2 to 2 points, log-spaced
    "large": np.array([0.020, 0.010, 0.040, 0.015, 0.030, 0.012, 0.025, 0.035]),  # 1 to 4 points, as with 100 steps
}
ITEM_SHARE, VIEW_SHARE, REST_SHARE = 0.5, 0.2, 0.3  # of the latent variance, which is 1
PLANTED = 0.02  # the gain of the third method
Suite = list[list[np.ndarray]]  # one method's values: [task][seed] of arrays of items


@dataclass(frozen=True)
class Design:
    """What is varied between simulations."""

    seeds: int
    items: int
    kind: Literal["accuracy", "real"] = "accuracy"
    deviations: str = "spread"  # a key of SEED_DEVIATIONS
    common: float = 0.0  # share of the seeds' variance that methods have in common


@dataclass(frozen=True)
class Tally:
    """Shares of the simulated suites."""

    mean_covered: float  # the interval of a method's suite mean has the truth in it
    difference_covered: float  # that of the planted difference has
    false_alarms: float  # two runs of the same method differ with p < 0.05
    found: float  # the planted difference has p < 0.05 and the right sign
    half_width: float  # of a suite mean, averaged


def simulate(design: Design, gains: Sequence[float], generator: np.random.Generator) -> tuple[list[Suite], np.ndarray]:
    """Every method's suite, and the methods' expected scores given the seeds, over tasks and seeds."""
    suites: list[Suite] = [[] for _ in gains]
    given = np.zeros(len(gains))
    methods, seeds, items = len(gains), design.seeds, design.items
    for score, deviation in zip(SCORES, SEED_DEVIATIONS[design.deviations], strict=True):
        both, own = generator.standard_normal((1, seeds)), generator.standard_normal((methods, seeds))
        effect = math.sqrt(design.common) * both + math.sqrt(1 - design.common) * own
        expected = score + np.asarray(gains)[:, None] + deviation * effect
        given += expected.mean(axis=1) / len(SCORES)
        latent = math.sqrt(REST_SHARE) * generator.standard_normal((methods, seeds, items), dtype=np.float32)
        latent += math.sqrt(VIEW_SHARE) * generator.standard_normal((methods, 1, items), dtype=np.float32)
        latent += math.sqrt(ITEM_SHARE) * generator.standard_normal(items, dtype=np.float32)
        if design.kind == "accuracy":
            values = (latent < ndtri(expected)[..., None]).astype(np.float64)
        else:
            values = expected[..., None] + 0.3 * (np.exp(latent.astype(np.float64) / 2) - math.exp(1 / 8))
        for suite, tasks in zip(suites, values, strict=True):
            suite.append(list(tasks))
    return suites, given


def tally(design: Design, suites: int, seed: int = 0) -> Tally:
    """Simulate suites of two runs of one method and one of a better method, and count.

    With one seed the truth is the expected score given that seed, since that is all such an interval claims.
    """
    generator = np.random.default_rng(seed)
    counts = np.zeros(5)
    gains = (0.0, 0.0, PLANTED)
    for _ in range(suites):
        (first, again, better), given = simulate(design, gains, generator)
        truth = given if design.seeds == 1 else SCORES.mean() + np.asarray(gains)
        mean = suite_estimate(first)
        same = suite_difference(list(zip(first, again, strict=True)))
        gain = suite_difference(list(zip(first, better, strict=True)))
        assert mean.half_width is not None and gain.half_width is not None
        assert same.p is not None and gain.p is not None
        counts += (
            abs(mean.mean - truth[0]) <= mean.half_width,
            abs(gain.mean - (truth[2] - truth[0])) <= gain.half_width,
            same.p < 0.05,
            gain.p < 0.05 and gain.mean > 0,
            mean.half_width,
        )
    return Tally(*(float(count) / suites for count in counts))


@dataclass(frozen=True)
class TaskTally:
    """Shares of single tasks in the simulated suites: with moderated seed variances, and of each task alone."""

    covered: float  # the interval of a method on a task has the truth in it
    worst_covered: float  # on the task where that is rarest
    alone_covered: float  # the interval from the task alone has
    half_width: float  # averaged
    alone_half_width: float
    false_alarms: float  # two runs of the same method differ on a task with p < 0.05


def tally_tasks(design: Design, suites: int, seed: int = 0) -> TaskTally:
    """Simulate suites of two runs of one method, with several seeds, and count tasks."""
    generator = np.random.default_rng(seed)
    covered, alone = np.zeros(len(SCORES)), np.zeros(len(SCORES))
    widths, alarms = np.zeros(2), 0.0
    for _ in range(suites):
        (first, again), _ = simulate(design, (0.0, 0.0), generator)
        for counts, place, estimates in (
            (covered, 0, task_estimates(first)),
            (alone, 1, [interval(task) for task in first]),
        ):
            halves = np.array([estimate.half_width for estimate in estimates], dtype=np.float64)
            counts += np.abs(np.array([estimate.mean for estimate in estimates]) - SCORES) <= halves
            widths[place] += halves.mean()
        found = task_differences(list(zip(first, again, strict=True)))
        alarms += float(np.mean([one.p is not None and one.p < 0.05 for one in found]))
    shares = (covered.mean(), covered.min(), alone.mean(), *widths, alarms)
    return TaskTally(*(float(share) / suites for share in shares))
