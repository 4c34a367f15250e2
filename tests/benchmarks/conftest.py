from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--main-job", action="store_true", help="also time the main job, which takes minutes")
    parser.addoption("--records", type=int, default=100_000, help="simulated records of test_scale.py")
