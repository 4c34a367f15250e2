"""Cost profiles of two sides: counts exactly, times in multiples of the bare backbone's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft_atlas.bench import profiling
from peft_atlas.bench.cli import main
from peft_atlas.bench.compare_costs import compare_costs, cost_facts
from peft_atlas.bench.costs import CostProfile

SMOKE = ["--methods", "lora", "--tasks", "smoke-text", "--protocol", "smoke"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CostProfile]:
    results = tmp_path_factory.mktemp("costs")
    assert main(["profile", *SMOKE, "--results", str(results), "--json"]) == 0
    assert main(["run", *SMOKE, "--results", str(results), "--json"]) == 0
    (profile,) = profiling.read(results)
    return results, profile


def changed(row: dict[str, Any], **exact: int) -> dict[str, Any]:
    return {**row, "exact": {**row["exact"], **{name.replace("_", " "): value for name, value in exact.items()}}}


def test_the_same_costs_are_no_news(measured: tuple[Path, CostProfile]) -> None:
    row = cost_facts(measured[1])
    assert row["exact"]["ledger, activations"] > 0 and len(row["exact"]) > 8
    assert list(compare_costs([row], [row])) == []


def test_a_count_that_rises_is_a_regression_and_one_that_falls_is_not(measured: tuple[Path, CostProfile]) -> None:
    row = cost_facts(measured[1])
    more = changed(row, **{"ledger,_activations": row["exact"]["ledger, activations"] + 4})
    (worse,) = compare_costs([row], [more])
    assert worse.verdict == "regression" and "ledger, activations" in worse.text
    (better,) = compare_costs([more], [row])
    assert better.verdict == "improvement"
    (declared,) = compare_costs([row], [{**more, "method_version": 2}])
    assert declared.verdict == "declared"
    assert not list(compare_costs([row], [{**more, "torch": "other"}])), "another torch stores other things"


def test_times_count_beyond_a_tenth_and_where_the_ranges_part(measured: tuple[Path, CostProfile]) -> None:
    row = {**cost_facts(measured[1]), "times": {"train step": [2.9, 3.0, 3.1]}}
    for times, verdicts in (
        ([3.5, 3.6, 3.7], ["regression"]),
        ([2.0, 2.1, 2.2], ["improvement"]),
        ([3.12, 3.2, 3.3], []),  # apart, but small
        ([3.0, 3.6, 4.0], []),  # large, but the ranges meet
    ):
        after = {**row, "times": {"train step": times}}
        assert [finding.verdict for finding in compare_costs([row], [after])] == verdicts
        assert not list(compare_costs([row], [{**after, "machine": "another"}]))


def test_compare_reads_the_profiles_of_a_folder(
    measured: tuple[Path, CostProfile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, profile = measured
    other = tmp_path / "other"
    assert main(["run", *SMOKE, "--results", str(other), "--json"]) == 0
    canonical = profile.training[0]
    grown = canonical.model_copy(update={"activations": canonical.activations + 1024})
    profiling.write(other, profile.model_copy(update={"training": (grown, *profile.training[1:])}))
    capsys.readouterr()
    assert main(["compare", str(results), str(other)]) == 1
    assert "regression: lora: ledger, activations" in capsys.readouterr().out
    assert main(["compare", str(results), str(results)]) == 0
