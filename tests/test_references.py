"""docs/reference: pages made from the JSON Schemas and the OpenAPI document."""

import re
from typing import Any, get_args

import pytest

from docs.references import PAGES, Name, pages
from generator.cli import COMMANDS
from generator.schema import schema

from .conftest import ROOT


@pytest.fixture(scope="module", name="made")
def _made() -> dict[str, str]:
    return pages()


def test_the_pages_are_as_they_are_made(
    made: dict[str, str], request: pytest.FixtureRequest
) -> None:
    """`make golden` writes them anew."""
    if request.config.getoption("--update-golden"):
        for name, text in made.items():
            (PAGES / name).write_text(text, encoding="utf-8")
    assert sorted(path.name for path in PAGES.iterdir()) == sorted(made)
    for name, text in made.items():
        assert (PAGES / name).read_text(encoding="utf-8") == text, f"{name}: make golden"


@pytest.mark.parametrize("name", get_args(Name))
def test_every_key_is_told(name: Name, made: dict[str, str]) -> None:
    """Each key of the schema has a row with its description."""
    page = made[f"{name}.md"].replace("\\|", "|").replace("&lt;", "<")

    def keys(part: Any) -> list[tuple[str, str]]:
        if isinstance(part, list):
            return [one for value in part for one in keys(value)]
        if not isinstance(part, dict):
            return []
        found = part.get("properties")
        own = (
            [(key, value["description"]) for key, value in found.items() if "description" in value]
            if isinstance(found, dict)
            else []
        )
        return own + [
            one for key, value in part.items() if key != "examples" for one in keys(value)
        ]

    told = keys(schema(name))
    assert len(told) > 10
    for key, description in told:
        assert re.search(rf"^\| `{key}` \|.*{re.escape(description)}", page, re.MULTILINE), key


def test_every_route_is_told(made: dict[str, str]) -> None:
    """Each shipped endpoint, and each route about jobs, has a section; links lead to sections."""
    page = made["http.md"]
    sections = re.findall(r"^### (.+)$", page, re.MULTILINE)
    shipped = {f"POST /{path.stem}" for path in (ROOT / "workflows").glob("*.yaml")}
    assert shipped <= set(sections)
    assert {"GET /jobs/{job}", "GET /jobs/{job}/events", "GET /health"} <= set(sections)
    slugs = {re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-") for name in sections}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= slugs


def test_every_command_is_told(made: dict[str, str]) -> None:
    """Each has a section with its options, also with those of several spellings."""
    sections = re.split(r"^### ", made["commands.md"], flags=re.MULTILINE)[1:]
    told = {text.partition("\n")[0]: text for text in sections}
    assert set(told) == {name for names in COMMANDS.values() for name in names}
    assert "| `--env ENV` | Environment of the Modal workspace." in told["deploy"]
    assert "| `-q, --quiet` |" in told["validate"]
