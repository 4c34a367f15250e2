"""Wrong input is a clear error; memory that is too far apart for 32-bit offsets is the right answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_atlas.kernels import accuracy, catalog
from peft_atlas.kernels.dispatch import forced
from torch import Tensor

pytestmark = pytest.mark.kernels
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FIRST = {"dora_rownorm": "a"}  # the tensor that others must agree with; an op's first where not named


def whole_numbers(tensor: Tensor) -> Tensor:
    return tensor.detach().int()


def other_dtype(tensor: Tensor) -> Tensor:
    return tensor.detach().double()


def elsewhere(tensor: Tensor) -> Tensor:
    return tensor.detach().to("meta")


def longer(tensor: Tensor) -> Tensor:
    return torch.cat([tensor.detach(), tensor.detach()], -1)


ERRORS = {whole_numbers: TypeError, other_dtype: TypeError, elsewhere: ValueError, longer: ValueError}
CASTS = {"scale_shift": other_dtype}  # the gain and shift of scale_shift take the dtype of x


@pytest.mark.parametrize(
    ("name", "change"),
    [(name, c) for name in catalog.names() for c in ERRORS if name != "nf4" and CASTS.get(name) is not c],
)
def test_one_input_that_does_not_fit(name: str, change: Callable[[Tensor], Tensor]) -> None:
    case = catalog.cases(name).make(catalog.cases(name).EDGES[2], torch.float32, DEVICE)
    inputs: dict[str, Any] = dict(case.inputs)
    key = FIRST.get(name, next(iter(inputs)))
    inputs[key] = change(inputs[key])
    with forced(True), pytest.raises(ERRORS[change], match=name):
        case.fused(**inputs)


def test_nf4_of_another_matrix() -> None:
    case = catalog.cases("nf4").make({"out": 35, "in": 33}, torch.float32, DEVICE)
    with forced(True), pytest.raises(ValueError, match="nf4: a 35 x 33 matrix has 608 bytes of codes and 19 scales"):
        case.fused(**{**case.inputs, "codes": case.inputs["codes"][:-32]})
    with forced(True), pytest.raises(TypeError, match="codes and scales are bytes"):
        case.fused(**{**case.inputs, "codes": case.inputs["codes"].int()})


def test_blocks_that_do_not_pair() -> None:
    from peft_atlas.kernels.blockdiag_rotate.apply import blockdiag_rotate

    with forced(True), pytest.raises(ValueError, match="3 blocks of 4 have no pieces that lie 2\\^1 pieces apart"):
        blockdiag_rotate(torch.ones(2, 12), torch.ones(3, 4, 4), level=1)


FAR = 2**30  # three rows this far apart reach element 2^31, one more than a 32-bit offset can
SIZES = {
    "scale_shift": ("x", {"rows": 3, "width": 20}),
    "lowrank_epilogue": ("residual", {"rows": 3, "out": 20, "rank": 2, "gain": 1, "shift": 1}),
    "blockdiag_rotate": ("x", {"rows": 3, "blocks": 3, "size": 4}),
    "kron_apply": ("x", {"rows": 3, "terms": 1, "p": 2, "q": 3, "r": 4, "s": 5}),
    "grouped_lowrank": ("x", {"rows": 3, "in": 6, "out": 5, "rank": 2, "jobs": 2}),
    "dora_rownorm": ("weight", {"out": 3, "in": 20, "rank": 2}),
}


@pytest.mark.parametrize("name", SIZES)
def test_rows_that_lie_far_apart(name: str, tmp_path: Path) -> None:
    key, size = SIZES[name]
    case = catalog.cases(name).make(size, torch.float16, DEVICE)
    near = case.inputs[key]
    with forced(True):
        expected = accuracy.results(case.fused, case.inputs)
        found = accuracy.results(case.fused, {**case.inputs, key: far_apart(near, tmp_path / "sparse")})
    for result, value in expected.items():
        assert torch.equal(found[result], value), result


def far_apart(tensor: Tensor, file: Path) -> Tensor:
    """The same rows, `FAR` elements apart; without a GPU in a file of holes, which takes a few pages of memory."""
    rows, width = tensor.shape
    length = (rows - 1) * FAR + width
    if tensor.is_cuda:
        memory = torch.empty(length, dtype=tensor.dtype, device=tensor.device)
    else:
        with open(file, "wb") as stream:
            stream.truncate(length * tensor.element_size())
        memory = torch.from_file(str(file), shared=True, size=length, dtype=tensor.dtype)
    view = memory.as_strided((rows, width), (FAR, 1))
    view.copy_(tensor.detach())
    return view.requires_grad_(tensor.requires_grad)
