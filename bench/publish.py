"""Files that are whole or absent, also where several machines write into one folder.

A file is written under a temporary name, flushed to disk, then linked to its name, which fails where the name is taken.
What a shared folder must offer: links that are atomic and seen by all, as local disks, NFS, Lustre and GPFS do. On a
file system without hard links only locks keep two writers from taking one name.
"""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

TEMPORARY = ".part-"
HOST = re.sub(r"[^\w.-]", "_", platform.node())
STALE = 24 * 3600  # seconds after which a file that another machine began is taken for left behind


def publish(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. FileExistsError where one is there, else OSError."""
    part = path.with_name(f"{TEMPORARY}{HOST}@{os.getpid()}-{path.name}")
    try:
        with open(part, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        _link(part, path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Delete what killed writers of this machine left in a folder, and others' after a day. Keep writers away."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        try:
            if leftover.name.startswith(f"{TEMPORARY}{HOST}@") or time.time() - leftover.stat().st_mtime > STALE:
                leftover.unlink(missing_ok=True)
        except FileNotFoundError:  # another machine swept too
            continue


def _link(part: Path, path: Path) -> None:
    """Give a finished file its name, unless the name is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        if not os.path.samefile(part, path):  # NFS repeats a request whose answer was lost, and then finds its own link
            raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        os.rename(part, path)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where folders can be flushed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
