"""Replies: the bytes of an output with headers that say what it cost, or a job as JSON."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, Field
from starlette.responses import Response

from ..utils.comfyui_records import File, Text
from ..utils.image_utils import encode_base64
from .backend import Job, Result, Status, whole
from .measures import Measures, measure
from .problems import Problem
from .spool import Spooled
from .timings import Timings

JSON: Final = "application/json"

# Larger outputs are to be fetched from their URL.
_MOST_DATA: Final = 8_000_000
# A run may have hundreds, and others are answered no sooner than one reply is written.
_MOST_DATA_TOGETHER: Final = 64_000_000
# Seconds until it is worth asking again for a job that waits, or runs.
_ASK_AGAIN: Final = 1

# What the reply of an endpoint says beside its bytes.
HEADERS: Final[Mapping[str, str]] = {
    "X-Job-Id": "The job, for /jobs/ID.",
    "X-Seed": "The seed, drawn when none was sent.",
    "X-Cost-USD": "What the run cost: seconds of execution times the price of the GPU.",
    "X-Execution-Time-Sec": "Seconds that the engine spent on this run alone.",
    "X-Queue-Time-Sec": "Seconds that the run waited for others.",
    "X-GPU-Type": "The GPU that it ran on.",
    "X-Engine": "The engine; preview for a stand-in that draws placeholders.",
    "X-Output-Count": "How many outputs there are, at /jobs/ID/outputs/0 and so on.",
}


class Output(BaseModel):
    """One output of a job."""

    node: str = Field(description="The node that made it.")
    kind: str = Field(description="ComfyUI's word for it: images, gifs, audio, text, …")
    media_type: str
    filename: str | None = Field(description="Null for a text.")
    bytes: int
    width: int | None = Field(description="Of a picture or video, in pixels.")
    height: int | None
    url: str = Field(description="Where its bytes are, from this host.")
    data: str | None = Field(
        description="In a reply, its bytes in base64 when they are fewer than 8 MB, and no more than"
        " 64 MB with those of the outputs before it."
    )


class Progress(BaseModel):
    """What a running job is at."""

    node: str
    title: str
    value: float | None = Field(description="The step it is at, where the node says so.")
    max: float | None = Field(description="How many steps there are.")


class Part(BaseModel):
    """A part of what a job took."""

    seconds: float
    usd: float | None = Field(description="Null where the GPU, and so its price, is not known.")


class TimingsDocument(BaseModel):
    """What a job took."""

    startup: Part = Field(
        description="The part of the wait that the start of a worker took. A start is billed once,"
        " to the job that ended first of those that waited for it."
    )
    queue: Part = Field(description="The rest of the wait, which nobody bills.")
    execution: Part = Field(description="From the engine's start of the run to its end.")


class JobDocument(BaseModel):
    """A job. A result is there once it has succeeded, a problem when it has failed."""

    job: str
    status: Status
    route: str
    created: datetime
    seed: int | None
    position: int | None = Field(description="How many runs are ahead of it while it waits.")
    progress: Progress | None
    engine: str | None
    gpu: str | None
    seconds: float | None = Field(description="Of execution, without waiting.")
    queue_seconds: float | None
    cost: float | None = Field(description="Of execution, in USD.")
    timings: TimingsDocument | None = Field(
        description="Once it has ended, also when it failed or was cancelled."
    )
    outputs: list[Output]
    problem: dict[str, Any] | None = Field(description="As the request itself would have got it.")


def wants_json(accept: str, media_type: str) -> bool:
    """Say whether an Accept header puts JSON before the output itself.

    A header that takes neither gets the output: it is paid for.
    """
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    return _quality(JSON, ranges) > _quality(media_type, ranges)


def document(
    job: Job, root: str, problem: Problem | None, *, with_data: Collection[int] = ()
) -> JobDocument:
    """Return a job as JSON, with the bytes of some of its outputs, by their numbers.

    `root` is the path that the app is mounted at.
    """
    result, step = job.result, job.step
    outputs = result.outputs if result else ()
    return JobDocument(
        job=job.id,
        status=job.status,
        route=job.route,
        created=datetime.fromtimestamp(job.created, UTC),
        seed=job.seed,
        position=job.position,
        progress=(
            Progress(node=step.node, title=step.title, value=step.value, max=step.max)
            if step
            else None
        ),
        engine=result.engine if result else None,
        gpu=result.gpu if result else None,
        seconds=round(result.execution_seconds, 3) if result else None,
        queue_seconds=round(result.queue_seconds, 3) if result else None,
        cost=round(result.cost, 6) if result else None,
        timings=_timings(job.timings) if job.timings else None,
        outputs=[
            _output(
                output,
                f"{root}/jobs/{job.id}/outputs/{number}",
                result.spooled.get(number) if result else None,
                with_data=number in with_data,
            )
            for number, output in enumerate(outputs)
        ],
        problem=problem.document() if problem else None,
    )


def _timings(timings: Timings) -> TimingsDocument:
    return TimingsDocument(
        startup=_part(timings.startup_seconds, timings.startup_usd),
        queue=_part(timings.queue_seconds, 0.0),
        execution=_part(timings.execution_seconds, timings.execution_usd),
    )


def _part(seconds: float, usd: float | None) -> Part:
    return Part(seconds=seconds, usd=None if usd is None else round(usd, 6))


def job_response(
    job: Job,
    root: str,
    problem: Problem | None,
    status: int = 200,
    *,
    with_data: Collection[int] = (),
) -> Response:
    """Return a job as a JSON response; one that is not done says when to ask again."""
    headers = _headers(job)
    if not job.status.is_final:
        headers["Retry-After"] = str(_ASK_AGAIN)
    if status == 202:
        headers["Location"] = f"{root}/jobs/{job.id}"
    body = document(job, root, problem, with_data=with_data).model_dump_json()
    return Response(body, status, headers, JSON)


async def result_response(job: Job, root: str) -> Response:
    """Return a job that has succeeded as a JSON response, with the bytes of its outputs."""
    assert job.result is not None
    numbers: list[int] = []
    together = 0
    for number, output in enumerate(job.result.outputs):
        spooled = job.result.spooled.get(number)
        size = spooled.size.bytes if spooled else len(content(output))
        if size < _MOST_DATA and together + size <= _MOST_DATA_TOGETHER:
            numbers.append(number)
            together += size
    return job_response(await whole(job, numbers), root, None, with_data=numbers)


async def output_response(job: Job, number: int) -> Response:
    """Return the bytes of an output, by its number."""
    job = await whole(job, {number})
    assert job.result is not None
    output = job.result.outputs[number]
    headers = _headers(job) | _file_headers(output, job.id)
    return Response(content(output), 200, headers, _type(output))


def content(output: File | Text) -> bytes:
    """Return the bytes of an output."""
    return output.data if isinstance(output, File) else output.text.encode("utf-8", "replace")


def first_output(outputs: Sequence[File | Text]) -> int:
    """Return the number of what a reply holds: the first file, else the first text."""
    return next((n for n, output in enumerate(outputs) if isinstance(output, File)), 0)


def media_type_of(output: File | Text) -> str:
    """Return the media type of an output, without parameters."""
    return _type(output).partition(";")[0]


def _type(output: File | Text) -> str:
    return output.media_type if isinstance(output, File) else "text/plain; charset=utf-8"


def _headers(job: Job) -> dict[str, str]:
    headers = {"X-Job-Id": job.id}
    if job.seed is not None:
        headers["X-Seed"] = str(job.seed)
    return headers | (_result_headers(job.result) if job.result else {})


def _result_headers(result: Result) -> dict[str, str]:
    return {
        "X-Cost-USD": f"{result.cost:.6f}",
        "X-Execution-Time-Sec": f"{result.execution_seconds:.3f}",
        "X-Queue-Time-Sec": f"{result.queue_seconds:.3f}",
        "X-GPU-Type": _printed(result.gpu),
        "X-Engine": _printed(result.engine),
        "X-Output-Count": str(len(result.outputs)),
    }


def _file_headers(output: File | Text, job: str) -> dict[str, str]:
    # A node may write pages and pictures with scripts; nothing here runs them.
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "no-store",
    }
    if isinstance(output, File):
        name = _printed(output.filename).replace("\\", "_").replace('"', "_")
        headers["Content-Disposition"] = f'inline; filename="{job}_{name}"'
    return headers


def _printed(text: str) -> str:
    """Return a text as a header can carry it."""
    return "".join(c if " " <= c <= "~" else "_" for c in text)


def _output(output: File | Text, url: str, spooled: Spooled | None, *, with_data: bool) -> Output:
    data = content(output)
    if spooled is not None:
        size = spooled.size
    else:
        size = measure(data) if isinstance(output, File) else Measures(len(data))
    return Output(
        node=output.node,
        kind=output.kind,
        media_type=media_type_of(output),
        filename=output.filename if isinstance(output, File) else None,
        bytes=size.bytes,
        width=size.width,
        height=size.height,
        url=url,
        data=encode_base64(data) if with_data else None,
    )


def _range(part: str) -> tuple[str, float]:
    name, *parameters = part.split(";")
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return name.strip().lower(), quality


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return how much a type is wanted: by the most specific range that fits it."""
    for wanted in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        for name, quality in ranges:
            if name == wanted:
                return quality
    return 0.0
