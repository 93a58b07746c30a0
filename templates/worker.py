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
from dataclasses import dataclass, replace
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
from .gateway.job_store import CANCELLED, End, JobStore, Now, Record
from .gateway.journal import Journal, Subject, why
from .gateway.logs import event, shows_prompts
from .gateway.modal_events import TELL_SECONDS, EventWriter, Lists
from .gateway.timings import Starts, Timings, Watch
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
    EngineUnreachable,
    shortened,
)
from .utils.comfyui_files import Directories
from .utils.comfyui_needs import Needs, lacking, listed
from .utils.comfyui_process import EngineProcess
from .utils.comfyui_records import EngineInfo, Event, Graph, Started
from .utils.downloads import ModelFile, Places, read_models
from .worker_models import Uploads, WorkerModels

_log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"

# A run is told of at most this often; what ends sooner is not told of at all.
_TELL_SECONDS: Final = 1.0
# How long to ask once more how a job has ended; its caller waits for that, and the GPU with it.
_ASK_SECONDS: Final = 5.0
# A ComfyUI that has ended by itself more often is not started again, whoever waits for it.
_MOST_DEATHS: Final = 5


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is to be, and what its ComfyUI must have.

    It runs the work for `profile` and `group`. `directory` is ComfyUI's. `classes` are the node
    classes that the specs need, `models` the model files. `places` says where those lie, the Volumes
    of uploaded ones among them. `prices` are USD per second by GPU. `start_timeout` is in seconds, for
    all that comes before the first run. `catalog` has the schemas of the node classes. A `fault` is
    why the build does not say all that: no start can mend it.
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
    fault: Exception | None = None

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

        `build` is the folder of the app, `version` ComfyUI's. Routes that are off need nothing. A
        build that cannot be read is told by the worker's start, as all that keeps it from work.
        """
        classes: set[str] = set()
        models: list[ModelFile] = []
        catalog, fault = None, None
        file = "manifest.json"
        try:
            manifest: Any = json.loads((build / file).read_text("utf-8"))
            routes = [
                route
                for route in manifest["routes"].values()
                if route["enabled"] and (route["gpu"], route["group"] or "") == (profile, group)
            ]
            classes = {name for route in routes for name in route["classes"]}
            wanted = {name for route in routes for name in route["models"]}
            file = "models.json"
            models = [model for model in read_models(build / file) if model.name in wanted]
            file = "graph/catalogs"
            catalog = open_catalog(build / file, version=version)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            fault = BuildError(f"{file} of the build cannot be used: {said}")
            fault.__cause__ = error
        return cls(
            profile,
            group,
            directory=directory,
            port=port,
            flags=flags,
            classes=classes,
            models=models,
            places=places,
            prices=prices,
            start_timeout=start_timeout,
            catalog=catalog,
            fault=fault,
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


class BuildError(Exception):
    """A file of the build is not there, or not what it should be; the text says which."""


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
        journal: Journal | None = None,
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
            url,
            Directories.below(settings.directory),
            connect_timeout=settings.start_timeout,
            patience=settings.start_timeout,
        )
        self._journal = journal or Journal()
        self._starts = Starts()
        # Whether what ComfyUI says may be of a caller.
        self._has_run = False
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
        self._starts.begin()
        try:
            if self._settings.fault is not None:
                raise self._settings.fault
            await self._take_steps(
                ("placing model files", self._place_models),
                ("starting ComfyUI", self._start_engine),
                ("connecting to it", self._engine.connect),
                ("checking its classes and model files", self._check_engine),
            )
        except Exception as error:
            await self._fail(error)
            return
        self._note_up("worker-started")
        self._settled.set()
        self._watcher = asyncio.create_task(self._keep_watch())
        await self._tell()

    async def stop(self) -> None:
        """End ComfyUI and all that runs on it."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._engine.close()
        await self._process.stop()
        self._log_event("worker-stopped")
        await self._journal.usage.close()

    async def run(self, work: Work, call: str = "") -> End:
        """Run a graph, and return how that ended.

        A run whose caller is cancelled is stopped, and so is one whose job has ended otherwise.
        `call` is Modal's id of this call. Of work with an idempotency key, two gateways may have
        called for the same job, and one of the calls is its.
        """
        if work.key and call:
            try:
                is_first = await self._jobs.add(work.job, Record.of(work, call))
            except BackendUnavailableError as error:
                detail = "nobody could say whether the job runs elsewhere; nothing was run"
                _log.warning("job %s: %s: %s", work.job, detail, error)
                return replace(End.of(Failure("engine-unreachable", detail)), is_settled=False)
            if not is_first:
                return CANCELLED
        watch = Watch(work.created, self._starts)
        narrator = Narrator(lambda: self._info, self._settings.prices, step_seconds=TELL_SECONDS)
        writer = EventWriter(self._lists, self._jobs, work.job, narrator)

        def on_event(event: Event) -> None:
            teller.take(event)
            writer.take(event)
            watch.take(event)
            if isinstance(event, Started):
                engine = engine_name(self._info) if self._info else None
                self._journal.started(_subject(work), self._gpu, engine, watch.waited)

        task = asyncio.create_task(self._perform(work, on_event))
        stop_run = partial(self._stop_run, work.job, task)
        teller = _Teller(self._jobs, work.job, stop_run, partial(self._so_far, watch))
        reason: str | None = None
        try:
            end, reason = await task
        except BaseException as error:
            this = asyncio.current_task()
            if not isinstance(error, asyncio.CancelledError) or (this and this.cancelling()):
                writer.stop()
                await self._note_stopped(work, watch.timings(self._price))
                raise
            # It was the teller that cancelled it.
            end = CANCELLED
        finally:
            teller.stop()
        timings = watch.timings(self._price, end.result.execution_seconds if end.result else None)
        return await self._end(work, end, timings, reason, writer)

    async def _perform(
        self, work: Work, on_event: Callable[[Event], None]
    ) -> tuple[End, str | None]:
        """Run a graph to its end within its time, waiting for a start of ComfyUI included.

        Returns the end, and what the log is to say of it more than callers are told.
        """
        begun = time.monotonic()
        self._runs += 1
        self._has_run = True
        try:
            graph = await self._prepared(work)
            if self._failure is not None:
                # Another container may do better: what is missing may be there by then.
                await self._make_way()
                return End.of(self._failure), None
            run = await self._engine.run(
                graph,
                job=work.job,
                files=work.files,
                on_event=on_event,
                deadline=max(0.0, begun + work.timeout - time.monotonic()),
            )
            assert self._info is not None
            return End.of(result_of(run, self._info, self._settings.prices)), None
        except EngineError as error:
            if isinstance(error, EngineHung):
                self._end_engine("ComfyUI had stopped answering")
            elif isinstance(error, EngineFailed) and error.breaks_engine:
                self._end_engine(f"ComfyUI was of no use after {error.exception_type}")
            elif isinstance(error, EngineInterrupted) and error.requested:
                # By whoever cancelled the job, which the store knows; else because ComfyUI is gone.
                return End.of(Failure("engine-lost", ENGINE_LOST)), why(error)
            return End.of(failure_of(error)), why(error)
        except (BackendUnavailableError, OSError) as error:
            _log.exception("job %s: its uploaded model files cannot be fetched", work.job)
            detail = f"an uploaded model file cannot be fetched: {_reason(error)}"
            full = isinstance(error, OSError) and error.errno in FULL_DISK
            return End.of(Failure("disk-full" if full else "engine-not-started", detail)), None
        except Exception:
            _log.exception("job %s: this is a fault of the service", work.job)
            detail = "this is a fault of the service; its log says more"
            return End.of(Failure("internal-error", detail)), None
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

    async def _stop_run(self, job: str, task: "asyncio.Task[tuple[End, str | None]]") -> None:
        """Stop a run: at ComfyUI, or on its way there."""
        if not await self._engine.interrupt(job):
            task.cancel()

    async def _end(
        self, work: Work, end: End, timings: Timings, reason: str | None, writer: EventWriter
    ) -> End:
        """End a job, unless it has ended, and return how it did end."""
        end = replace(end, timings=timings)
        try:
            settling = self._settle(work.job, end)
            (kept, is_first), _ = await asyncio.gather(settling, writer.finish())
        except BackendUnavailableError:
            # What was made is paid for. A gateway ends the job, unless somebody has by now.
            _log.exception("job %s: nobody was told how it ended", work.job)
            self._journal.stopped(_subject(work), timings)
            return replace(end, is_settled=False)
        if is_first:
            self._journal.ended(_subject(work), end.status, timings, end.failure, reason)
        else:
            await self._note_stopped(work, timings)
        return replace(kept.handed_out, timings=timings)

    async def _settle(self, job: str, end: End) -> tuple[End, bool]:
        """End a job, unless it has ended; where the answer to that is lost, ask once more."""
        try:
            return await self._jobs.settle(job, end)
        except BackendUnavailableError as error:
            _log.warning("job %s: who has ended it is asked once more: %s", job, error)
            try:
                async with asyncio.timeout(_ASK_SECONDS):
                    return await self._jobs.settle_late(job, end)
            except TimeoutError:
                raise error from None

    async def _note_stopped(self, work: Work, timings: Timings) -> None:
        """Note what a run took whose job somebody else has ended."""
        self._journal.stopped(_subject(work), timings)
        try:
            await self._jobs.tell(work.job, Now(Status.RUNNING, timings=timings))
        except BackendUnavailableError as error:
            _log.warning("job %s: nobody was told what it took: %s", work.job, error)

    def _so_far(self, watch: Watch) -> Timings:
        return watch.timings(self._price, is_last=False)

    @property
    def _gpu(self) -> str | None:
        return gpu_of(self._info.device, self._settings.prices) if self._info else None

    @property
    def _price(self) -> float | None:
        """USD per second of the GPU; None while no ComfyUI has told which one it is."""
        return self._settings.prices.get(self._gpu, 0.0) if self._gpu else None

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
            said = [line.strip() for line in self._said or () if line.strip()][-1:]
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

    async def _keep_watch(self) -> None:
        """Watch ComfyUI; where that fails, nobody starts it again, and runs would wait for ever."""
        try:
            await self._watch()
        except Exception as error:
            # In this order, for a container that has made way and has no runs may end at once.
            await self._fail(error)
            await self._make_way()

    async def _watch(self) -> None:
        """Start ComfyUI again whenever it ends; the runs that it had are sent again, but for one
        that has ended it twice.

        When it ends by itself for the second time, the runs to come go to another container, and
        this one goes on for those that it has.

        Raises:
            StartError, EngineError: when it is not started again, or cannot be.
        """
        deaths = 0
        while True:
            status = await self._process.watch()
            self._settled.clear()
            self._starts.begin()
            deaths += self._ended_for is None
            reason, self._ended_for = self._ended_for or f"ComfyUI ended with status {status}", None
            if deaths > _MOST_DEATHS or (deaths > 1 and not self._runs):
                times = f"ComfyUI ended {deaths} times, the last time with status {status}"
                raise StartError(times)
            if deaths > 1:
                await self._make_way()
            self._log_event("engine-lost", level=logging.ERROR, reason=reason, said=self._said)
            connections = self._engine.connections
            try:
                # What it has started itself may have outlived it, and hold the port or the GPU.
                await self._process.stop()
                await self._take_steps(
                    ("starting ComfyUI", self._start_engine),
                    ("checking its classes and model files", self._check_engine),
                )
            except EngineUnreachable:
                # A run that was sent again has ended it before all was checked, or it has hung.
                self._process.kill()
                continue
            except EngineStartError:
                if self._engine.connections == connections:
                    raise
                # The same, before it was seen to be up.
                continue
            self._note_up("engine-restarted")
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

    @property
    def _said(self) -> tuple[str, ...] | None:
        """What ComfyUI said last; None where it may be of a caller's prompt, and is not to be told."""
        return self._process.output if shows_prompts() or not self._has_run else None

    async def _make_way(self) -> None:
        """Let another container take the runs to come."""
        try:
            await self._retire()
        except Exception:
            _log.exception("this container cannot make way for another")

    async def _fail(self, error: Exception) -> None:
        """Take no runs any more."""
        reason = _reason(error)
        # Before it answers, it knows of no run.
        said = error.output if isinstance(error, EngineStartError) else self._said
        self._starts.end()
        self._log_event("worker-failed", level=logging.ERROR, reason=reason, said=said)
        if not isinstance(error, EngineError | StartError):
            _log.error("this is a fault of the worker", exc_info=error)
        self._failure = Failure("engine-not-started", reason)
        self._settled.set()
        await self._tell(reason)
        await self._engine.close()
        await self._process.stop()

    def _note_up(self, name: str) -> None:
        """Log that ComfyUI is up, and what its start took."""
        seconds = round(self._starts.end(), 3)
        usd = round(seconds * (self._price or 0.0), 6)
        engine = engine_name(self._info) if self._info else None
        self._log_event(name, gpu=self._gpu, engine=engine, seconds=seconds, usd=usd)

    def _log_event(self, name: str, *, level: int = logging.INFO, **fields: object) -> None:
        settings = self._settings
        event(name, level=level, profile=settings.profile, group=settings.group or None, **fields)

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

    def __init__(
        self,
        jobs: JobStore,
        job: str,
        stop_run: Callable[[], Awaitable[None]],
        so_far: Callable[[], Timings],
    ) -> None:
        self._so_far = so_far
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

    def _now(self, job: Job) -> Now:
        return Now(job.status, job.position, job.step, self._so_far())

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
                    await self._jobs.tell(job.id, self._now(job))
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


def _subject(work: Work) -> Subject:
    return Subject(work.job, work.route, work.owner)
