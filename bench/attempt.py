"""One attempt at a cell, as the cell's own code sees it: where it tells its progress and leaves what it found.

What is known when an attempt fails (parameters, the curve so far, times of the phases) stays in its record.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .records import Computation, CurvePoint, DataFingerprints, Drift, ParameterCounts, Primary, StepTimes

if TYPE_CHECKING:
    import numpy as np

    from .records import Cell

REPORT_EVERY = 0.1  # seconds between two messages of one phase; the display shows no more


class Attempt:
    """Progress and findings. `send` receives small dicts: {"phase": ..., "step": ..., "steps": ..., "loss": ...}."""

    def __init__(self, cell: Cell, send: Callable[[dict[str, Any]], None]) -> None:
        self.cell = cell
        self.phase_name = "start"
        self.seconds: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self.primary: Primary | None = None
        self.curve: Sequence[Mapping[str, Any]] = ()
        self.step_seconds: Sequence[float] = ()
        self.parameters: ParameterCounts | None = None
        self.data: DataFingerprints | None = None
        self.computation: Computation | None = None
        self.drift: Drift | None = None
        self.arrays: dict[str, np.ndarray] | None = None
        self.sheet: bytes | None = None  # a PNG
        self._send = send
        self._last_sent = -math.inf

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase (load, probe, data, attach, fit, evaluate). A phase that fails stays the attempt's phase."""
        self.phase_name = name
        self._send({"phase": name})
        self._last_sent = -math.inf
        before = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - before

    def report(self, progress: Mapping[str, Any]) -> None:
        """Tell how far the phase is ({"step": 3, "steps": 100, "loss": 0.7}). Cheap enough for every step.

        The watchdog ends a cell that reports nothing for long.
        """
        now = time.monotonic()
        if now - self._last_sent >= REPORT_EVERY:
            self._last_sent = now
            self._send({"phase": self.phase_name, **progress})

    def score(self, metrics: Mapping[str, float], primary: str, *, higher_is_better: bool) -> None:
        """Leave the metrics. FloatingPointError when one is not finite."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"the metric {name} is {value}")
        self.metrics = {name: float(value) for name, value in metrics.items()}
        self.primary = Primary(name=primary, value=self.metrics[primary], higher_is_better=higher_is_better)

    def curve_points(self) -> tuple[CurvePoint, ...]:
        """The curve up to its first loss that is not finite."""
        points = []
        for point in self.curve:
            if not math.isfinite(point["loss"]):
                break
            points.append(CurvePoint(step=point["step"], loss=float(point["loss"]), lr=point.get("lr")))
        return tuple(points)

    def step_times(self) -> StepTimes | None:
        """Quantiles of the step times without the first step; None below two steps."""
        import numpy as np

        measured = self.step_seconds[1:]
        if not measured:
            return None
        p10, median, p90 = (float(value) for value in np.quantile(measured, (0.1, 0.5, 0.9)))
        return StepTimes(n=len(measured), median=median, p10=p10, p90=p90)
