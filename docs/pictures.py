"""Make the pictures of README and docs: `python -m docs.pictures [DIR]`, by default docs/images.

Those of the page need a Chromium; they look best where the font Inter is installed, too.
"""

import io
import sys
from pathlib import Path
from typing import Any, Final

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page

from generator.trial import served
from tests.browser.chromium import NoChromiumError, launched

from .drawings import draw

IMAGES: Final = Path(__file__).parent / "images"
REQUESTS: Final = {"fox.png": ("/flux", {"prompt": "a red fox", "seed": 2398982695762587})}
_DESK: Final = {"width": 1440, "height": 1000}
_PHONE: Final = {"width": 390, "height": 844}
_SEED: Final = "2398982695762587"


def main(folder: Path = IMAGES) -> int:
    """Draw; serve on a preview engine, and save what it answers and what the page looks like."""
    draw(folder)
    with served(IMAGES.parent.parent) as url:
        for name, (route, body) in REQUESTS.items():
            reply = httpx.post(url + route, json=body, timeout=60).raise_for_status()
            (folder / name).write_bytes(reply.content)
        try:
            with launched() as browser:
                for scheme in ("light", "dark"):
                    page = _with_result(browser, url, scheme, _DESK)
                    _save(page, folder / f"playground-{scheme}.webp")
                _save(_on_its_way(browser, url), folder / "playground-run.webp")
                _save(_with_result(browser, url, "light", _PHONE), folder / "playground-phone.webp")
        except NoChromiumError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
    return 0


def _opened(browser: Browser, url: str, workflow: str, scheme: Any, size: Any) -> Page:
    phone = size is _PHONE
    context = browser.new_context(
        viewport=size, color_scheme=scheme, device_scale_factor=2 if phone else 1
    )
    page = context.new_page()
    page.goto(f"{url}/#{workflow}")
    page.locator("#run:enabled").wait_for()
    page.locator(".graph svg").wait_for()
    return page


def _with_result(browser: Browser, url: str, scheme: str, size: Any) -> Page:
    """Return the page after a few runs, with the result of the last one."""
    page = _opened(browser, url, "flux", scheme, size)
    prompts = ("a lighthouse at dusk", "an old map of the sea", "a red fox in the snow")
    for number, prompt in enumerate(prompts):
        page.locator("#param-prompt").fill(prompt)
        page.locator("#param-seed").fill(str(int(_SEED) + 17 * (len(prompts) - 1 - number)))
        page.locator("#run").click()
        page.locator("#runs li").nth(number).wait_for()
        page.locator(".frame.is-done").wait_for()
    page.locator(".frame.is-done img").evaluate("image => image.decode()")
    page.mouse.move(0, 0)
    # The scrolling to the result, and what fades.
    page.wait_for_timeout(800)
    return page


def _on_its_way(browser: Browser, url: str) -> Page:
    page = _opened(browser, url, "flux-lora", "light", _DESK)
    page.locator("#param-width").fill("1216")
    page.locator("#param-height").fill("640")
    page.locator("#param-steps").fill("100")
    page.locator("#run").click()
    page.locator(".frame .preview").wait_for()
    page.wait_for_timeout(600)
    return page


def _save(page: Page, file: Path) -> None:
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.save(file, quality=86, method=6)
    page.context.close()


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
