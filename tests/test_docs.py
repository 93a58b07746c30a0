"""What README and docs say is so: their commands, their examples, their lists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from generator.cli import COMMANDS, main
from generator.diagnostics import has_errors

from .conftest import ROOT, MakeProject, load_and_check

README = (ROOT / "README.md").read_text(encoding="utf-8")
LANGUAGE = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in fences if name == language]


def test_the_language_references_python_example() -> None:
    """The command prints what the page shows under it."""
    command = next(block for block in blocks(LANGUAGE, "sh") if "build_flux_workflow" in block)
    shown = LANGUAGE.partition(command)[2].split("```")[2].strip()
    run = subprocess.run(
        ["/bin/sh", "-c", command.replace(".venv/bin/python", sys.executable)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == shown


def test_readmes_diagnostics(make_project: MakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    """The two mistakes that README shows are reported in those words, at those places."""
    flux = (ROOT / "workflows" / "flux.yaml").read_text()
    broken = flux.replace("CLIPTextEncode", "CLIPTextEncod", 1).replace("${prompt}", "${promt}")
    root = make_project({"flux": broken}, models=(ROOT / "models.yaml").read_text())
    (root / "gpu.yaml").write_text((ROOT / "gpu.yaml").read_text())
    assert main(["validate", "--quiet", "--project", str(root)]) == 1
    reported = capsys.readouterr().out.replace(f"{root}/", "")
    shown = next(block for block in blocks(README, "") if "error[unknown-class]" in block)
    for line in shown.splitlines():
        assert line in reported.splitlines()


def test_readme_links_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", document.read_text(encoding="utf-8"))
        assert [link for link in links if not (document.parent / link).exists()] == []


def test_readme_lists_the_make_targets() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"serve", "test", "plan", "deploy", "docs"} <= named
    assert named <= set(targets)
    help_text = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert [target for target in targets if f"make {target} " not in help_text] == []


def test_readme_lists_the_commands() -> None:
    """Each command once, in the groups of --help."""
    part = README.partition("## Commands\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^|]+ \| (`.+) \|$", part, re.MULTILINE)
    named = [re.findall(r"`([a-z]+)`", row) for row in rows]
    assert named == [list(commands) for commands in COMMANDS.values()]


def test_the_language_references_examples_validate(make_project: MakeProject) -> None:
    """The whole workflows that docs/workflows.md shows are clean, the patch on one too."""
    named = {
        name: block
        for block in blocks(LANGUAGE, "yaml")
        for name in re.findall(r"^# workflows/(.+)\.yaml$", block, re.MULTILINE)
    }
    assert sorted(named) == ["beside", "blank", "tint", "tint-blue"]
    _, diagnostics = load_and_check(make_project(named))
    assert diagnostics == []


def test_the_language_references_settings_validate(make_project: MakeProject) -> None:
    settings = next(block for block in blocks(LANGUAGE, "yaml") if block.startswith("app:"))
    workflow = next(block for block in blocks(LANGUAGE, "yaml") if "EmptyImage" in block)
    _, diagnostics = load_and_check(make_project({"tint": workflow}, gpu=settings))
    assert diagnostics == []


def test_the_language_references_models_validate(make_project: MakeProject) -> None:
    models = next(block for block in blocks(LANGUAGE, "yaml") if block.startswith("models:"))
    workflow = next(block for block in blocks(LANGUAGE, "yaml") if "EmptyImage" in block)
    _, diagnostics = load_and_check(make_project({"tint": workflow}, models=models))
    assert not has_errors(diagnostics)
    assert {d.code for d in diagnostics} == {"unused-model", "unused-pack", "unlocked"}


def test_docs_speak_of_every_schema_key() -> None:
    """docs/workflows.md names every key of a workflow and of a param."""
    from generator.schema import schema

    workflow = schema("workflow")
    keys = [*workflow["properties"], *workflow["definitions"]["param"]["properties"]]
    assert [key for key in keys if f"`{key}" not in LANGUAGE] == []


def test_the_codes_of_imports() -> None:
    """docs/import.md has every code that the importer gives of its own, and no other."""
    page = (ROOT / "docs" / "import.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z-]+)` \| (?:info|warning|error) \|", page, re.MULTILINE)
    source = "".join(p.read_text() for p in (ROOT / "generator" / "importer").glob("*.py"))
    given = re.findall(r"""\b(?:Note|_note)\(\s*"([a-z-]+)\"""", source)
    assert sorted(documented) == sorted(set(given))


def test_changelog_and_licence_exist() -> None:
    assert "Unreleased" in (ROOT / "CHANGELOG.md").read_text()
    assert "Apache License" in Path(ROOT / "LICENSE").read_text()
