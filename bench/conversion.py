"""Conversion of an asset's extracted files to the formats that the suite reads. Runs once, in a process of its own.

`python -m peft_atlas.bench.conversion NAME SOURCE TARGET` keeps the memory of a conversion, and the threads of the
libraries it needs, out of the parent that cells are forked from. Every conversion is deterministic; `content_hash`
says so independently of the version of the library that wrote the file.
"""

from __future__ import annotations

import hashlib
import importlib
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

CONVERSIONS = {  # name in the manifest -> module:function(source folder, target folder)
    "movie-reviews": "tables:movie_reviews",
    "mnist": "tables:mnist",
    "twemoji": "tables:twemoji",
    "emoji-names": "tables:emoji_names",
    "dinov2-onnx": "dinov2:dinov2_onnx",
    "minilm": "language:minilm",
    "smollm2-gguf": "language:smollm2_gguf",
}


def convert(name: str, source: Path, target: Path) -> None:
    """Run the conversion `name` on the extracted files in `source`; write its results to `target`."""
    module, function = CONVERSIONS[name].split(":")
    getattr(importlib.import_module(f".conversions.{module}", __package__), function)(source, target)


def content_hash(folder: Path, files: Iterable[str]) -> str:
    """16 hex digits over what the files of an asset say, in whatever way their writers laid the bytes out."""
    digest = hashlib.sha256()
    for name in sorted(files):
        path = folder / name
        digest.update(_framed(name.encode()))
        for part in _parts(path):
            digest.update(_framed(part))
    return digest.hexdigest()[:16]


def _framed(part: bytes) -> bytes:
    return struct.pack("<Q", len(part)) + part


def _parts(path: Path) -> Iterable[bytes]:
    """The logical content of one file as a sequence of byte strings."""
    if path.suffix == ".parquet":
        return _table_parts(path)
    if path.suffix == ".npz":
        return _array_parts(path)
    if path.suffix == ".safetensors":
        return _tensor_parts(path)
    return [path.read_bytes()]


def _table_parts(path: Path) -> Iterable[bytes]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    for name in sorted(table.column_names):
        yield name.encode()
        for value in table.column(name).to_pylist():
            yield value if isinstance(value, bytes) else str(value).encode()


def _array_parts(path: Path) -> Iterable[bytes]:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        for name in sorted(arrays.files):
            array = arrays[name]
            yield f"{name} {array.dtype.str} {array.shape}".encode()
            yield array.tobytes()


def _tensor_parts(path: Path) -> Iterable[bytes]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            yield f"{name} {tensor.dtype.str} {tensor.shape}".encode()
            yield tensor.tobytes()


def main(arguments: list[str]) -> None:
    """Convert, then print the content hash of everything that was written, as the last line."""
    name, source, target = arguments[0], Path(arguments[1]), Path(arguments[2])
    convert(name, source, target)
    print(content_hash(target, [path.name for path in target.iterdir()]))


if __name__ == "__main__":
    main(sys.argv[1:])
