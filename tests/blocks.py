"""The commands that README and docs show, and how each is run in the tests."""

import re
import shlex
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from .conftest import ROOT

PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


class Way(Enum):
    """Where a command is run: here, here until it answers, or on the Modal of tests/modal."""

    HERE = "tests/test_blocks.py"
    SERVES = "tests/test_blocks.py, until it answers"
    MODAL = "tests/modal/test_blocks.py"
    TUTORIAL = "tests/test_tutorial.py"
    NOT = "nowhere"


# The commands of make and of the programs in .venv/bin, and why one is run nowhere. The first
# that fits counts; a command that none fits fails a test.
_WAYS: Final[tuple[tuple[str, Way, str], ...]] = (
    ("make (serve|watch)$", Way.SERVES, ""),
    (r"\.venv/bin/python -m generator\.preview ", Way.SERVES, ""),
    ("make (lock|plan|deploy)$", Way.MODAL, ""),
    (r"\.venv/bin/modal token new$", Way.NOT, "opens a browser, and asks Modal for an account"),
    (r"\.venv/bin/modal ", Way.MODAL, ""),
    (r"\.venv/bin/python -m generator upload ", Way.MODAL, ""),
    ("make test$", Way.NOT, "runs these tests"),
    (r"(make|curl|cp) |\.venv/bin/python ", Way.HERE, ""),
)


@dataclass(frozen=True)
class Command:
    """A command of a page, as it stands there."""

    page: str
    text: str

    @property
    def way(self) -> Way | None:
        """How it is run, None where nobody has said it."""
        if self.page == "docs/tutorial.md":
            return Way.TUTORIAL
        bare = shlex.join(shlex.split(self.text, comments=True))
        return next((way for start, way, _ in _WAYS if re.match(start, bare)), None)


def blocks(page: Path) -> list[str]:
    """Return the blocks of commands of a page, also those in lists."""
    found = re.findall(
        r"^( *)```sh\n(.*?)^\1```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def commands(page: Path) -> list[Command]:
    """Return the commands of a page in order; lines that belong together are one."""
    name = page.relative_to(ROOT).as_posix()
    found: list[Command] = []
    for block in blocks(page):
        if name == "docs/tutorial.md":
            found.append(Command(name, block))
            continue
        text = ""
        for line in block.splitlines(keepends=True):
            text += line
            if line.endswith("\\\n") or not _is_whole(text):
                continue
            if shlex.split(text, comments=True):
                found.append(Command(name, text))
            text = ""
        assert not text, f"{name}: {text} does not end"
    return found


def all_commands() -> list[Command]:
    """Return the commands of all pages."""
    return [command for page in PAGES for command in commands(page)]


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True
