"""The interactive site: `site/index.html` and what it needs, one folder that works from disk without server or network.

Pages are written whole, so that they read without JavaScript; scripts add sorting, filters, comparison and plots.
Scripts are classic ones and data are scripts too: a browser loads neither modules nor JSON from `file:`.
"""

from __future__ import annotations

from ..board import Board
from ..places import Places
from .assets import files as assets
from .pages import files as pages
from .scripts import files as scripts

FOLDER = "site"


def files(board: Board, places: Places) -> dict[str, bytes]:
    """Path -> content."""
    found = {**assets(), **scripts(board), **pages(board, places)}
    return {f"{FOLDER}/{path}": content for path, content in found.items()}
