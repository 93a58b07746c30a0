"""Chromium, driven by Playwright: the one that is installed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# It looks for nobody: no updates, no hints, no page of its own.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


class NoChromiumError(RuntimeError):
    """There is no Chromium on this machine."""


@contextmanager
def launched() -> Iterator[Browser]:
    """Start a Chromium: that in the variable CHROMIUM, one on the PATH, or Playwright's own.

    Raises:
        NoChromiumError: when there is none.
    """
    with sync_playwright() as playwright:
        found = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)]
        path = next(filter(None, found), playwright.chromium.executable_path)
        if not Path(path).exists():
            raise NoChromiumError(
                "there is no Chromium here: apt-get install chromium, or"
                " .venv/bin/python -m playwright install chromium, or name one in CHROMIUM"
            )
        # Root has no sandbox to go into.
        browser = playwright.chromium.launch(
            executable_path=path, args=[*QUIET], chromium_sandbox=os.geteuid() != 0
        )
        try:
            yield browser
        finally:
            browser.close()
