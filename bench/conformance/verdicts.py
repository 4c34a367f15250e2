"""How a check ends other than well."""

from __future__ import annotations

from ..errors import AtlasError


class CheckFailed(AtlasError):
    """What must hold does not; the message says what was found."""


class NotApplicable(Exception):
    """The check says nothing about this method on this model; the message says why."""


def require(held: bool, found: str) -> None:
    """Raise CheckFailed with what was found unless `held`."""
    if not held:
        raise CheckFailed(found)
