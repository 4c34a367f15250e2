"""The command line: what it prints, what bad input gets, and what it must not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from peft_atlas import __version__
from peft_atlas.bench import api, assets
from peft_atlas.bench.cli import main
from peft_atlas.bench.errors import AtlasError
from peft_atlas.bench.registry import PLUGINS, registry

HEAVY = {"torch", "transformers", "timm", "diffusers", "pandas", "sklearn", "matplotlib", "ruamel.yaml", "rich"}
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder; plug-ins do not outlive a test."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv(PLUGINS, "")


def complaint(capsys: Captured, *arguments: str) -> str:
    """The one line on stderr of a command that must exit with 2, print nothing and write nothing."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("bench: ")
    assert printed.err.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []
    return printed.err


# what is asked for wrongly -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"--methods": "lorra"}, "unknown method 'lorra'. Did you mean lora"),
        ({"--methods": "linear,lorra"}, "unknown method 'lorra'. Did you mean lora"),
        ({"--methods": "reparametrised"}, "Did you mean reparameterized"),
        ({"--methods": "lora(rank=8)"}, "lora has no argument 'rank'."),
        ({"--methods": "lora(targts=q)"}, "lora has no argument 'targts'. Did you mean targets"),
        ({"--methods": "lora(r=-1)"}, "lora(r=-1): r must be greater than 0"),
        ({"--methods": "lora(r=four)"}, "lora(r=four): r must be a valid integer"),
        ({"--methods": "lora(r=8"}, "cannot read 'lora(r=8'"),
        ({"--methods": ""}, "a name was expected"),
        ({"--tasks": "vtabb"}, "unknown task or suite 'vtabb' (protocol smoke). Did you mean vtab"),
        ({"--tasks": "smoke-vison"}, "Did you mean smoke-vision"),
        ({"--protocol": "smok"}, "unknown protocol 'smok'. Did you mean smoke"),
        ({"--seeds": "0,x"}, "seeds are whole numbers such as 0,1,2, not 'x'"),
        ({"--seeds": "-1"}, "seeds are whole numbers"),
        ({"--existing": "some"}, "'some' is not one of 'missing', 'failed', 'all', 'never'"),
        ({"--plugin": "nowhere"}, "the plug-in folder nowhere does not exist"),
        ({"--protcol": "smoke"}, "No such option: --protcol"),
    ],
)
def test_bad_requests(capsys: Captured, verb: str, wrong: dict[str, str], part: str) -> None:
    options = {"--methods": "lora", "--tasks": "smoke-vision", "--protocol": "smoke", **wrong}
    assert part in complaint(capsys, verb, *(word for option in options.items() for word in option))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["runn"], "No such command 'runn'. Did you mean 'run'"),
        (["run", "--tasks", "vtab"], "Missing option '--methods'"),
        (["ls", "method"], "'method' is not one of 'methods'"),
        (["ls"], "Missing argument 'NOUN'"),
        (["explain", "lorra", "smoke-vision"], "Did you mean lora"),
        (["explain", "lora", "mnst"], "unknown task or suite 'mnst'"),
        (["explain", "lora,vpt", "smoke-vision"], "explain one method on one task"),
        (["explain", "lora(r=0)", "smoke-vision", "--protocol", "smoke"], "lora(r=0): r must be greater than 0"),
        (["explain", "lora", "smoke-vision", "--protocol", "smke"], "Did you mean smoke"),
        (["params", "lorra", "--backbone", "tiny-vit"], "Did you mean lora"),
        (["params", "lora", "--backbone", "tiny-vitt"], "Did you mean tiny-vit"),
        (["params", "lora", "--backbone", "tiny-vit", "--classes", "0"], "--classes"),
        (["assets", "fetch", "minilm-l66"], "Did you mean minilm-l6"),
        (["assets", "fetsh"], "Did you mean 'fetch'"),
    ],
)
def test_bad_words(capsys: Captured, arguments: list[str], part: str) -> None:
    assert part in complaint(capsys, *arguments)


def test_bad_memory(capsys: Captured) -> None:
    words = ["run", "--methods", "lora", "--tasks", "smoke-vision", "--protocol", "smoke", "--max-memory", "much"]
    assert "memory" in complaint(capsys, *words)


def test_bad_recipe_names_file_line_and_key(capsys: Captured, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    (plugin / "odd.yaml").write_text("id: odd\ncategory: additive\ncolour: red\n")
    text = complaint(capsys, "ls", "methods", "--plugin", str(plugin))
    assert f"{Path('..') / 'plugin'}" in text or str(plugin) in text
    assert "odd.yaml:3: unknown key 'colour'" in text


# what goes wrong later ---------------------------------------------------------------------------------------------


def test_failure_is_one_line_and_exit_code_1(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AtlasError("the disk is full")

    monkeypatch.setattr(api, "run", fails)
    assert main(["run", "--methods", "lora", "--tasks", "vtab"]) == 1
    assert capsys.readouterr().err == "bench: the disk is full\n"


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "run", interrupted)
    assert main(["run", "--methods", "lora", "--tasks", "vtab"]) == 130


def test_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(api, "run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", "--methods", "lora", "--tasks", "vtab"])


def test_exit_code_of_a_run_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = type("Outcome", (), {"exit_code": 1, "records": []})
    monkeypatch.setattr(api, "run", lambda *_, **__: outcome)
    assert main(["run", "--methods", "lora", "--tasks", "vtab"]) == 1


# what is printed ---------------------------------------------------------------------------------------------------


def test_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"peft-atlas {__version__}\n"


def test_no_words_print_the_help(capsys: Captured) -> None:
    assert main([]) == 2
    printed = "".join(capsys.readouterr())
    assert all(verb in printed for verb in ("ls", "plan", "run", "explain", "params", "tune", "assets", "doctor"))


@pytest.mark.parametrize("noun", ["methods", "tasks", "backbones", "protocols"])
def test_ls(capsys: Captured, noun: str) -> None:
    assert main(["ls", noun]) == 0
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "id"
    assert set(rule) == {"-", " "}
    ids = registry(noun).ids(library=True)  # type: ignore[call-overload]
    assert sorted(row.split()[0] for row in rows) == ids
    assert main(["ls", noun, "--json"]) == 0
    assert [card["id"] for card in json.loads(capsys.readouterr().out)] == ids


def test_explain_prints_each_value_with_layer_and_source(capsys: Captured) -> None:
    words = ["explain", "lora(r=3)", "smoke-vision", "--protocol", "smoke"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    settings = {setting["name"]: setting for setting in facts["hyperparameters"]}
    assert settings["r"] == {"name": "r", "value": 3, "layer": "argument", "source": "given in the name"}
    for setting in facts["hyperparameters"]:
        (line,) = [line for line in text.splitlines() if line.split(" ")[0] == setting["name"]]
        assert setting["layer"] in line
        assert setting["source"] in line
    fixed = {setting["name"]: setting["value"] for setting in facts["fixed"]}
    family = registry("protocols").card("smoke").families["vision"]
    assert (fixed["steps"], fixed["batch"], fixed["backbone"]) == (family.steps, family.batch, family.backbone)
    assert facts["unsupported"] is None


def test_explain_says_what_is_missing(capsys: Captured) -> None:
    assert main(["explain", "bitfit", "smoke-lm", "--protocol", "smoke", "--json"]) == 0
    assert "bias" in json.loads(capsys.readouterr().out)["unsupported"]


def test_plan_lists_cells_and_writes_nothing(capsys: Captured) -> None:
    words = ["plan", "--methods", "lora,bitfit", "--tasks", "smoke-vision,smoke-lm", "--protocol", "smoke"]
    assert main([*words, "--seeds", "0,1", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [(cell["method"], cell["task"], cell["seed"]) for cell in planned["run"]].count(("lora", "smoke-lm", 1)) == 1
    assert {(cell["method"], cell["task"]) for cell in planned["unsupported"]} == {("bitfit", "smoke-lm")}
    assert list(Path.cwd().iterdir()) == []


def test_doctor(capsys: Captured) -> None:
    code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == (1 if report["problems"] else 0)
    assert report["versions"]["torch"]
    assert report["registered"]["methods"] == len(registry("methods").ids())
    assert set(report["assets"]) == {entry.id for entry in assets.describe()}
    assert main(["doctor"]) == code
    assert capsys.readouterr().out.splitlines()[-1] == report["verdict"]


def test_doctor_finds_an_unwritable_cache(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("peft_atlas.bench.doctor.os.access", lambda *_: False)
    assert main(["doctor"]) == 1
    assert "not ready: the cache folder" in capsys.readouterr().out


def test_assets_list_and_verify_of_an_empty_cache(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "cache"))
    assert main(["assets", "list", "--json"]) == 0
    assert {entry["state"] for entry in json.loads(capsys.readouterr().out)} == {"missing"}
    assert main(["assets", "verify", "mnist-5k"]) == 0
    assert capsys.readouterr().out == "mnist-5k: missing\n"


def test_damaged_asset_is_named(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "cache"))
    assets.folder(assets.card("mnist-5k")).mkdir(parents=True)
    assert main(["assets", "verify", "mnist-5k"]) == 1
    printed = capsys.readouterr()
    assert "mnist-5k: damaged" in printed.out
    assert "bench assets fetch mnist-5k" in printed.err


def test_missing_asset_offline_is_one_line(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PEFT_ATLAS_OFFLINE", "1")
    monkeypatch.delenv("PEFT_ATLAS_MIRROR", raising=False)
    assert main(["assets", "fetch", "mnist-5k"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "mnist-5k" in line
    assert "bench assets fetch mnist-5k" in line
    assert "--protocol smoke" in line


# a real process ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["ls", "methods"], set()),
        (["ls", "tasks"], set()),
        (["ls", "backbones"], set()),
        (["ls", "protocols"], set()),
        (["assets", "list"], {"ruamel.yaml"}),
    ],
)
def test_quick_verbs_import_nothing_heavy(arguments: list[str], allowed: set[str]) -> None:
    """In a process of its own, with the card index as an earlier call left it."""
    assert main(["ls", "methods"]) == 0
    script = (
        f"import sys; from peft_atlas.bench.cli import main; main({arguments}); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout
    assert set(done.stderr.split()) & HEAVY <= allowed


@pytest.mark.parametrize(
    "command", [[str(Path(sys.executable).with_name("bench"))], [sys.executable, "-m", "peft_atlas"]]
)
def test_entry_points(command: list[str]) -> None:
    done = subprocess.run([*command, "ls", "methodz"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: ")


@pytest.mark.parametrize("flag", ["", "--json"])
def test_closed_pipe_prints_no_traceback(flag: str) -> None:
    """Less and more than a buffer of output."""
    script = f"{sys.executable} -m peft_atlas ls methods {flag} | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)  # 0 where `head` had not left yet
    assert done.stderr == ""
