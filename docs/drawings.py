"""The pictures that are drawn from files of this project: diagrams, and graphs of workflows."""

from pathlib import Path
from typing import Final

import pygraphviz

from generator.cli import main as generator

HERE: Final = Path(__file__).parent
DIAGRAMS: Final = HERE / "diagrams"
GRAPHS: Final = {"flux-graph.svg": "flux"}


def draw(folder: Path) -> None:
    """Write them into a folder."""
    for path in sorted(DIAGRAMS.glob("*.dot")):
        graph = pygraphviz.AGraph(filename=str(path))
        graph.draw(str(folder / f"{path.stem}.svg"), format="svg", prog="dot")
    for name, workflow in GRAPHS.items():
        command = ["graph", workflow, "-o", str(folder / name), "--quiet"]
        if generator([*command, "--project", str(HERE.parent)]):
            raise RuntimeError(f"{workflow} is not drawn")
