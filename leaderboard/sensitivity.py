"""What a learning rate that is off by a factor of about three costs, from the trials of `bench tune`.

The best rate is the one with the best mean over the tuning tasks, as `bench tune` chooses it. Its neighbours are the
trials that differ in the rate alone, by a factor between 2 and 5, the nearest to 3 on each side.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .board import Board, Tuning

RATE = "lr"
FACTOR, NEAREST, FARTHEST = 3.0, 2.0, 5.0


@dataclass(frozen=True)
class Neighbour:
    """A rate beside the best one; `loss` in units of the tasks, positive: worse; None: a trial failed there."""

    factor: float
    loss: float | None


@dataclass(frozen=True)
class Sensitivity:
    """Of one method on one backbone. `best`: None where no rate has a score on every task."""

    name: str
    backbone: str
    tasks: tuple[str, ...]
    best: float | None
    score: float | None
    at_end: bool  # no trial has a lower rate, or none a higher: a better one may lie outside
    lower: Neighbour | None  # None: no trial lies there
    higher: Neighbour | None

    @property
    def worst(self) -> float:
        """The larger loss; infinite where a neighbour failed, nan where there is none."""
        losses = [math.inf if one.loss is None else one.loss for one in (self.lower, self.higher) if one is not None]
        return max(losses, default=math.nan)


def sensitivities(found: Board, protocol: str, version: int) -> tuple[list[Sensitivity], list[str]]:
    """Of every method whose trials have several learning rates, the most sensitive first on each backbone; and the
    names of the methods whose trials vary something else, or are on tasks that the board does not hold."""
    rows, others = [], []
    wanted = [one for one in found.tuning if (one.protocol, one.protocol_version) == (protocol, version)]
    for (name, backbone, _), group in itertools.groupby(wanted, key=lambda one: (one.name, one.backbone, one.machine)):
        trials = _joined(list(group))
        tasks = tuple(dict.fromkeys(task for scores in trials.values() for task in scores))
        rates = {_values(key).get(RATE) for key in trials} - {None}
        if len(rates) < 2 or not set(tasks) <= set(found.tasks):
            others.append(name)
        else:
            sign = 1 if found.tasks[tasks[0]].higher_is_better else -1
            rows.append(_sensitivity(name, backbone, tasks, trials, sign))
    return sorted(rows, key=_order), list(dict.fromkeys(others))


def _joined(tunings: Sequence[Tuning]) -> dict[str, dict[str, float | None]]:
    """Values, as JSON -> task -> score."""
    found: dict[str, dict[str, float | None]] = {}
    for tuning in tunings:
        for trial in tuning.trials:
            found.setdefault(json.dumps(trial.values, sort_keys=True), {})[tuning.task] = trial.score
    return found


def _sensitivity(
    name: str, backbone: str, tasks: tuple[str, ...], trials: Mapping[str, Mapping[str, float | None]], sign: int
) -> Sensitivity:
    means = {key: _mean([scores.get(task) for task in tasks]) for key, scores in trials.items()}
    scored = {key: sign * mean for key, mean in means.items() if mean is not None}
    if not scored:
        return Sensitivity(name, backbone, tasks, None, None, False, None, None)
    best = max(scored, key=lambda key: scored[key])
    rate = float(_values(best)[RATE])
    beside = {float(_values(key)[RATE]): key for key in trials if _rest(key) == _rest(best)}
    sides = {side: _nearest(rate, [other for other in beside if (other > rate) is side]) for side in (False, True)}
    lower, higher = (
        None if other is None else Neighbour(other / rate, _loss(scored, best, beside[other]))
        for other in (sides[False], sides[True])
    )
    at_end = rate in (min(beside), max(beside))
    return Sensitivity(name, backbone, tasks, rate, means[best], at_end, lower, higher)


def _nearest(rate: float, others: Sequence[float]) -> float | None:
    """The rate that is nearest to a factor of three away."""
    near = {other: max(other / rate, rate / other) for other in others if other > 0 and rate > 0 and other != rate}
    inside = [other for other, factor in near.items() if NEAREST <= factor <= FARTHEST]
    return min(inside, key=lambda other: abs(math.log(near[other] / FACTOR)), default=None)


def _loss(scored: Mapping[str, float], best: str, other: str) -> float | None:
    return scored[best] - scored[other] if other in scored else None


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def _values(key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(key)
    return found


def _rest(key: str) -> dict[str, Any]:
    return {name: value for name, value in _values(key).items() if name != RATE}


def _order(one: Sensitivity) -> tuple[str, bool, float, str]:
    return one.backbone, math.isnan(one.worst), -one.worst if not math.isnan(one.worst) else 0.0, one.name
