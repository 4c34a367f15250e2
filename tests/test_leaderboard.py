"""The leaderboard: what may be compared, the same numbers as the tables, every format, and names that mean harm."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft_atlas.bench.cli import main
from peft_atlas.bench.environment import environment
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.names import Name
from peft_atlas.bench.plan import design
from peft_atlas.bench.records import Cell, ErrorReport, ParameterCounts, Primary, Record
from peft_atlas.bench.store import Store
from peft_atlas.leaderboard import command, escaping
from peft_atlas.leaderboard.board import Board, Entry, Suite
from peft_atlas.leaderboard.data import build, to_json
from peft_atlas.leaderboard.places import places
from peft_atlas.leaderboard.plots import digest_of
from peft_atlas.leaderboard.releases import changes

ITEMS = 60
TEXTS = ["md", "csv", "latex", "json", "metafile"]
HOSTILE = "=cmd|'/c calc'!A1 <script>alert(1)</script> [x](javascript:x) \\input{/etc/passwd} $x$ | ../../etc @all \""
UGLY = (
    HOSTILE,
    "../../../etc/passwd",
    "\x1b[31m\u202eevil\r\n# heading",
    "`code` ``two`` ```three```",
    "a & b_c%d#e~f^g",
)


class Results:
    """A results folder, filled cell by cell without training anything."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.cells: dict[tuple[str, str, int], Cell] = {}
        self.generator = np.random.default_rng(0)
        self.difficulty = {task: self.generator.normal(0, 0.2, ITEMS) for task in ("smoke-vision", "smoke-text")}

    def cell(self, method: str, task: str, seed: int) -> Cell:
        found = design("smoke", [Name(method)], [task], [seed]).cells
        return found[0]

    def add(self, method: str, task: str, mean: float, seed: int = 0, **other: Any) -> Record:
        """A record whose items scatter around `mean`; `other` are fields of the record, or `name`, `cpu`, `version`."""
        cell = self.cells.setdefault((method, task, seed), self.cell(method, task, seed))
        if "name" in other:
            cell = cell.model_copy(update={"method": cell.method.model_copy(update={"name": other.pop("name")})})
        if "version" in other:
            protocol = cell.protocol.model_copy(update={"version": other.pop("version")})
            cell = cell.model_copy(update={"protocol": protocol})
        if "config" in other:
            config = {**cell.method.config, **other.pop("config")}
            cell = cell.model_copy(update={"method": cell.method.model_copy(update={"config": config})})
        where = environment(1, 1).model_copy(update={"cpu": other.pop("cpu", "one cpu")})
        values = mean + self.difficulty[task] + self.generator.normal(0, 0.02, ITEMS)
        ok = other.get("status", "ok") == "ok"
        record = Record(
            key=cell.key,
            attempt=self.store.next_attempt(cell),
            cell=cell,
            environment=where,
            parameters=ParameterCounts(backbone=100, adapter=10, head=2, total_trainable=12, shipped_bytes=40),
            primary=Primary(name="accuracy", value=float(values.mean()), higher_is_better=True) if ok else None,
            **{"status": "ok", "phase": "done", "started": "2026-01-01", "finished": "2026-01-02", **other},
        )
        items = np.array([f"item-{number}" for number in range(ITEMS)])
        self.store.add(record, {"items": items, "per_item": values} if ok else None)
        return record

    def board(self) -> Board:
        return build(self.store.root)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three methods, two tasks, two seeds; one failed cell, one that cannot be."""
    found = Results(tmp_path_factory.mktemp("filled") / "results")
    for method, mean in (("lora", 0.8), ("bitfit", 0.7), ("linear", 0.5)):
        for seed in (0, 1):
            for task in ("smoke-vision", "smoke-text"):
                if (method, task, seed) != ("bitfit", "smoke-text", 1):
                    found.add(method, task, mean, seed)
    report = ErrorReport(type="MemoryError", message="can't allocate | 3 GB\nmore", traceback="")
    found.add("bitfit", "smoke-text", 0.0, 1, status="oom", phase="fit", error=report)
    found.add("vpt", "smoke-vision", 0.6, 0)
    return found


def suite(board: Board, name: str = "smoke") -> Suite:
    (found,) = [suite for suite in board.suites if suite.name == name]
    return found


def entry(board: Board, name: str, task: str) -> Entry:
    (found,) = [e for c in suite(board).contenders if c.name == name for e in c.entries if e.task == task]
    return found


def files(results: Results, formats: list[str] = TEXTS) -> dict[str, str]:
    out = results.store.root / "leaderboard"
    return {
        path: data.decode() for path, data in command.made(results.board(), out, results.store.root, formats).items()
    }


# the board ------------------------------------------------------------------------------------------------------------


def test_every_cell_has_its_status_reason_and_evidence(filled: Results) -> None:
    board = filled.board()
    ok = entry(board, "lora", "smoke-vision")
    assert (ok.status, [score.seed for score in ok.scores], ok.same_cell) == ("ok", [0, 1], True)
    assert ok.interval is not None and ok.interval.mean == pytest.approx(np.mean([s.value for s in ok.scores]))
    for score in ok.scores:
        record = json.loads((filled.store.root / score.record).read_text(encoding="utf-8"))
        assert score.value == pytest.approx(100 * record["primary"]["value"])
        assert score.predictions is not None and (filled.store.root / score.predictions).is_file()
    assert (
        ok.command == "bench run --methods lora --tasks smoke-vision --seeds 0,1 --protocol smoke --results my-results"
    )
    lr = next(setting for setting in ok.settings if setting.name == "lr")
    assert lr.layer is not None and lr.source
    part = entry(board, "bitfit", "smoke-text")
    assert (part.status, part.reason) == ("partial", "seed 1: oom: can't allocate | 3 GB")
    impossible = entry(board, "linear", "smoke-lm")
    assert (impossible.status, impossible.reason) == ("unsupported", "smoke-lm has no task head to train")
    assert entry(board, "lora", "smoke-lm").status == "missing"


def test_intervals_are_those_of_the_result_table(filled: Results) -> None:
    from peft_atlas.bench.plan import make_plan
    from peft_atlas.bench.protocol import load_protocol
    from peft_atlas.bench.statistics import Estimate
    from peft_atlas.bench.tables import result_table, value_text

    names, tasks = [Name("lora"), Name("linear")], ["smoke-vision", "smoke-text"]
    plan = make_plan(load_protocol("smoke"), names, tasks, design("smoke", names, tasks, [0, 1]), filled.store, "never")
    table = dict(result_table(plan, filled.store).columns)
    board = filled.board()
    for place, name in enumerate(("lora", "linear")):
        for task in tasks:
            found = entry(board, name, task).interval
            assert found is not None
            assert table[task][place].strip() == value_text(Estimate(found.mean, found.half_width), "accuracy")


def test_rankings_share_ranks_and_keep_compute_classes_apart(filled: Results) -> None:
    rankings = {ranking.compute: ranking for ranking in suite(filled.board()).rankings}
    assert set(rankings) == {"equal-steps", "own-budget"}
    assert [(s.name, s.rank) for s in rankings["own-budget"].standings] == [("linear", 1)]
    equal = rankings["equal-steps"]
    assert equal.standings[0].name == "lora" and equal.lacking == ("smoke-lm",)
    flagged = {standing.name: standing.imputed for standing in equal.standings}
    assert flagged == {"lora": (), "bitfit": ("smoke-text",), "vpt": ("smoke-text",)}
    assert equal.standings[0].means["mean"] is not None
    assert all(standing.means["mean"] is None for standing in equal.standings if standing.imputed)
    (tradeoff,) = equal.tradeoffs
    assert [point.name for point in tradeoff.points] == ["lora"] and set(tradeoff.lacking) == {"bitfit", "vpt"}


def test_budgets_are_ranked_among_themselves(results: Results) -> None:
    for name in ("lora", "bitfit"):
        results.add(name, "smoke-vision", 0.7)
        results.add(name, "smoke-vision", 0.6, name=f'{name}(budget="0.5%")', config={"lr": 0.125})
    found = [(r.budget, {s.name for s in r.standings}) for r in suite(results.board(), "vtab-smoke").rankings]
    assert found == [(None, {"lora", "bitfit"}), ("0.5%", {'lora(budget="0.5%")', 'bitfit(budget="0.5%")'})]


@pytest.mark.parametrize("other", [{"cpu": "another cpu"}, {"version": 7}], ids=["machine", "protocol"])
def test_machines_and_protocols_never_share_a_ranking(results: Results, other: dict[str, Any]) -> None:
    results.add("lora", "smoke-vision", 0.8)
    results.add("bitfit", "smoke-vision", 0.7)
    results.add("vpt", "smoke-vision", 0.9, **other)
    board = results.board()
    together = [{s.name for s in ranking.standings} for one in board.suites for ranking in one.rankings]
    assert {"lora", "bitfit"} in together and {"vpt"} in together
    assert not any("vpt" in names and len(names) > 1 for names in together)
    assert len({one.id for one in board.suites}) == len(board.suites)


def test_an_earlier_configuration_is_set_aside_by_name(results: Results) -> None:
    results.add("lora", "smoke-vision", 0.9, config={"lr": 0.5})
    results.add("lora", "smoke-vision", 0.7, finished="2026-02-01")
    board = results.board()
    (kept,) = entry(board, "lora", "smoke-vision").scores
    assert kept.value == pytest.approx(70, abs=6)
    assert "lora on smoke-vision: 1 record of an earlier configuration" in suite(board).set_aside[0]


def test_a_cell_that_the_recipe_no_longer_gives_says_so(results: Results) -> None:
    results.add("lora", "smoke-vision", 0.9, config={"lr": 0.5})
    found = entry(results.board(), "lora", "smoke-vision")
    assert found.same_cell is False
    assert next(s for s in found.settings if s.name == "lr").source is None
    assert next(s for s in found.settings if s.name == "r").source is not None
    assert "has changed since on smoke-vision" in files(results, ["md"])["methods/lora/README.md"]


def test_published_numbers_stand_beside_and_are_never_ranked(results: Results) -> None:
    for name in ("lora", "full", "linear"):
        results.add(name, "smoke-vision", 0.8)
    board = results.board()
    (table,) = board.published
    assert (len(table.rows), len(table.tasks)) == (20, 19)
    assert next(row for row in table.rows if row.method == "lora").mean == 72.25
    for row in table.rows:  # no digit was lost on the way: the printed mean is that of the tasks
        assert row.mean == pytest.approx(np.mean(list(row.values.values())), abs=0.006)
    labels = {row.label for row in table.rows}
    assert not labels & {standing.name for one in board.suites for r in one.rankings for standing in r.standings}
    page = files(results, ["md"])["suites/vtab-smoke.md"]
    assert re.search(r"\| LoRA \| 72.25 \| 0.29M \| \[`lora`\]", page)
    assert table.caveat in page and "V-PETL Bench" in page


def test_the_same_records_give_the_same_text(filled: Results, tmp_path: Path) -> None:
    shutil.copytree(filled.store.root, tmp_path / "copy", ignore=shutil.ignore_patterns(".index", "leaderboard"))
    text = to_json(filled.board())
    assert to_json(build(tmp_path / "copy")) == text
    assert Board.model_validate_json(text) == filled.board()


# formats --------------------------------------------------------------------------------------------------------------


def test_links_of_the_pages_lead_to_files(filled: Results) -> None:
    root, out = filled.store.root, filled.store.root / "leaderboard"
    pages = files(filled)
    for path, text in pages.items():
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    links = [(out / path).parent / link.partition("#")[0] for path, text in pages.items() if path.endswith(".md")
             for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", text)]  # fmt: skip
    assert len(links) > 30 and [str(link) for link in links if not link.exists()] == []
    assert any(link.suffix == ".json" and link.resolve().is_relative_to(root / "smoke") for link in links)


def test_columns_of_a_method_keep_their_order(filled: Results) -> None:
    page = files(filled, ["md"])["methods/lora/README.md"]
    head = next(line for line in page.splitlines() if line.startswith("| name |"))
    order = ["backbone", "protocol", "trainable", "shipped", "ledger peak", "peak RSS", "step", "latency, batch 1"]
    assert [name.strip() for name in head.strip("|").split("|")][2:] == [
        *(*order, "score", "drift", "config", "record", "log", "mark")
    ]
    assert "not measured" in page and "arXiv:2106.09685" in page and "HF PEFT LoRA" in page


def test_csv_holds_the_numbers_unrounded(filled: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(files(filled, ["csv"])["csv/results.csv"])))
    board = filled.board()
    (row,) = [r for r in rows if (r["suite"], r["name"], r["task"]) == ("smoke", "lora", "smoke-text")]
    interval = entry(board, "lora", "smoke-text").interval
    assert interval is not None and float(row["score"]) == interval.mean
    assert {r["status"] for r in rows} == {"ok", "partial", "unsupported", "missing"}


def test_metafiles_are_in_the_grammar_of_model_index(filled: Results) -> None:
    from ruamel.yaml import YAML

    made = files(filled, ["metafile"])
    root = YAML(typ="safe").load(made["model-index.yml"])
    assert set(root) == {"Import"} and set(root["Import"]) == set(made) - {"model-index.yml"}
    for path in root["Import"]:
        content = YAML(typ="safe").load(made[path])
        (collection,) = content["Collections"]
        assert {"Name", "Metadata", "README"} <= set(collection)
        for model in content["Models"]:
            assert model["In Collection"] == collection["Name"]
            assert isinstance(model["Metadata"], dict)
            for result in model["Results"]:
                assert set(result) == {"Task", "Dataset", "Metrics"} and result["Metrics"]
    lora = YAML(typ="safe").load(made["methods/lora/metafile.yml"])
    assert lora["Collections"][0]["Paper"]["URL"] == "https://arxiv.org/abs/2106.09685"


def test_an_empty_folder_gives_pages_that_say_so(results: Results, tmp_path: Path) -> None:
    results.store.root.mkdir()
    made = files(results)
    assert "holds no records yet" in made["README.md"]
    assert json.loads(made["board.json"])["suites"] == []
    assert made["csv/results.csv"].count("\n") == 1
    with pytest.raises(UsageError, match="does not exist"):
        command.leaderboard_command(tmp_path / "absent", tmp_path / "out", "md", check=False, freeze=None)


# names that mean harm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UGLY, ids=["everything", "path", "control", "backticks", "latex"])
def test_hostile_names_are_inert_in_every_format(results: Results, name: str) -> None:
    from ruamel.yaml import YAML

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


# the command ----------------------------------------------------------------------------------------------------------


def test_check_fails_when_pages_and_records_differ(
    filled: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "results", tmp_path / "results" / "leaderboard"
    shutil.copytree(filled.store.root, root, ignore=shutil.ignore_patterns(".index", "leaderboard"))
    line = ["leaderboard", "--results", str(root), "--formats", ",".join(TEXTS)]
    assert main([*line, "--check"]) == 1
    assert main(line) == 0
    assert main([*line, "--check"]) == 0
    page = out / "methods" / "lora" / "README.md"
    page.write_text(page.read_text(encoding="utf-8").replace("| 8", "| 9", 1), encoding="utf-8")
    (out / "csv" / "pairs.csv").unlink()
    capsys.readouterr()
    assert main([*line, "--check"]) == 1
    assert set(capsys.readouterr().out.splitlines()) == {f"differs: {page}", f"missing: {out / 'csv' / 'pairs.csv'}"}
    assert main([*line[:-1], "md,cvs"]) == 2
    assert "Did you mean csv" in capsys.readouterr().err


def test_pictures_are_drawn_and_checked_by_what_they_show(filled: Results, tmp_path: Path) -> None:
    root, out = filled.store.root, tmp_path / "out"
    made = command.made(filled.board(), out, root, ["plots"])
    names = {path.partition("/")[2].rpartition("-")[0] for path in made if path.endswith("-light.png")}
    assert {"smoke-pareto-trainable", "smoke-heat-map", "smoke-seeds", "smoke-ranks-equal-steps"} <= names
    assert {path[-4:] for path in made} == {".png", ".svg"}
    assert all(digest_of(content) for content in made.values())
    assert b"oom" not in made["plots/smoke-heat-map.svg"]  # text is drawn as paths, so that a paper needs no font
    for path, content in made.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content[:-8] + b"otherlib" if path.endswith(".svg") else content)
    assert command.differences(made, out, ["plots"]) == []
    path = "plots/smoke-heat-map.svg"
    (out / path).write_bytes(made[path].replace(str(digest_of(made[path])).encode(), b"0" * 16))
    assert command.differences(made, out, ["plots"]) == [f"differs: {out / path}"]


def test_a_release_is_dated_archived_and_never_changed(filled: Results, tmp_path: Path) -> None:
    import hashlib
    import tarfile

    root = tmp_path / "results"
    shutil.copytree(filled.store.root, root, ignore=shutil.ignore_patterns(".index", "leaderboard"))
    line = ["leaderboard", "--results", str(root), "--freeze"]
    assert main([*line, "0.1"]) == 0
    folder = root / "releases" / "0.1"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main([*line, "0.1"]) == 2 and main([*line, "../up"]) == 2
    more = Results(root)
    more.add("full", "smoke-vision", 0.95)
    more.add("full", "smoke-text", 0.95)
    assert main([*line, "0.2"]) == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    first, second = build(root).releases
    assert (first.name, second.name, second.records) == ("0.1", "0.2", first.records + 2)
    assert first.changes == () and "new: full in smoke (equal-steps), rank 1" in second.changes
    assert hashlib.sha256(before["records.tar.gz"]).hexdigest() == first.archive_sha256
    with tarfile.open(folder / "records.tar.gz") as archive:
        archive.extractall(tmp_path / "again", filter="data")
    again = build(tmp_path / "again")
    assert again.digest == first.digest == json.loads(before["board.json"])["digest"]
    assert list(changes(again, Board.model_validate_json(before["board.json"]))) == []
