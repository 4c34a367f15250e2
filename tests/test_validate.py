"""`bench validate`: each check finds the fault that it is there for, and what is asked for wrongly is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from peft_atlas.bench.cli import main
from peft_atlas.bench.conformance import report
from peft_atlas.bench.conformance.validation import CHECKS, Validation, validate
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.registry import PLUGINS

RECIPE = """\
id: faulty
name: Faulty
version: 3
category: additive/scale
families: [text]
compute: equal-steps
target: faulty:Faulty
summary: A shift behind the feed-forward, and one fault.
paper: {title: None, authors: Nobody, year: 2026}
hyperparameters:
  defaults:
    lr: {value: 1.0e-3, source: guess}
  family:
    text: {width: {value: 16, source: guess}}
"""
MODULE = '''\
from __future__ import annotations

import random
from typing import ClassVar

import torch
from torch import nn

from peft_atlas.methods.contract import GradientConfig, Method


class FaultyConfig(GradientConfig):
    size: ClassVar = "width"
    width: int
    fault: str = "none"


class Shift(nn.Module):
    """(y, x) -> y + v."""

    def __init__(self, like, fault):
        super().__init__()
        self.v = nn.Parameter(torch.zeros(len(like), device=like.device))
        self.fault = fault
        self.noise = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(len(like), device=like.device)
        if fault == "start":
            nn.init.ones_(self.v)
        if fault == "repeat":
            nn.init.constant_(self.v, random.random())
        if fault == "meta":
            self.first = float(like.sum())

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "noise"}

    def __setstate__(self, state):
        self.__dict__.update(state, noise=torch.Generator().manual_seed(0))

    def forward(self, y, x):
        shift = self.v.to(y.dtype)
        if self.fault == "half":
            return y + self.v
        if self.fault == "recompute":
            shift = shift * torch.rand(1, generator=self.noise).to(y.dtype)
        if self.fault == "shipping":
            shift = shift * self.hidden.to(y.dtype)
        return y + shift

    def merged(self, weight, bias):
        return weight, bias + (2 if self.fault == "merge" else 1) * self.v


class Faulty(Method):
    Config = FaultyConfig
    starts_as_backbone = True

    @classmethod
    def requires(cls, config):
        return ("feedforward",)

    @classmethod
    def closed_form(cls, config, anatomy):
        return sum(block.width for block in anatomy.blocks) + (config.fault == "count")

    def attach(self, anatomy):
        fault = self.config.fault
        if fault == "raises":
            raise RuntimeError("nothing works\\nhere")
        self.anatomy = anatomy
        if fault == "nothing":
            return
        self.shifts = nn.ModuleList()
        for block in anatomy.blocks:
            shift = Shift(block.feedforward.down.weight(), fault)
            self.shifts.append(shift)
            if fault in ("copy", "pickle"):
                block.feedforward.after(lambda y, shift=shift: y + shift.v.to(y.dtype))
            else:
                block.feedforward.down.revise(shift)
        if fault == "gradients":
            anatomy.blocks[0].feedforward.up.module.weight.requires_grad_(True)
        if fault == "detach":
            anatomy.model.register_forward_hook(print)
        if fault == "config":
            anatomy.model.config.pad_token_id = 7

    def after_step(self, step):
        if self.config.fault == "training":
            with torch.no_grad():
                self.anatomy.blocks[0].feedforward.up.module.weight.add_(0.01)

    def parameter_groups(self):
        groups = super().parameter_groups()
        return [{**group, "maximize": self.config.fault == "loss"} for group in groups]
'''
FAULTS = {  # fault: (check that finds it, what is said of it)
    **{check: (check, "") for check in CHECKS},
    "training": ("training", "training changed the frozen encoder.layer.0.intermediate.dense.weight"),
    "loss": ("training", "the loss went from "),
    "merge": ("merge", "merged, outputs differ by "),
    "count": ("count", "64 numbers train, and the closed form says 65"),
    "nothing": ("gradients", "it trains nothing"),
    "raises": ("detach", "RuntimeError: nothing works (faulty.py:"),
}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "faulty.py").write_text(MODULE)
    (folder / "faulty.yaml").write_text(RECIPE)
    monkeypatch.setenv(PLUGINS, str(folder))
    return folder


def failed(found: Validation) -> dict[str, str]:
    return {finding.check: finding.reason for finding in found.findings if finding.outcome == "failed"}


def test_a_sound_method_passes_on_every_architecture_of_its_family(plugin: Path) -> None:
    found = validate("faulty", models=("vit", "bert"))
    assert found.ok and failed(found) == {} and found.lowered == {"width": 4}
    assert {(f.outcome, f.model) for f in found.findings} == {("ok", "bert"), ("not applicable", "vit")}
    assert "faulty: width has no value in the recipe" in report.as_text(found)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(plugin: Path, fault: str) -> None:
    found = validate(f"faulty(fault={fault})", models=("bert",))
    check, said = FAULTS[fault]
    assert not found.ok
    assert said in failed(found)[check]
    assert all(reason and "\n" not in reason for reason in failed(found).values())


def test_where_no_model_fits_it_does_not_pass(plugin: Path) -> None:
    found = validate("faulty", models=("vit",))
    assert not found.ok and not failed(found)
    assert "0 checks held, 0 failed, 14 do not apply: no model fits" in report.as_text(found)


def test_the_command_prints_a_table_or_json(plugin: Path) -> None:
    command = [sys.executable, "-m", "peft_atlas", "validate", "faulty(fault=count)", "--models", "bert,vit"]
    table = subprocess.run(command, capture_output=True, text=True, check=False)
    assert table.returncode == 1 and not table.stderr
    assert "  count on bert: 64 numbers train, and the closed form says 65" in table.stdout
    content = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=False).stdout)
    assert content["ok"] is False and set(content["checks"]) == set(CHECKS)
    assert [f["check"] for f in content["findings"] if f["outcome"] == "failed"] == ["count"]


def test_a_folder_is_one_of_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path)]) == 1
    assert f"0 records in {tmp_path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["lorra"], "unknown method 'lorra'. Did you mean lora"),
        (["lora,vpt"], "one name was expected, not 2"),
        (["lora(r=0)"], "lora(r=0): r must be greater than 0"),
        (["lora(budget=1%)"], "a budget is a share of one backbone"),
        (["peft.lora"], "peft.lora is another library's code"),
        (["lora", "--models", "brt"], "unknown tiny model 'brt'. Did you mean bert"),
    ],
)
def test_wrong_requests_are_one_line(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("compute: equal-steps\n", "compute: equal-steps\ncomputed: yes\n", "faulty.yaml:7: unknown key 'computed'"),
        ("value: 1.0e-3", "value: -1.0", "lr must be greater than 0 ("),
        ("text: {width", "text: {witdh", "unknown key 'witdh'. Did you mean width"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_one_line(plugin: Path, old: str, new: str, expected: str) -> None:
    (plugin / "faulty.yaml").write_text(RECIPE.replace(old, new))
    with pytest.raises(UsageError) as caught:
        validate("faulty", models=("bert",))
    assert expected in str(caught.value) and "\n" not in str(caught.value)
