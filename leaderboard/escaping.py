"""Text from records and recipes made inert in each format. Names are anyone's: a record may come from a stranger."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_MARKDOWN = re.compile(r"([\\`*_\[\]{}#|~$])")
_AUTOLINK = re.compile(r"@|://|www\.", re.IGNORECASE)  # what GitHub turns into mentions and links by itself
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "×": r"$\times$",
}
_FORMULA = ("=", "+", "-", "@")
_UNSAFE = re.compile(r"[^a-z0-9.=-]+")
LONGEST_SLUG = 80


def one_line(text: str) -> str:
    """Without line breaks and characters that cannot be seen (control, format, private use, lone surrogates)."""
    seen = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join(seen.split())


def markdown(text: str) -> str:
    """For running text and table cells of GitHub's Markdown: no HTML, link, image, emphasis, pipe or mention."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _AUTOLINK.sub(r"\g<0>&#8203;", _MARKDOWN.sub(r"\\\1", plain))


def code(text: str) -> str:
    """A Markdown code span, also in a table cell."""
    plain = one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    padded = f" {plain} " if plain.startswith("`") or plain.endswith("`") or not plain else plain
    return f"{fence}{padded}{fence}".replace("|", "\\|")


def latex(text: str) -> str:
    """For text mode; other scripts need a LaTeX that reads UTF-8."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def csv_cell(text: str) -> str:
    """Never a formula: a spreadsheet would run a cell that begins with = + - @ (an apostrophe keeps it text)."""
    plain = one_line(text)
    return f"'{plain}" if plain.startswith(_FORMULA) else plain


def slug(text: str) -> str:
    """A file name and link that no path can hide in; equal texts give equal slugs, different texts different ones."""
    plain = _UNSAFE.sub("-", text).strip("-.=")[:LONGEST_SLUG]
    if plain and plain == text:
        return plain
    return f"{plain or 'name'}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"
