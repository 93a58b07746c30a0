"""The pictures of README and docs are what their script makes of the page as it is."""

import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageStat

from docs.pictures import IMAGES

from ..conftest import ROOT


def test_the_pictures_are_made_again(tmp_path: Path) -> None:
    """In light and dark, on its way and on a phone: as many, as large, and with something on them."""
    # In a process of its own, for Playwright runs once in each.
    command = [sys.executable, "-m", "docs.pictures", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in IMAGES.iterdir()}
    shades = {}
    for name in sorted(made):
        if not name.endswith(".svg"):
            with Image.open(tmp_path / name) as new, Image.open(IMAGES / name) as kept:
                assert new.size == kept.size, name
                shades[name] = ImageStat.Stat(new.convert("L"))
    assert all(max(found.stddev) > 10 for found in shades.values())
    assert shades["playground-dark.webp"].mean[0] < shades["playground-light.webp"].mean[0] - 80
