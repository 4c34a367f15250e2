"""`bench kernels report`: tables, plots and words from measured rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .kernel_rows import CPU, Row, pairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROVIDERS = ("eager", "algebra", "compile", "hf-peft", "triton")
UNMEASURED = "Nothing was measured on a GPU: these rows say nothing about the kernels, which need one."


def markdown(rows: Sequence[Row]) -> str:
    """A page: for each GPU and kernel a table of median times, and where the kernel loses, in words."""
    lines = ["# Times of kernels", ""]
    if all(row.gpu == CPU for row in rows):
        lines += [UNMEASURED, ""]
    for gpu in sorted({row.gpu for row in rows}):
        for kernel in sorted({row.kernel for row in rows if row.gpu == gpu}):
            own = [row for row in rows if (row.gpu, row.kernel) == (gpu, kernel)]
            lines += [f"## {kernel} on {gpu}", "", _provenance(own), "", *_table(own), ""]
            lines += [*losses(own), ""] if gpu != CPU else []
    return "\n".join(lines).rstrip() + "\n"


def losses(rows: Sequence[Row]) -> list[str]:
    """One sentence for each place where the kernel is slower than the best plain torch or than the compiler."""
    found = []
    for fallback in ("algebra", "compile"):
        for kernel, other in pairs(rows, fallback):
            if kernel.p50 > other.p50:
                found.append(
                    f"- Loses to {fallback} at {kernel.shape}, {kernel.dtype}, {kernel.mode}, {kernel.launch}: "
                    f"{kernel.p50:.1f} µs against {other.p50:.1f} µs, {kernel.p50 / other.p50:.2f} times as long."
                )
    if found:
        return found
    compared = any(True for fallback in ("algebra", "compile") for _ in pairs(rows, fallback))
    return ["It loses nowhere that was measured." if compared else "The kernel itself was not measured."]


def _provenance(rows: Sequence[Row]) -> str:
    def of(name: str) -> str:
        return ", ".join(sorted({str(getattr(row, name)) for row in rows if getattr(row, name)})) or "none"

    return f"torch {of('torch')}, Triton {of('triton')}, driver {of('driver')}, commit {of('commit')}. Medians in µs."


def _table(rows: Sequence[Row]) -> list[str]:
    present = [name for name in PROVIDERS if any(row.provider == name for row in rows)]
    lines = [
        f"| shape | dtype | mode | launch | {' | '.join(present)} | roofline |",
        f"|---|---|---|---|{'---:|' * (len(present) + 1)}",
    ]
    places = dict.fromkeys((row.shape, row.dtype, row.mode, row.launch) for row in rows)
    for place in places:
        here = {row.provider: row for row in rows if (row.shape, row.dtype, row.mode, row.launch) == place}
        times = [f"{here[name].p50:.1f}" if name in here else "" for name in present]
        share = here["triton"].roofline if "triton" in here else None
        lines.append(f"| {' | '.join((*place, *times))} | {'' if share is None else f'{share:.0%}'} |")
    return lines


def plots(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write PNG files, of times and (on a GPU with known ceilings) of the roofline, for each GPU and kernel."""
    written = []
    for gpu in sorted({row.gpu for row in rows}):
        for kernel in sorted({row.kernel for row in rows if row.gpu == gpu}):
            own = [row for row in rows if (row.gpu, row.kernel) == (gpu, kernel)]
            stem = f"{kernel}-{gpu.replace(' ', '-').lower()}"
            written.append(_plot_times(own, folder / f"{stem}-time.png"))
            if any(row.roofline is not None for row in own):
                written.append(_plot_roofline(own, folder / f"{stem}-roofline.png"))
    return written


def _plot_times(rows: Sequence[Row], file: Path) -> Path:
    """Bars of the medians with their 20% and 80% quantiles, a panel for each mode and launch."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row.mode, row.launch) for row in rows))
    figure = Figure(figsize=(4 * len(panels), 3.5), layout="constrained")
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        _bars(axes, [row for row in rows if (row.mode, row.launch) == panel])
        axes.set_title(f"{rows[0].kernel}: {panel[0]}, {panel[1]}")
    figure.savefig(file, dpi=120)
    return file


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    present = [name for name in PROVIDERS if any(row.provider == name for row in rows)]
    labels = list(dict.fromkeys(f"{row.shape} {row.dtype}" for row in rows))
    for position, provider in enumerate(present):
        own = [row for row in rows if row.provider == provider]
        places = [labels.index(f"{row.shape} {row.dtype}") + 0.8 * position / len(present) for row in own]
        spread = [[max(row.p50 - row.p20, 0) for row in own], [max(row.p80 - row.p50, 0) for row in own]]
        axes.bar(places, [row.p50 for row in own], width=0.8 / len(present), yerr=spread, label=provider)
    axes.set_xticks([place + 0.4 for place in range(len(labels))], labels, rotation=30, ha="right")
    axes.set_yscale("log")
    axes.set_ylabel("µs")
    axes.legend(fontsize="small")


def _plot_roofline(rows: Sequence[Row], file: Path) -> Path:
    """The share of the roofline that each provider reaches, against operations per byte."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for provider in PROVIDERS:
        own = [row for row in rows if row.provider == provider and row.bytes]
        points = [(row.flops / row.bytes, row.roofline) for row in own if row.roofline is not None]
        axes.scatter([intensity for intensity, _ in points], [share for _, share in points], label=provider, s=18)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("operations per byte")
    axes.set_ylabel("share of the roofline")
    axes.set_title(rows[0].kernel)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)
    return file


def pictures(files: Iterable[Path]) -> str:
    """Markdown that shows files which lie beside the page."""
    return "".join(f"\n![{file.stem}]({file.name})\n" for file in files)
