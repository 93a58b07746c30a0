"""Volumes of the control plane on this machine behave as Modal's: seen as they were, until reloaded."""

import json
import subprocess
from pathlib import Path

from .local import LocalModal

APP = """\
from pathlib import Path

import modal

app = modal.App("volumes")
volume = modal.Volume.from_name("shared", create_if_missing=True)
WRITER, READER = {writer!r}, {reader!r}


@app.function(volumes={{WRITER: volume}})
def write(name: str, gone: str = "", *, commit: bool) -> None:
    Path(WRITER, name).write_text(name)
    if gone:
        Path(WRITER, gone).unlink()
    if commit:
        volume.commit()


@app.function(volumes={{READER: volume}})
def read(*, reload: bool) -> list[str]:
    if reload:
        volume.reload()
    return sorted(path.name for path in Path(READER).iterdir())
"""
PROGRAM = """\
import json
import modal

write, read = (modal.Function.from_name("volumes", name) for name in ("write", "read"))
found = [read.remote(reload=False)]
write.remote("a", commit=False)
found.append(read.remote(reload=True))
write.remote("b", commit=True)
found.append(read.remote(reload=False))
found.append(read.remote(reload=True))
write.remote("c", "a", commit=True)
found.append(read.remote(reload=True))
print(json.dumps(found))
"""


def test_what_containers_see_of_a_volume(modal: LocalModal, tmp_path: Path) -> None:
    writer, reader = (str(tmp_path / "mnt" / name) for name in ("writer", "reader"))
    (tmp_path / "shown.py").write_text(APP.format(writer=writer, reader=reader), "utf-8")
    modal.plane.volume_path("shared").joinpath("old").touch()
    modal.cli("deploy", "shown.py", cwd=tmp_path)
    run = subprocess.run(
        [modal.python, "-c", PROGRAM],
        env=modal.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == [
        ["old"],
        ["old"],
        ["old"],
        ["a", "b", "old"],
        ["b", "c", "old"],
    ]
    # What was not committed is, as the container ends.
    program = PROGRAM.partition("found")[0] + 'write.remote("late", commit=False)'
    subprocess.run([modal.python, "-c", program], env=modal.environment, check=True)
    shared = modal.plane.volume_path("shared")
    assert not (shared / "late").exists()
    assert modal.scale_down("volumes", "write") == [0]
    assert (shared / "late").read_text() == "late"
