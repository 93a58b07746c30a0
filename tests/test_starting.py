"""init and new: what they write is a project that works, and nothing that is there is lost."""

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from generator.cli import main
from generator.starting import EXAMPLES, installed_from

from .api_client import engine
from .conftest import ROOT


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def validate(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what validate says of a project in which nothing is wrong or left over."""
    assert main(["validate", "--project", str(folder)]) == 0
    said = capsys.readouterr()
    assert "warning[" not in said.out
    return said.err


def test_a_new_project_passes_validate_build_and_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "My Pictures"
    assert main(["init", str(folder)]) == 0
    assert f"cd '{folder}' && make serve" in capsys.readouterr().err
    assert validate(folder, capsys).startswith("1 workflow, 1 model, 0 packs: ")
    assert main(["build", "--quiet", "--project", str(folder)]) == 0
    assert yaml.safe_load((folder / "gpu.yaml").read_text())["app"] == "my-pictures"
    assert main(["test", "--project", str(folder)]) == 0
    said = capsys.readouterr().err
    assert "ok    /picture: image/png, " in said
    assert said.endswith("1 endpoint answered, 0 failed\n")


def test_a_folder_with_a_long_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The names of the app and its Volume are as long as Modal takes them."""
    folder = tmp_path / ("long-" * 20)
    assert main(["init", str(folder), "--quiet"]) == 0
    validate(folder, capsys)


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("été", "ete"),
        ("e\u0301te\u0301", "ete"),
        ("Grøn Straße", "gron-strasse"),
        ("Œuvre_2", "oeuvre-2"),
        ("日本", "comfyui"),
        ("-x", "x"),
    ],
)
def test_the_name_of_the_app(
    name: str, app: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / name)]) == 0
    assert f'its app is "{app}"' in capsys.readouterr().err
    assert yaml.safe_load((tmp_path / name / "gpu.yaml").read_text())["app"] == app
    validate(tmp_path / name, capsys)


@pytest.fixture(name="python3")
def _python3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first python3 on the PATH: this Python, until another is written there."""
    path = tmp_path / "bin" / "python3"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")
    return path


def test_a_python_is_named_where_the_one_on_the_path_is_too_old(
    python3: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["init", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().err.endswith(f"cd {tmp_path}/new && make serve\n")
    old = "import sys; sys.version_info = (3, 10, 9); exec(sys.argv[1])"
    python3.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{old}" "$2"\n')
    assert main(["init", str(tmp_path / "old")]) == 0
    assert capsys.readouterr().err.endswith(f" && make serve PYTHON={sys.executable}\n")
    python3.unlink()
    monkeypatch.setenv("PATH", str(python3.parent))
    assert main(["init", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().err.endswith(f" && make serve PYTHON={sys.executable}\n")


@pytest.mark.parametrize("name", ["-x", "--", "a b", "it's", "$HOME"])
def test_what_is_printed_can_be_pasted(
    name: str,
    tmp_path: Path,
    python3: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", "/no/my python")
    python3.write_text("#!/bin/sh\nexit 1\n")
    assert main(["init", "--", name]) == 0
    command = capsys.readouterr().err.splitlines()[-1].replace("make serve", "make -n serve")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'/no/my python' -m venv" in done.stdout.replace('"', "'")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_comes_with_its_models_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "it"), "--example", name, "--quiet"]) == 0
    validate(tmp_path / "it", capsys)
    assert f"workflows/{name}.yaml" in written(tmp_path / "it")
    assert main(["build", "--quiet", "--project", str(tmp_path / "it")]) == 0


@pytest.mark.parametrize(("name", "is_gated"), [(None, False), ("wan2", False), ("flux-dev", True)])
def test_the_token_of_hugging_face_is_asked_for_where_a_model_is_gated(
    name: str | None, is_gated: bool, tmp_path: Path
) -> None:
    """Elsewhere gpu.yaml has a comment, which is right as it is without its mark."""
    example = ["--example", name] if name else []
    assert main(["init", str(tmp_path), *example, "--quiet"]) == 0
    assert main(["build", "--quiet", "--project", str(tmp_path)]) == 0
    app = (tmp_path / "build" / "app.py").read_text()
    assert ('modal.Secret.from_name("huggingface"' in app) is is_gated
    assert 'modal.Secret.from_name("api-keys"' in app
    settings = (tmp_path / "gpu.yaml").read_text()
    assert ("  # huggingface: [HF_TOKEN]\n" in settings) is not is_gated
    both = yaml.safe_load(settings.replace("# huggingface:", "huggingface:"))["secrets"]
    assert both == {"huggingface": ["HF_TOKEN"], "api-keys": ["API_KEYS"]}


def test_an_example_is_served_and_passes_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["init", str(tmp_path / "it"), "--example", "flux", "--quiet"])
    assert main(["test", "--project", str(tmp_path / "it")]) == 0
    assert "ok    /flux: image/png, " in capsys.readouterr().err


def test_every_shipped_workflow_is_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(EXAMPLES) == sorted(path.stem for path in (ROOT / "workflows").glob("*.yaml"))
    assert main(["init", "--help"]) == 0
    words = " ".join(re.findall(r"[\w-]+", capsys.readouterr().out))
    assert f"one of our workflows {' '.join(EXAMPLES[:-1])} or {EXAMPLES[-1]}" in words


@pytest.fixture(name="clone")
def _clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where somebody changes what comes with the generator."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "workflows", folder / "workflows")
    for name in ("gpu.yaml", "models.yaml"):
        shutil.copy(ROOT / name, folder)
    monkeypatch.setattr("generator.starting._EXAMPLES", folder)
    return folder


def test_workflows_of_a_clone_are_no_examples(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(clone / "workflows" / "flux.yaml", clone / "workflows" / "poster.yaml")
    assert main(["init", str(tmp_path / "it"), "--example", "poster"]) == 2
    said = capsys.readouterr().err
    assert f'there is no example "poster"; there are {", ".join(EXAMPLES)}\n' in said


def test_examples_of_a_clone_that_have_errors(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = clone / "gpu.yaml"
    settings.write_text(settings.read_text().replace("auth: api-key", "auth: apikey"))
    assert main(["init", str(tmp_path / "it"), "--example", "flux"]) == 2
    assert f"the specs in {clone} have errors: " in capsys.readouterr().err
    assert not (tmp_path / "it").exists()


def test_settings_of_a_clone_that_cannot_be_read(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clone / "gpu.yaml").write_text("app: [x\n")
    assert main(["init", str(tmp_path / "it")]) == 2
    assert f"the specs in {clone} have errors: " in capsys.readouterr().err
    assert not (tmp_path / "it").exists()


def test_editors_find_the_schemas(tmp_path: Path) -> None:
    main(["init", str(tmp_path), "--quiet"])
    main(["new", "more", "--project", str(tmp_path), "--quiet"])
    for path in [*tmp_path.glob("[!.]*.yaml"), *tmp_path.glob("workflows/*.yaml")]:
        _, _, schema = path.read_text().partition("\n")[0].partition("$schema=")
        assert (path.parent / schema).resolve().parent == tmp_path / "schemas", path
        assert (path.parent / schema).is_file()


def test_what_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "has files already that a new project has: README.md" in capsys.readouterr().err
    assert written(tmp_path) == {"README.md"}


def test_test_takes_the_names_of_workflows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "it"
    main(["init", str(root), "--quiet"])
    for name in ("one", "two"):
        main(["new", name, "--project", str(root), "--quiet"])
    assert main(["test", "two", "one", "--project", str(root)]) == 0
    said = capsys.readouterr().err
    assert re.findall(r"ok    (/\w+)", said) == ["/one", "/two"]
    assert said.endswith("2 endpoints answered, 0 failed\n")
    assert main(["test", "tow", "one", "pictures", "--project", str(root)]) == 2
    said = capsys.readouterr().err
    assert 'there is no workflow "tow"; did you mean "two"?' in said
    assert 'there is no workflow "pictures"; did you mean "picture"?' in said


def test_an_unknown_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "it"), "--example", "flus"]) == 2
    assert 'there is no example "flus"; did you mean "flux"?' in capsys.readouterr().err
    assert not (tmp_path / "it").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file" / "it")]) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_a_new_workflow_is_valid_and_says_where_it_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["init", str(tmp_path), "--quiet"])
    assert main(["new", "poster", "--project", str(tmp_path)]) == 0
    assert 'answers at "/poster"' in capsys.readouterr().err
    assert main(["new", "wide", "--extends", "picture", "--project", str(tmp_path)]) == 0
    validate(tmp_path, capsys)
    assert (
        yaml.safe_load((tmp_path / "workflows" / "wide.yaml").read_text())["extends"] == "picture"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["picture"], "picture.yaml is there already"),
        (["../../evil"], "is no name of a workflow"),
        (["Poster"], "is no name of a workflow"),
        (["health"], "/health is a route of the service itself"),
        (["x", "--extends", "pictur"], 'did you mean "picture"?'),
    ],
)
def test_what_no_workflow_can_be(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["init", str(tmp_path), "--quiet"])
    before = written(tmp_path)
    assert main(["new", *arguments, "--project", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert written(tmp_path) == before


def test_the_makefile_runs_the_commands(tmp_path: Path) -> None:
    """But for its set-up, which installs the generator: that is taken from where this one is."""
    main(["init", str(tmp_path), "--quiet"])
    assert installed_from() in (tmp_path / "Makefile").read_text()
    options = ["-o", ".venv/.set-up", f"RUN={sys.executable}"]
    for target in ("help", "validate", "build"):
        done = subprocess.run(
            ["make", "-s", "-C", str(tmp_path), *options, target],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "build" / "api.py").is_file()


def test_test_tells_what_it_left_out_and_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On an engine without the model that the project declares."""
    root = tmp_path / "it"
    main(["init", str(root), "--quiet"])
    path = root / "workflows" / "picture.yaml"
    (root / "workflows" / "silent.yaml").write_text(
        re.sub("    examples: .*\n", "", path.read_text())
    )
    main(["new", "off", "--project", str(root), "--quiet"])
    with (root / "workflows" / "off.yaml").open("a") as off:
        off.write("enabled: false\n")

    async def run() -> int:
        async with engine(tmp_path / "engine", models=()) as (_, url):
            command = ["test", "--project", str(root), "--comfyui-url", url]
            return await asyncio.to_thread(main, command)

    assert asyncio.run(run()) == 1
    said = capsys.readouterr().err
    assert "left  /off: it is off" in said
    assert "left  /silent: a param that it requires has no example" in said
    assert "error: POST /picture: " in said
    assert said.endswith("0 endpoints answered, 1 failed\n")
