"""Names that mean harm come out inert in every format of the leaderboard, and links leave no folder."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from peft_atlas.bench.records import ErrorReport
from peft_atlas.leaderboard import escaping
from peft_atlas.leaderboard.places import places
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parent))
from leaderboard_results import Results, files

HOSTILE = "=cmd|'/c calc'!A1 <script>alert(1)</script> [x](javascript:x) \\input{/etc/passwd} $x$ | ../../etc @all \""
UGLY = (
    HOSTILE,
    "../../../etc/passwd",
    "\x1b[31m\u202eevil\r\n# heading",
    "`code` ``two`` ```three```",
    "a & b_c%d#e~f^g",
)


@pytest.mark.parametrize("name", UGLY, ids=["everything", "path", "control", "backticks", "latex"])
def test_hostile_names_are_inert_in_every_format(tmp_path: Path, name: str) -> None:
    results = Results(tmp_path / "results")
    report = ErrorReport(type="X", message=name, traceback="")
    results.add("lora", "smoke-vision", 0.8, name=name)
    results.add("bitfit", "smoke-vision", 0.8, name=name + "2", status="error", phase="fit", error=report)
    made = files(results)
    assert all(not set(path.split("/")) & {"..", ""} and re.fullmatch(r"[\w./=-]+", path) for path in made)
    for path, text in made.items():
        visible = text.replace("\n", "")
        assert not any(ord(c) < 32 or c in "\u202e\u2028" for c in visible) or path.endswith("board.json"), path
    assert [line for page in _pages(made) for line in _live(page)] == []
    for path in (path for path in made if path.endswith(".csv")):
        rows = list(csv.reader(io.StringIO(made[path])))
        assert len({len(row) for row in rows}) == 1
        assert not [cell for row in rows for cell in row if (cell[:1] in "=+@" and cell[:1]) or _formula(cell)]
    for path in (path for path in made if path.endswith(".yml")):
        assert isinstance(YAML(typ="safe").load(made[path]), dict)
    latex = "".join(made[path] for path in made if path.endswith(".tex"))
    assert not re.search(r"\\(input|include|write|def|catcode)\b", latex)
    assert _balanced(latex)


def _pages(made: Mapping[str, str]) -> Iterator[str]:
    return (text for path, text in made.items() if path.endswith(".md"))


def _live(page: str) -> Iterator[str]:
    """Lines where a name would be more than text: HTML of its own, a link of its own, a heading, a broken table."""
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"^```\w+\n.*?^```$", "", page, flags=re.M | re.S))
    plain = re.sub(r"\\.", "", re.sub(r"<picture>.*</picture>", "", outside))
    for line in plain.splitlines():
        if re.search(r"<[a-z/!]|\]\(javascript:|\$|@(?!&#8203;)|^# heading", line, re.I) and not line.startswith("  "):
            yield line
    width = None
    for line in re.sub(r"\\\|", "", page).splitlines():
        cells = line.count("|") if line.startswith("|") else None
        if cells is not None and width is not None and cells != width:
            yield line
        width = cells


def _formula(cell: str) -> bool:
    """A cell that begins like a formula and is no number."""
    return cell.startswith(("-", "\t", "\r")) and not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)


def _balanced(latex: str) -> bool:
    """Braces and mathematics close again, and every special character is escaped."""
    plain = re.sub(r"(?<!\\)%.*", "", latex.replace("\\\\", ""))
    open_braces = len(re.findall(r"(?<!\\)\{", plain)) - len(re.findall(r"(?<!\\)\}", plain))
    bare = re.findall(r"(?<!\\)[#^~_]", re.sub(r"\\(label|usepackage)\{[^}]*\}", "", plain))
    return open_braces == 0 and len(re.findall(r"(?<!\\)\$", plain)) % 2 == 0 and not bare


def test_slugs_differ_where_names_do_and_hide_no_path() -> None:
    names = [
        "lora",
        "lora(r=16)",
        "lora(r-16)",
        "../x",
        "..",
        ".",
        "",
        "x" * 300,
        "x" * 301,
        "Ünï",
        "CON",
        "a/b",
        "a-b",
    ]
    slugs = [escaping.slug(name) for name in names]
    assert len(set(slugs)) == len(names) and slugs[0] == "lora"
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.=-]*", slug) and len(slug) < 100 for slug in slugs)


def test_links_leave_no_folder(tmp_path: Path) -> None:
    where = places(tmp_path / "results" / "leaderboard", tmp_path / "results")
    assert where.href("records:smoke/a b/1.json", "methods/lora/README.md") == "../../../smoke/a%20b/1.json"
    assert where.href("records:../../secret", "README.md") == "#" == where.href("records:/etc/passwd", "README.md")
    assert where.href("page:suites/x.md", "methods/lora/README.md") == "../../suites/x.md"
