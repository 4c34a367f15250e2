"""`bench kernels bench`: how long the ways to compute an op take, on this machine's GPU or, without one, its CPU."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from ..kernels import accuracy, catalog
from ..kernels.case import Case, Function, Mode
from ..kernels.dispatch import forced
from .child import utc
from .environment import environment
from .kernel_rows import CPU, Row

MODES: tuple[Mode, ...] = ("forward", "backward", "both")
BUDGET_MS = 100  # of timed calls, for each row
CEILINGS = {"NVIDIA H200": (4.3e12, 790e12)}  # measured: bytes a second of a device copy, bf16 operations a second
QUANTILES = (0.5, 0.2, 0.8)


@dataclass(frozen=True)
class Request:
    """What to measure; `shapes` None is all of them."""

    kernels: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[str, ...] | None = None


def measure(request: Request, tell: Callable[[str], None]) -> Iterator[Row]:
    """Rows as they are measured; what cannot be measured is told, with its reason."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        tell("no GPU: plain torch is measured on the CPU; triton, CUDA graphs and the roofline need a GPU")
    for name in request.kernels:
        for shape, size in catalog.cases(name).SHAPES.items():
            for dtype in request.dtypes if request.shapes is None or shape in request.shapes else ():
                yield from _rows(name, shape, size, dtype, device, tell)


def _rows(
    name: str, shape: str, size: Mapping[str, int], dtype: str, device: str, tell: Callable[[str], None]
) -> Iterator[Row]:
    case = catalog.cases(name).make(size, getattr(torch, dtype), device)
    trains = any(tensor.requires_grad for tensor in case.inputs.values())
    for provider, function in _providers(case, device).items():
        for mode in MODES if trains else MODES[:1]:
            # a backward pass runs on the stream of its forward pass, which a graph of its own cannot hold
            for launch in ("stream", "graph") if device == "cuda" and mode != "backward" else ("stream",):
                place = f"{name} {shape} {dtype} {provider} {mode} {launch}"
                try:
                    with forced(provider == "triton"):
                        times, peak = _timed(_call(function, case.inputs, mode), device, launch)
                except Exception as error:  # a provider that fails is one row less, not the end of the others
                    tell(f"{place}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
                    continue
                yield _row(case, place.split(), size, times, peak)


def _providers(case: Case, device: str) -> dict[str, Function]:
    torch.compiler.reset()
    plain = {**case.plain, "algebra": case.algebra, "compile": torch.compile(case.algebra, dynamic=False)}
    return {**plain, "triton": case.fused} if device == "cuda" else plain


def _call(function: Function, inputs: Mapping[str, Tensor], mode: Mode) -> Callable[[], Any]:
    """What is timed: the forward pass without autograd, the backward pass of a graph that is kept, or both."""
    if mode == "forward":
        plain = {name: tensor.detach() for name, tensor in inputs.items()}
        return lambda: function(**plain)
    wanted = [tensor for tensor in inputs.values() if tensor.requires_grad]
    output = function(**inputs)
    dy = accuracy.cotangent(output)
    if mode == "backward":
        return lambda: torch.autograd.grad(output, wanted, dy, retain_graph=True)
    return lambda: torch.autograd.grad(function(**inputs), wanted, dy)


def _timed(call: Callable[[], Any], device: str, launch: str) -> tuple[list[float], float | None]:
    """(median, 20% and 80% quantile) in microseconds, and the peak of allocated memory in MiB."""
    call()  # compiles
    if device == "cpu":
        return _cpu_times(call), None
    from triton.testing import do_bench

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    timed = _captured(call) if launch == "graph" else call
    milliseconds = do_bench(timed, warmup=25, rep=BUDGET_MS, quantiles=list(QUANTILES))
    return [1000 * value for value in milliseconds], peak


def _captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph, warmed up on a side stream as capture needs it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _cpu_times(call: Callable[[], Any]) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + BUDGET_MS / 1000
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(1e6 * (time.perf_counter() - start))
    cuts = statistics.quantiles(times, n=10)
    return [cuts[round(10 * quantile) - 1] for quantile in QUANTILES]


def _row(case: Case, place: list[str], size: Mapping[str, int], times: list[float], peak: float | None) -> Row:
    _, shape, dtype, provider, mode, launch = place
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else CPU
    moved, operations = case.bytes[mode], case.flops[mode]  # type: ignore[index]
    return Row(
        kernel=case.kernel,
        provider=provider,
        mode=mode,
        launch=launch,
        shape=shape,
        size=" ".join(f"{name}={value}" for name, value in size.items()),
        work=case.work,
        dtype=dtype,
        p50=round(times[0], 3),
        p20=round(times[1], 3),
        p80=round(times[2], 3),
        peak_mb=None if peak is None else round(peak, 2),
        bytes=moved,
        flops=operations,
        roofline=_roofline(gpu, dtype, moved, operations, times[0]),
        gpu=gpu,
        torch=torch.__version__,
        triton=_version("triton"),
        driver=_driver(),
        commit=environment(threads=1, jobs=1).commit,
        time=utc(),
    )


def _roofline(gpu: str, dtype: str, moved: int, operations: int, microseconds: float) -> float | None:
    """The least time divided by the time; None where this GPU's ceilings, or those of the dtype, are not known."""
    if gpu not in CEILINGS or dtype not in ("bfloat16", "float16"):
        return None
    bandwidth, rate = CEILINGS[gpu]
    return round(1e6 * max(moved / bandwidth, operations / rate) / microseconds, 4)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    """The version of NVIDIA's driver, as its kernel module states it."""
    path = "/sys/module/nvidia/version"
    if not os.path.exists(path):
        return None
    with open(path, encoding="ascii") as stream:
        return stream.read().strip()
