"""The GPU worker: a ComfyUI of its own, and a method that runs a graph on it.

Nothing here knows of Modal: app.py puts a class with Modal's hooks around it.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from .gateway.backend import (
    ENGINE_LOST,
    BackendUnavailableError,
    Failure,
    Job,
    Status,
    Work,
    engine_name,
    failure_of,
    gpu_of,
    result_of,
    told,
)
from .gateway.backend import Worker as WorkerState
from .gateway.events import Narrator
from .gateway.job_store import CANCELLED, NOT_HANDED_OUT, End, JobStore, Now, Record
from .gateway.modal_events import TELL_SECONDS, EventWriter, Lists
from .graph.catalog import Catalog, open_catalog
from .utils.comfyui import Engine
from .utils.comfyui_errors import (
    FULL_DISK,
    EngineError,
    EngineFailed,
    EngineHung,
    EngineInterrupted,
    EngineStartError,
    EngineTimeout,
    shortened,
)
from .utils.comfyui_files import Directories
from .utils.comfyui_needs import Needs, lacking, listed
from .utils.comfyui_process import EngineProcess
from .utils.comfyui_records import EngineInfo, Event, Graph
from .utils.downloads import ModelFile, Places, read_models
from .worker_models import Uploads, WorkerModels

_log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"

# A run is told of at most this often; what ends sooner is not told of at all.
_TELL_SECONDS: Final = 1.0
# A ComfyUI that has ended by itself more often is not started again, whoever waits for it.
_MOST_DEATHS: Final = 5


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is to be, and what its ComfyUI must have.

    It runs the work for `profile` and `group`. `directory` is ComfyUI's. `classes` are the node
    classes that the specs need, `models` the model files. `places` says where those lie, the Volumes
    of uploaded ones among them. `prices` are USD per second by GPU. `start_timeout` is in seconds, for
    all that comes before the first run. `catalog` has the schemas of the node classes.
    """

    profile: str
    group: str
    directory: Path
    port: int
    flags: Sequence[str]
    classes: Collection[str]
    models: Sequence[ModelFile]
    places: Places
    prices: Mapping[str, float]
    start_timeout: float
    catalog: Catalog | None = None

    @classmethod
    def of_build(
        cls,
        build: Path,
        profile: str,
        group: str,
        *,
        version: str,
        directory: Path,
        port: int,
        flags: Sequence[str],
        places: Places,
        prices: Mapping[str, float],
        start_timeout: float,
    ) -> Self:
        """Return the settings for a profile and a group of a build, which says what they need.

        `build` is the folder of the app, `version` ComfyUI's. Routes that are off need nothing.

        Raises:
            OSError, ValueError, LookupError: when the build is not whole.
        """
        manifest: Any = json.loads((build / "manifest.json").read_text("utf-8"))
        routes = [
            route
            for route in manifest["routes"].values()
            if route["enabled"] and (route["gpu"], route["group"] or "") == (profile, group)
        ]
        models = {name for route in routes for name in route["models"]}
        return cls(
            profile,
            group,
            directory=directory,
            port=port,
            flags=flags,
            classes={name for route in routes for name in route["classes"]},
            models=[m for m in read_models(build / "models.json") if m.name in models],
            places=places,
            prices=prices,
            start_timeout=start_timeout,
            catalog=open_catalog(build / "graph" / "catalogs", version=version),
        )

    @property
    def needs(self) -> Needs:
        """What ComfyUI must have."""
        paths = frozenset(model.path for model in self.models)
        return Needs(frozenset(self.classes), paths)

    @property
    def command(self) -> list[str]:
        """The command that starts ComfyUI in its directory."""
        return [
            *(sys.executable, "main.py", "--listen", HOST, "--port", str(self.port)),
            *("--disable-auto-launch", "--disable-api-nodes", *self.flags),
        ]


class StartError(Exception):
    """The worker cannot take requests; the text says why."""


class Worker:
    """A ComfyUI process, and runs on it.

    `retire` makes the container take no more calls; Modal starts another one for those that come.
    `uploads` are model files that may be younger than the container.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        jobs: JobStore,
        lists: Lists,
        *,
        retire: Callable[[], Awaitable[None]],
        uploads: Uploads | None = None,
    ) -> None:
        url = f"http://{HOST}:{settings.port}"
        self._settings = settings
        self._jobs = jobs
        self._lists = lists
        self._retire = retire
        self._models = WorkerModels(
            settings.directory / "models",
            settings.models,
            settings.places,
            uploads=uploads,
            catalog=settings.catalog,
        )
        self._process = EngineProcess(
            settings.command,
            url=url,
            cwd=settings.directory,
            # A model that is missing is an error now, not a download in mid-request.
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            start_timeout=settings.start_timeout,
        )
        self._engine = Engine(
            url, Directories.below(settings.directory), connect_timeout=settings.start_timeout
        )
        self._info: EngineInfo | None = None
        self._started: float | None = None
        self._failure: Failure | None = None
        # Set while it is known whether runs can be taken: not during a start.
        self._settled = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._runs = 0
        # Why ComfyUI is ended by this worker itself, while it is.
        self._ended_for: str | None = None

    async def start(self) -> None:
        """Start ComfyUI, and see that it has all that the specs need.

        It never raises: what went wrong is kept, and the next run says it.
        """
        try:
            await self._take_steps(
                ("placing model files", self._place_models),
                ("starting ComfyUI", self._start_engine),
                ("connecting to it", self._engine.connect),
                ("checking its classes and model files", self._check_engine),
            )
        except Exception as error:
            await self._fail(error)
            return
        self._settled.set()
        self._watcher = asyncio.create_task(self._watch())
        await self._tell()

    async def stop(self) -> None:
        """End ComfyUI and all that runs on it."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._engine.close()
        await self._process.stop()

    async def run(self, work: Work, call: str = "") -> End:
        """Run a graph, and return how that ended.

        A run whose caller is cancelled is stopped, and so is one whose job has ended otherwise.
        `call` is Modal's id of this call. Of work with an idempotency key, two gateways may have
        called for the same job, and one of the calls is its.
        """
        if work.key and call:
            try:
                is_first = await self._jobs.add(work.job, Record.of(work, call, time.time()))
            except BackendUnavailableError as error:
                detail = "nobody could say whether the job runs elsewhere; nothing was run"
                _log.warning("job %s: %s: %s", work.job, detail, error)
                return End.of(Failure("engine-unreachable", detail))
            if not is_first:
                return CANCELLED
        narrator = Narrator(lambda: self._info, self._settings.prices, step_seconds=TELL_SECONDS)
        writer = EventWriter(self._lists, self._jobs, work.job, narrator)

        def on_event(event: Event) -> None:
            teller.take(event)
            writer.take(event)

        task = asyncio.create_task(self._perform(work, on_event))
        teller = _Teller(self._jobs, work.job, partial(self._stop_run, work.job, task))
        try:
            end = await task
        except BaseException as error:
            this = asyncio.current_task()
            if not isinstance(error, asyncio.CancelledError) or (this and this.cancelling()):
                writer.stop()
                raise
            # It was the teller that cancelled it.
            end = CANCELLED
        finally:
            teller.stop()
        try:
            ended, _ = await asyncio.gather(self._jobs.end(work.job, end), writer.finish())
            return ended if ended.is_whole else End.of(NOT_HANDED_OUT)
        except BackendUnavailableError:
            # What was made is paid for; whoever asks for this call gets it all the same.
            _log.exception("job %s: nobody was told how it ended", work.job)
            return end

    async def _perform(self, work: Work, on_event: Callable[[Event], None]) -> End:
        """Run a graph to its end within its time, waiting for a start of ComfyUI included."""
        begun = time.monotonic()
        self._runs += 1
        try:
            graph = await self._prepared(work)
            if self._failure is not None:
                # Another container may do better: what is missing may be there by then.
                await self._make_way()
                return End.of(self._failure)
            run = await self._engine.run(
                graph,
                job=work.job,
                files=work.files,
                on_event=on_event,
                deadline=max(0.0, begun + work.timeout - time.monotonic()),
            )
            assert self._info is not None
            return End.of(result_of(run, self._info, self._settings.prices))
        except EngineError as error:
            _log.warning("job %s: %s", work.job, error)
            if isinstance(error, EngineHung):
                self._end_engine("ComfyUI had stopped answering")
            elif isinstance(error, EngineFailed) and error.breaks_engine:
                self._end_engine(f"ComfyUI was of no use after {error.exception_type}")
            elif isinstance(error, EngineInterrupted) and error.requested:
                # By whoever cancelled the job, which the store knows; else because ComfyUI is gone.
                return End.of(Failure("engine-lost", ENGINE_LOST))
            return End.of(failure_of(error))
        except (BackendUnavailableError, OSError) as error:
            _log.exception("job %s: its uploaded model files cannot be fetched", work.job)
            detail = f"an uploaded model file cannot be fetched: {_reason(error)}"
            full = isinstance(error, OSError) and error.errno in FULL_DISK
            return End.of(Failure("disk-full" if full else "engine-not-started", detail))
        finally:
            self._runs -= 1

    async def _prepared(self, work: Work) -> Graph:
        """Wait until it is known whether ComfyUI takes runs, and bring a graph's model files.

        Raises:
            EngineTimeout: when the time of the run is over.
            BackendUnavailableError, OSError: when a file cannot be had.
        """
        try:
            async with asyncio.timeout(work.timeout) as limit:
                await self._settled.wait()
                if self._failure is None:
                    return await self._models.placed(work.graph)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise EngineTimeout(f"job {work.job} was not begun in {work.timeout:g} s") from error
        return work.graph

    async def _stop_run(self, job: str, task: "asyncio.Task[End]") -> None:
        """Stop a run: at ComfyUI, or on its way there."""
        if not await self._engine.interrupt(job):
            task.cancel()

    async def _take_steps(self, *steps: tuple[str, Callable[[], Awaitable[None]]]) -> None:
        """Take the named steps of a start, all of them within its time.

        Raises:
            StartError: when that is over; it says what took how long.
        """
        seconds = self._settings.start_timeout
        end = time.monotonic() + seconds
        took: list[str] = []
        name, begun = "", 0.0
        try:
            async with asyncio.timeout(seconds) as limit:
                for name, step in steps:
                    begun = time.monotonic()
                    await step()
                    took.append(f"{name} took {time.monotonic() - begun:.1f} s")
        except TimeoutError as error:
            if not limit.expired():
                raise
            took.append(f"{name} was not done after {end - begun:.1f} s")
            said = [line.strip() for line in self._process.output if line.strip()][-1:]
            text = ": ".join([", ".join(took), *said])
            raise StartError(f"the start took longer than {seconds:g} s: {text}") from error

    async def _place_models(self) -> None:
        # In a thread, for Volumes can be slow, and the time of the start goes on.
        reasons = await asyncio.to_thread(self._models.link)
        if reasons:
            raise StartError(f"{listed(reasons)}; modal run -m build.app::download")

    async def _start_engine(self) -> None:
        self._info = await self._process.start()
        self._started = time.time()

    async def _check_engine(self) -> None:
        """See that ComfyUI has the classes and model files that the specs need.

        Raises:
            StartError: when one is missing.
        """
        missing = await lacking(self._engine, self._settings.needs)
        if missing:
            said = [line for line in self._process.output if "IMPORT FAILED" in line]
            raise StartError(f"ComfyUI has no {missing}" + "".join(f"; {line}" for line in said))

    async def _watch(self) -> None:
        """Start ComfyUI again whenever it ends; the runs that it had are sent again, but for one
        that has ended it twice.

        When it ends by itself for the second time, the runs to come go to another container, and
        this one goes on for those that it has.
        """
        deaths = 0
        while True:
            status = await self._process.watch()
            self._settled.clear()
            deaths += self._ended_for is None
            reason, self._ended_for = self._ended_for or f"ComfyUI ended with status {status}", None
            if deaths > 1:
                await self._make_way()
            if deaths > _MOST_DEATHS or (deaths > 1 and not self._runs):
                times = f"ComfyUI ended {deaths} times, the last time with status {status}"
                await self._fail(StartError(times))
                return
            _log.error("%s; it is started again:%s", reason, _tail(self._process))
            try:
                # What it has started itself may have outlived it, and hold the port or the GPU.
                await self._process.stop()
                await self._take_steps(
                    ("starting ComfyUI", self._start_engine),
                    ("checking its classes and model files", self._check_engine),
                )
            except Exception as error:
                await self._fail(error)
                await self._make_way()
                return
            self._settled.set()
            await self._tell(f"{reason}, and was started again")

    def _end_engine(self, reason: str) -> None:
        """End ComfyUI, so that it is started again; the other runs that it has are not to blame."""
        # Unless it is being started again.
        if self._settled.is_set() and self._process.alive:
            self._ended_for = reason
            self._settled.clear()
            self._engine.excuse()
            self._process.kill()

    async def _make_way(self) -> None:
        """Let another container take the runs to come."""
        try:
            await self._retire()
        except Exception:
            _log.exception("this container cannot make way for another")

    async def _fail(self, error: Exception) -> None:
        """Take no runs any more."""
        _log.error("this worker takes no runs: %s%s", error, _tail(self._process), exc_info=error)
        reason = _reason(error)
        self._failure = Failure("engine-not-started", reason)
        self._settled.set()
        await self._tell(reason)
        await self._engine.close()
        await self._process.stop()

    async def _tell(self, last_error: str | None = None) -> None:
        """Say how this worker is, for /health of the gateways."""
        settings, info = self._settings, self._info
        state = WorkerState(
            settings.profile,
            ready=self._failure is None,
            engine=engine_name(info) if info else None,
            gpu=gpu_of(info.device, settings.prices) if info else None,
            last_start=self._started,
            last_error=last_error,
            last_error_at=time.time() if last_error else None,
            group=settings.group,
        )
        try:
            await self._jobs.tell_worker(state)
        except BackendUnavailableError as error:
            _log.warning("nobody was told how this worker is: %s", error)


class _Teller:
    """Tells where a run is, and hears that it is to be stopped.

    Modal tells a container of a cancelled call with its next heartbeat, which may take longer than
    whoever cancelled waits. So the job store is asked too.
    """

    def __init__(self, jobs: JobStore, job: str, stop_run: Callable[[], Awaitable[None]]) -> None:
        self._jobs = jobs
        self._job = Job(job, "", "", None, 0.0)
        self._stop_run = stop_run
        self._task = asyncio.create_task(self._tell())

    def take(self, event: Event) -> None:
        """Take note of an event of the run."""
        self._job = told(self._job, event)

    def stop(self) -> None:
        """Tell no more."""
        self._task.cancel()

    async def _tell(self) -> None:
        last: Job | None = None
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            job = self._job
            try:
                now = await self._jobs.now(job.id)
                if isinstance(now, End):
                    # One that succeeded before is made again: what it made was not handed out.
                    if now.status is not Status.SUCCEEDED:
                        await self._stop_run()
                elif job is not last:
                    await self._jobs.tell(job.id, Now(job.status, job.position, job.step))
                    last = job
            except (BackendUnavailableError, EngineError) as error:
                _log.warning("job %s: nobody was told where it is: %s", job.id, error)


def _reason(error: Exception) -> str:
    """Return why a start failed, in a line: of a ComfyUI that ended, with what it said last."""
    if isinstance(error, EngineStartError):
        first, _, _ = str(error).partition("; its last output was:")
        said = [line.strip() for line in error.output if line.strip()][-1:]
        return shortened(": ".join([first, *said]))
    return shortened(str(error).partition("\n")[0] or type(error).__name__)


def _tail(process: EngineProcess) -> str:
    return "".join(f"\n  {line}" for line in process.output)
