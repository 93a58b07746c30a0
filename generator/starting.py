"""New projects and new workflows: what their files say at first."""

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from importlib import resources
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from shlex import quote
from typing import Final

import yaml

from .check import check
from .check.names import RESERVED_ROUTES
from .edit import EditError, Editor
from .graph.words import show
from .names import WORKFLOW_NAME, no_such
from .project import load_project
from .spec import CACHE_VOLUME, Models

# What comes with the generator; people who work in a clone have workflows of their own beside them.
EXAMPLES: Final = (
    "flux",
    "flux-dev",
    "flux-lora",
    "flux-instantid",
    "wan2",
    "seedvr2",
    "workflow",
)
_PACKAGE: Final = "comfyui-modal-generator"
_HERE: Final = Path(__file__).parent
# Beside the package in a clone, in it where it is installed.
_EXAMPLES: Final = _HERE / "examples" if (_HERE / "examples").is_dir() else _HERE.parent
# Its Volume has the name with -models behind it, and Modal takes 64 characters.
_LONGEST_APP: Final = 57
# Such as LATIN SMALL LETTER E WITH ACUTE.
_LATIN: Final = re.compile(r"LATIN SMALL (?:LETTER|LIGATURE) ([A-Z]{1,2})(?: WITH |$)")
_TOKEN: Final = re.compile(r"^( +)(huggingface: \[HF_TOKEN\])$", re.MULTILINE)
_WHEN_GATED: Final = (
    "# Once a model is gated; first: modal secret create huggingface HF_TOKEN=hf_TOKEN"
)
_SCHEMA: Final = re.compile(r"^(# yaml-language-server: \$schema=).*$", re.MULTILINE)


class StartError(ValueError):
    """Nothing can be started so; the text says why."""


def new_project(folder: Path, example: str | None = None) -> dict[Path, str]:
    """Return the files of a new project with one endpoint: an example of ours, or a small one.

    Raises:
        StartError: when the folder has files of that name, there is no such example, or specs that
            are copied have errors.
    """
    app = app_name(folder)
    specs = _example(example) if example else _small()
    models = yaml.safe_load(specs["models.yaml"])["models"]
    files = {
        "gpu.yaml": _settings(app, gated=any(model.get("gated") for model in models.values())),
        "Makefile": _starter("Makefile").replace("@GENERATOR@", installed_from()),
        "README.md": _starter("README.md").replace("@APP@", app),
        ".gitignore": _starter("gitignore"),
        ".github/workflows/service.yml": _workflow_file(),
        ".pre-commit-config.yaml": _starter("pre-commit.yaml"),
        ".vscode/extensions.json": _starter("extensions.json"),
        ".vscode/settings.json": _starter("settings.json"),
        **{
            f"schemas/{name}.schema.json": (_HERE / "schemas" / f"{name}.schema.json").read_text(
                "utf-8"
            )
            for name in ("gpu", "models", "workflow")
        },
        **specs,
    }
    if taken := sorted(name for name in files if (folder / name).exists()):
        raise StartError(f"{folder} has files already that a new project has: {', '.join(taken)}")
    return {folder / name: text for name, text in files.items()}


def app_name(folder: Path) -> str:
    """Return the name of the app of a new project: its folder's, as far as Modal takes it."""
    name = unicodedata.normalize("NFKC", folder.resolve().name).casefold()
    app = re.sub(r"[^a-z0-9]+", "-", "".join(map(_in_ascii, name))).strip("-")
    return app[:_LONGEST_APP].rstrip("-") or "comfyui"


def _in_ascii(character: str) -> str:
    """Return the letters that a Latin letter is made of: é is e, œ is oe; others stay."""
    found = _LATIN.match(unicodedata.name(character, ""))
    return found[1].lower() if found else character


def new_workflow(root: Path, name: str, base: str | None = None) -> dict[Path, str]:
    """Return the file of a new workflow: a small one, or one that extends another.

    Raises:
        StartError: when the name is none for a workflow, or taken, or there is no such base.
    """
    if not WORKFLOW_NAME.fullmatch(name):
        raise StartError(
            f"{show(name)} is no name of a workflow: lower-case letters and digits, with - or _ "
            "between them"
        )
    if name in RESERVED_ROUTES:
        raise StartError(f"/{name} is a route of the service itself: choose another name")
    path = root / "workflows" / f"{name}.yaml"
    if path.exists():
        raise StartError(f"{path} is there already")
    text = _starter("workflow.yaml")
    if base is not None:
        project, _ = load_project(root)
        if base not in project.workflows:
            raise StartError(no_such("workflow", base, project.workflows))
        first = text.partition("\n")[0]
        text = (
            f"{first}\n"
            f"# What is not written here is that of workflows/{base}.yaml; null takes a key away.\n"
            f"extends: {base}\n"
            f"summary: {json.dumps(f'As {base}, with other defaults')}\n"
        )
    if not (root / "schemas").is_dir():
        text = _SCHEMA.sub(r"\g<1>../generator/schemas/workflow.schema.json", text)
    return {path: text}


def installed_from() -> str:
    """Return what pip installs to have this generator: a folder, a git URL, or a version.

    Source: direct_url.json, https://packaging.python.org/specifications/direct-url/
    """
    try:
        about = distribution(_PACKAGE)
    except PackageNotFoundError:
        return _PACKAGE
    text = about.read_text("direct_url.json")
    if text is None:
        return f"{_PACKAGE}=={about.version}"
    origin = json.loads(text)
    git = origin.get("vcs_info")
    where = f"{git['vcs']}+{origin['url']}@{git['commit_id']}" if git else origin["url"]
    return f"{_PACKAGE} @ {where}"


def _workflow_file() -> str:
    """Return the workflow for GitHub, which says where the generator is when that is a folder."""
    text = _starter("service.yml")
    if "@ file:" not in installed_from():
        return text
    return text.replace(
        "\njobs:\n",
        "\nenv:\n"
        "  # TODO: the Makefile has a folder of your machine; say where GitHub gets the generator.\n"
        "  GENERATOR: git+https://github.com/OWNER/comfyui-modal-generator\n"
        "\njobs:\n",
        1,
    )


def _starter(name: str) -> str:
    return (resources.files(__package__) / "starter" / name).read_text("utf-8")


def _settings(app: str, *, gated: bool) -> str:
    """Return our gpu.yaml for an app; its Secret for gated models is a comment where there are none.

    Raises:
        StartError: when ours, which people who work in a clone change, has errors.
    """
    text = (_EXAMPLES / "gpu.yaml").read_text("utf-8")
    try:
        editor = Editor(_at(text, "schemas/gpu.schema.json"), "gpu.yaml")
        editor.set(("app",), app)
        editor.set(("volumes",), {f"{app}-models": "/root/models", CACHE_VOLUME: "/cache"})
        text = editor.result()
    except EditError as error:
        raise _has_errors() from error
    return text if gated else _TOKEN.sub(rf"\1{_WHEN_GATED}\n\1# \2", text)


def _has_errors() -> StartError:
    return StartError(
        f"the specs in {_EXAMPLES} have errors: python -m generator validate --project "
        f"{quote(str(_EXAMPLES))} says which"
    )


def _small() -> Mapping[str, str]:
    return {
        "models.yaml": _starter("models.yaml"),
        "workflows/picture.yaml": _starter("picture.yaml"),
    }


def _example(name: str) -> Mapping[str, str]:
    """Return the files of one of our workflows: what it extends too, its models and packs alone."""
    if name not in EXAMPLES:
        raise StartError(no_such("example", name, EXAMPLES))
    project, _ = load_project(_EXAMPLES)
    checked, _ = check(project)
    if checked is None or name not in project.workflows:
        raise _has_errors()
    names = [name]
    while base := project.workflows[names[-1]].extends:
        names.append(base)
    uses = [one.uses for one in checked.workflows if one.workflow.name in names]
    models = {model for use in uses for model in use.models}
    packs = {pack for use in uses for pack in use.packs}
    files = {
        f"workflows/{one}.yaml": (_EXAMPLES / "workflows" / f"{one}.yaml").read_text("utf-8")
        for one in names
    }
    return {
        "models.yaml": _models(checked.models, models, packs),
        **{n: _at(text, "../schemas/workflow.schema.json") for n, text in files.items()},
    }


def _models(known: Models, models: Collection[str], packs: Collection[str]) -> str:
    """Return our models.yaml with some of its models and packs alone."""
    text = _at((_EXAMPLES / "models.yaml").read_text("utf-8"), "schemas/models.schema.json")
    if not models and not packs:
        return text.partition("\n")[0] + "\nmodels: {}\n"
    editor = Editor(text, "models.yaml")
    _keep(editor, "models", known.models, models)
    _keep(editor, "packs", known.packs, packs)
    return editor.result()


def _keep(editor: Editor, key: str, known: Collection[str], kept: Collection[str]) -> None:
    if known and not kept:
        editor.remove((key,))
        return
    for name in known:
        if name not in kept:
            editor.remove((key, name))


def _at(text: str, schema: str) -> str:
    return _SCHEMA.sub(rf"\g<1>{schema}", text)
