"""Templates of the pages. Every text they show is escaped, and made one visible line first."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...escaping import one_line


@lru_cache
def environment() -> Environment:
    """Autoescaping, with an error for a name that is not given."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: Any) -> Any:
    """Plain text loses what cannot be seen; markup, a subclass of text, was made from such text already."""
    return one_line(value) if type(value) is str else value
