"""The documentation: the site that `make docs` builds, its pictures, and the messages it quotes."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs.drawings import DIAGRAMS, GRAPHS, draw
from docs.pictures import IMAGES

from .conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", name="site")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class Loaded(HTMLParser):
    """Collects what a browser loads for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag != "a" and values.get("rel") not in ("canonical", "next", "prev"):
            self.addresses += [v for key in ("src", "href", "data") if (v := values.get(key))]


def test_the_site_has_every_page_and_asks_no_other_host(site: Path) -> None:
    """Pages that the navigation lacks, and links to nowhere, are warnings, and end the build."""
    made = {path.relative_to(site) for path in site.rglob("*.html")} - {Path("404.html")}
    docs = ROOT / "docs"
    assert made == {p.relative_to(docs).with_suffix(".html") for p in docs.rglob("*.md")}
    for path in site.rglob("*.html"):
        page = Loaded()
        page.feed(path.read_text(encoding="utf-8"))
        assert page.addresses
        assert [one for one in page.addresses if re.match(r"(https?:)?//", one)] == [], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", path.read_text("utf-8"))


# Pictures


def shown() -> set[Path]:
    """Return the pictures that pages show."""
    return {
        (page.parent / name).resolve()
        for page in PAGES
        for pattern in (r"!\[[^]]*\]\(([^)]+)\)", r'<(?:img|source) [^>]*src(?:set)?="([^"]+)"')
        for name in re.findall(pattern, page.read_text(encoding="utf-8"))
    }


def is_made(picture: str) -> bool:
    """Say whether a script saves a picture of that name."""
    script = (ROOT / "docs" / "pictures.py").read_text(encoding="utf-8")
    named = re.findall(r"\"([\w{}-]+\.(?:png|webp))\"", script)
    patterns = [re.sub(r"{\w+}", r"\\w+", name) for name in named]
    drawn = {*GRAPHS, *(f"{path.stem}.svg" for path in DIAGRAMS.glob("*.dot"))}
    return picture in drawn or any(re.fullmatch(pattern, picture) for pattern in patterns)


def test_every_picture_comes_from_a_script() -> None:
    pictures = shown()
    assert [path for path in pictures if not is_made(path.name)] == []
    assert not is_made("other.png")
    assert {path.parent for path in pictures} == {IMAGES}
    assert pictures <= set(IMAGES.iterdir())


def test_drawings_show_what_they_are_drawn_from(tmp_path: Path) -> None:
    """Places depend on the fonts of a machine; texts, boxes and lines do not."""

    def said(path: Path) -> list[str]:
        return re.findall(r"<(?:text|title)[^>]*>(.*?)</", path.read_text(encoding="utf-8"))

    draw(tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in IMAGES.glob("*.svg"))
    for name in drawn:
        assert said(tmp_path / name) == said(IMAGES / name), f"{name}: make pictures"


# Troubleshooting


@cache
def messages() -> list[str]:
    """Return the texts in the source, "…" for what is filled in; also those of the Makefile."""
    trees = (
        ast.parse(path.read_bytes())
        for folder in ("generator", "templates")
        for path in (ROOT / folder).rglob("*.py")
    )
    return [
        *(text for tree in trees for node in ast.walk(tree) for text in _texts(node)),
        (ROOT / "Makefile").read_text(encoding="utf-8"),
    ]


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.JoinedStr):
        yield "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
        )


def quoted() -> list[str]:
    """Return what stands in the first column, in backticks."""
    cells = re.findall(r"^\| (`[^|]+`) \|", TROUBLESHOOTING, re.MULTILINE)
    return [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]


def test_there_are_messages() -> None:
    assert len(quoted()) > 40


@pytest.mark.parametrize("message", quoted())
def test_a_message_is_one_of_ours(message: str) -> None:
    """Each stands in the source, word by word."""
    words = message.removeprefix("… ").removesuffix(" …")
    assert any(words in text for text in messages())


def test_the_codes_are_those_of_problems() -> None:
    from templates.gateway.problems import KINDS

    part = TROUBLESHOOTING.partition("## Answers of the API")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", part, re.MULTILINE)
    codes = [code for row in rows for code in re.findall(r"`([^`]+)`", row)]
    assert set(codes) <= set(KINDS)
    assert len(set(codes)) == len(codes)
