"""Wait with the app's libraries imported until told to serve: python -m generator.standby.

Importing them is most of what a start takes. Reads one line from standard input, a JSON list of the
arguments of build.api, and runs that from the folder that it is in; ends without one.
"""

import json
import runpy
import sys

import aiohttp  # noqa: F401
import av  # noqa: F401
import fastapi_offline  # noqa: F401
import httpx  # noqa: F401
import PIL.Image  # noqa: F401
import uvicorn  # noqa: F401
import uvloop  # noqa: F401

if __name__ == "__main__":
    line = sys.stdin.readline()
    if line:
        sys.argv = ["build.api", *json.loads(line)]
        runpy.run_module("build.api", run_name="__main__", alter_sys=True)
