"""What can be compared: a results folder, the results at a commit or release, or a baseline file."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import index
from .errors import UsageError
from .facts import COLUMNS, PLACE
from .store import Store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Arrays = Mapping[str, "np.ndarray"]
Labels = Mapping[str, Mapping[str, list[int]]]  # task -> split -> label of each item


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a row of `facts.COLUMNS` for each place, and the stored predictions of a row.

    `costs`: a row of `compare_costs.cost_facts` for each cost profile.
    """

    name: str
    cells: pd.DataFrame
    arrays: Callable[[str], Arrays | None]  # by the row's `path`
    labels: Labels = field(default_factory=dict)
    costs: Sequence[Mapping[str, Any]] = ()


@contextmanager
def side(name: str, results: Path) -> Iterator[Side]:
    """The side that a name stands for.

    `name`: a results folder; a baseline file (JSON); or a commit, tag or branch of the repository that `results` lies
    in, whose version of `results` is then unpacked to a temporary folder. UsageError for anything else.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        yield folder_side(path, name)
    elif path.is_file():
        from .baseline import baseline_side, read_baseline

        yield baseline_side(read_baseline(path), name)
    else:
        with tempfile.TemporaryDirectory(prefix="peft-atlas-") as folder:
            _unpack(name, results, Path(folder))
            yield folder_side(Path(folder), name)


def folder_side(folder: Path, name: str) -> Side:
    """The current records of a results folder; tuning trials left out, of several settings of a place the newest."""
    from . import profiling
    from .compare_costs import cost_facts

    store = Store(folder)
    rows = index.current(store.root, COLUMNS)
    results = rows[~rows["selection"].eq(True)].sort_values("finished", kind="stable")
    newest = results.drop_duplicates(PLACE, keep="last").sort_values(PLACE).reset_index(drop=True)

    costs = [cost_facts(profile) for profile in profiling.newest(store.root)]
    return Side(name, newest, store.stored_arrays(newest), costs=costs)


def _unpack(revision: str, results: Path, target: Path) -> None:
    """Write the results folder of a commit below `target`."""
    where = results if results.is_dir() else Path()
    known = _git(where, "rev-parse", "--show-toplevel")
    commit = None if known is None else _git(where, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if known is None or commit is None or revision.startswith("-"):
        raise UsageError(
            f"{revision!r} is neither a results folder, a baseline file, nor a commit or tag of the repository "
            f"of {results}"
        )
    top = Path(known.decode().strip())
    inside = results.resolve().relative_to(top.resolve()).as_posix()
    archive = _git(top, "archive", "--format=tar", commit.decode().strip(), "--", inside)
    if archive is None:
        raise UsageError(f"{revision} has no folder {inside}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as content:
        for member in content:
            path = target.joinpath(Path(member.name).relative_to(inside)).resolve()
            file = content.extractfile(member)
            if file is not None and path.is_relative_to(target.resolve()):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())


def _git(where: Path, *arguments: str) -> bytes | None:
    """What git prints; None where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
