"""Every op of the catalog, at its edge shapes: against fp64, by finite differences, twice, and as torch sees it.

Without a GPU the kernels run in Triton's interpreter (`tests/conftest.py` asks for it); with one, on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from peft_atlas.kernels import accuracy, catalog
from peft_atlas.kernels.case import Case
from peft_atlas.kernels.launch import runs_triton
from torch import Tensor
from torch.overrides import TorchFunctionMode

pytestmark = [pytest.mark.kernels, pytest.mark.usefixtures("kernels")]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
EDGES = [(name, edge) for name in catalog.names() for edge in catalog.cases(name).EDGES]
EMPTY: dict[str, Mapping[str, int]] = {
    "scale_shift": {"rows": 0, "width": 5},
    "dora_rownorm": {"out": 4, "in": 6, "rank": 0},
    "lowrank_epilogue": {"rows": 4, "out": 6, "rank": 0, "gain": 1, "shift": 1},
    "blockdiag_rotate": {"rows": 0, "blocks": 2, "size": 4},
    "kron_apply": {"rows": 0, "terms": 1, "p": 2, "q": 2, "r": 2, "s": 2},
    "nf4": {"out": 3, "in": 64, "inputs": 0},
    "grouped_lowrank": {"rows": 0, "in": 3, "out": 2, "rank": 1, "jobs": 2},
}


def words(value: object) -> str | None:
    return "-".join(f"{key}{size}" for key, size in value.items()) if isinstance(value, Mapping) else None


def case_of(name: str, size: Mapping[str, int], dtype: torch.dtype = torch.float32) -> Case:
    return catalog.cases(name).make(size, dtype, DEVICE)


def test_the_kernels_themselves_are_tested() -> None:
    assert runs_triton(torch.ones(1, device=DEVICE))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "size"), EDGES, ids=words)
def test_error_is_no_more_than_twice_that_of_torch(name: str, size: Mapping[str, int], dtype: str) -> None:
    for comparison in accuracy.compare(case_of(name, size, DTYPES[dtype])):
        assert comparison.holds, comparison


@pytest.mark.parametrize(("name", "size"), EMPTY.items(), ids=words)
def test_nothing_to_do_is_done(name: str, size: Mapping[str, int]) -> None:
    assert set(EMPTY) == set(catalog.names())
    for comparison in accuracy.compare(case_of(name, size)):
        assert comparison.holds, comparison


@pytest.mark.parametrize(("name", "size"), EDGES, ids=words)
def test_twice_the_same_bits_and_other_strides_the_same_result(name: str, size: Mapping[str, int]) -> None:
    case = case_of(name, size)
    first, again = (accuracy.results(case.fused, case.inputs) for _ in range(2))
    apart = accuracy.results(case.fused, {key: with_gaps(tensor) for key, tensor in case.inputs.items()})
    for key, value in first.items():
        assert torch.equal(value, again[key]), key
        assert accuracy.relative_error(apart[key], value.double()) < 1e-6, key


def with_gaps(tensor: Tensor) -> Tensor:
    """The same values, every second one of a larger memory."""
    values = tensor.detach()
    return torch.stack([values, values], -1)[..., 0].requires_grad_(tensor.requires_grad)


@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for name, size in EDGES if name != "nf4" or size.get("inputs")], ids=words
)
def test_backward_formulas_by_finite_differences(name: str, size: Mapping[str, int]) -> None:
    """In fp64, in which an op runs plain torch with its own backward pass. Restoring from NF4 has no gradient."""
    case = case_of(name, size)
    inputs = {
        key: tensor.detach().double().requires_grad_(tensor.requires_grad) if tensor.is_floating_point() else tensor
        for key, tensor in case.inputs.items()
    }

    def positional(*tensors: Tensor) -> Tensor:
        return case.fused(**dict(zip(inputs, tensors, strict=True)))

    assert torch.autograd.gradcheck(positional, tuple(inputs.values()), fast_mode=True)


class Recorder(TorchFunctionMode):
    """Keeps the calls of this package's ops, as they are made, in both passes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if getattr(function, "namespace", None) == "peft_atlas":
            self.calls.append((function, arguments))
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("name", catalog.names())
def test_torch_finds_nothing_wrong_with_the_ops(name: str) -> None:
    """Schema, autograd, fake tensors of every op that both passes call, with the arguments that it was called with."""
    for size in catalog.cases(name).EDGES[1:3]:
        case = case_of(name, size)
        with Recorder() as recorder:
            accuracy.results(case.fused, case.inputs)
        assert recorder.calls
        for op, arguments in recorder.calls:
            torch.library.opcheck(op, tuple(_leaf(value) for value in arguments))


def _leaf(value: Any) -> Any:
    return value.detach().clone().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value
