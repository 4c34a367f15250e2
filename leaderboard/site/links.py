"""Links of a page of the site, relative, so that the folder can lie anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from ..board import Suite
from ..escaping import slug
from ..places import Places

_METHOD = re.compile(r"page:methods/([^/]+)/README\.md")
_SUITE = re.compile(r"page:suites/([^/]+)\.md")
_ARXIV = re.compile(r"[0-9a-z.\-/]+", re.IGNORECASE)
_DOI = re.compile(r"10\.[0-9.]+/[^\s\"<>]+")


def method_page(method: str) -> str:
    return f"methods/{slug(method)}.html"


def suite_page(suite: Suite) -> str:
    return f"suites/{suite.id}.html"


def suite_data(suite: Suite) -> str:
    return f"data/{suite.id}.js"


@dataclass(frozen=True)
class Here:
    """A page, which links are seen from; `path` is below the site's folder."""

    path: str
    places: Places
    folder: str = "site"

    @property
    def root(self) -> str:
        """The way up to the site's folder: empty, or `../`."""
        return "../" * self.path.count("/")

    def to(self, path: str, **state: str) -> str:
        """Another file of the site; `state` goes behind the hash, where the page's scripts read it."""
        return self.root + quote(path) + (f"#{urlencode(state)}" if state else "")

    def evidence(self, link: str) -> str:
        """A link of `sheets`: to this site's own page where it has one, else to the repository, the results or what
        other formats wrote beside the site."""
        for pattern, form in ((_METHOD, "methods/{}.html"), (_SUITE, "suites/{}.html")):
            if found := pattern.fullmatch(link):
                return self.to(form.format(found[1]))
        return self.places.href(link, f"{self.folder}/{self.path}")


def web(url: str | None) -> str | None:
    """An address that may be linked: https, with a host; None for anything else."""
    parts = urlsplit(url or "")
    return url if parts.scheme == "https" and parts.netloc else None


def paper(arxiv: str | None, doi: str | None, url: str | None) -> str | None:
    """The address of a paper."""
    if arxiv and _ARXIV.fullmatch(arxiv):
        return f"https://arxiv.org/abs/{arxiv}"
    if doi and _DOI.fullmatch(doi):
        return f"https://doi.org/{quote(doi, safe='/')}"
    return web(url)
