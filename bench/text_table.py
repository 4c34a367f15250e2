"""Plain tables: aligned columns that survive a copy into an issue, printed without loading a display library."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | int | float | None


def text_table(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns two spaces apart, numbers to the right, a rule below the headers."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(headers, *texts, strict=True)]
    right = [bool(rows) and all(isinstance(cell, int | float) for cell in column) for column in zip(*rows, strict=True)]
    right += [False] * (len(headers) - len(right))
    lines = [list(headers), ["-" * width for width in widths], *texts]
    return "\n".join(
        "  ".join(
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
