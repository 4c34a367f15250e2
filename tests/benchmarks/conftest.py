from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--main-job", action="store_true", help="also time the main job, which takes minutes")
    parser.addoption("--records", type=int, default=100_000, help="simulated records of test_scale.py")
    parser.addoption("--rounds", type=int, default=40, help="timed rounds of test_speed_against_peft.py")
    parser.addoption("--matrix-cells", type=int, default=0, help="cells of test_matrix_against_trainer.py, at most 24")
    parser.addoption("--matrix-dtype", default=None, help="float32 or bfloat16; default: what the processor is fast at")
