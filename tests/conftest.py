"""One thread and no model hub in every test: what is computed must not depend on the machine's cores or its network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
