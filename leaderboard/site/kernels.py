"""The measured kernels: what each way of computing an op takes, from the committed rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...bench.errors import UsageError
from ...bench.kernel_rows import Row, read
from ...bench.registry import ROOT

log = logging.getLogger(__name__)
MEASURED = ROOT / "kernels" / "measured.csv"
KERNEL = "triton"


@dataclass(frozen=True)
class Comparison:
    """One op at one shape: median microseconds of each provider that was measured.

    `gain`: the fastest other provider's time over the kernel's, above 1 where the kernel wins; None where either lacks.
    """

    place: tuple[str, ...]  # kernel, GPU, dtype, mode, launch, shape, size
    times: dict[str, float]
    gain: float | None


def comparisons(file: Path) -> tuple[tuple[str, ...], list[Comparison]]:
    """Names of the providers, and a comparison for each op and shape; empty where nothing was measured.

    Rows that cannot be read are named in a warning.
    """
    if not file.exists():
        return (), []
    try:
        rows = read([file])
    except UsageError as error:
        log.warning("the kernels' page is left out: %s", error)
        return (), []
    providers = tuple(dict.fromkeys(row.provider for row in rows))
    by_place: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        place = (row.kernel, row.gpu, row.dtype, row.mode, row.launch, row.shape, row.size)
        by_place.setdefault(place, []).append(row)
    return providers, [_comparison(place, found) for place, found in by_place.items()]


def _comparison(place: tuple[str, ...], rows: Sequence[Row]) -> Comparison:
    times = {row.provider: row.p50 for row in rows}
    others = [time for provider, time in times.items() if provider != KERNEL]
    gain = min(others) / times[KERNEL] if KERNEL in times and others else None
    return Comparison(place, times, gain)
