"""Provenance of a run, collected once by the parent and without importing the libraries it names."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .faults import ROOT
from .records import Environment

PACKAGES = ("torch", "transformers", "timm", "numpy", "scikit-learn", "tokenizers", "pillow")
CODE = ("*.py", "*.yaml", ":(exclude)results")  # git's pathspecs of what shapes results


def environment(threads: int, jobs: int) -> Environment:
    """Facts about this machine and this installation."""
    from .. import __version__

    commit, dirty = _git()
    versions = {"python": platform.python_version(), "peft-atlas": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Environment(
        commit=commit,
        dirty=dirty,
        versions=versions,
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu(),
        cores=cores(),
        threads=threads,
        jobs=jobs,
        device="cpu",
    )


def machine_class(where: Environment) -> str:
    """The class of machine of an environment: times are compared within one class only."""
    return f"{where.device}, {where.cpu}, {where.cores} cores, torch {where.versions.get('torch', '?')}"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache
def _git() -> tuple[str | None, bool | None]:
    """Commit of the checkout, and whether code or YAML differs from it; (None, None) for an installed package."""
    if not (ROOT / ".git").exists():
        return None, None
    try:
        commit = _output("git", "rev-parse", "HEAD")
        return commit, bool(_output("git", "status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


@lru_cache
def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
