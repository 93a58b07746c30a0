"""The API of the build in this folder, with one route more: what its process holds.

    python -m bench.soaked --comfyui-url URL --base-directory DIR --port 0

Takes what `python -m build.api` does; `GET /held` answers with the bytes of memory in use, and the
numbers of tasks, sockets and other open files.
"""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI


async def held() -> dict[str, int]:
    """Return what this process holds."""
    names = []
    for path in Path("/proc/self/fd").iterdir():
        # One of them is this listing's own, and gone by now.
        if path.is_symlink():
            names.append(str(path.readlink()))
    sockets = sum(name.startswith("socket:") for name in names)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "tasks": len(asyncio.all_tasks()),
        "sockets": sockets,
        "files": len(names) - sockets,
    }


def main() -> int:
    """Serve until told to stop."""
    api = importlib.import_module("build.api")

    def create_api(*arguments: Any) -> FastAPI:
        app: FastAPI = api.create_api(*arguments)
        app.add_api_route("/held", held)
        return app

    code: int = api.main(create_api, {}, [])
    return code


if __name__ == "__main__":
    sys.exit(main())
