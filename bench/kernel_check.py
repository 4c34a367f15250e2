"""`bench kernels test`: errors of the kernels at the edge shapes, on this machine's GPU or in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..kernels import catalog
from ..kernels.accuracy import Comparison, compare
from ..kernels.dispatch import forced
from .text_table import text_table

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Finding:
    """One result of one op at one shape and dtype."""

    kernel: str
    size: str
    dtype: str
    comparison: Comparison


def findings(kernels: Sequence[str]) -> Iterator[Finding]:
    """Compare every op with fp64 at all of its edge shapes, in every dtype."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in kernels:
        for size in catalog.cases(name).EDGES:
            for dtype in DTYPES:
                with forced(True):
                    comparisons = compare(catalog.cases(name).make(size, dtype, device))
                words = " ".join(f"{key}={value}" for key, value in size.items())
                yield from (Finding(name, words, str(dtype).removeprefix("torch."), c) for c in comparisons)


def as_text(found: Sequence[Finding]) -> str:
    """The largest error of each op and dtype, and every one that is too large."""
    worst: dict[tuple[str, str], Finding] = {}
    for finding in found:
        key = finding.kernel, finding.dtype
        if key not in worst or _strain(finding) > _strain(worst[key]):
            worst[key] = finding
    headers = ["kernel", "dtype", "result", "error", "torch", "limit", "at"]
    text = text_table(headers, [_line(finding) for finding in worst.values()])
    wrong = [finding for finding in found if not finding.comparison.holds]
    if not wrong:
        return f"{text}\n{len(found)} results, all within their limits"
    return f"{text}\n{len(wrong)} of {len(found)} results are off:\n{text_table(headers, [_line(f) for f in wrong])}"


def _strain(finding: Finding) -> float:
    share = finding.comparison.error / finding.comparison.limit
    return share if share == share else float("inf")  # NaN is the worst of all


def _line(finding: Finding) -> list[str | int | float | None]:
    c = finding.comparison
    numbers = (f"{c.error:.1e}", f"{c.torch_error:.1e}", f"{c.limit:.1e}")
    return [finding.kernel, finding.dtype, c.name, *numbers, finding.size]
