"""How long 1,000 conversions from UI format take, in one process on one core.

python -m bench.convert [--count N]
"""

import argparse
import gzip
import json
import os
import sys
import time
from pathlib import Path
from typing import Final

from generator.graph.catalog import open_catalog
from generator.graph.convert import convert
from generator.project import CATALOGS

BOUND: Final = 10.0
ROUNDS: Final = 3
FILES: Final = Path(__file__).parent.parent / "tests" / "fixtures" / "conversions.json.gz"


def main() -> int:
    """Measure, print, and return 1 when the bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    count = parser.parse_args().count
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pairs = json.loads(gzip.decompress(FILES.read_bytes())).values()
    texts = [json.dumps(pair["ui"]) for pair in pairs]
    taken: list[float] = []
    for _ in range(ROUNDS):
        # Reading the node schemas is a part of it.
        start = time.perf_counter()
        catalog = open_catalog(CATALOGS, version="0.3.71")
        for number in range(count):
            made = convert(json.loads(texts[number % len(texts)]), catalog)
            assert made.graph
            json.dumps(made.graph)
        taken.append(time.perf_counter() - start)
        print(f"{count} conversions: {taken[-1]:.2f} s")
    size = sum(map(len, texts)) / len(texts) / 1024
    print(f"best {min(taken):.2f} s (at most {BOUND:g} s), files of {size:.0f} KiB on average")
    return int(min(taken) > BOUND)


if __name__ == "__main__":
    sys.exit(main())
