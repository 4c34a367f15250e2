"""PEFT Atlas: a unified benchmark of parameter-efficient fine-tuning.

The names below are loaded on first use, so that importing the package (and with it the command line) stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench.anatomy.frames import FrameAverage
    from .bench.api import load_results, run
    from .bench.attachment import attach, load

__version__ = "0.1.0"
__all__ = ["FrameAverage", "__version__", "attach", "load", "load_results", "run"]

_HOME = {
    "FrameAverage": ".bench.anatomy.frames",
    "attach": ".bench.attachment",
    "load": ".bench.attachment",
    "load_results": ".bench.api",
    "run": ".bench.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)
