"""The HTTP API: all endpoints on one app, whatever runs their graphs.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

import os
import sys
from pathlib import Path

from fastapi import FastAPI

from . import config
from .gateway.access import Access, access_of
from .gateway.app import Settings, new_app
from .gateway.backend import Backend, Room
from .gateway.limits import Limits
from .gateway.serve import main
from .handlers.flux import setup_flux_endpoints
from .handlers.instantid import setup_instantid_endpoints
from .handlers.lora import setup_lora_endpoints
from .handlers.seedvr2 import setup_seedvr2_endpoints
from .handlers.wan2 import setup_wan2_endpoints
from .handlers.workflow import setup_workflow_endpoints
from .utils.cost_tracker import PRICES, price_per_second

SETTINGS = Settings(
    name=config.APP_NAME,
    comfyui_version=config.COMFYUI_VERSION,
    deadline=config.DEADLINE,
    max_body_bytes=config.MAX_BODY_BYTES,
    max_media_pixels=config.MAX_MEDIA_PIXELS,
    limits=Limits(
        text_characters=config.MAX_TEXT_CHARACTERS,
        output_pixels=config.MAX_OUTPUT_PIXELS,
        requests_per_minute=config.MAX_REQUESTS_PER_MINUTE,
        listeners_per_key=config.MAX_LISTENERS_PER_KEY,
        room=Room(config.MAX_JOBS, config.MAX_JOBS_PER_KEY),
    ),
    cors_origins=config.CORS_ORIGINS,
    operators=config.OPERATORS,
)


def create_api(backend: Backend, access: Access | None = None) -> FastAPI:
    """Return the API of a backend; who may ask is said by gpu.yaml unless `access` is given.

    Raises:
        ValueError: when gpu.yaml wants keys and the variable API_KEYS has none.
    """
    access = access or access_of(config.AUTH, os.environ)
    app = new_app(Path(__file__).parent, SETTINGS, backend, access)
    setup_flux_endpoints(app, backend)
    setup_instantid_endpoints(app, backend)
    setup_lora_endpoints(app, backend)
    setup_seedvr2_endpoints(app, backend)
    setup_wan2_endpoints(app, backend)
    setup_workflow_endpoints(app, backend)
    return app


if __name__ == "__main__":
    prices = {gpu: price_per_second(gpu) for gpu in PRICES}
    sys.exit(main(create_api, prices, config.CORS_ORIGINS, log_prompts=config.LOG_PROMPTS))
