"""The largest resident set of this process since a moment of one's choice."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # what `clear_refs` takes to set the peak back to the present size, see proc(5)


class PeakWatch:
    """Peaks above the resident set at the watch's making. Linux only: elsewhere every figure is None."""

    def __init__(self) -> None:
        self.baseline = _read("VmRSS")
        self.restart()

    def restart(self) -> None:
        """Forget the peak so far."""
        self._works = False
        with suppress(OSError):
            CLEAR.write_text(RESET_PEAK)
            self._works = True

    def peak(self) -> int | None:
        """Bytes above the baseline, at most, since the last restart."""
        highest = _read("VmHWM") if self._works else None
        return None if highest is None or self.baseline is None else max(0, highest - self.baseline)


def _read(name: str) -> int | None:
    """A size from the process's status, in bytes."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return None
