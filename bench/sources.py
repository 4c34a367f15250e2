"""Weights and data that no wheel carries: repositories of a model hub, and folders that a user has.

A card pins a repository by its commit. `huggingface_hub` downloads it into its own cache and obeys its own variables
(HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE). A folder named by `--data-root` (PEFT_ATLAS_DATA_ROOT)
comes first; below `owner/name` it holds the files as the repository does.

Cells never download: a run fetches what its cells need before it starts them (`fetch_all`), and they read (`folder`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import AssetError, UsageError

DATA_ROOT = "PEFT_ATLAS_DATA_ROOT"


@dataclass(frozen=True)
class Source:
    """One repository or folder, as a card names it."""

    path: str  # "nyu-mll/glue": the repository's id, and the folder below the data root
    files: tuple[str, ...]  # glob patterns of what is needed
    hub: Literal["model", "dataset"] | None = None  # what kind of repository; None where no hub has it
    revision: str = ""  # commit, 40 hex digits; or a branch, where only the first digits of its `commit` are known
    commit: str = ""
    how: str = ""  # how to get what no hub has


class SourceError(AssetError):
    """A source cannot be had. `unreachable`: nor can anything else from the hub at present."""

    def __init__(self, message: str, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


def use_data(root: str | Path | None) -> None:
    """Look for sources in this folder first, in this process and the children that it starts from now on."""
    if root is None:
        return
    if not Path(root).expanduser().is_dir():
        raise UsageError(f"the data folder {root} does not exist")
    os.environ[DATA_ROOT] = str(Path(root).expanduser().resolve())


def fetch_all(sources: Iterable[Source]) -> dict[Source, str]:
    """Fetch each source; those that cannot be had, with the reason.

    A hub that cannot be reached is asked once: its client tries for half a minute before it gives up.
    """
    reasons: dict[Source, str] = {}
    reachable = True
    for source in sources:
        try:
            _find(source, ask_hub=reachable)
        except SourceError as error:
            reasons[source] = str(error)
            reachable &= not error.unreachable
    return reasons


def folder(source: Source) -> Path:
    """The folder that holds a source's files, without asking a hub. Raises SourceError where it is not there."""
    return _find(source, ask_hub=False)


def _find(source: Source, ask_hub: bool) -> Path:
    root = os.environ.get(DATA_ROOT)
    local = Path(root).expanduser() / source.path if root else None
    if local is not None and local.is_dir():
        return _whole(local, source)
    if source.hub is None:
        raise SourceError(f"{source.path} is on no hub: {source.how}; {_own_copy(source)}")
    try:
        found = _snapshot(source, ask_hub and os.environ.get("PEFT_ATLAS_OFFLINE", "0") in ("", "0"))
        if not found.name.startswith(source.commit):  # the client names a snapshot's folder by its commit
            raise SourceError(f"{source.path}: {source.revision} is at {found.name} by now, not at {source.commit}")
        return _whole(found, source)
    except SourceError:
        raise
    except Exception as error:  # whatever the client raises: the user gets one line that helps
        raise _explained(error, source) from error


def _whole(found: Path, source: Source) -> Path:
    for pattern in source.files:
        if not any(found.glob(pattern)):
            raise SourceError(f"{source.path}: {found} holds no {pattern}")
    return found


def _snapshot(source: Source, ask_hub: bool) -> Path:
    """The repository's files in the hub client's cache, downloaded where `ask_hub` and they are missing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **{**options, "disable": True})

    return Path(
        snapshot_download(
            source.path,
            repo_type=source.hub,
            revision=source.revision,
            allow_patterns=list(source.files),
            cache_dir=_cache(),
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            local_files_only=not ask_hub,
            tqdm_class=None if sys.stderr.isatty() else Silent,  # no bars in logs
        )
    )


def _cache() -> Path | None:
    """The client's cache folder by today's variables: it read them itself when the server of cells imported it."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME")
    return Path(home).expanduser() / "hub" if home else None


def _explained(error: Exception, source: Source) -> SourceError:
    """One line: what is wrong, and what to do."""
    from huggingface_hub import errors

    hub = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    if isinstance(cause, errors.GatedRepoError):
        page = f"{hub}/{'datasets/' if source.hub == 'dataset' else ''}{source.path}"
        return SourceError(f"{source.path} is gated: accept its terms at {page} and set HF_TOKEN")
    if isinstance(cause, errors.RevisionNotFoundError):
        return SourceError(f"{source.path} has no commit {source.revision} at {hub}; {_own_copy(source)}")
    if isinstance(cause, errors.RepositoryNotFoundError):
        return SourceError(f"{source.path} is not at {hub}, or is private: HF_TOKEN says who asks; {_own_copy(source)}")
    if isinstance(cause, errors.HfHubHTTPError):
        return SourceError(f"{source.path}: {hub} answered {cause.response.status_code}; run the command again later")
    if isinstance(cause, errors.OfflineModeIsEnabled) or (cause is error and isinstance(error, FileNotFoundError)):
        return SourceError(f"{source.path} is not on this machine, and no hub was asked; {_download(source)}")
    if isinstance(cause, errors.FileMetadataError):
        return SourceError(f"{source.path}: {hub} (HF_ENDPOINT) does not answer as a model hub does")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return SourceError(f"{source.path}: {hub} cannot be reached; {_download(source)}", unreachable=True)
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return SourceError(f"{source.path}: {line}; {_download(source)}")


def _download(source: Source) -> str:
    kind = " --repo-type dataset" if source.hub == "dataset" else ""
    command = f"hf download {source.path}{kind} --revision {source.revision}"
    return f"`{command}` where there is a network, or {_own_copy(source)}"


def _own_copy(source: Source) -> str:
    return f"put its files into DIR/{source.path} and name the folder: --data-root DIR"
