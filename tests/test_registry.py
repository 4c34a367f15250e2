"""The registry: cards, recipes, layers, plug-ins, the index, and what a bad card gets."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest
from peft_atlas.bench import card_index, versions
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.names import Name, parse
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.recipes import configure, expand, resolve
from peft_atlas.bench.registry import PLUGINS, Registry, registry, use_plugins

HEADER = """\
id: {id}
name: Shift
version: 1
category: additive/shift
families: [vision]
compute: equal-steps
target: shift:Shift
summary: Adds a vector.
paper: {{title: None, authors: Nobody, year: 2024}}
"""
LAYERS = """\
hyperparameters:
  defaults:
    lr: {value: 1.0e-3, source: guess}
    width: {value: 4, source: paper}
  family:
    text: {width: {value: 5, source: paper on text}}
  backbone:
    minilm-l6: {width: {value: 6, source: tuned}}
  task:
    imdb: {width: {value: 7, source: tuned on imdb}}
"""
MODULE = """\
from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from peft_atlas.methods.contract import Method, MethodConfig

from .inner.sizes import LARGEST


class ShiftConfig(MethodConfig):
    lr: float = Field(gt=0)
    weight_decay: float = 0.0
    width: int = Field(gt=0, le=LARGEST)
    mode: Literal["plain", "fancy"] = "plain"

    @model_validator(mode="after")
    def _no_fancy_eight(self):
        if self.width == 8 and self.mode == "fancy":
            raise ValueError("a fancy width of 8 makes no sense")
        return self


class Shift(Method):
    Config = ShiftConfig
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plug-in folder with the method `shift`; its module imports another one below it."""
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "plugin"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "sizes.py").write_text("LARGEST = 64\n")
    (folder / "shift.py").write_text(MODULE)
    (folder / "shift.yaml").write_text(HEADER.format(id="shift") + LAYERS)
    monkeypatch.setenv(PLUGINS, str(folder))
    return folder


def refused(folder: Path, text: str, method: str = "broken") -> str:
    """The one line that a recipe with this text gets."""
    (folder / "broken.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        registry("methods").card(method)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# every card of the repository --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["methods", "tasks", "backbones", "protocols"])
def test_every_card_can_be_read(kind: str) -> None:
    nouns: Registry = registry(kind)  # type: ignore[call-overload]
    assert nouns.ids()
    assert [card.id for card in nouns.cards()] == nouns.ids()


@pytest.mark.parametrize("method", registry("methods").ids())
def test_every_recipe_fits_its_config(method: str) -> None:
    layers = registry("methods").card(method).hyperparameters
    assert set(layers.get("backbone", {})) <= set(registry("backbones").ids())
    assert set(layers.get("task", {})) <= set(registry("tasks").ids())
    for protocol in map(load_protocol, registry("protocols").ids()):
        for family, settings in protocol.families.items():
            for task in ("", *layers.get("task", {})):
                configure(method, resolve(method, {}, family, settings.backbone, task))


def test_every_protocol_names_what_exists() -> None:
    for protocol in map(load_protocol, registry("protocols").ids()):
        for family, settings in protocol.families.items():
            assert registry("backbones").card(settings.backbone).family == family
        for suite in protocol.suites.values():
            assert protocol.resolve_tasks(suite.tasks) == list(suite.tasks)
        for family, tasks in protocol.tuning.tasks.items():
            assert {registry("tasks").card(task).family for task in tasks} == {family}
            assert protocol.tuning.steps[family] > 0


def test_versions_rise_with_the_source() -> None:
    assert versions.differences() == {}


# names and groups --------------------------------------------------------------------------------------------------


def test_unknown_id_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown method 'lorra'\. Did you mean lora"):
        registry("methods").card("lorra")
    with pytest.raises(UsageError, match=r"unknown protocol 'zzzz'\. `bench ls protocols` lists them"):
        load_protocol("zzzz")


def test_expand_groups(plugin: Path) -> None:
    assert expand("additive/shift") == [Name("shift")]
    assert Name("shift", {"width": 2}) in expand("additive(width=2)")
    assert {name.id for name in expand("all")} == set(registry("methods").ids())
    assert expand(["shift", "shift()", Name("shift", {"width": 1})]) == [Name("shift"), Name("shift", {"width": 1})]
    with pytest.raises(UsageError, match=r"unknown method 'aditive'\. Did you mean additive"):
        expand("aditive")
    with pytest.raises(UsageError, match="unknown method 'add'"):
        expand("add")  # half a word is no group


def test_resolve_tasks_knows_suites_and_tasks() -> None:
    smoke = load_protocol("smoke")
    assert smoke.resolve_tasks("vtab") == smoke.resolve_tasks(["vtab-smoke"]) == ["smoke-vision"]
    assert smoke.resolve_tasks("smoke-lm,smoke,smoke-lm") == ["smoke-lm", "smoke-vision", "smoke-text"]
    assert smoke.suite_of("smoke-vision") == "smoke"
    with pytest.raises(UsageError, match=r"unknown task or suite 'vtabb'.*Did you mean vtab"):
        smoke.resolve_tasks("vtabb")


def test_protocol_hash_ignores_prose_and_nothing_else() -> None:
    smoke = load_protocol("smoke")
    assert smoke.model_copy(update={"title": "other", "description": "other"}).hash == smoke.hash
    assert smoke.model_copy(update={"timeout": 7.0}).hash != smoke.hash


# layers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "family", "backbone", "task", "width", "layer"),
    [
        ({}, "vision", "x", "y", 4, "defaults"),
        ({}, "text", "x", "y", 5, "family text"),
        ({}, "text", "minilm-l6", "y", 6, "backbone minilm-l6"),
        ({}, "text", "minilm-l6", "imdb", 7, "task imdb"),
        ({"width": 9}, "text", "minilm-l6", "imdb", 9, "argument"),
    ],
)
def test_layers(
    plugin: Path, arguments: dict[str, int], family: str, backbone: str, task: str, width: int, layer: str
) -> None:
    resolved = resolve("shift", arguments, family, backbone, task)
    assert resolved.values == {"lr": 1e-3, "weight_decay": 0.0, "width": width, "mode": "plain"}
    assert resolved.sources["width"][0] == layer
    assert resolved.sources["lr"] == ("defaults", "guess")
    assert resolved.sources["mode"][0] == "code"
    assert configure("shift", resolved).identity() == resolved.values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shift(width=-1)", "shift(width=-1): width must be greater than 0"),
        ("shift(width=65)", "shift(width=65): width must be less than or equal to 64"),
        ("shift(width=true)", "shift(width=true): width must be a number, not true"),
        ("shift(width=two)", "shift(width=two): width must be a valid integer"),
        ("shift(lr=0)", "shift(lr=0): lr must be greater than 0"),
        ("shift(mode=odd)", "shift(mode=odd): mode must be 'plain' or 'fancy'"),
        ("shift(width=8, mode=fancy)", "shift(mode=fancy, width=8): a fancy width of 8 makes no sense"),
        ("shift(widht=8)", "shift has no argument 'widht'. Did you mean width?"),
        ("shift(steps=8)", "shift has no argument 'steps'. It has lr, weight_decay, width, mode."),
    ],
)
def test_bad_arguments(plugin: Path, text: str, message: str) -> None:
    (name,) = parse(text)
    with pytest.raises(UsageError) as caught:
        configure(name.id, resolve(name.id, name.arguments, "vision", "x", "y"))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_bad_value_in_a_recipe_names_the_file(plugin: Path) -> None:
    (plugin / "broken.yaml").write_text(HEADER.format(id="broken") + LAYERS.replace("value: 4", "value: 0"))
    with pytest.raises(UsageError, match=r"^broken: width must be greater than 0 \(.*broken.yaml, defaults\)$"):
        configure("broken", resolve("broken", {}, "vision", "x", "y"))


def test_value_that_nobody_gave(plugin: Path) -> None:
    (plugin / "broken.yaml").write_text(HEADER.format(id="broken"))
    with pytest.raises(UsageError, match="broken: lr has no value in the recipe"):
        configure("broken", resolve("broken", {}, "vision", "x", "y"))


# bad cards ---------------------------------------------------------------------------------------------------------


def test_unknown_key_in_the_header(plugin: Path) -> None:
    text = refused(plugin, HEADER.format(id="broken") + "famillies: [text]\n")
    assert text.endswith("broken.yaml:10: unknown key 'famillies'. Did you mean families?")


def test_duplicate_key(plugin: Path) -> None:
    text = refused(plugin, HEADER.format(id="broken") + "name: Twice\n")
    assert text.endswith("broken.yaml:10: duplicate key 'name'")


def test_duplicate_hyperparameter(plugin: Path) -> None:
    doubled = LAYERS.replace("    width: {value: 4", "    lr: {value: 4")
    assert "broken.yaml:13: duplicate key 'lr'" in refused(plugin, HEADER.format(id="broken") + doubled)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  family:", "  famly:", ":14: unknown key 'famly'. Did you mean family?"),
        ("    text:", "    texts:", ":15: unknown key 'texts'. Did you mean text?"),
        ("source: guess", "sauce: guess", ":12: unknown key 'sauce'. Did you mean source"),
        ("{value: 1.0e-3, source: guess}", "1.0e-3", ":12: lr must be {value: ..., source: ...}"),
        ("{value: 1.0e-3, source: guess}", "{value: 1.0e-3}", ":12: lr has no source"),
        ("    text: {width: {value: 5, source: paper on text}}", "    text: 5", ":15: text must hold hyper-param"),
    ],
)
def test_bad_layers(plugin: Path, old: str, new: str, expected: str) -> None:
    assert old in LAYERS
    assert f"broken.yaml{expected}" in refused(plugin, HEADER.format(id="broken") + LAYERS.replace(old, new))


@pytest.mark.parametrize("key", ["widht", "steps", "batch", "seeds"])
def test_key_that_the_config_does_not_know(plugin: Path, key: str) -> None:
    """Also in a layer that the cell does not use; also the protocol's own keys, which a recipe cannot override."""
    text = LAYERS.replace("imdb: {width", "imdb: {" + key)
    (plugin / "broken.yaml").write_text(HEADER.format(id="broken") + text)
    with pytest.raises(UsageError, match=rf"broken.yaml:19: unknown key '{key}'"):
        resolve("broken", {}, "vision", "x", "y")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version: 1", "version: one", ":3: version must be an integer, not 'one'"),
        ("version: 1", "version: true", ":3: version must be an integer, not True"),
        ("version: 1\n", "", ":1: the key 'version' is missing"),
        ("families: [vision]", "families: vision", ":5: families must be a list, not 'vision'"),
        ("compute: equal-steps", "compute: free", ":6: compute must be one of equal-steps, own-budget, training-free"),
        ("id: broken", "id: Bro ken", ":1: an id is made of a-z, 0-9, '-' and '.', not 'Bro ken'"),
        ("year: 2024", "jear: 2024", ":9: unknown key 'jear'. Did you mean year?"),
        ("name: Shift", "name: [", ":4: "),
        ("category:", "catergory:", ":1: neither a method, a task, a backbone nor a protocol"),
    ],
)
def test_bad_headers(plugin: Path, old: str, new: str, expected: str) -> None:
    header = HEADER.format(id="broken")
    assert old in header
    assert f"broken.yaml{expected}" in refused(plugin, header.replace(old, new))


def test_bad_target(plugin: Path) -> None:
    (plugin / "broken.yaml").write_text(HEADER.format(id="broken").replace("shift:Shift", "shift:Shiftt"))
    with pytest.raises(UsageError, match=r"broken.yaml:7: shift has no 'Shiftt'. Did you mean Shift"):
        registry("methods").load("broken")


def test_target_without_a_module(plugin: Path) -> None:
    (plugin / "broken.yaml").write_text(HEADER.format(id="broken").replace("shift:Shift", "shaft:Shift"))
    with pytest.raises(UsageError, match=r"broken.yaml:7: there is no module 'shaft' beside the card"):
        registry("methods").load("broken")


def test_target_that_needs_a_package(plugin: Path) -> None:
    (plugin / "shaft.py").write_text("import no_such_package_anywhere\n")
    (plugin / "broken.yaml").write_text(HEADER.format(id="broken").replace("shift:Shift", "shaft:Shift"))
    with pytest.raises(UsageError, match="broken needs the Python package 'no_such_package_anywhere'"):
        registry("methods").load("broken")


def test_two_cards_with_one_id(plugin: Path) -> None:
    (plugin / "again.yaml").write_text(HEADER.format(id="shift"))
    with pytest.raises(UsageError, match=r"two methods are called 'shift': .*again.yaml and .*shift.yaml"):
        registry("methods")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    steps: 10", "    stepps: 10", ":9: unknown key 'stepps'. Did you mean steps"),
        ("    steps: 10", "    steps: 0", ":9: steps must be greater than 0"),
        ("    steps: 10\n", "", ":7: the key 'steps' is missing"),
        ("suites: {}", "suites: {a: {name: a, tasks: []}}", ":18: tasks"),
        ("id: smoke", "id: fume\ntimout: 3", ":2: unknown key 'timout'. Did you mean timeout"),
    ],
)
def test_bad_protocol(plugin: Path, old: str, new: str, expected: str) -> None:
    text = dedent(
        """\
        id: smoke
        version: 1
        title: t
        description: d
        seeds: [0]
        families:
          vision:
            backbone: tiny-vit
            steps: 10
            batch: 4
            eval_batch: 4
            head_lr: null
        optimizer: {name: adamw, betas: [0.9, 0.99], eps: 1.0e-8, schedule: cosine, warmup: 0,
                    clip: 1, head_weight_decay: 0}
        dtype: float32
        threads: 1
        timeout: 9
        suites: {}
        tuning: {selection: 0.2, trials: 1, steps: {}, tasks: {}}
        """
    )
    assert old in text
    (plugin / "fume.yaml").write_text(text.replace(old, new).replace("id: smoke", "id: fume"))
    with pytest.raises(UsageError) as caught:
        load_protocol("fume")
    assert "fume.yaml" + expected in str(caught.value)


# plug-ins ----------------------------------------------------------------------------------------------------------


def test_plugin_modules_import_each_other(plugin: Path) -> None:
    method = registry("methods").load("shift")
    assert method.__name__ == "Shift"
    assert registry("methods").folder("shift") == plugin


def test_use_plugins_adds_folders_once(plugin: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    use_plugins([other, plugin, str(other)])
    assert os.environ[PLUGINS] == os.pathsep.join([str(plugin), str(other)])
    with pytest.raises(UsageError, match=r"plug-in folder .*nowhere does not exist"):
        use_plugins([tmp_path / "nowhere"])


def test_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that declares the entry point adds its cards, and is not imported to list them."""
    package = tmp_path / "site" / "atlas_shift_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "shift.yaml").write_text(HEADER.format(id="entry-shift") + LAYERS)
    (package / "shift.py").write_text("class Shift: pass\n")
    info = tmp_path / "site" / "atlas_shift_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: atlas-shift-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[peft_atlas.plugins]\nshift = atlas_shift_plugin\n")
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv(PLUGINS, os.pathsep)  # no folder, and not the text under which registries were built before
    assert "entry-shift" in registry("methods")
    assert "atlas_shift_plugin" not in sys.modules
    assert registry("methods").load("entry-shift").__module__ == "atlas_shift_plugin.shift"


# the index ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really parsed."""
    parsed: list[Path] = []
    original = card_index.read_yaml
    monkeypatch.setattr(card_index, "read_yaml", lambda file: parsed.append(file) or original(file))
    return parsed


def test_index_is_used_until_a_file_changes(plugin: Path, parses: list[Path]) -> None:
    file = plugin / "shift.yaml"
    first = card_index.yaml_content(plugin)
    assert card_index.yaml_content(plugin) == first
    assert parses == [file]
    file.write_text(file.read_text() + "# longer\n")
    card_index.yaml_content(plugin)
    os.utime(file, ns=(1, 1))  # the same size at another time
    card_index.yaml_content(plugin)
    assert parses == [file] * 3
    file.unlink()
    assert card_index.yaml_content(plugin) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 0, "files": {}}', '{"version": 1, "files": 3}'])
def test_corrupt_index_is_rebuilt(plugin: Path, parses: list[Path], content: str, tmp_path: Path) -> None:
    before = card_index.yaml_content(plugin)
    (index,) = (tmp_path / "cache" / "cards").glob("*.json")
    index.write_text(content)
    assert card_index.yaml_content(plugin) == before
    assert len(parses) == 2
    assert json.loads(index.read_text())["files"]


def test_corrupt_entry_is_rebuilt(plugin: Path, tmp_path: Path) -> None:
    before = card_index.yaml_content(plugin)
    (index,) = (tmp_path / "cache" / "cards").glob("*.json")
    index.write_text(json.dumps({"version": 1, "files": {str(plugin / "shift.yaml"): [3]}}))
    assert card_index.yaml_content(plugin) == before


def test_unwritable_cache_costs_nothing_but_time(plugin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "file" / "below"))
    assert list(card_index.yaml_content(plugin)) == [plugin / "shift.yaml"]


# versions ----------------------------------------------------------------------------------------------------------


def test_source_hash_sees_code_only(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    body = "x = 1\ndef f(a):\n    return a + x\n"
    file.write_text(body)
    plain = versions.source_hash(file)
    file.write_text('"""Module."""\n# note\nx = 1\n\n\ndef f(a):\n    """Doc."""\n    return (a + x)  # sum\n')
    assert versions.source_hash(file) == plain
    file.write_text(body.replace("a + x", "a - x"))
    assert versions.source_hash(file) != plain
    file.write_text("class A:\n" + indent(body, "    "))
    assert versions.source_hash(file) != plain


def test_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"lora": {"version": 1, "source": "a" * 16}}
    monkeypatch.setattr(versions, "LOCK", tmp_path / "versions.json")
    monkeypatch.setattr(versions, "actual", lambda: facts)
    assert versions.main([]) == 1
    assert "not locked yet" in capsys.readouterr().err
    assert versions.main(["--lock"]) == 0
    assert versions.main([]) == 0

    facts["lora"] = {"version": 1, "source": "b" * 16}
    assert versions.main(["--lock"]) == 1
    assert "the source changed and the version did not" in capsys.readouterr().err
    assert versions.locked()["lora"]["source"] == "a" * 16
    assert versions.main(["--lock", "--same", "lora"]) == 0
    assert versions.locked() == facts

    facts["lora"] = {"version": 2, "source": "c" * 16}
    assert versions.main([]) == 1
    assert versions.main(["--lock"]) == 0
    facts["lora"] = {"version": 1, "source": "c" * 16}
    assert versions.main(["--lock"]) == 1
