"""A method's paper as a BibTeX entry."""

from __future__ import annotations

import re

from .board import Method
from .escaping import one_line, slug


def bibtex(method: Method) -> list[str]:
    """The lines of the entry; none where the paper is not known."""
    if not method.paper:
        return []
    paper = method.paper
    lines = [f"  title  = {{{_field(paper['title'])}}},", f"  author = {{{_field(paper['authors'])}}},"]
    lines += [f"  year   = {{{paper['year']}}},"]
    arxiv, doi = paper.get("arxiv"), paper.get("doi")
    lines += [f"  eprint = {{{_field(arxiv)}}},", "  archiveprefix = {arXiv},"] if arxiv else []
    lines += [f"  doi    = {{{_field(doi)}}},"] if doi else []
    return ["@misc{" + slug(method.id) + ",", *lines, "}"]


def _field(text: str) -> str:
    authors = re.sub(r"\s+et al\.?$", " and others", one_line(text))
    return re.sub(r"[\\{}`]", "", authors)
