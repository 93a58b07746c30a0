"""What people do on the page, and what they read there."""

from playwright.sync_api import FilePayload, Locator, Page

from tests.api_client import png

GRAPH = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 255},
    },
    "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "it", "images": ["1", 0]}},
}
FLUX = {"width": "64", "height": "48", "steps": "3"}


def picture(name: str = "small.png") -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": png(64, 48)}


def fill(page: Page, values: dict[str, str]) -> None:
    for name, value in values.items():
        target = page.locator(f"#param-{name}")
        if value == "@":
            target.set_input_files(picture())
        elif target.evaluate("e => e.tagName") == "SELECT":
            target.select_option(value)
        else:
            target.fill(value)


def run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def result(page: Page) -> Locator:
    """Return what a run made, once it is there."""
    shown = page.locator(".frame.is-done")
    shown.wait_for()
    return shown


def fact(page: Page, name: str) -> str:
    return page.locator(f"[data-fact={name}]").inner_text()
