"""The verbs of `bench kernels`: correctness, measuring, reporting."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..kernels import catalog
from .errors import UsageError, did_you_mean

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Test, measure and report the kernels; bench ls kernels lists them.",
)

Kernels = Annotated[str, typer.Option(metavar="NAMES", help="Comma-separated: scale_shift,nf4, or all.")]
DTYPES = ("float32", "float16", "bfloat16")


@app.command("test")
def check(kernels: Kernels = "all") -> int:
    """Compare the kernels with fp64, on this machine's GPU or in Triton's interpreter. Exit code 1 when one is off."""
    chosen = _chosen(kernels)
    if not os.path.exists("/dev/nvidiactl"):
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    from ..kernels.launch import HAS_TRITON
    from . import kernel_check

    if not HAS_TRITON:
        print("bench: Triton is not installed: only plain torch is tested", file=sys.stderr)
    found = list(kernel_check.findings(chosen))
    print(kernel_check.as_text(found))
    return 0 if all(finding.comparison.holds for finding in found) else 1


@app.command()
def bench(
    kernels: Kernels = "all",
    shapes: Annotated[str | None, typer.Option(metavar="S,M,L", help="Shapes by name; all when not given.")] = None,
    dtypes: Annotated[str, typer.Option(metavar="NAMES", help="Comma-separated dtypes.")] = "bfloat16",
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the rows go, as CSV.")] = Path("kernels.csv"),
) -> int:
    """Measure the ways to compute each op: plain torch, compiled, HF PEFT's, the kernel.

    One op at a time makes a shard.
    """
    chosen, wanted = _chosen(kernels), tuple(dtypes.split(","))
    if unknown := sorted(set(wanted) - set(DTYPES)):
        raise UsageError(f"no dtype {unknown[0]!r}; there are {', '.join(DTYPES)}")
    if out.exists():
        raise UsageError(f"{out} exists already: its rows were measured once, and --out takes another file")
    from . import kernel_rows, kernel_timing

    request = kernel_timing.Request(chosen, wanted, None if shapes is None else tuple(shapes.split(",")))
    rows = list(kernel_timing.measure(request, tell=lambda text: print(f"bench: {text}", file=sys.stderr)))
    if not rows:
        raise UsageError(f"no kernel of these has a shape named {shapes}")
    kernel_rows.write(out, rows)
    print(f"{len(rows)} rows in {out}")
    return 0


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(metavar="CSV...", help="What bench kernels bench wrote; shards join.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write the page and its plots here.")] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Keep the rows as the dispatcher's, and derive its thresholds from them.")
    ] = False,
) -> None:
    """Lay out measured rows: tables, plots, and in words where a kernel loses."""
    from . import kernel_report, kernel_rows

    rows = kernel_rows.read(files)
    text = kernel_report.markdown(rows)
    print(text, end="")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        pictures = kernel_report.pictures(kernel_report.plots(rows, out))
        (out / "kernels.md").write_text(text + pictures, encoding="utf-8")
    if accept:
        from ..kernels.thresholds import MEASURED, THRESHOLDS

        kernel_rows.write(MEASURED, rows)
        THRESHOLDS.write_text(kernel_rows.thresholds_text(rows), encoding="utf-8")


def _chosen(text: str) -> tuple[str, ...]:
    """Kernels as typed, all of them known."""
    known = tuple(catalog.names())
    names = known if text == "all" else tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in known:
            raise UsageError(f"no kernel {name!r}.{did_you_mean(name, known)}")
    return names
