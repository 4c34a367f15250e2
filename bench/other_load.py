"""How busy other processes keep the machine: the load average would count what this suite did a moment ago, too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

BUSY = 0.7  # cores that others keep busy, above which times are worth little
GLANCE = 0.3  # seconds that `other_load_now` looks


class Usage(NamedTuple):
    """Seconds since some moment: of the clock, of all cores at work, and of those at work for this process."""

    clock: float
    machine: float
    own: float


def usage() -> Usage:
    """As it is now; the own share holds threads, and children that have ended."""
    import psutil

    spent, own = psutil.cpu_times(), os.times()
    working = (getattr(spent, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    return Usage(time.monotonic(), sum(working), sum(own[:4]))


class OtherLoad:
    """Watches from its creation on, in the process that works."""

    def __init__(self, read: Callable[[], Usage] = usage) -> None:
        self._read, self._start = read, read()

    def mean(self) -> float:
        """Number of cores that other processes kept busy, on average, until now."""
        clock, machine, own = (now - then for now, then in zip(self._read(), self._start, strict=True))
        return max(0.0, machine - own) / clock if clock > 0 else 0.0


def other_load_now() -> float:
    """Number of cores that other processes keep busy at the moment."""
    watch = OtherLoad()
    time.sleep(GLANCE)
    return watch.mean()
