"""Parsed YAML of a folder, kept as JSON in the cache folder: reading 140 recipes takes milliseconds, parsing seconds.

An entry is used while the file's modification time (ns) and size are what they were. A missing, corrupt or unwritable
index costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .assets import cache_folder
from .cards import read_yaml

VERSION = 1


def yaml_content(folder: Path) -> dict[Path, Any]:
    """Content of every YAML file below `folder`, in the order of their paths."""
    index = cache_folder() / "cards" / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.json"
    known = _read(index)
    content: dict[Path, Any] = {}
    fresh: dict[str, Any] = {}
    for file in _yaml_files(folder):
        status = file.stat()
        stamp = [status.st_mtime_ns, status.st_size]
        entry = known.get(str(file))
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp):
            # through JSON, so that a card reads the same from the file and from the index
            entry = [stamp, json.loads(json.dumps(read_yaml(file), default=str))]
        fresh[str(file)] = entry
        content[file] = entry[1]
    if fresh != known:
        _write(index, fresh)
    return content


def _yaml_files(folder: Path) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        files += [Path(parent) / name for name in names if name.endswith(".yaml")]
    return sorted(files)


def _read(index: Path) -> dict[str, Any]:
    try:
        read = json.loads(index.read_text(encoding="utf-8"))
        return dict(read["files"]) if read["version"] == VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(index: Path, files: Mapping[str, Any]) -> None:
    draft = index.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        index.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_text(json.dumps({"version": VERSION, "files": files}), encoding="utf-8")
            os.replace(draft, index)
        finally:
            draft.unlink(missing_ok=True)
