"""The catalog that is made from a real ComfyUI, beside a stored one."""

from pathlib import Path

import pytest

from generator.catalogs.compact import compact
from generator.observe import observe
from tests.engine.conftest import Installed
from tests.engine.install import COMFYUI_VERSION

STORED = Path(__file__).parent / f"comfyui-{COMFYUI_VERSION}.jsonl"


def test_the_catalog_equals_the_stored_one(
    engine: Installed, request: pytest.FixtureRequest
) -> None:
    """`pytest tests/engine/test_catalog.py --update-golden` stores it anew."""
    before = {path for path in engine.base.rglob("*") if "marker" in path.name}
    sources = observe(engine.url, engine.base / "models")
    assert {path for path in engine.base.rglob("*") if "marker" in path.name} == before == set()
    assert [source.get("pack") for source in sources] == [None, "probe_nodes"]
    # Two classes list the folders below input, which other tests make.
    for node in sources[0]["nodes"].values():
        if "folder" in node["inputs"]:
            node["inputs"]["folder"]["options"] = []
    found = compact(sources[0])
    if request.config.getoption("--update-golden"):
        STORED.write_text(found, encoding="utf-8")
    # By lines, for a difference to be readable.
    assert found.splitlines() == STORED.read_text(encoding="utf-8").splitlines()
