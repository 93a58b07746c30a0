"""Deploying: check, plan, deploy, fetch what is missing, and see that it answers."""

import json
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from templates.client_core import KEY_VARIABLE
from templates.utils.downloads import VERIFIED

from ..check import Checked
from ..console import has_colour, program
from ..render import Files
from ..spec import CACHE_VOLUME, Settings
from .manifest import Manifest, ManifestError, parse_manifest
from .modal_app import ModalApp, ModalError, has_token
from .plan import Plan, make_plan
from .recorded import FILE, RecordError, read_recorded, record
from .report import as_table
from .service import (
    PROXY_VARIABLES,
    ServiceFault,
    entry_of,
    examples,
    not_cheap,
    proxy_headers,
    try_endpoint,
    wait_for,
)

MODULE: Final = "build.app"

# A gateway's container starts within a minute or two, even with an image that is new to a machine.
_ANSWER_SECONDS: Final = 300.0
_SAY_AGAIN_SECONDS: Final = 30
# Who recorded the seconds.
_SMOKE: Final = "make deploy SMOKE=1"


class DeployError(RuntimeError):
    """It is not deployed, or not as it should be; the text says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to deploy: to which environment, whether callers may be broken, and what comes after."""

    environment: str | None = None
    allow_breaking: bool = False
    smoke: bool = False


def missing_steps(checked: Checked, environment: str | None, *, smoke: bool) -> list[str]:
    """Return what a person must do before a deploy, as far as this machine alone can tell."""
    settings = checked.settings
    steps = [] if has_token() else [token_step(settings, environment)]
    if checked.lock is None:
        steps.append(
            "there is no generator.lock, so what is downloaded and installed could be anything: "
            "make lock"
        )
    if settings.auth == "proxy" and len(proxy_headers()) < len(PROXY_VARIABLES):
        names = " and ".join(PROXY_VARIABLES)
        steps.append(f"auth is proxy, so asking the app wants a token of Modal's proxy in {names}")
    if smoke and settings.auth == "api-key" and not os.environ.get(KEY_VARIABLE):
        steps.append(f"SMOKE=1 sends requests, and needs a caller's key in {KEY_VARIABLE}")
    return steps


def token_step(settings: Settings, environment: str | None) -> str:
    """Return what to do, once, on a machine without a token: each command on a line of its own."""
    where = f" --env {environment}" if environment else ""
    modal = program("modal")
    secrets = (
        f"{modal} secret create {name} {' '.join(f'{key}=…' for key in keys)}{where}"
        for name, keys in settings.secrets.items()
    )
    lines = "".join(f"\n  {command}" for command in (f"{modal} token new", *secrets))
    hint = f"{program('python')} -m generator key NAME makes keys of callers"
    return f"this machine has no token of Modal. Once:{lines}\n  ({hint})"


def plan_of(
    checked: Checked,
    files: Files,
    root: Path,
    deployed: Manifest | None,
    environment: str | None,
    there: Collection[str] | None = None,
) -> Plan:
    """Return what deploying a build changes against what is deployed.

    `there` are the names of the models' files on the Volume, None where it was not asked.

    Raises:
        RecordError: when seconds.json of the project cannot be read.
    """
    upcoming = parse_manifest(files["manifest.json"], "build/manifest.json")
    assert upcoming["app"] == checked.settings.app
    recorded = read_recorded(root)
    return make_plan(deployed, upcoming, environment=environment, recorded=recorded, there=there)


def deploy(checked: Checked, files: Files, root: Path, options: Options) -> None:
    """Deploy the build in `root`/build, whose files are `files`, and see that it answers.

    Raises:
        DeployError: when something is missing, would break callers or fails.
    """
    app = ModalApp(checked.settings.app, options.environment)
    _check_plan(checked, files, root, app, options)
    manifest = parse_manifest(files["manifest.json"], "build/manifest.json")
    if manifest["models"]:
        # Always: the Volume may have lost what is deployed. What is whole there costs no request.
        _say("seeing that the Volume has the models …")
        _run(app, root, "run", "-m", f"{MODULE}::download", failure="nothing was deployed")
    _say("deploying …")
    _run(
        app, root, "deploy", "-m", MODULE, failure="what was deployed before, if anything, runs on"
    )
    try:
        _see_that_it_answers(app, manifest, root, options)
    except (ModalError, ServiceFault, RecordError, KeyboardInterrupt) as error:
        _end_progress()
        raise DeployError(
            f"{_said(error)}\n  it is deployed all the same; its log may say why: "
            f"make logs{_env(options.environment)}"
        ) from error


def _check_plan(
    checked: Checked, files: Files, root: Path, app: ModalApp, options: Options
) -> None:
    """Show what the deploy changes.

    Raises:
        DeployError: when callers would be broken, or that cannot be known, and nobody allows it.
    """
    try:
        try:
            deployed = app.manifest()
        except ManifestError as error:
            if not options.allow_breaking:
                raise
            _say(f"warning: {error}; it is deployed over, as ALLOW_BREAKING=1 allows")
            return
        there = app.files(CACHE_VOLUME, VERIFIED)
        plan = plan_of(checked, files, root, deployed, options.environment, there)
    except (ModalError, ManifestError, RecordError, KeyboardInterrupt) as error:
        text = f"{_said(error)}\n  nothing was changed on Modal"
        if isinstance(error, ManifestError):
            text += "; make deploy ALLOW_BREAKING=1 deploys over it"
        raise DeployError(text) from error
    sys.stdout.write(as_table(plan, colour=has_colour(sys.stdout)))
    sys.stdout.flush()
    if plan.breaking and not options.allow_breaking:
        raise DeployError(
            "callers of what is deployed would be broken: see above. Nothing was changed on Modal. "
            "If that is meant: make deploy ALLOW_BREAKING=1"
        )


def _see_that_it_answers(app: ModalApp, manifest: Manifest, root: Path, options: Options) -> None:
    url = app.url()
    _say(f"waiting for {url}/health …")
    wait_for(url, manifest["spec"], _ANSWER_SECONDS, _progress)
    _end_progress()
    sys.stdout.write(_greeting(url, manifest))
    sys.stdout.flush()
    if options.smoke:
        _smoke(url, manifest, root)


def _run(app: ModalApp, root: Path, *words: str, failure: str) -> None:
    code = app.run(root, *words)
    if code:
        raise DeployError(
            f"modal {' '.join(words)} ended with code {code}: see above. {failure.capitalize()}. "
            "A Secret that is missing comes with: modal secret create NAME KEY=VALUE"
            + (f" --env {app.environment}" if app.environment else "")
        )


def _smoke(url: str, manifest: Manifest, root: Path) -> None:
    """Send a request to each endpoint that is cheap to try, and keep the seconds that they took."""
    bodies = examples(url)
    left_out = not_cheap(manifest, bodies)
    for route, reason in left_out.items():
        _say(f"not tried: {route}: {reason}")
    tried_routes = [route for route in manifest["routes"] if route not in left_out]
    faults: list[str] = []
    entries: dict[str, Mapping[str, Any]] = {}
    key = os.environ.get(KEY_VARIABLE, "")
    for route in tried_routes:
        try:
            tried = try_endpoint(url, key, route, bodies[route], manifest)
        except ServiceFault as error:
            faults.append(str(error))
            _say(f"failed: {error}")
            continue
        if tried.engine != "preview":
            entries[route] = entry_of(tried)
        _say(
            f"works: {route}: {tried.media_type}, {tried.size:,} bytes, {tried.seconds:.1f} s on "
            f"{tried.gpu}, {tried.cost:.6f} USD"
        )
    if entries:
        record(root, entries, _SMOKE)
        _say(f"seconds are in {FILE}, for make plan")
    if faults:
        raise ServiceFault(f"{len(faults)} of {len(tried_routes)} requests failed")


def _greeting(url: str, manifest: Manifest) -> str:
    """Return where the service is, and a request that is not too long for a line."""
    on = [route for route, about in manifest["routes"].items() if about["enabled"]]
    lines = [f"deployed: {url}, docs at {url}/docs", *(f"  POST {url}{route}" for route in on)]
    bodies = examples(url)
    curls = [_curl(url, route, bodies[route], manifest) for route in on if route in bodies]
    lines += [f"try: {curl}" for curl in sorted(curls, key=len)[:1]]
    return "\n".join(lines) + "\n"


def _curl(url: str, route: str, body: Any, manifest: Manifest) -> str:
    about = manifest["routes"][route]
    key = {
        "api-key": " -H 'authorization: Bearer KEY'",
        "proxy": " -H 'modal-key: KEY' -H 'modal-secret: SECRET'",
        "none": "",
    }[manifest["gateway"]["auth"]]
    kind, _, subtype = about["reply"].partition("/")
    suffix = f".{subtype}" if kind in ("image", "video") else ""
    data = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return (
        f"curl -X POST {url}{route}{key} -H 'content-type: application/json' -d '{data}' "
        f"-o {about['name']}{suffix} -D -"
    )


def _progress(seconds: float, answer: str) -> None:
    """Show on one line how long it has taken, where there is a terminal; else seldom."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K  {seconds:.0f} s: {answer[:100]}")
        sys.stderr.flush()
    elif round(seconds) % _SAY_AGAIN_SECONDS == _SAY_AGAIN_SECONDS - 1:
        _say(f"  {seconds:.0f} s: {answer}")


def _end_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()


def _said(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _env(environment: str | None) -> str:
    return f" ENV={environment}" if environment else ""
