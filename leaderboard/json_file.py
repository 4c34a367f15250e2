"""The whole board as JSON, and the schema that says what each field means."""

from __future__ import annotations

import json

from .board import Board
from .data import to_json
from .places import Places


def files(board: Board, places: Places) -> dict[str, bytes]:
    """Path -> content."""
    schema = json.dumps(Board.model_json_schema(), indent=1, ensure_ascii=False) + "\n"
    return {"board.json": to_json(board, indent=None).encode(), "board.schema.json": schema.encode()}
