"""What went wrong in a cell, in the words of a record."""

from __future__ import annotations

import re
import signal
import traceback
from pathlib import Path

from .errors import UnsupportedError
from .records import ErrorReport, Status

ROOT = Path(__file__).resolve().parent.parent
MAX_TRACEBACK = 4000  # characters kept, the last ones
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "std::bad_alloc", "out of memory")


def status_of(error: BaseException) -> Status:
    """The status of an attempt that ended with this exception."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in text for w in _OUT_OF_MEMORY)):
        return "oom"
    if isinstance(error, FloatingPointError):
        return "nan"
    if isinstance(error, UnsupportedError):
        return "unsupported"
    return "error"


def report_of(error: BaseException) -> ErrorReport:
    """An exception as a record keeps it."""
    message = str(error).strip() or type(error).__name__
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return ErrorReport(type=type(error).__name__, message=private(message)[:1000], traceback=trimmed(text))


def ended_by(exit_code: int | None, printed: str) -> ErrorReport:
    """A process that ended without a word."""
    if exit_code is not None and exit_code < 0:
        name = _signal_name(-exit_code)
        why = " (the kernel does this when memory runs out)" if exit_code == -9 else ""
        message = f"killed by signal {-exit_code}, {name}{why}"
        return ErrorReport(type="Signal", message=message, traceback=trimmed(printed))
    return ErrorReport(type="Exit", message=f"the process ended with code {exit_code}", traceback=trimmed(printed))


def trimmed(text: str) -> str:
    """The end of a traceback, without paths of this machine and without the list of modules that a crash prints."""
    text = private(re.sub(r"\n*Extension modules: .*", "", text))
    return text if len(text) <= MAX_TRACEBACK else "..." + text[-MAX_TRACEBACK:]


def private(text: str) -> str:
    """Text without this machine's folders: records are published."""
    text = text.replace(f"{ROOT}/", "peft_atlas/")
    text = re.sub(r"(?:/[^/\s\"']+)+/(?:site|dist)-packages/", "", text)
    text = re.sub(r"(?:/[^/\s\"']+)+/(lib/python3\.\d+)/", r"\1/", text)
    return text.replace(str(Path.home()), "~") if Path.home() != Path("/") else text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
