"""What is shipped, and the promises of README, tox and CI."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import peft_atlas
import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(peft_atlas.__file__).resolve().parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DATA = tuple(pattern.lstrip("*") for pattern in PROJECT["tool"]["setuptools"]["package-data"]["*"])
NOT_SHIPPED = {"tests", "results", "build", "dist", "site"}


def folders() -> dict[str, list[Path]]:
    """Package name -> the files in it that must be shipped."""
    found: dict[str, list[Path]] = {}
    for parent, names, files in os.walk(ROOT):
        outside = NOT_SHIPPED if Path(parent) == ROOT else set()
        names[:] = [n for n in names if n not in outside and not n.startswith((".", "__")) and "egg-info" not in n]
        at_root = Path(parent) == ROOT
        wanted = [Path(parent, f) for f in files if f.endswith(".py") or (f.endswith(DATA) and not at_root)]
        if wanted:
            found[".".join(("peft_atlas", *Path(parent).relative_to(ROOT).parts))] = wanted
    return found


def test_package_list_is_the_tree() -> None:
    assert PROJECT["tool"]["setuptools"]["packages"] == sorted(folders())


def test_every_folder_of_code_is_a_regular_package_but_kernels() -> None:
    for name, files in folders().items():
        regular = any(file.name == "__init__.py" for file in files)
        assert regular != name.startswith("peft_atlas.kernels"), name


@pytest.mark.kernels
def test_kernels_folder_shadows_no_other_library() -> None:
    """With the repository root on the path, `import kernels` must find Hugging Face's library, or a mere namespace."""
    script = "import importlib.util as u; spec = u.find_spec('kernels'); print(spec.origin if spec else None)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout.startswith(str(ROOT))


def test_wheel_holds_every_file(tmp_path: Path) -> None:
    """Built from a copy, so that nothing is left in the tree."""
    copy = tmp_path / "copy"
    for files in folders().values():
        for file in files:
            target = copy / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (wheel,) = copy.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"peft_atlas/{file.relative_to(ROOT).as_posix()}" for files in folders().values() for file in files}
    assert wanted <= shipped
    assert {name.split("/")[0] for name in shipped} == {"peft_atlas", f"peft_atlas-{peft_atlas.__version__}.dist-info"}


def test_lazy_names() -> None:
    assert set(peft_atlas.__all__) == {"FrameAverage", "__version__", "attach", "load", "load_results", "run"}
    for name in peft_atlas.__all__:
        assert getattr(peft_atlas, name)
    with pytest.raises(AttributeError, match="no attribute 'atach'"):
        _ = peft_atlas.atach


def test_import_is_light() -> None:
    script = "import sys, peft_atlas; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "typer", "pydantic"} & set(done.stdout.split())


# constraints -------------------------------------------------------------------------------------------------------


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line.strip()) for line in lines if line and not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_are_exact_versions_of_every_requirement() -> None:
    pinned = {canonical(requirement.name): requirement for requirement in constraints()}
    for requirement in pinned.values():
        assert [clause.operator for clause in requirement.specifier] == ["=="]
        assert requirement.url is None
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [Requirement(text) for group in (PROJECT["project"]["dependencies"], *extras) for text in group]
    names = {canonical(requirement.name) for requirement in wanted} - {"peft-atlas", "pip"}
    assert names <= set(pinned)
    for requirement in wanted:
        for pin in constraints():
            if canonical(pin.name) == canonical(requirement.name):
                (clause,) = pin.specifier
                assert requirement.specifier.contains(clause.version), str(pin)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_one_version_for_each_python(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.5"}
    valid = [pin.name for pin in constraints() if pin.marker is None or pin.marker.evaluate(environment)]
    assert len(valid) == len(set(valid))


# README, tox, CI ---------------------------------------------------------------------------------------------------


def readme_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_readme_example_of_the_python_api_runs(tmp_path: Path) -> None:
    """The block as it stands, in a process and folder of its own, without a hub and without assets."""
    (example,) = readme_blocks("python")
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PEFT_ATLAS_OFFLINE": "1"}
    environment["PEFT_ATLAS_CACHE"] = str(tmp_path / "cache")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("results/smoke/smoke-vision/lora/*/1.json"))


def test_set_up_lines_of_the_readme() -> None:
    lines = [line for block in readme_blocks("sh") for line in block.splitlines()]
    pip = [line for line in lines if line.startswith("python3 -m venv")]
    uv = [line for line in lines if line.startswith("uv venv")]
    for main_job, test_job in (pip, uv):
        assert main_job.endswith(".venv/bin/bench run --methods lora,vpt --tasks vtab --results my-results")
        assert re.search(r'-e "\.\[test\]" && \.venv/bin/pytest\b', test_job)
        assert "-c constraints.txt" in main_job
        assert "-c constraints.txt" in test_job


def test_ci_takes_its_test_command_from_the_readme() -> None:
    """`.ci/run` reads the line by this pattern; it must find exactly one for each installer."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'grep -m1 "^$installer .*pytest" README.md' in script
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for installer in ("uv venv", "python3 -m venv"):
        assert len(re.findall(rf"^{installer} .*pytest", readme, re.MULTILINE)) == 1
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=False).returncode == 0
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_tox_environments() -> None:
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    names = {"tests", "lint", "types", "benchmarks", "kernels"}
    assert {f"testenv:{name}" for name in names} <= set(parser.sections())
    assert set(parser["tox"]["env_list"].replace(" ", "").split(",")) <= names
