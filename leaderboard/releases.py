"""Releases: frozen boards with an archive of their records, each in `<results>/releases/<name>/`; they never change."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from .board import Release

log = logging.getLogger(__name__)
FOLDER = "releases"
CARD = "release.json"


def releases(results: Path) -> tuple[Release, ...]:
    """The releases of a results folder, oldest first. One that cannot be read is named in a warning."""
    found = []
    for file in sorted((results / FOLDER).glob(f"*/{CARD}")):
        try:
            found.append(Release(**json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            log.warning("release %s is skipped: %s", file, " ".join(str(error).split())[:200])
    return tuple(sorted(found, key=lambda release: (release.date, release.name)))
