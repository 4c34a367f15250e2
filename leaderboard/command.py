"""`bench leaderboard`: write the pages of a results folder, or say how they differ from what is committed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..bench.errors import UsageError, did_you_mean
from ..bench.store import StoreError
from . import releases
from .board import Board
from .data import build
from .places import places

FORMATS: dict[str, str] = {  # name -> module with `files(board, places)`: path -> content
    "md": "markdown",
    "plots": "plots",
    "csv": "csv_files",
    "latex": "latex_files",
    "json": "json_file",
    "metafile": "metafiles",
    "html": "site",
}
EVERY = "all"
OWNER = ".leaderboard"  # names the files of the last run, so that those no longer made can be taken away


def leaderboard_command(results: Path, out: Path, formats: str, *, check: bool, freeze: str | None) -> int:
    """Write, check or freeze; the exit code is 1 where the output differs from the records.

    Raises UsageError for an unknown format, an absent results folder, and a release that exists; StoreError where the
    output cannot be written.
    """
    if not results.is_dir():
        raise UsageError(f"the results folder {results} does not exist")
    names = _formats(formats)
    board = build(results)
    if freeze is not None:
        release = releases.freeze(results, board, freeze)
        print(f"release {release.name} of {release.date}: {release.records:,} records, {results / release.folder}")
        return 0
    files = made(board, out, results, names)
    if check:
        lines = differences(files, out, names)
        print("\n".join(lines) if lines else f"{out} agrees with {results}: {len(files)} files")
        return 1 if lines else 0
    _write(files, out, whole=set(names) == set(FORMATS))
    print(f"{len(files)} files in {out}: {board.records:,} records, digest {board.digest}")
    return 0


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in (*FORMATS, EVERY):
            near = did_you_mean(name, FORMATS) or f" Known: {', '.join(FORMATS)}."
            raise UsageError(f"unknown format {name!r}.{near}")
    if not names:
        raise UsageError("no format given")
    return list(FORMATS) if EVERY in names else list(dict.fromkeys(names))


def made(board: Board, out: Path, results: Path, formats: Sequence[str]) -> dict[str, bytes]:
    """Path below `out` -> content, of all formats."""
    where = places(out, results)
    found: dict[str, bytes] = {}
    for name in formats:
        found |= importlib.import_module(f".{FORMATS[name]}", __package__).files(board, where)
    return dict(sorted(found.items()))


def differences(files: Mapping[str, bytes], out: Path, formats: Sequence[str]) -> list[str]:
    """A line for each file that is missing, differs, or should not be there any more.

    Pictures are compared by the digest of what they show: their bytes depend on the plotting library's version.
    """
    lines = []
    for path, content in files.items():
        file = out / path
        if not file.is_file():
            lines.append(f"missing: {file}")
        elif not _same(file.read_bytes(), content):
            lines.append(f"differs: {file}")
    if set(formats) == set(FORMATS):
        lines += [f"left over: {out / path}" for path in sorted(_owned(out) - set(files))]
    return lines


def _same(committed: bytes, made_now: bytes) -> bool:
    from .plots import digest_of

    digest = digest_of(made_now)
    return committed == made_now if digest is None else digest_of(committed) == digest


def _owned(out: Path) -> set[str]:
    """What the last run wrote and is still there."""
    try:
        listed = (out / OWNER).read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {path for path in listed if ".." not in path.split("/") and (out / path).is_file()}


def _write(files: Mapping[str, bytes], out: Path, *, whole: bool) -> None:
    """Each file whole or not at all; with all formats, files of earlier runs that are made no more are taken away."""
    try:
        earlier = _owned(out) - set(files)
        for path in earlier if whole else ():
            (out / path).unlink()
        for path, content in files.items():
            _replace(out / path, content)
        kept = sorted({*files, *(() if whole else earlier)})
        _replace(out / OWNER, "".join(f"{path}\n" for path in kept).encode())
    except OSError as error:
        raise StoreError(f"cannot write the leaderboard to {out}: {error.strerror or error}") from error


def _replace(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.part")
    try:
        draft.write_bytes(content)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
