"""The ops of this folder by name. A folder with an `op.py` is an op; nothing is imported before it is asked for."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import torch

    from .case import Case

FOLDER = Path(__file__).parent


class Cases(Protocol):
    """What a module `cases.py` offers: named shapes to measure, shapes at the edge to test, and the case of a shape."""

    SHAPES: Mapping[str, Mapping[str, int]]
    EDGES: tuple[Mapping[str, int], ...]

    def make(self, size: Mapping[str, int], dtype: torch.dtype, device: str) -> Case:
        """The case of one shape."""


def names() -> list[str]:
    """Every op's name, sorted."""
    return sorted(file.parent.name for file in FOLDER.glob("*/op.py"))


def cases(name: str) -> Cases:
    """The cases of an op."""
    return cast(Cases, importlib.import_module(f"{__package__}.{name}.cases"))


def summary(name: str) -> str:
    """The first line of an op's docstring, read without importing it."""
    text = (FOLDER / name / "op.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
