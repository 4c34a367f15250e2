"""How long the command line takes to answer, in whole processes, start of Python included."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize("arguments", [["--help"], ["ls", "methods"], ["ls", "tasks"], ["explain", "lora", "mnist"]])
def test_answer(benchmark: Any, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "peft_atlas", *arguments]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=5, warmup_rounds=1)
