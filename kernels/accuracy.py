"""The error rule: a kernel may be off by at most twice what torch is off by in the same dtype, and never by much.

Errors are relative, ||value - truth|| / ||truth||, against the same equation in fp64 on the same (rounded) inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .case import Case, Function

CAPS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@dataclass(frozen=True)
class Comparison:
    """One result of an op: "output", or the gradient of the input of that name."""

    name: str
    error: float
    torch_error: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.error <= self.limit  # false for NaN


def compare(case: Case, function: Function | None = None) -> list[Comparison]:
    """The errors of `function` (the op, when not given) in all results of a case."""
    value = results(case.fused if function is None else function, case.inputs)
    dtypes = [tensor.dtype for tensor in (*case.inputs.values(), value["output"]) if tensor.is_floating_point()]
    dtype = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)  # the coarsest
    plain = results(case.algebra, case.inputs)
    truth = results(case.algebra, {name: _exact(tensor) for name, tensor in case.inputs.items()})
    found = []
    for name, exact in truth.items():
        torch_error = relative_error(plain[name], exact)
        # a result of few numbers, or of few terms, torch may happen to hit exactly: two roundings are always allowed
        limit = min(max(2 * torch_error, 2 * torch.finfo(dtype).eps), CAPS[dtype])
        found.append(Comparison(name, relative_error(value[name], exact), torch_error, limit))
    return found


def relative_error(value: Tensor, truth: Tensor) -> float:
    """||value - truth|| / ||truth||, and 0 / 0 = 0."""
    distance = torch.linalg.vector_norm(value.double() - truth)
    return float(distance / torch.linalg.vector_norm(truth)) if bool(distance != 0) else 0.0


def results(function: Function, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The output and, for a fixed cotangent, the gradients of all inputs that require one."""
    leaves = {name: tensor.detach().requires_grad_(tensor.requires_grad) for name, tensor in inputs.items()}
    output = function(**leaves)
    found = {"output": output.detach()}
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if output.requires_grad:
        gradients = torch.autograd.grad(output, list(wanted.values()), cotangent(output))
        found |= dict(zip(wanted, gradients, strict=True))
    return found


def cotangent(output: Tensor) -> Tensor:
    """Normal numbers of a fixed seed in the output's shape, the same (rounded to bf16) in every dtype."""
    drawn = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    return drawn.to(output.device, output.dtype)


def _exact(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor.detach().double().requires_grad_(tensor.requires_grad)
