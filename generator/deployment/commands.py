"""The commands that plan, deploy and look after what is deployed."""

import json as json_module
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..commands.specs import checked_project
from ..console import (
    CLEAN,
    FAULTS,
    HERE,
    CouldNotRunError,
    Format,
    FormatOption,
    Json,
    Project,
    Quiet,
    Shown,
    has_colour,
    program,
)
from ..graph.words import printable, show
from ..project import load_project

if TYPE_CHECKING:
    from .modal_app import ModalApp


class PlanFormat(StrEnum):
    """How a plan is shown."""

    TEXT = "text"
    JSON = "json"


def _environment(text: str | None) -> str | None:
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise typer.BadParameter(f"{text!r} is no name of an environment")
    return text or None


Environment = Annotated[
    str | None,
    typer.Option(
        "--env",
        metavar="ENV",
        callback=_environment,
        help="Environment of the Modal workspace.",
        show_default="the one that Modal takes by itself",
    ),
]
AllowBreaking = Annotated[
    bool, typer.Option("--allow-breaking", help="Go on though callers would be broken.")
]


def plan(
    project: Project = HERE,
    env: Environment = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A manifest.json to compare with, instead of what is deployed; Modal is not asked.",
        ),
    ] = None,
    allow_breaking: AllowBreaking = False,
    format: Annotated[
        PlanFormat, typer.Option("--format", help="How the plan is shown.")
    ] = PlanFormat.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Show what the next deploy changes and costs.

    Compares the build with what is deployed: routes and whether callers are broken, image layers,
    models, GPUs, scaling, costs and licences. Exit codes: 0 nothing would break, 1 callers would
    be broken or the specs have errors, 2 it could not be compared.
    """
    from templates.utils.downloads import VERIFIED

    from ..render import render
    from ..spec import CACHE_VOLUME
    from .deploy import plan_of, token_step
    from .manifest import ManifestError, read_manifest
    from .modal_app import ModalApp, ModalError, has_token
    from .recorded import RecordError
    from .report import as_table

    is_json = json or format is PlanFormat.JSON
    shown = Shown(Format.JSON if is_json else Format.TEXT, quiet)
    code, checked = checked_project(project, shown)
    if checked is None:
        return code
    if against is None and not has_token():
        raise CouldNotRunError(
            token_step(checked.settings, env),
            note="or compare with a file: make plan AGAINST=manifest.json "
            "(--against manifest.json of this command)",
        )
    try:
        app = ModalApp(checked.settings.app, env)
        deployed = read_manifest(against) if against else app.manifest()
        there = None if against else app.files(CACHE_VOLUME, VERIFIED)
        found = plan_of(checked, render(checked), project, deployed, env, there)
    except (ManifestError, ModalError, RecordError) as error:
        raise CouldNotRunError(str(error)) from error
    if is_json:
        sys.stdout.write(json_module.dumps(found.document(), indent=2) + "\n")
    else:
        sys.stdout.write(as_table(found, colour=has_colour(sys.stdout)))
    return FAULTS if found.breaking and not allow_breaking else CLEAN


def deploy(
    project: Project = HERE,
    env: Environment = None,
    allow_breaking: AllowBreaking = False,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Then send a request to each endpoint that is cheap."),
    ] = False,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Deploy the app to Modal.

    Checks, builds, shows the plan, fetches models that are missing, deploys, and waits until the
    new version answers. Exit codes: 0 deployed, 1 refused or failed, 2 something is missing on
    this machine.
    """
    from ..publish import PublishError, publish
    from ..python_format import FormatError
    from ..render import render
    from .deploy import DeployError, Options, missing_steps
    from .deploy import deploy as deploy_app

    code, checked = checked_project(project, Shown.of(format, json, quiet))
    if checked is None:
        return code
    if steps := missing_steps(checked, env, smoke=smoke):
        raise CouldNotRunError(*steps, note="nothing was changed")
    how = Options(env, allow_breaking=allow_breaking, smoke=smoke)
    try:
        files = render(checked)
        publish(files, project / "build")
        deploy_app(checked, files, project, how)
    except (FormatError, PublishError) as error:
        raise CouldNotRunError(str(error)) from error
    except DeployError as error:
        raise CouldNotRunError(str(error), code=FAULTS) from error
    return CLEAN


def upload(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file.")],
    folder: Annotated[
        str, typer.Option(metavar="FOLDER", help="Model folder, such as loras; case matters.")
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name in the folder.", show_default="that of the file"),
    ] = None,
    volume: Annotated[
        str | None,
        typer.Option(
            metavar="VOLUME", help="Volume of gpu.yaml.", show_default="the one for uploads"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
    any_family: Annotated[
        bool, typer.Option("--any-family", help="Upload it though no endpoint can use it.")
    ] = False,
    project: Project = HERE,
    env: Environment = None,
    format: FormatOption = Format.TEXT,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Upload a LoRA or another model file to a Volume of the app.

    Reads the header of a safetensors file, sees whether an endpoint can use it, and uploads it.
    Callers may name it from then on; nothing is deployed for that. Exit codes: 0 uploaded, 1
    refused, 2 something is missing on this machine.
    """
    from .deploy import token_step
    from .modal_app import ModalApp, ModalError, has_token
    from .upload import UploadError, checked_upload, send

    shown = Shown.of(format, json, quiet)
    code, checked = checked_project(project, shown)
    if checked is None:
        return code
    try:
        found = checked_upload(
            checked, file, folder, name=name, volume=volume, any_family=any_family
        )
        for fit in found.fits:
            shown.say(f"{fit.workflow.route}: {fit.misfit or 'can use it'}")
        shown.say(f"{file}: family {found.family}")
        if not has_token():
            raise CouldNotRunError(token_step(checked.settings, env))
        send(found, ModalApp(checked.settings.app, env), project, force=force)
    except UploadError as error:
        raise CouldNotRunError(str(error), code=FAULTS) from error
    except ModalError as error:
        raise CouldNotRunError(str(error)) from error
    shown.say(f"{found.path} is on the Volume {found.volume}, for the next request")
    return CLEAN


def status(project: Project = HERE, env: Environment = None) -> int:
    """Say what is deployed, and how it is.

    Says where the app answers, which version that is, how its workers are, and which versions
    were deployed before. For what differs from the specs there is plan.
    """
    from .modal_app import ModalError
    from .service import ServiceFault, health

    app = _deployed_app(project, env)
    try:
        url = app.url()
        found = health(url)
    except (ModalError, ServiceFault) as error:
        raise CouldNotRunError(str(error)) from error
    sys.stdout.write(f"{app.name}{app.where}: {url}\n")
    sys.stdout.write(f"  spec {printable(str(found['spec'])[:12])}, ComfyUI ")
    sys.stdout.write(f"{printable(str(found.get('comfyui')))}\n")
    for worker in found.get("workers", ()):
        about = ", ".join(f"{key} {show(value)}" for key, value in worker.items() if value)
        sys.stdout.write(f"  worker: {about}\n")
    sys.stdout.flush()
    return app.run(project, "app", "history", app.name)


def logs(
    project: Project = HERE,
    env: Environment = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes.")] = False,
) -> int:
    """Show the log of the deployed app: the last entries; with --follow until Ctrl-C."""
    app = _deployed_app(project, env)
    more = ("--follow",) if follow else ()
    return app.run(project, "app", "logs", app.name, "--timestamps", *more)


def rollback(
    version: Annotated[
        str | None,
        typer.Argument(metavar="VERSION", help="Such as v3; see status.", show_default=False),
    ] = None,
    project: Project = HERE,
    env: Environment = None,
) -> int:
    """Deploy the version before again, or the given one.

    That needs a paid plan of Modal; without one, check the older specs out and deploy them.
    """
    app = _deployed_app(project, env)
    code = app.run(project, "app", "rollback", app.name, *((version,) if version else ()))
    if code:
        raise CouldNotRunError(
            "nothing was rolled back: see above. Modal rolls back on paid plans alone; without "
            "one, check the older specs out and deploy them: make deploy",
            code=code,
        )
    return code


def stop(
    project: Project = HERE,
    env: Environment = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether that is meant.")] = False,
) -> int:
    """Stop the deployed app and its containers. Volumes, with their models, and Secrets stay."""
    app = _deployed_app(project, env)
    return app.run(project, "app", "stop", app.name, *(("--yes",) if yes else ()))


def key(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Who gets the key.")],
    quiet: Quiet = False,
) -> int:
    """Make keys for callers.

    Prints a fresh key for each name, as the Secret api-keys takes them. Nothing keeps them.
    """
    from .keys import new_keys

    try:
        keys = new_keys(names)
    except ValueError as error:
        raise CouldNotRunError(str(error)) from error
    sys.stdout.write(f"{keys}\n")
    Shown(quiet=quiet).say(
        "Modal keeps them in the Secret api-keys, all in one; add those that work already:\n"
        f"  {program('modal')} secret create api-keys --force API_KEYS=…\n"
        "then make deploy. This is the only time that they are shown."
    )
    return CLEAN


def _deployed_app(root: Path, env: str | None) -> "ModalApp":
    """Return the app that gpu.yaml names.

    Raises:
        CouldNotRunError: when Modal cannot be asked.
    """
    from .deploy import token_step
    from .modal_app import ModalApp, has_token

    project, _ = load_project(root)
    if project.settings is None:
        raise CouldNotRunError("gpu.yaml has errors: make validate")
    if not has_token():
        raise CouldNotRunError(token_step(project.settings, env))
    return ModalApp(project.settings.app, env)
