"""Where links lead, seen from the folder of the output."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..bench.registry import ROOT


@dataclass(frozen=True)
class Places:
    """Folders relative to the output's."""

    records: str
    repository: str

    def href(self, link: str, page: str) -> str:
        """The target of a link (`records:`, `repository:` or `page:` and a path) on a page, percent-encoded.

        A path that would leave its folder leads nowhere: it becomes an empty anchor.
        """
        kind, _, path = link.partition(":")
        base = {"records": self.records, "repository": self.repository, "page": "."}[kind]
        path, mark, anchor = path.partition("#")
        if posixpath.isabs(path) or ".." in path.split("/"):
            return "#"
        if not path:
            return f"#{quote(anchor)}"
        target = "../" * page.count("/") + posixpath.normpath(posixpath.join(base, path))
        return quote(target, safe="/") + (f"#{quote(anchor)}" if mark else "")


def places(out: Path, results: Path) -> Places:
    """For pages written to `out` from the records in `results`."""
    here = out.resolve()
    return Places(
        *(Path(os.path.relpath(folder.resolve(), here)).as_posix() for folder in (results, ROOT)),
    )
