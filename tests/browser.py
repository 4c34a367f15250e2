"""The system's headless Chromium, driven by Playwright; what a page asks for and complains about is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120_000  # milliseconds: a crowded machine is no failure


def found() -> str | None:
    """The path of a Chromium, where one is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


needed = pytest.mark.skipif(found() is None, reason=f"no Chromium here (looked for {', '.join(NAMES)})")


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser. Without its sandbox, which needs rights that containers lack; pages are this test's own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found(), args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


class Visit:
    """A page of a folder, and everything it asked for or complained about."""

    def __init__(self, browser: Any, folder: Path, **context: Any) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_context(**context).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("console", lambda message: self._console(message))
        self.page.on("dialog", lambda dialog: self._dialog(dialog))

    def open(self, path: str) -> Any:
        """The page at a path of the folder, with a hash where it has one."""
        name, mark, state = path.partition("#")
        self.page.goto("about:blank")  # or another hash of the same page would load nothing
        self.page.goto(f"{(self.folder / name).as_uri()}{mark}{state}")
        return self.page

    def outside(self) -> list[str]:
        """Requests that left the folder; data: and blob: addresses are the page's own."""
        own = (f"{self.folder.as_uri()}/", "data:", "blob:", "about:")
        return [url for url in self.requests if not url.startswith(own)]

    def close(self) -> None:
        self.page.context.close()

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()
