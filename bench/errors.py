"""Errors that reach the user as one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AtlasError(Exception):
    """A failure whose message is meant for the user: one line, no traceback. Exit code 1."""

    exit_code = 1


class UsageError(AtlasError):
    """The request itself is wrong (unknown name, bad argument, bad recipe). Exit code 2, nothing written."""

    exit_code = 2


class UnsupportedError(AtlasError):
    """A cell that cannot be: the method needs a place that the backbone does not have."""


class AssetError(AtlasError):
    """An asset cannot be fetched, or its bytes are not the ones in the manifest."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean a or b?`` for the nearest known words, or an empty string."""
    near = difflib.get_close_matches(word.lower(), sorted(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""
