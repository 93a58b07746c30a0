"""The commands that plan, deploy and look after what is deployed."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..check import Checked
from ..graph.words import printable, show
from ..project import load_project

if TYPE_CHECKING:
    from .modal_app import ModalApp

OK: Final = 0
FAILED: Final = 1
COULD_NOT_RUN: Final = 2

# Checks the specs, and returns the exit code and, when they can be rendered, what was checked.
Validated = Callable[[Path, argparse.Namespace], tuple[int, Checked | None]]
Add = Callable[..., argparse.ArgumentParser]


def add_commands(commands: Any, add: Add, validated: Validated) -> None:
    """Add plan, deploy, status, logs, rollback, stop and key to the command line.

    `add` adds a parser with the general options; `validated` checks the specs and reports.
    """

    parser = add(
        commands,
        "plan",
        _of_checked(validated, _plan),
        "show what the next deploy changes and costs",
        "Compares the build with what is deployed: routes and whether callers are broken, image "
        "layers, models, GPUs, scaling, costs and licences. Exit codes: 0 nothing would break, 1 "
        "callers would be broken or the specs have errors, 2 it could not be compared.",
        formats=("text", "json"),
    )
    _add_environment(parser)
    parser.add_argument(
        "--against",
        metavar="FILE",
        type=Path,
        help="a manifest.json to compare with, instead of what is deployed; Modal is not asked",
    )
    _add_allow_breaking(parser)
    parser = add(
        commands,
        "deploy",
        _of_checked(validated, _deploy),
        "deploy the app to Modal",
        "Checks, builds, shows the plan, fetches models that are missing, deploys, and waits until "
        "the new version answers. Exit codes: 0 deployed, 1 refused or failed, 2 something is "
        "missing on this machine.",
    )
    _add_environment(parser)
    _add_allow_breaking(parser)
    parser.add_argument(
        "--smoke", action="store_true", help="then send a request to each endpoint that is cheap"
    )
    _add_operations(commands, add)
    _add_upload(commands, add, validated)
    parser = add(
        commands,
        "key",
        _key,
        "make keys for callers",
        "Prints a fresh key for each name, as the Secret api-keys takes them. Nothing keeps them.",
    )
    parser.set_defaults(needs_project=False)
    parser.add_argument("names", nargs="+", metavar="NAME", help="who gets the key")


def _of_checked(
    validated: Validated, run: Callable[[Checked, Path, argparse.Namespace], int]
) -> Callable[[Path, argparse.Namespace], int]:
    """Return a command that runs once the specs are checked, and ends where they have errors."""

    def command(root: Path, options: argparse.Namespace) -> int:
        code, checked = validated(root, options)
        return code if checked is None else run(checked, root, options)

    return command


def _add_upload(commands: Any, add: Add, validated: Validated) -> None:
    parser = add(
        commands,
        "upload",
        _of_checked(validated, _upload),
        "upload a LoRA or another model file to a Volume of the app",
        "Reads the header of a safetensors file, sees whether an endpoint can use it, and uploads it. "
        "Callers may name it from then on; nothing is deployed for that. Exit codes: 0 uploaded, 1 "
        "refused, 2 something is missing on this machine.",
    )
    _add_environment(parser)
    parser.add_argument("file", metavar="FILE", type=Path, help="a .safetensors file")
    parser.add_argument("--folder", required=True, help="model folder, such as loras; case matters")
    parser.add_argument("--name", help="name in the folder (default: that of the file)")
    parser.add_argument("--volume", help="Volume of gpu.yaml (default: the one for uploads)")
    parser.add_argument("--force", action="store_true", help="replace a file of that name")
    parser.add_argument(
        "--any-family", action="store_true", help="upload it though no endpoint can use it"
    )


def _upload(checked: Checked, root: Path, options: argparse.Namespace) -> int:
    from .deploy import token_step
    from .modal_app import ModalApp, ModalError, has_token
    from .upload import UploadError, checked_upload, send

    try:
        found = checked_upload(
            checked,
            options.file,
            options.folder,
            name=options.name,
            volume=options.volume,
            any_family=options.any_family,
        )
        if not options.quiet:
            for fit in found.fits:
                sys.stderr.write(f"{fit.workflow.route}: {fit.misfit or 'can use it'}\n")
            sys.stderr.write(f"{options.file}: family {found.family}\n")
        if not has_token():
            return _refuse([token_step(checked.settings, options.env)])
        app = ModalApp(checked.settings.app, options.env)
        send(found, app, root, force=options.force)
    except UploadError as error:
        _refuse([str(error)])
        return FAILED
    except ModalError as error:
        return _refuse([str(error)])
    if not options.quiet:
        sys.stderr.write(f"{found.path} is on the Volume {found.volume}, for the next request\n")
    return OK


def _add_environment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--env",
        metavar="ENV",
        type=_environment,
        help="environment of the Modal workspace (default: the one that Modal takes by itself)",
    )


def _add_allow_breaking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-breaking", action="store_true", help="go on though callers would be broken"
    )


def _environment(text: str) -> str | None:
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of an environment")
    return text or None


def _plan(checked: Checked, root: Path, options: argparse.Namespace) -> int:
    from templates.utils.downloads import VERIFIED

    from ..render import render
    from ..spec import CACHE_VOLUME
    from .deploy import plan_of, token_step, uses_colour
    from .manifest import ManifestError, read_manifest
    from .modal_app import ModalApp, ModalError, has_token
    from .recorded import RecordError
    from .report import as_table

    if options.against is None and not has_token():
        step = token_step(checked.settings, options.env)
        return _refuse([step], "or compare with a file: --against manifest.json")
    try:
        app = ModalApp(checked.settings.app, options.env)
        deployed = read_manifest(options.against) if options.against else app.manifest()
        there = None if options.against else app.files(CACHE_VOLUME, VERIFIED)
        found = plan_of(checked, render(checked), root, deployed, options.env, there)
    except (ManifestError, ModalError, RecordError) as error:
        return _refuse([str(error)])
    if options.format == "json":
        sys.stdout.write(json.dumps(found.document(), indent=2) + "\n")
    else:
        sys.stdout.write(as_table(found, colour=uses_colour(sys.stdout)))
    return FAILED if found.breaking and not options.allow_breaking else OK


def _deploy(checked: Checked, root: Path, options: argparse.Namespace) -> int:
    from ..publish import PublishError, publish
    from ..python_format import FormatError
    from ..render import render
    from .deploy import DeployError, Options, deploy, missing_steps

    if steps := missing_steps(checked, options.env, smoke=options.smoke):
        return _refuse(steps, "nothing was changed")
    how = Options(options.env, allow_breaking=options.allow_breaking, smoke=options.smoke)
    try:
        files = render(checked)
        publish(files, root / "build")
        deploy(checked, files, root, how)
    except (FormatError, PublishError) as error:
        return _refuse([str(error)])
    except DeployError as error:
        _refuse([str(error)])
        return FAILED
    return OK


def _add_operations(commands: Any, add: Add) -> None:
    """Add the commands that look after what is deployed."""
    parser = add(
        commands,
        "status",
        _status,
        "say what is deployed, and how it is",
        "Says where the app answers, which version that is, how its workers are, and which "
        "versions were deployed before. What differs from the specs says: plan.",
    )
    _add_environment(parser)
    parser = add(
        commands,
        "logs",
        _logs,
        "show the log of the deployed app",
        "Shows the last entries of the log; with --follow it goes on until Ctrl-C.",
    )
    _add_environment(parser)
    parser.add_argument("--follow", action="store_true", help="go on with what comes")
    parser = add(
        commands,
        "rollback",
        _rollback,
        "deploy the version before again",
        "Asks Modal for the version before, or the given one. That needs a paid plan of Modal; "
        "without one, check the older specs out and deploy them.",
    )
    _add_environment(parser)
    parser.add_argument("version", nargs="?", metavar="VERSION", help="such as v3; see status")
    parser = add(
        commands,
        "stop",
        _stop,
        "stop the deployed app",
        "Stops the app and its containers. Volumes, with their models, and Secrets stay.",
    )
    _add_environment(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask whether that is meant")


def _status(root: Path, options: argparse.Namespace) -> int:
    from .modal_app import ModalError
    from .service import ServiceFault, health

    app, code = _deployed_app(root, options)
    if app is None:
        return code
    try:
        url = app.url()
        found = health(url)
    except (ModalError, ServiceFault) as error:
        return _refuse([str(error)])
    sys.stdout.write(f"{app.name}{app.where}: {url}\n")
    sys.stdout.write(f"  spec {printable(str(found['spec'])[:12])}, ComfyUI ")
    sys.stdout.write(f"{printable(str(found.get('comfyui')))}\n")
    for worker in found.get("workers", ()):
        about = ", ".join(f"{key} {show(value)}" for key, value in worker.items() if value)
        sys.stdout.write(f"  worker: {about}\n")
    sys.stdout.flush()
    return app.run(root, "app", "history", app.name)


def _logs(root: Path, options: argparse.Namespace) -> int:
    app, code = _deployed_app(root, options)
    if app is None:
        return code
    follow = ("--follow",) if options.follow else ()
    return app.run(root, "app", "logs", app.name, "--timestamps", *follow)


def _rollback(root: Path, options: argparse.Namespace) -> int:
    app, code = _deployed_app(root, options)
    if app is None:
        return code
    version = (options.version,) if options.version else ()
    code = app.run(root, "app", "rollback", app.name, *version)
    if code:
        _refuse(
            [
                "nothing was rolled back: see above. Modal rolls back on paid plans alone; without "
                "one, check the older specs out and deploy them: make deploy"
            ]
        )
    return code


def _stop(root: Path, options: argparse.Namespace) -> int:
    app, code = _deployed_app(root, options)
    if app is None:
        return code
    yes = ("--yes",) if options.yes else ()
    return app.run(root, "app", "stop", app.name, *yes)


def _key(root: Path, options: argparse.Namespace) -> int:  # noqa: ARG001
    from .keys import new_keys

    try:
        keys = new_keys(options.names)
    except ValueError as error:
        return _refuse([str(error)])
    sys.stdout.write(f"{keys}\n")
    if not options.quiet:
        sys.stderr.write(
            "Modal keeps them in the Secret api-keys, all in one; add those that work already:\n"
            "  modal secret create api-keys --force API_KEYS=…\n"
            "then make deploy. This is the only time that they are shown.\n"
        )
    return OK


def _deployed_app(root: Path, options: argparse.Namespace) -> "tuple[ModalApp | None, int]":
    """Return the app that gpu.yaml names, or None and the exit code when Modal cannot be asked."""
    from .deploy import token_step
    from .modal_app import ModalApp, has_token

    project, _ = load_project(root)
    settings = project.settings
    if settings is None:
        return None, _refuse(["gpu.yaml has errors: make validate"])
    if not has_token():
        return None, _refuse([token_step(settings, options.env)])
    return ModalApp(settings.app, options.env), OK


def _refuse(faults: Sequence[str], note: str = "") -> int:
    sys.stderr.write("".join(f"error: {fault}\n" for fault in faults) + (note and f"{note}\n"))
    return COULD_NOT_RUN
