"""One thread and no model hub in every test: what is computed must not depend on the machine's cores or its network.

Kernels run in Triton's interpreter where there is no GPU.
"""

from __future__ import annotations

import contextlib
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
if not os.path.exists("/dev/nvidiactl"):
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, by whichever test does that first

with contextlib.suppress(ImportError):
    import setuptools  # noqa: F401  before anyone imports distutils: torch.compile fails on a mixture of the two

import pytest


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
