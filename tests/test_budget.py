"""Equal budgets: every method with a size meets a share or a number of parameters within 2%."""

from __future__ import annotations

from typing import Any

import pytest
from peft_atlas.bench.budget import TOLERANCE, parse_budget
from peft_atlas.bench.cli import main
from peft_atlas.bench.errors import UnsupportedError, UsageError
from peft_atlas.bench.names import parse
from peft_atlas.bench.params import count
from peft_atlas.bench.recipes import configure, resolve, with_budget
from peft_atlas.bench.registry import registry


def config(method: str) -> Any:
    """The config that the recipe gives on its first family."""
    family = registry("methods").card(method).families[0]
    return configure(method, resolve(method, {}, family, "", ""))


CONFIGS = {method: config(method) for method in registry("methods").ids()}
SIZED = [method for method, config in CONFIGS.items() if config.sized_by is not None or config.share is not None]
# One place, so whole sizes only; and a factor that is full, and grows no more, long before such budgets.
CANNOT = {"prompt-tuning", "p-tuning-v2", "unipelt", "vpt-shallow", "lokr"}


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


@pytest.mark.parametrize("method", ["oft", "boft"])
def test_blocks_are_two_neighbours_among_the_sizes_that_divide_the_width(method: str) -> None:
    tensors = count(f"{method}(budget=0.5%)", "dinov2-small").tensors
    blocks = {384 // tensor.shape[-2] for tensor in tensors if tensor.name.endswith(".entries")}
    assert blocks == ({24, 32} if method == "oft" else {8, 12})
    with pytest.raises(UsageError, match="no block above 384 fits" if method == "oft" else "no block above 192 fits"):
        count(f"{method}(block={384 if method == 'oft' else 192}, more=1)", "dinov2-small")


@pytest.mark.parametrize(
    ("method", "size"),
    [
        ("prefix", "hidden"),
        ("prefix(projection=false)", "tokens"),
        ("llm-adapters", "bottleneck"),
        ("llm-adapters(placement=lora)", "r"),
    ],
)
def test_the_size_goes_by_the_other_values(method: str, size: str) -> None:
    name = parse(method)[0]
    budgeted = resolve(name.id, {**name.arguments, "budget": 300_000}, "text", "minilm-l6", "")
    solved = {field for field, (layer, _) in budgeted.sources.items() if layer == "budget"} - {"more"}
    assert solved == ({"r", "alpha"} if size == "r" else {size})


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
