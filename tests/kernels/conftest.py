from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from peft_atlas.kernels.dispatch import forced


@pytest.fixture
def kernels() -> Iterator[None]:
    """The ops, whatever was measured, and NaN in all memory that nothing has been written to."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    with forced(True):
        yield
    torch.use_deterministic_algorithms(False)
