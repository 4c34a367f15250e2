"""The lock of method versions: `methods/versions.json` holds, for each method, its version and a hash of its source.

A test fails when a method's source changes and its version does not, since records of the two could not be told apart.

    python -m peft_atlas.bench.versions                       # say what differs from the lock
    python -m peft_atlas.bench.versions --lock                # accept new methods and raised versions
    python -m peft_atlas.bench.versions --lock --same lora    # lora's source changed, its behaviour did not
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .registry import ROOT, registry

LOCK = ROOT / "methods" / "versions.json"


def source_hash(file: Path) -> str:
    """16 hex digits over a module's syntax tree: comments, docstrings and layout do not count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return hashlib.sha256(_text(tree).encode()).hexdigest()[:16]


def _text(node: Any) -> str:
    """A syntax tree as text. Empty fields are left out, so that Python versions with more fields agree."""
    if isinstance(node, ast.AST):
        fields = ",".join(f"{name}={_text(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({fields})"
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    return repr(node)


def locked() -> dict[str, dict[str, Any]]:
    """The lock: method id -> {"version", "source"}."""
    content: dict[str, dict[str, Any]] = json.loads(LOCK.read_text(encoding="utf-8")) if LOCK.exists() else {}
    return content


def actual() -> dict[str, dict[str, Any]]:
    """What the lock should say, from the recipes and sources of this package."""
    methods = registry("methods")
    found = {}
    for card in methods.cards():
        module = card.target.partition(":")[0]
        file = methods.folder(card.id) / f"{module}.py"
        if file.is_relative_to(ROOT):
            found[card.id] = {"version": card.version, "source": source_hash(file)}
    return found


def differences(same: Sequence[str] = ()) -> dict[str, str]:
    """Method id -> what must be done about it; empty when lock and sources agree. `same` behave as before."""
    old, new = locked(), actual()
    found = {method: f"{method} is in {LOCK.name} but not in the registry" for method in old.keys() - new.keys()}
    for method, facts in new.items():
        if method not in old:
            found[method] = f"{method} is not locked yet: run `python -m {__package__}.versions --lock`"
        elif facts["version"] < old[method]["version"]:
            found[method] = f"{method}: version {facts['version']} is lower than the locked {old[method]['version']}"
        elif facts["version"] == old[method]["version"] and facts["source"] != old[method]["source"]:
            if method not in same:
                found[method] = (
                    f"{method}: the source changed and the version did not; raise `version` in its recipe, or say "
                    f"that it behaves as before: `python -m {__package__}.versions --lock --same {method}`"
                )
        elif facts != old[method]:
            found[method] = f"{method}: version {facts['version']} is not locked yet"
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when the lock agrees (after `--lock`: has been written), 1 otherwise."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.versions", description=__doc__.splitlines()[0])
    parser.add_argument("--lock", action="store_true", help="write the lock")
    parser.add_argument("--same", nargs="+", default=[], metavar="ID", help="methods that behave as before")
    options = parser.parse_args(arguments)
    found = differences(options.same)
    if options.lock:
        old, new = locked(), actual()
        found = {method: text for method, text in found.items() if method in old and method in new}
        found = {method: text for method, text in found.items() if new[method]["version"] <= old[method]["version"]}
        kept = {method: old[method] if method in found else facts for method, facts in new.items()}
        LOCK.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", encoding="utf-8")
    for text in found.values():
        print(text, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
