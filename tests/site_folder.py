"""The folder of a board's site, as `bench leaderboard` would write it."""

from __future__ import annotations

from pathlib import Path

from peft_atlas.leaderboard import site
from peft_atlas.leaderboard.board import Board
from peft_atlas.leaderboard.places import places


def write(board: Board, root: Path) -> Path:
    """The folder of the site of a board."""
    out = root / "results" / "leaderboard"
    for path, content in site.files(board, places(out, root / "results")).items():
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return out / "site"
