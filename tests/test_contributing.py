"""The worked examples of CONTRIBUTING.md: their files are written and their commands run, as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Example:
    files: dict[str, str]  # path -> content
    commands: list[str]


def example(heading: str) -> Example:
    """What the section shows: each file under the line that names it, and the commands."""
    section = TEXT.split(f"### {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    files = re.findall(
        r"`([\w./-]+\.(?:py|yaml))`[^\n]*\n\n```(?:python|yaml)\n(.*?)^```", section, re.DOTALL | re.MULTILINE
    )
    commands = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    assert len(files) == len(re.findall(r"^```(?:python|yaml)$", section, re.MULTILINE)), "a file without a name"
    return Example(dict(files), commands)


def follow(shown: Example, folder: Path) -> list[str]:
    """Do what the section says; what each command printed."""
    for path, content in shown.files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    environment = {**os.environ, "PEFT_ATLAS_OFFLINE": "1", "PEFT_ATLAS_CACHE": str(folder / "cache")}
    printed = []
    for command in shown.commands:
        words = shlex.split(command)
        assert words[0] == "bench"
        done = subprocess.run(
            [sys.executable, "-m", "peft_atlas", *words[1:]],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed.append(done.stdout)
    return printed


def test_the_method(tmp_path: Path) -> None:
    shown = example("A method, whole")
    assert len(shown.files) == 2 and len(shown.commands) == 3
    validated, counted, _ = follow(shown, tmp_path)
    assert " 0 failed" in validated and "no closed form" not in validated and "does not merge" not in validated
    assert f"{12 * 768:,}" in counted
    for task in ("smoke-vision", "smoke-text", "smoke-lm"):
        for method in ("soft-shift", "lora"):
            assert list(tmp_path.glob(f"my-results/smoke/{task}/{method}/*/1.json")), (task, method)


def test_the_task(tmp_path: Path) -> None:
    shown = example("A task, whole")
    assert len(shown.files) == 2 and len(shown.commands) == 1
    follow(shown, tmp_path)
    records = [json.loads(file.read_text()) for file in tmp_path.glob("my-results/smoke/colours/*/*/1.json")]
    assert [record["data"]["matches_card"] for record in records] == [True, True]
