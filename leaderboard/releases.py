"""Releases: frozen boards with an archive of their records, each in `<results>/releases/<name>/`; they never change.

`board.json` is the board, `records.tar.gz` holds the records, predictions and profiles behind it (the same records give
the same bytes), `release.json` says when it was made, of what, and what changed since the release before.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import re
import tarfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from ..bench.errors import UsageError
from ..bench.store import StoreError
from .board import Board, Release

log = logging.getLogger(__name__)
FOLDER = "releases"
CARD, BOARD, ARCHIVE = "release.json", "board.json", "records.tar.gz"
_NAME = re.compile(r"\d+(\.\d+)+([a-z0-9.-]*[a-z0-9])?")
_EVIDENCE = ("*/*/*/*/[0-9]*.json", "*/*/*/*/[0-9]*.npz", "profiles/*/*/*/profile-*.json", "contributions.json")


def releases(results: Path) -> tuple[Release, ...]:
    """The releases of a results folder, oldest first. One that cannot be read is named in a warning."""
    found = []
    for file in sorted((results / FOLDER).glob(f"*/{CARD}")):
        try:
            found.append(Release(**json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            log.warning("release %s is skipped: %s", file, " ".join(str(error).split())[:200])
    return tuple(sorted(found, key=lambda release: (release.date, release.name)))


def freeze(results: Path, board: Board, name: str) -> Release:
    """Make a release of a board. Raises UsageError for a name that is none or is taken, and for an empty board."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"a release is named like 0.1 or 1.2.0, not {name!r}")
    folder = results / FOLDER / name
    if (folder / CARD).exists():
        raise UsageError(f"the release {name} exists ({folder}); releases never change")
    if not board.records:
        raise UsageError(f"{results} holds no records to freeze")
    before = read(results, board.releases[-1]) if board.releases else None
    archive = _archive(results)
    release = Release(
        name=name,
        date=datetime.now(timezone.utc).date().isoformat(),
        digest=board.digest,
        records=board.records,
        folder=f"{FOLDER}/{name}",
        archive_sha256=hashlib.sha256(archive).hexdigest(),
        changes=tuple(changes(before, board)) if before is not None else (),
    )
    content = {BOARD: _text(board), ARCHIVE: archive, CARD: release.model_dump_json(indent=1).encode() + b"\n"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in content.items():  # the card last: a folder without one is no release
            with (folder / file).open("xb") as stream:
                stream.write(data)
    except OSError as error:
        raise StoreError(f"cannot write the release to {folder}: {error.strerror or error}") from error
    return release


def read(results: Path, release: Release) -> Board | None:
    """A release's board; None (with a warning) where it cannot be read any more."""
    file = results / release.folder / BOARD
    try:
        return Board.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.warning("the board of release %s is skipped: %s", release.name, " ".join(str(error).split())[:200])
        return None


def changes(before: Board, after: Board) -> Iterator[str]:
    """What is new, gone, or ranked otherwise, a line each."""
    old, new = _standings(before), _standings(after)
    for place in sorted(set(old) | set(new)):
        suite, compute, name = place
        where = f"{name} in {suite} ({compute})"
        if place not in old:
            yield f"new: {where}, rank {new[place][0]}"
        elif place not in new:
            yield f"gone: {where}"
        elif old[place] != new[place]:
            (rank, mean), (rank_now, mean_now) = old[place], new[place]
            yield f"{where}: rank {rank} to {rank_now}, mean {mean} to {mean_now}"


def _standings(board: Board) -> dict[tuple[str, str, str], tuple[int | None, str]]:
    found = {}
    for suite in board.suites:
        for ranking in suite.rankings:
            for standing in ranking.standings:
                mean = standing.means.get("mean")
                place = (suite.id, ", ".join(filter(None, (ranking.compute, ranking.budget))), standing.name)
                found[place] = (standing.rank, "none" if mean is None else f"{mean.mean:.2f}")
    return found


def _text(board: Board) -> bytes:
    from .data import to_json

    return to_json(board, indent=None).encode()


def _archive(results: Path) -> bytes:
    """A tar.gz without owners and times, in the order of the paths."""
    files = sorted({file for pattern in _EVIDENCE for file in results.glob(pattern) if FOLDER not in file.parts})
    stream = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in files:
            content = file.read_bytes()
            member = tarfile.TarInfo(file.relative_to(results).as_posix())
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()
