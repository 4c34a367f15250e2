"""Equal budgets: every method with a size meets a share or a number of parameters within 2%."""

from __future__ import annotations

import pytest
from peft_atlas.bench.budget import TOLERANCE, parse_budget
from peft_atlas.bench.cli import main
from peft_atlas.bench.errors import UnsupportedError, UsageError
from peft_atlas.bench.names import parse
from peft_atlas.bench.params import count
from peft_atlas.bench.recipes import with_budget
from peft_atlas.bench.registry import registry

CONFIGS = {name: registry("methods").load(name).Config for name in registry("methods").ids()}
SIZED = [name for name, config in CONFIGS.items() if config.size is not None or config.share is not None]
# One place, so whole sizes only; and a factor that is full, and grows no more, long before such budgets.
CANNOT = {"prompt-tuning", "vpt-shallow", "lokr"}


@pytest.mark.parametrize("method", SIZED)
@pytest.mark.parametrize("budget", ["0.5%", 300_000])
@pytest.mark.parametrize("backbone", ["dinov2-small", "minilm-l6"])
def test_what_trains_is_within_two_percent(method: str, budget: str | int, backbone: str) -> None:
    wanted = parse_budget(budget, registry("backbones").card(backbone).parameters)
    reason, found = None, 0
    try:
        found = count(f"{method}(budget={budget})", backbone).adapter
    except UnsupportedError as error:
        reason = str(error)
    assert abs(found - wanted) <= TOLERANCE * wanted or (reason and ("does not fit" in reason or method in CANNOT))


def test_lora_keeps_the_share_of_alpha_and_mixes_two_ranks() -> None:
    tensors = count("lora(budget=0.5%)", "dinov2-small").tensors
    ranks = {tensor.shape[0] for tensor in tensors if tensor.name.endswith(".a")}
    assert ranks == {5, 6}
    assert count("lora(r=6, more=0)", "dinov2-small").adapter > count("lora(budget=0.5%)", "dinov2-small").adapter


def test_the_share_of_a_selective_method_is_bounded_by_its_weights() -> None:
    backbone = registry("backbones").card("minilm-l6").parameters
    assert count(f"fishmask(budget={backbone})", "minilm-l6").adapter == backbone
    with pytest.raises(UnsupportedError, match="no density trains"):
        count(f"fishmask(budget={2 * backbone})", "minilm-l6")
    with pytest.raises(UnsupportedError, match=r"density=0\.005 trains"):
        count(f"child-tuning(mode=F, budget={backbone // 200})", "minilm-l6")


@pytest.mark.parametrize("budget", ["0%", "101%", "half", "-5", "0"])
def test_what_is_no_budget(budget: str) -> None:
    with pytest.raises(UsageError, match="a budget is"):
        count(
            f'lora(budget="{budget}")' if not budget.lstrip("-").isdecimal() else f"lora(budget={budget})", "minilm-l6"
        )


def test_methods_without_a_size_are_listed_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--methods", "lora,full,lora(r=2)", "--tasks", "smoke-text", "--protocol", "smoke", "--budget", "5%"]
    assert main(["plan", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "full(budget=5%) x smoke-text: full has no size that a budget could set" in printed
    assert "lora(budget=5%)" in printed


def test_a_budget_in_the_name_wins() -> None:
    names = with_budget(parse("lora,vpt(budget=1%)"), "5000")
    assert list(map(str, names)) == ["lora(budget=5000)", "vpt(budget=1%)"]
