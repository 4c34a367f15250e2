"""Who vouches for a record: `contributions.json` in the results folder.

    {"records": {"<path>": {"contributor": "name", "sha256": "...", "verified_by": "name or null", "evidence": "..."}}}

A record that is not listed was run by the maintainers. A listed one is self-reported until a verifier has run its cell
again and set `verified_by`; `evidence` is the path of that run's record. An entry counts only for the bytes it names.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..bench.errors import UsageError
from .board import Mark

FILE = "contributions.json"


class Contribution(BaseModel):
    """One contributed record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contributor: str
    sha256: str
    verified_by: str | None = None
    evidence: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    records: dict[str, Contribution]


def contributions(results: Path) -> dict[str, Contribution]:
    """By the path of the record. UsageError for a file that is not as described above."""
    file = results / FILE
    if not file.exists():
        return {}
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        return _File.model_validate(content).records
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None


def marks(results: Path) -> dict[str, Mark]:
    """Of the listed records; a verification of other bytes is none."""
    found: dict[str, Mark] = {}
    for path, entry in contributions(results).items():
        record = results / path
        same = record.is_file() and hashlib.sha256(record.read_bytes()).hexdigest() == entry.sha256
        found[path] = "verified" if same and entry.verified_by else "self-reported"
    return found
