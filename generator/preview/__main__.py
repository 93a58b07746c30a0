"""The command line of the preview engine."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ..graph.catalog import open_catalog, versions
from ..ports import parse_port
from .folders import FolderError, Folders
from .schemas import Schemas
from .server import Server, serving

_CATALOGS = Path(__file__).parent.parent / "catalogs"
_DESCRIPTION = """\
Serve ComfyUI's HTTP and websocket protocol on 127.0.0.1 without running a model: graphs are
refused as ComfyUI refuses them, and what passes is answered with placeholders that say what would
have been made, of the right kind, size and length. /system_stats says "preview": true.
"""
_EPILOG = """\
A loader's file must lie in DIR/models, as with ComfyUI; --model makes an empty one. One LoRA,
loras/character-demo.safetensors, is put there at start. Uploads go to DIR/input, pictures to
DIR/output and DIR/temp; nothing is deleted.

example, with a graph's model and half a second per sampler step:
  python -m generator.preview --port 8188 --base-directory /tmp/preview --pace 0.5 \\
      --model checkpoints/flux1-schnell-fp8.safetensors
  curl http://127.0.0.1:8188/system_stats
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return 0 then, and 2 when there is nothing to serve."""
    options = _parser().parse_args(arguments)
    folders = Folders(options.base_directory.absolute())
    try:
        catalogs = (_CATALOGS, *([options.catalogs] if options.catalogs else []))
        if options.comfyui not in versions(*catalogs):
            known = ", ".join(versions(*catalogs))
            raise FolderError(
                f"no node schemas of ComfyUI {options.comfyui}; there are some of {known}"
            )
        catalog = open_catalog(*catalogs, version=options.comfyui)
        unknown = set(options.pack or ()) - set(catalog.packs)
        if unknown:
            raise FolderError(f"no node schemas of the pack {', '.join(sorted(unknown))}")
        folders.make()
        for model in options.model:
            folders.add_model(model)
        server = Server(
            Schemas(catalog, folders, options.pack),
            folders,
            pace=options.pace,
            previews=options.preview_method != "none",
        )
        asyncio.run(_serve(server, options.port))
    except (OSError, FolderError) as error:
        sys.stderr.write(f"preview engine: {error}\n")
        return 2
    return 0


async def _serve(server: Server, port: int) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with serving(server, port) as url:
        sys.stdout.write(f"preview engine: {url}\n")
        sys.stdout.flush()
        await stopped.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m generator.preview",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = versions(_CATALOGS)
    parser.add_argument(
        "--port", type=parse_port, default=8188, help="port on 127.0.0.1; 0 is any (default: 8188)"
    )
    parser.add_argument(
        "--base-directory",
        type=Path,
        required=True,
        metavar="DIR",
        help="holds models/, input/, output/ and temp/; made when absent",
    )
    parser.add_argument(
        "--pace",
        type=_seconds,
        default=0.02,
        metavar="SECONDS",
        help="how long a sampler step takes (default: 0.02)",
    )
    parser.add_argument(
        "--preview-method",
        choices=("none", "auto"),
        default="none",
        help="auto: samplers send a picture with each step (default: none, as ComfyUI)",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FOLDER/FILE",
        help="a model to list, made as an empty file; repeatable",
    )
    parser.add_argument(
        "--pack",
        action="append",
        metavar="NAME",
        help="a node pack that is installed; repeatable (default: all with node schemas)",
    )
    parser.add_argument(
        "--no-packs", dest="pack", action="store_const", const=[], help="no node pack is installed"
    )
    parser.add_argument(
        "--catalogs",
        type=Path,
        metavar="DIR",
        help="more node schemas, as `python -m generator catalog` makes them",
    )
    parser.add_argument(
        "--comfyui",
        default=known[-1],
        metavar="VERSION",
        help=f"the version to stand in for (default: {known[-1]})",
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("seconds are a number") from error
    if not 0 <= seconds <= 60:
        raise argparse.ArgumentTypeError("seconds are from 0 to 60")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
