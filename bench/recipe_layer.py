"""Write winning values into recipes, leaving comments and form as they are."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .contest import Verdict
from .names import Value

if TYPE_CHECKING:
    from .protocol import Protocol


def write_winners(verdicts: Sequence[Verdict], protocol: Protocol, results: str) -> list[Path]:
    """Put winning values into the recipes' backbone layer; returns the files that were changed."""
    from .registry import registry

    written: dict[Path, None] = {}
    for verdict in verdicts:
        if verdict.values is None:
            continue
        contest = verdict.contest
        source = (
            f"bench tune, protocol {protocol.id} v{protocol.version}, {len(contest.trials)} trials on "
            f"{' and '.join(contest.tasks)}, {results}/{protocol.id}-tuning"
        )
        entry = registry("methods").entry(contest.name.id)
        write_layer(entry.file, contest.backbone, verdict.values, source, entry.within)
        written[entry.file] = None
    return list(written)


def write_layer(
    recipe: Path, backbone: str, values: Mapping[str, Value], source: str, within: Sequence[str] = ()
) -> None:
    """Set values in `hyperparameters.backbone.<backbone>` of a recipe file, or of the card `within` it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    yaml = YAML(typ="rt", pure=True)
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = recipe.read_text(encoding="utf-8")
    content = yaml.load(text)
    layer = content
    for key in (*within, "hyperparameters", "backbone", backbone):
        layer = layer.setdefault(key, CommentedMap())
    for name, value in values.items():
        leaf = CommentedMap(value=value, source=source)
        leaf.fa.set_flow_style()
        layer[name] = leaf
    buffer = io.StringIO()
    yaml.dump(content, buffer)
    part = recipe.with_name(f".{recipe.name}.part")
    part.write_text(buffer.getvalue(), encoding="utf-8")
    os.replace(part, recipe)
