"""Records that outlive a deployment, read by another version of the code than wrote them."""

import io
import pickle
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

import pytest

from templates.gateway.backend import Failure, Key, Result, Status, Step, Work, Worker
from templates.gateway.claims import Claim
from templates.gateway.job_store import End, Now, Record
from templates.gateway.timings import Timings
from templates.gateway.usage import Counts, Segment
from templates.utils.comfyui_errors import NodeError
from templates.utils.comfyui_records import File, Preview, Text
from templates.utils.lasting import lasting

JOB = "job_0123456789abcdefghjkmnpqrs"
OUTPUTS = File("1", "images", "a.png", "image/png", b"x", False), Text("2", "text", "made")
RESULT = Result(OUTPUTS, 1.0, 0.0, "L40S", 0.1, "comfyui/0.3.71", False)
FAILURE = Failure("node-failed", "no", (NodeError("1", "A", "b", "c", "d"),))
# All that is put into Modal's Dicts, into calls and into what they return.
WRITTEN = (
    Work(JOB, "/picture", {}, {}, 7, "l40s", 60.0, "ann", key=Key("k", "f")),
    Record("fc-1", "/picture", "ann", 7, 1.0),
    Now(Status.RUNNING, 1, Step("1", "A", 1.0, 2.0), Timings(1.0)),
    End(Status.SUCCEEDED, result=RESULT, timings=Timings(1.0)),
    End(Status.FAILED, failure=FAILURE),
    Worker("l40s", True, "comfyui/0.3.71", "L40S", 1.0, "no", 2.0, "faces"),
    Claim(JOB, "f", 1.0),
    Segment(1.0, {("/picture", "ann"): Counts()}),
    Preview("1", "image/jpeg", b"x"),
)


class Finder(pickle.Pickler):
    """Notes the dataclasses that are pickled."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), 4)
        self.found: list[Any] = []

    def reducer_override(self, record: Any) -> Any:
        if is_dataclass(record) and not isinstance(record, type):
            self.found.append(record)
        return NotImplemented


@pytest.mark.parametrize("record", WRITTEN, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read(record: Any) -> None:
    assert pickle.loads(pickle.dumps(record)) == record
    finder = Finder()
    finder.dump(record)
    assert finder.found
    for one in finder.found:
        state = one.__getstate__()
        assert isinstance(state, Mapping), f"{type(one).__name__} is not lasting"
        assert list(state) == [field.name for field in fields(one)]


@pytest.mark.parametrize("record", WRITTEN, ids=lambda record: type(record).__name__)
def test_what_another_version_has_written_is_read(record: Any) -> None:
    """One that did not know some fields, and knew others."""
    cls: Any = type(record)
    optional = [
        field for field in fields(cls) if (field.default, field.default_factory) != (MISSING,) * 2
    ]
    left_out = {field.name for field in optional}
    state = {k: value for k, value in record.__getstate__().items() if k not in left_out}
    read = cls.__new__(cls)
    read.__setstate__(state | {"of_later": 1})
    for field in fields(cls):
        if field not in optional:
            assert getattr(read, field.name) == getattr(record, field.name)
        elif field.default is not MISSING:
            assert getattr(read, field.name) == field.default
        else:
            assert hasattr(read, field.name)


def test_a_record_without_what_it_needs() -> None:
    @lasting
    @dataclass(frozen=True, slots=True)
    class Needy:
        a: int
        b: int

    read: Any = Needy.__new__(Needy)
    with pytest.raises(TypeError, match="a Needy without b cannot be read"):
        read.__setstate__({"a": 1})
