"""What `bench validate NAME` prints: a table of models and checks, then a line for each reason."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..text_table import text_table
from .tiny import NAMES
from .validation import CHECKS, Outcome, Validation, validate

SHOWN: dict[Outcome, str] = {"ok": "ok", "failed": "FAILED", "not applicable": "-"}


def command(name: str, models: str | None, as_json: bool) -> int:
    """Validate, print, and return the exit code: 0 when everything held, 1 when something failed or nothing fits."""
    from transformers.utils import logging

    from ..cell import settle

    settle(threads=1)
    logging.set_verbosity_error()  # of tiny models' odd sizes
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    chosen = NAMES if models is None else tuple(word.strip() for word in models.split(","))
    found = validate(name, chosen, _tell if sys.stderr.isatty() else lambda model: None)
    print(json.dumps(as_dict(found), indent=1, ensure_ascii=False) if as_json else as_text(found))
    return 0 if found.ok else 1


def _tell(model: str) -> None:
    print(f"bench: checks on {model}", file=sys.stderr)


def as_dict(validation: Validation) -> dict[str, Any]:
    """For JSON: the findings, and what each check is."""
    what = {check: (function.__doc__ or "").splitlines()[0] for check, function in CHECKS.items()}
    return {**asdict(validation), "ok": validation.ok, "checks": what}


def as_text(validation: Validation) -> str:
    """A row for each model, the reasons of what failed or does not apply, and the sum."""
    sizes = ", ".join(f"{key}={value}" for key, value in validation.lowered.items())
    head = f"{validation.method} v{validation.version}: the recipe reads" + (f"; tested with {sizes}" if sizes else "")
    shown = {(f.model, f.check): SHOWN[f.outcome] for f in validation.findings}
    rows = [[model, *(shown[model, check] for check in CHECKS)] for model in validation.models]
    parts = [head, text_table(["model", *CHECKS], rows)]
    parts += [_reasons(validation, outcome) for outcome in ("failed", "not applicable")]
    held, failed, rest = (sum(f.outcome == outcome for f in validation.findings) for outcome in SHOWN)
    parts.append(f"{held} checks held, {failed} failed, {rest} do not apply" + ("" if held else ": no model fits"))
    return "\n\n".join(part for part in parts if part)


def _reasons(validation: Validation, outcome: Outcome) -> str:
    """One line for each reason, with the checks and models that it is given for."""
    models: dict[tuple[str, str], list[str]] = {}
    for finding in validation.findings:
        if finding.outcome == outcome:
            models.setdefault((finding.reason, finding.check), []).append(finding.model)
    checks: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (reason, check), where in models.items():
        checks.setdefault((reason, tuple(where)), []).append(check)
    every = len(validation.models)
    lines = [
        f"  {_all_or(found, len(CHECKS), 'everything')} on {_all_or(where, every, 'every model')}: {reason}"
        for (reason, where), found in checks.items()
    ]
    return "\n".join([f"{outcome}:", *lines]) if lines else ""


def _all_or(names: Sequence[str], number: int, all_of_them: str) -> str:
    return all_of_them if len(names) == number > 1 else ", ".join(names)
