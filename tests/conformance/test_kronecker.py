"""Sums of Kronecker products against torch's own product."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from peft_atlas.bench.ledger import SavedTensors
from peft_atlas.kernels.kron_apply.apply import kron_apply
from peft_atlas.kernels.kron_apply.reference import kronecker_linear, low_rank_kronecker_linear
from peft_atlas.methods.parts.kronecker import Borrowed, KroneckerSum
from torch import nn


def dense(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.kron(left, right) for left, right in zip(a, b, strict=True)]).sum(0)


def test_a_sum_is_applied_without_its_matrix() -> None:
    a, b, x = torch.randn(3, 2, 4).double(), torch.randn(3, 5, 6).double(), torch.randn(7, 2, 24).double()
    torch.testing.assert_close(kronecker_linear(x, a, b), x @ dense(a, b).t())


def test_low_rank_right_factors() -> None:
    a, u, v = torch.randn(3, 2, 4).double(), torch.randn(3, 5, 2).double(), torch.randn(3, 2, 6).double()
    x = torch.randn(24).double()
    torch.testing.assert_close(low_rank_kronecker_linear(x, a, u, v), dense(a, u @ v) @ x)


def test_module_and_its_matrix_agree() -> None:
    a, u, v = (nn.Parameter(torch.randn(shape).double()) for shape in ((3, 2, 4), (3, 5, 2), (3, 2, 6)))
    x = torch.randn(7, 24).double()
    module = KroneckerSum(a, u, v, scale=0.5)
    torch.testing.assert_close(module(x), x @ module.weight_delta().t())
    torch.testing.assert_close(module.weight_delta(), 0.5 * dense(a, u @ v))


def test_a_borrowed_factor_is_counted_by_its_owner_alone_and_stays_shared_in_copies() -> None:
    owner = nn.ParameterList([torch.randn(1, 2, 2)])
    users = nn.ModuleList(KroneckerSum(Borrowed(owner[0]), nn.Parameter(torch.randn(1, 3, 3))) for _ in range(2))
    assert sorted(users.state_dict()) == ["0.b", "1.b"]
    copies = [copy.deepcopy((owner, users)), pickle.loads(pickle.dumps((owner, users)))]
    for new_owner, new_users in copies:
        assert new_users[0].a is new_users[1].a is new_owner[0] is not owner[0]


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "autocast"])
@pytest.mark.parametrize(
    "shapes", [((2, 4, 3), (2, 5, 6)), ((1, 4, 3), (1, 5, 2), (1, 2, 6))], ids=["full", "low-rank"]
)
def test_nothing_between_input_and_result_is_kept_and_gradients_keep_their_bits(
    shapes: tuple[tuple[int, ...], ...], half: bool
) -> None:
    torch.manual_seed(0)
    x, *factors = (torch.randn(shape, requires_grad=True) for shape in ((7, 9, 18), *shapes))
    direct = kronecker_linear if len(factors) == 2 else low_rank_kronecker_linear

    def gradients(function: Callable[..., torch.Tensor]) -> tuple[list[torch.Tensor], int]:
        with SavedTensors([x, *factors]) as saved, torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = function(x, *factors)
            kept = saved.peak
        return list(torch.autograd.grad(y.float().square().sum(), [x, *factors])), kept

    (found, kept), (expected, kept_by_torch) = gradients(kron_apply), gradients(direct)
    assert all(map(torch.equal, found, expected))
    assert kept == 0 < kept_by_torch


def test_frozen_factors_get_no_gradient() -> None:
    x, a, b = torch.randn(3, 4, requires_grad=True), torch.randn(1, 2, 2), torch.randn(1, 2, 2, requires_grad=True)
    kron_apply(x, a, b).sum().backward()
    assert a.grad is None and x.grad is not None and b.grad is not None
