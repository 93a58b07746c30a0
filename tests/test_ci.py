"""What new projects have for CI, hooks and editors: each step is run as those who read it would."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from jsonschema import Draft7Validator
from markdown_it import MarkdownIt

from generator.cli import main
from generator.lock import Lock, LockedModel, inputs_of_images, write_lock

from .conftest import ROOT, load_and_check

STARTER: Final = ROOT / "generator" / "starter"
PAGE: Final = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
SCHEMA: Final = json.loads((ROOT / "tests/fixtures/github-workflow.schema.json").read_bytes())
SECONDS: Final = 120
# `gh` of the tests notes what it is told, and the file that it is given.
GH: Final = """\
#!/bin/sh
for last; do :; done
{ printf '%s\\n' "$@"; cat "$last"; } > "$GH_LOG"
"""


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    """A new project in git, locked, whose `make setup` has been done: .venv runs this Python."""
    folder = tmp_path / "service"
    assert main(["init", str(folder), "--quiet"]) == 0
    lock(folder)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    set_up(folder)
    return folder


def lock(folder: Path) -> None:
    checked, _ = load_and_check(folder)
    assert checked is not None
    models = {
        name: LockedModel(name, m.source, "a" * 40, 2_130_000_000, "b" * 64)
        for name, m in checked.models.models.items()
    }
    resolved = inputs_of_images(checked.settings, checked.groups)
    write_lock(Lock(models=models, resolved=resolved), folder)


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=it", "-c", "user.email=it@example.com"]
    command = ["git", *name, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "It")
    return git(folder, "rev-parse", "HEAD")


def set_up(folder: Path) -> None:
    """Do what `make setup` does, but that nothing is installed: all of it is there."""
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\ncase "$*" in "-m pip "*) exit 0;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    (folder / ".venv" / ".set-up").touch()


def workflow(folder: Path) -> dict[str, Any]:
    text = (folder / ".github/workflows/service.yml").read_text()
    # PyYAML's YAML 1.1 reads a bare `on` as true.
    found: dict[str, Any] = yaml.safe_load(text.replace("\non:", '\n"on":'))
    return found


def step(folder: Path, job: str, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does; of its variables, those that are expressions are given."""
    [found] = [one for one in workflow(folder)["jobs"][job]["steps"] if name in one.values()]
    expressions = {key for key, text in found.get("env", {}).items() if "${{" in text}
    assert expressions <= set(variables)
    assert "${{" not in found["run"], "expressions in a script are code of whoever fills them in"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_the_workflow_is_one(project: Path) -> None:
    faults = Draft7Validator(SCHEMA).iter_errors(workflow(project))
    assert [fault.message for fault in faults] == []
    assert list(Draft7Validator(SCHEMA).iter_errors({"on": "push", "jobs": {"it": {"step": []}}}))


def test_each_command_of_the_workflow_is_run_here(project: Path) -> None:
    """Every script is run below, and in tests/modal."""
    scripts = [
        (job, one.get("name", one["run"]))
        for job, about in workflow(project)["jobs"].items()
        for one in about["steps"]
        if "run" in one
    ]
    assert scripts == [
        ("check", "make setup"),
        ("check", "The specs are right"),
        ("check", "The lock fits the specs"),
        ("check", "Each endpoint answers"),
        ("plan", "make setup"),
        ("plan", "Build what it changes"),
        ("plan", "Plan"),
        ("plan", "Comment"),
        ("deploy", "make setup"),
        ("deploy", "Deploy"),
    ]


def test_secrets_are_for_the_deploy_alone(project: Path) -> None:
    """Code of a pull request is run by the other jobs."""
    found = workflow(project)
    jobs = {name: json.dumps(job) for name, job in found["jobs"].items()}
    assert [name for name, text in jobs.items() if "secrets." in text] == ["deploy"]
    assert found["permissions"] == {"contents": "read"}
    assert found["jobs"]["deploy"]["environment"] == "production"
    assert "github.event_name != 'pull_request'" in found["jobs"]["deploy"]["if"]


def test_check(project: Path) -> None:
    """It is clean for a new project; what is wrong is annotated at its place."""
    for name in ("make setup", "The specs are right", "The lock fits the specs"):
        done = step(project, "check", name)
        assert (done.returncode, "::error" in done.stdout) == (0, False), done.stderr
    done = step(project, "check", "Each endpoint answers")
    assert done.returncode == 0, done.stderr
    path = project / "workflows" / "picture.yaml"
    path.write_text(path.read_text().replace("class_type: KSampler", "class_type: KSamplr"))
    done = step(project, "check", "The specs are right")
    assert done.returncode == 1
    assert re.search(r"^::error file=workflows/picture.yaml,line=\d+,col=\d+", done.stdout, re.M)
    (project / "generator.lock").unlink()
    assert step(project, "check", "The lock fits the specs").returncode != 0


def test_plan(project: Path, tmp_path: Path) -> None:
    """The plan against the base is what the comment says; it fails when callers would be broken."""
    base = git(project, "rev-parse", "HEAD")
    path = project / "workflows" / "picture.yaml"
    path.write_text(path.read_text().replace("maximum: 60", "maximum: 30"))
    commit(project)
    assert step(project, "plan", "make setup").returncode == 0
    built = step(project, "plan", "Build what it changes", BASE=base)
    assert built.returncode == 0, built.stderr
    summary, log = tmp_path / "summary.md", tmp_path / "gh.txt"
    for allowed, code in (("0", 1), ("1", 0)):
        summary.unlink(missing_ok=True)
        done = step(
            project, "plan", "Plan", ALLOW_BREAKING=allowed, GITHUB_STEP_SUMMARY=str(summary)
        )
        assert bool(done.returncode) == bool(code), done.stderr
        assert 'param "steps": maximum 60 → 30  [breaks callers]' in summary.read_text()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gh").write_text(GH)
    (tmp_path / "bin" / "gh").chmod(0o755)
    url = "https://github.com/OWNER/service/pull/1"
    done = step(
        project,
        "plan",
        "Comment",
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        GH_TOKEN="x",
        PULL_REQUEST=url,
        GH_LOG=str(log),
    )
    assert done.returncode == 0, done.stderr
    said = log.read_text()
    assert said.startswith(f"pr\ncomment\n{url}\n--edit-last\n--create-if-none\n--body-file\n")
    assert said.endswith(summary.read_text())


def test_nothing_in_a_plan_breaks_its_comment(project: Path, tmp_path: Path) -> None:
    plan = "a\n```\n**b** <img>\n\n~~~\n# c\n"
    makefile = (project / "Makefile").read_text()
    makefile = re.sub(r"(?m)^plan:.*\n.*\n", "plan:\n\t@cat given.txt\n", makefile)
    (project / "Makefile").write_text(makefile)
    (project / "given.txt").write_text(plan)
    summary = tmp_path / "summary.md"
    done = step(project, "plan", "Plan", ALLOW_BREAKING="0", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stderr
    for text in (summary.read_text(), (project / "plan.md").read_text()):
        *words, code = MarkdownIt("commonmark").parse(text)
        assert [token.type for token in words] == ["paragraph_open", "inline", "paragraph_close"]
        assert (code.type, code.content) == ("code_block", plan)


def test_actions_of_others_are_pinned(project: Path) -> None:
    """By commit: what a tag means can be changed."""
    text = (project / ".github/workflows/service.yml").read_text()
    uses = re.findall(r"uses: (.*)", text)
    assert len(uses) == 6
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one) for one in uses)


def pre_commit(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the hooks of a folder for all that is changed, as a commit does."""
    git(folder, "add", "--all")
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", "--color", "never"],
        cwd=folder,
        env={**os.environ, "PRE_COMMIT_HOME": str(folder.parent / "pre-commit")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_the_hook(project: Path) -> None:
    """pre-commit runs it for specs, and not for other files."""
    (project / "README.md").write_text("Other words\n")
    done = pre_commit(project)
    assert (done.returncode, "Skipped" in done.stdout) == (0, True), done.stdout
    path = project / "workflows" / "picture.yaml"
    text = path.read_text()
    path.write_text(text.replace("summary: A picture", "summary: Another picture"))
    done = pre_commit(project)
    assert (done.returncode, "Passed" in done.stdout) == (0, True), done.stdout
    path.write_text(text.replace("${prompt}", "${promt}"))
    done = pre_commit(project)
    assert done.returncode == 1
    assert "error[unknown-param]" in done.stdout


def test_the_hooks_of_this_repository(project: Path) -> None:
    """As pre-commit runs them once it has installed them, which takes an index."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    for hook in hooks:
        assert hook["language"] == "python"
        hook |= {
            "language": "system",
            "entry": hook["entry"].replace("python", sys.executable, 1),
        }
    config = {"repos": [{"repo": "local", "hooks": hooks}]}
    (project / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(ROOT / "docs" / "examples" / "poster.json", project / "poster.json")
    done = pre_commit(project)
    assert re.findall(r"\.(Passed|Failed|\(no files to check\)Skipped)$", done.stdout, re.M) == [
        "Passed",
        "(no files to check)Skipped",
    ]
    (project / "poster.json").write_text('{"1": {"class_type": "SaveImag", "inputs": {}}}')
    path = project / "workflows" / "picture.yaml"
    path.write_text(path.read_text().replace("class_type: KSampler", "class_type: KSamplr"))
    done = pre_commit(project)
    assert done.returncode == 1
    assert done.stdout.count("error[unknown-class]") == 2


def test_editors_find_schemas_of_files_to_come(project: Path) -> None:
    settings = json.loads((project / ".vscode" / "settings.json").read_text())
    for schema, files in settings["yaml.schemas"].items():
        assert (project / schema).is_file()
        assert list(project.glob(files))
    assert settings["redhat.telemetry.enabled"] is False
    extensions = json.loads((project / ".vscode" / "extensions.json").read_text())
    assert extensions == {"recommendations": ["redhat.vscode-yaml"]}


def test_where_the_generator_comes_from_must_be_said_when_it_is_a_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workflow(project)["env"]["GENERATOR"].startswith("git+https://")
    monkeypatch.setattr("generator.starting.installed_from", lambda: "it @ git+https://x/it@abc")
    assert main(["init", str(tmp_path / "other"), "--quiet"]) == 0
    assert "env" not in workflow(tmp_path / "other")
    text = (tmp_path / "other" / ".github/workflows/service.yml").read_text()
    assert text == (STARTER / "service.yml").read_text()


@pytest.mark.parametrize("name", ["service.yml", "pre-commit.yaml", "settings.json"])
def test_the_page_shows_the_files(name: str) -> None:
    assert f"\n{(STARTER / name).read_text(encoding='utf-8')}```\n" in PAGE


def test_make_sets_up_from_the_address_that_is_given(project: Path) -> None:
    """GENERATOR of the workflow takes the place of what the Makefile says."""
    shutil.rmtree(project / ".venv")
    said = subprocess.run(
        ["make", "-n", "setup"],
        cwd=project,
        env={**os.environ, "GENERATOR": "git+https://github.com/OWNER/it"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (
        "pip install --quiet --disable-pip-version-check 'git+https://github.com/OWNER/it'" in said
    )


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_a_mistake_in_gpu_yaml_is_told_by_every_target(project: Path) -> None:
    """Although the set-up reads it first; once it is mended, the set-up is done to its end."""
    settings, done = project / "gpu.yaml", project / ".venv" / ".set-up"
    done.unlink()
    right = settings.read_text()
    settings.write_text(right.replace("auth: api-key", "auth: apikey"))
    for target in ("validate", "build", "plan"):
        said = make(project, target)
        assert said.returncode != 0
        assert (
            "gpu.yaml has errors; its requirements are installed once they are mended"
            in said.stderr
        )
        assert 'error[schema] "apikey" is none of api-key, proxy, none' in said.stdout
    said = make(project, "setup")
    assert said.returncode == 0
    assert re.search(r"gpu\.yaml:\d+:\d+: error\[schema\]", said.stderr)
    assert not done.exists()
    settings.write_text(right)
    said = make(project, "validate")
    assert (said.returncode, done.exists()) == (0, True)
    assert "setting up" not in make(project, "validate").stderr


def test_a_python_that_is_too_old_is_refused(project: Path) -> None:
    shutil.rmtree(project / ".venv")
    old = project / "python3.9"
    version = (
        "import sys; sys.version_info, sys.version = (3, 9, 1), '3.9.1 (main)'; exec(sys.argv[1])"
    )
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{version}" "$2"\n')
    old.chmod(0o755)
    said = make(project, "validate", f"PYTHON={old}")
    assert said.returncode == 2
    assert "this needs Python 3.11 or newer; " in said.stderr
    assert " is 3.9.1 (set PYTHON=" in said.stderr
    assert not (project / ".venv").exists()


def test_a_project_has_the_targets_that_deploy() -> None:
    """Those of the generator's own Makefile, to the letter; docs/deployment.md names them."""
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([a-z]+)", page)) - {"lock"}
    assert named == {"plan", "deploy", "status", "logs", "rollback", "stop"}
    ours, theirs = (
        {
            name: text
            for text, name in re.findall(r"^(([a-z]+): .*\n\t.*\n)", makefile, re.MULTILINE)
        }
        for makefile in ((folder / "Makefile").read_text("utf-8") for folder in (ROOT, STARTER))
    )
    assert {name: theirs.get(name) for name in named} == {name: ours[name] for name in named}
