"""A model hub on 127.0.0.1 for tests: what its clients ask for when they read, with the faults they must survive.

Large files (weights, parquet) are answered as the real hub does: by a redirect to another address, the file's hash and
size in headers of their own. Source of paths, headers and error codes: the client library `huggingface_hub`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

LARGE = (".safetensors", ".parquet", ".bin")
TOKEN = "hf_double"
VARIABLES = (
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"),
    *("PEFT_ATLAS_OFFLINE", "PEFT_ATLAS_DATA_ROOT"),
)
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """`commits` maps a commit to its files; the branch main is the last of them."""

    commits: dict[str, dict[str, bytes]]
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        return list(self.commits)[-1] if revision == "main" else revision if revision in self.commits else None


@dataclass
class HubDouble:
    """Repositories by (kind, id), faults, and what was asked: "GET /path", with "bytes=9-" for a part, in order."""

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    too_many: int = 0  # answers 429 so many times
    cut_after: int | None = None  # bytes of the next large file after which the connection breaks
    pauses: list[float] = field(default_factory=list)  # seconds before the next pieces of large files, 64 KiB each
    url: str = ""

    def add(self, kind: str, name: str, commit: str, files: dict[str, bytes], gated: bool = False) -> None:
        repository = self.repositories.setdefault((kind, name), Repository({}, gated))
        repository.commits[commit] = files

    def large(self, digest: str) -> bytes | None:
        every = (files for repository in self.repositories.values() for files in repository.commits.values())
        return next((c for files in every for c in files.values() if hashlib.sha256(c).hexdigest() == digest), None)

    @contextmanager
    def served(self) -> Iterator[HubDouble]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@contextmanager
def connected(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    """An empty hub, and a client in this process that knows it and keeps its files in `home`."""
    # imported here at the latest, under the variables of all tests, so that they are offline again afterwards
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    with HubDouble().served() as double:
        monkeypatch.setenv("HF_ENDPOINT", double.url)
        yield double


class _Handler(BaseHTTPRequestHandler):
    hub: HubDouble
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        if self.hub.too_many:
            self.hub.too_many -= 1
            self.reply(429, b"", {"Retry-After": "0"})
        elif path.startswith("/large/"):
            self.send_large(path.removeprefix("/large/"))
        elif match := FILE.fullmatch(path):
            self.resolve("dataset" if match[1] else "model", *match.groups()[1:])
        elif match := API.fullmatch(path):
            self.api(match[1][:-1], match[2], match[3] or "revision", match[4] or "main", match[5] or "", body)
        else:
            self.reply(404, b"")

    # what is asked ---------------------------------------------------------------------------------------------

    def files_of(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit and its files; None once an error was sent."""
        repository = self.hub.repositories.get((kind, name))
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None:
            self.error(401 if not allowed else 404, "RepoNotFound", "Repository not found")
        elif repository.gated and not allowed:
            self.error(401, "GatedRepo", f"Access to {kind} {name} is restricted.")
        elif (commit := repository.commit(revision)) is None:
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return commit, repository.commits[commit]
        return None

    def api(self, kind: str, name: str, verb: str, revision: str, below: str, body: bytes) -> None:
        found = self.files_of(kind, name, revision)
        if found is None:
            return
        commit, files = found
        if verb == "revision":
            siblings = [{"rfilename": path} for path in sorted(files)]
            self.json({"id": name, "_id": "0" * 24, "sha": commit, "siblings": siblings, "tags": [], "private": False})
        elif verb == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
            self.json(_tree(files, below.rstrip("/"), recursive))
        else:
            asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            every = {entry["path"]: entry for entry in _tree(files, "", True)}
            self.json([every[path.strip("/")] for path in asked if path.strip("/") in every])

    def resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        found = self.files_of(kind, name, revision)
        if found is None:
            return
        commit, files = found
        if path not in files:
            self.error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        elif path.endswith(LARGE):
            digest = hashlib.sha256(files[path]).hexdigest()
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(files[path]))}
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")  # the client follows its own host at once
            self.reply(302, b"", {"Location": f"{elsewhere}/large/{digest}", "X-Repo-Commit": commit, **linked})
        else:
            self.reply(200, files[path], {"X-Repo-Commit": commit, "ETag": f'"{_oid(files[path])}"'})

    def send_large(self, digest: str) -> None:
        content = self.hub.large(digest)
        if content is None:
            self.reply(404, b"")
            return
        start = int((re.fullmatch(r"bytes=(\d+)-.*", self.headers.get("Range", "")) or ["", "0"])[1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{digest}"')
        self.end_headers()
        cut, self.hub.cut_after = self.hub.cut_after, None
        end = len(content) if cut is None else start + cut
        for at in range(start, end if self.command == "GET" else start, 65536):
            time.sleep(self.hub.pauses.pop(0) if self.hub.pauses else 0)
            with suppress(ConnectionError):  # a client that lost patience
                self.wfile.write(content[at : min(at + 65536, end)])
        if cut is not None:
            self.close_connection = True

    # how it is said --------------------------------------------------------------------------------------------

    def json(self, content: Any) -> None:
        self.reply(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        self.reply(status, body, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _oid(content: bytes) -> str:
    """A blob's name in git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _tree(files: dict[str, bytes], below: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{below}/" if below else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, content in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            folder = prefix + "/".join(parts[:depth])
            entries.setdefault(folder, {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder})
        entries[path] = {"type": "file", "oid": _oid(content), "size": len(content), "path": path}
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entries[path]["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    if recursive:
        return list(entries.values())
    return [entry for path, entry in entries.items() if "/" not in path.removeprefix(prefix)]
