"""Static pictures with matplotlib: colour-blind safe, for light and dark pages, and as SVG for papers.

Files of one picture differ in bytes between versions of matplotlib. Each carries a digest of what it shows instead, by
which `bench leaderboard --check` compares them.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..board import Board
from ..pictures import Picture, every
from ..places import Places
from .style import DARK, LIGHT, Theme, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIGEST = "peft-atlas digest"
_FOUND = re.compile(rb"peft-atlas digest ([0-9a-f]{16})")


def files(board: Board, places: Places) -> dict[str, bytes]:
    """Path -> content of every file of every picture."""
    return dict(file for picture in every(board) for file in _files(board, picture))


def digest_of(content: bytes) -> str | None:
    """The digest that a file of a picture carries; None for other files."""
    match = _FOUND.search(content)
    return match[1].decode() if match else None


def _files(board: Board, picture: Picture) -> Iterator[tuple[str, bytes]]:
    words = _mark(board, picture)
    for theme, suffixes in ((LIGHT, ("-light.png", ".svg")), (DARK, ("-dark.png",))):
        with styled(theme):
            figure = _drawn(board, picture, theme)
            for suffix in suffixes:
                yield f"{picture.path}{suffix}", _saved(figure, suffix.rpartition(".")[2], words, theme)
            _close(figure)


def _drawn(board: Board, picture: Picture, theme: Theme) -> Figure:
    module, _, function = picture.draw.partition(":")
    figure: Figure = getattr(importlib.import_module(f".{module}", __name__), function)(board, theme, *picture.subject)
    return figure


def _saved(figure: Figure, form: str, words: str, theme: Theme) -> bytes:
    """Without a date, so that the same versions give the same bytes."""
    buffer = io.BytesIO()
    without = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(
        buffer,
        format=form,
        dpi=160,
        bbox_inches="tight",
        pad_inches=0.15,
        facecolor=theme.page,
        metadata={"Description": words, **without},
    )
    return buffer.getvalue()


def _close(figure: Figure) -> None:
    from matplotlib import pyplot

    pyplot.close(figure)


def _mark(board: Board, picture: Picture) -> str:
    """The digest of everything that a picture may show, and of the code that draws it."""
    suite = next(suite for suite in board.suites if suite.id == picture.subject[0])
    shown = [suite.model_dump_json(), *(one.model_dump_json() for one in board.tuning if one.task in suite.tasks)]
    content = "\n".join([_code(), repr(picture), *shown])
    return f"{DIGEST} {hashlib.sha256(content.encode()).hexdigest()[:16]}"


@lru_cache
def _code() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
