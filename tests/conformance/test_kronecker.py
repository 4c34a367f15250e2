"""Sums of Kronecker products against torch's own product."""

from __future__ import annotations

import copy
import pickle

import torch
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
