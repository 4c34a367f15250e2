"""`bench doctor`: what this machine offers, and whether a run can start."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .registry import PLUGINS, registry

PACKAGES = (
    "peft-atlas", "torch", "torchvision", "transformers", "timm", "numpy", "safetensors", "onnx", "gguf", "pip",
    "peft", "open_clip_torch", "diffusers", "datasets",
)  # fmt: skip
VARIABLES = (
    "PEFT_ATLAS_CACHE", "PEFT_ATLAS_MIRROR", "PEFT_ATLAS_OFFLINE", PLUGINS, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
    "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
NEEDED_FREE = 2_000_000_000  # bytes: all assets with their downloads, and records


@dataclass(frozen=True)
class Report:
    """What `bench doctor --json` prints. Sizes are bytes."""

    verdict: str
    problems: tuple[str, ...]  # what stops a run of the default protocol
    python: str
    platform: str
    versions: dict[str, str | None]  # None: not installed
    cpu: dict[str, Any]
    gpus: tuple[dict[str, Any], ...]
    memory: dict[str, int]
    cache: dict[str, Any]
    assets: dict[str, str]  # id -> cached | missing | damaged
    environment: dict[str, str]  # variables that are set
    registered: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> Report:
    """Look at this machine. Opens no network connection and writes nothing outside the cache folder."""
    from . import assets

    states = {entry.id: assets.status(entry.id).state for entry in assets.describe()}
    cache = _cache()
    torch_facts = _torch()
    problems = [*torch_facts["problems"], *_cache_problems(cache, states)]
    missing = [asset_id for asset_id, state in states.items() if state != "cached"]
    if problems:
        verdict = f"not ready: {problems[0]}"
    elif missing:
        verdict = f"ready; a run will fetch {', '.join(missing)} when it needs them (`bench assets fetch` does it now)"
    else:
        verdict = "ready; all assets are cached"
    return Report(
        verdict=verdict,
        problems=tuple(problems),
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        versions={name: _version(name) for name in PACKAGES},
        cpu={"model": _cpu_model(), "cores": _cores(), "torch_threads": torch_facts["threads"]},
        gpus=torch_facts["gpus"],
        memory=_memory(),
        cache=cache,
        assets=dict(states),
        environment={name: os.environ[name] for name in VARIABLES if name in os.environ},
        registered={kind: len(registry(kind).ids()) for kind in ("methods", "tasks", "backbones", "protocols")},
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torch() -> dict[str, Any]:
    """Threads and GPUs as torch sees them; a broken installation is a problem, not a traceback."""
    try:
        import torch
        import torchvision  # noqa: F401  (a torchvision built for another torch fails here)
    except (ImportError, OSError, RuntimeError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        return {"threads": None, "gpus": (), "problems": [f"torch or torchvision cannot be imported ({line})"]}
    gpus = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        gpus.append({"name": facts.name, "memory": facts.total_memory, "capability": f"{facts.major}.{facts.minor}"})
    return {"threads": torch.get_num_threads(), "gpus": tuple(gpus), "problems": []}


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> dict[str, int]:
    import psutil

    memory = psutil.virtual_memory()
    return {"total": memory.total, "available": memory.available}


def _cache() -> dict[str, Any]:
    from . import assets

    folder = assets.cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return {
        "folder": str(folder),
        "writable": os.access(existing, os.W_OK),
        "free": shutil.disk_usage(existing).free,
    }


def _cache_problems(cache: dict[str, Any], states: dict[str, Any]) -> list[str]:
    missing = [asset_id for asset_id, state in states.items() if state != "cached"]
    problems = []
    if not cache["writable"] and missing:
        problems.append(f"the cache folder {cache['folder']} cannot be written; PEFT_ATLAS_CACHE chooses another")
    if cache["free"] < NEEDED_FREE and missing:
        problems.append(
            f"{cache['free'] / 1e9:.1f} GB free at {cache['folder']}; {NEEDED_FREE / 1e9:.0f} GB are needed"
        )
    return problems


def as_text(report: Report) -> str:
    """The page that `bench doctor` prints; the verdict is its last line."""
    memory, cache = report.memory, report.cache
    absent, read_only = "not installed", "" if cache["writable"] else " (not writable)"
    gpus = [f"{gpu['name']}, {gpu['memory'] / 1e9:.0f} GB, compute {gpu['capability']}" for gpu in report.gpus]
    lines = [
        f"python    {report.python}",
        f"platform  {report.platform}",
        f"cpu       {report.cpu['model']}, {report.cpu['cores']} cores, torch threads {report.cpu['torch_threads']}",
        f"gpu       {'; '.join(gpus) or 'none that torch can use (none is needed)'}",
        f"memory    {memory['available'] / 1e9:.1f} of {memory['total'] / 1e9:.1f} GB available",
        f"cache     {cache['folder']}{read_only}, {cache['free'] / 1e9:.1f} GB free",
        f"assets    {', '.join(f'{name} {state}' for name, state in report.assets.items())}",
        f"packages  {', '.join(f'{name} {found or absent}' for name, found in report.versions.items())}",
        f"nouns     {', '.join(f'{count} {kind}' for kind, count in report.registered.items())}",
        f"variables {', '.join(f'{name}={value}' for name, value in report.environment.items()) or 'none set'}",
    ]
    return "\n".join([*lines, report.verdict])
