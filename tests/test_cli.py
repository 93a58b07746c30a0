"""The command line: what it prints, what it returns, what it leaves alone."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from generator.cli import COMMANDS, main

from .conftest import ROOT, MakeProject

GOOD = """\
params: {color: {type: integer, default: 0}}
graph:
  1: {class_type: EmptyImage, inputs: {width: 8, height: 8, batch_size: 1, color: "${color}"}}
  2: {class_type: SaveImage, inputs: {images: [1, 0], filename_prefix: x}}
"""
BAD = GOOD.replace("${color}", "${colour}").replace("SaveImage", "SaveImages")


def run(*arguments: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "generator", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "", **more},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_teaches() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for word in ("validate", "build", "requirements", "Exit codes"):
        assert word in shown.stdout


def test_the_shipped_specs_are_clean() -> None:
    done = run("validate", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(re.findall(r": (\w+)\[([\w-]+)\] ", run("validate", "-v").stdout)) == {
        ("info", "license"),
        ("info", "no-license"),
        ("info", "unlocked"),
    }


def test_text(make_project: MakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_project({"good": GOOD, "bad": BAD})
    assert main(["validate", "--project", str(root)]) == 1
    shown = capsys.readouterr()
    file = f"{root}/workflows/bad.yaml"
    assert shown.out.splitlines() == [
        f'{file}:3:83: error[unknown-param] node "1" input "color": no param "colour"; '
        'did you mean "color"?',
        f'{file}:4:19: error[unknown-class] node "2": no class "SaveImages"; '
        'did you mean "SaveImage"?',
    ]
    assert shown.err == "2 workflows, 0 models, 0 packs: 2 errors\n"


@pytest.mark.parametrize(
    ("old", "new", "file"),
    [
        ("graph:", "outptu: 2\ngraph:", "workflows/bad.yaml"),
        ("graph:", "graph: {", "workflows/bad.yaml"),
        ("app:", "apt: [git, ffmpeg]\napps:", "gpu.yaml"),
    ],
)
def test_the_summary_says_when_more_is_to_come(
    make_project: MakeProject, old: str, new: str, file: str
) -> None:
    """While the form of a file is wrong, what it means is not checked: class and param of BAD."""
    root = make_project({"good": GOOD, "bad": BAD})
    path = root / file
    text = path.read_text()
    path.write_text(text.replace(old, new, 1))
    for command in ("validate", "build"):
        done = run(command, cwd=root)
        assert done.returncode == 1
        assert done.stderr.endswith("; more is checked once these are mended\n")
    path.write_text(text)
    for command in ("validate", "build"):
        assert run(command, cwd=root).stderr.endswith(" 2 errors\n")


def test_infos_are_counted_until_they_are_asked_for(make_project: MakeProject) -> None:
    """So that what is wrong is all that is shown; what programs read is complete."""
    models = "models: {m: {source: {hf: a/b, file: m.safetensors}, folder: vae}}\npacks: {}\n"
    root = make_project({"it": BAD}, models=models)
    done = run("validate", cwd=root)
    assert re.findall(r" (\w+)\[", done.stdout) == ["error", "error"]
    infos = "1 info (unlocked; --verbose shows it)"
    assert done.stderr == f"1 workflow, 1 model, 0 packs: 2 errors, {infos}\n"
    more = run("validate", "--verbose", cwd=root)
    assert "info[unlocked]" in more.stdout
    assert more.stderr.endswith(": 2 errors, 1 info\n")
    assert "info[" not in run("validate", "--verbose", "--quiet", cwd=root).stdout
    assert '"unlocked"' in run("validate", "--json", cwd=root).stdout
    assert "::notice" in run("validate", "--format", "github", cwd=root).stdout


def test_json(make_project: MakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_project({"bad": BAD})
    assert main(["validate", "--project", str(root), "--json"]) == 1
    [entry] = json.loads(capsys.readouterr().out)
    assert entry["file"] == f"{root}/workflows/bad.yaml"
    assert [d["code"] for d in entry["diagnostics"]] == ["unknown-param", "unknown-class"]
    assert set(entry["diagnostics"][0]) == {
        "line", "column", "severity", "code", "message", "node", "input", "hint",
    }  # fmt: skip


def test_json_of_a_clean_project(
    make_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "--project", str(make_project({"it": GOOD})), "--format=json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_github(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths are relative to where the command runs, as annotations need them."""
    monkeypatch.chdir(make_project({"it": BAD.replace("bad", "100%\\r")}))
    assert main(["validate", "--format", "github"]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("::error file=workflows/it.yaml,line=3,col=83,title=unknown-param::")


def test_nothing_is_built_of_faulty_specs(make_project: MakeProject) -> None:
    root = make_project({"it": GOOD})
    assert main(["build", "--project", str(root)]) == 0
    before = (root / "build" / "manifest.json").read_bytes()
    (root / "workflows" / "it.yaml").write_text(BAD)
    done = run("build", "--project", str(root))
    assert done.returncode == 1
    assert "nothing rendered: 2 errors" in done.stderr
    assert (root / "build" / "manifest.json").read_bytes() == before


def test_an_endpoint_is_one_file(make_project: MakeProject) -> None:
    """Adding an endpoint is one new YAML file; removing it removes what was rendered."""
    root = make_project({"one": GOOD})
    main(["build", "--project", str(root)])
    (root / "workflows" / "two-more.yaml").write_text(GOOD)
    main(["build", "--project", str(root)])
    routes = json.loads((root / "build" / "manifest.json").read_bytes())["routes"]
    assert list(routes) == ["/one", "/two-more"]
    assert (root / "build" / "handlers" / "two_more.py").exists()
    (root / "workflows" / "two-more.yaml").unlink()
    main(["build", "--project", str(root)])
    assert not (root / "build" / "handlers" / "two_more.py").exists()


def test_build_says_what_it_did(make_project: MakeProject) -> None:
    root = make_project({"it": GOOD})
    assert run("build", cwd=root).stderr == "build/ rendered: /it\n"
    assert run("build", cwd=root).stderr == "build/ is up to date: /it\n"
    (root / "workflows" / "off.yaml").write_text(f"enabled: false\n{GOOD}")
    assert run("build", cwd=root).stderr == "build/ rendered: /it /off (off)\n"


def test_build_counts_what_it_shows(make_project: MakeProject) -> None:
    """Of infos it shows none."""
    models = "models: {m: {source: {hf: a/b, file: m.safetensors}, folder: vae}}\npacks: {}\n"
    root = make_project({"it": BAD}, models=models)
    assert "info" in run("validate", "--project", str(root)).stderr
    done = run("build", "--project", str(root))
    assert done.stderr == "nothing rendered: 2 errors\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "--project", "nowhere"], "holds no project"),
        (["build", "--out", "workflows"], "holds no build of ours"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["validat"], "Did you mean 'validate'"),
        (["serve", "--port", "65536"], "65535"),
    ],
)
def test_what_cannot_run(make_project: MakeProject, arguments: list[str], message: str) -> None:
    done = run(*arguments, cwd=make_project({"it": GOOD}))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_is_needed() -> None:
    done = run()
    assert done.returncode == 2
    assert "validate" in done.stdout


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_of_every_command_teaches(option: str) -> None:
    """Each has a sentence, and says of each option what it does."""
    assert run(option).returncode == 0
    for panel in COMMANDS.values():
        for name in panel:
            shown = run(name, option)
            assert shown.returncode == 0, name
            assert f"Usage: python -m generator {name}" in shown.stdout
            described = shown.stdout.partition("╭")[0].partition(name)[2]
            assert len(described.split()) > 5, name
    assert "\033" not in shown.stdout


def on_terminal(*arguments: str, cwd: Path, **more: str) -> str:
    """Return what a command shows on a terminal, standard error included."""
    main_end, end = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "generator", *arguments],
            cwd=cwd,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "TERM": "xterm-256color", **more},
            stdin=end,
            stdout=end,
            stderr=end,
            check=False,
        )
        os.set_blocking(main_end, False)
        return os.read(main_end, 1 << 20).decode()
    finally:
        os.close(main_end)
        os.close(end)


def test_colours_on_a_terminal_alone(make_project: MakeProject) -> None:
    root = make_project({"bad": BAD})
    shown = on_terminal("validate", cwd=root)
    assert "\033[1;31merror[unknown-param]\033[0m" in shown
    plain = re.sub(r"\033\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    done = run("validate", cwd=root)
    assert plain == done.stdout + done.stderr
    assert "\033" not in on_terminal("validate", cwd=root, NO_COLOR="1")
    assert "\033" not in on_terminal("validate", "--json", cwd=root)


def test_requirements(make_project: MakeProject) -> None:
    gpu = 'app: a\npython: "3.11"\nrequirements: [fastapi==1.0, pillow==2.0]\n'
    root = make_project({"it": GOOD})
    (root / "gpu.yaml").write_text((root / "gpu.yaml").read_text() + "requirements: [a==1, b==2]\n")
    assert run("requirements", cwd=root).stdout == "a==1\nb==2\n"
    (root / "gpu.yaml").write_text(gpu)
    done = run("requirements", cwd=root)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "gpu.yaml:1:1: error[missing-key]" in done.stderr


def test_a_closed_pipe_is_no_traceback() -> None:
    script = f"{sys.executable} -m generator validate | head -1"
    done = subprocess.run(
        ["/bin/sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
