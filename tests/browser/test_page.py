"""The page at /: every form filled, run, watched and shown, as people do it."""

import base64
import io
import json
import re
import subprocess
import sys
import urllib.parse
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Dialog, Page, Route, expect

from tests.api_client import png, size

from .acts import FLUX, GRAPH, fact, fill, picture, result, run
from .conftest import KEY, PREFIX, Watched

Watch = Callable[..., Watched]

FORMS: dict[str, tuple[str, dict[str, str], tuple[int, int]]] = {
    "flux": ("flux", FLUX, (64, 48)),
    "flux-dev": ("flux-dev", FLUX, (64, 48)),
    "flux-lora": ("flux-lora", FLUX, (64, 48)),
    "flux-instantid": ("flux-instantid", {**FLUX, "reference_image": "@"}, (64, 48)),
    "seedvr2": ("seedvr2", {"image": "@", "resolution": "64"}, (86, 64)),
    "wan2, webp": ("wan2", {**FLUX, "length": "5"}, (64, 48)),
    "wan2, mp4": ("wan2", {**FLUX, "length": "5", "format": "mp4"}, (64, 48)),
    "workflow": ("workflow", {"workflow": json.dumps(GRAPH)}, (64, 48)),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_filled_run_and_shown(name: str, watched: Watched) -> None:
    workflow, values, (width, height) = FORMS[name]
    page = watched.open(workflow)
    fill(page, values)
    run(page)
    made = result(page).locator("img, video")
    if made.evaluate("e => e.tagName") == "VIDEO":
        page.wait_for_function("document.querySelector('.is-done video').readyState >= 2")
        assert made.evaluate("e => [e.videoWidth, e.videoHeight]") == [width, height]
    else:
        assert made.evaluate("e => e.decode().then(() => [e.naturalWidth, e.naturalHeight])") == [
            width,
            height,
        ]
    expect(result(page)).to_contain_text("Placeholder, drawn by the preview engine")
    assert re.fullmatch(r"\d+\.\d\d s", fact(page, "time"))
    assert re.fullmatch(r"\$\d+\.\d+", fact(page, "cost"))
    assert fact(page, "gpu") == "none (preview)"
    assert fact(page, "size") == f"{width} × {height}"
    if workflow != "workflow":
        assert fact(page, "seed").isdigit()
        assert page.locator(".graph .node.is-done").count() >= 3
    expect(page.locator("#runs li")).to_have_count(1)
    expect(page.locator("#status")).to_contain_text("Done in")


def test_a_run_is_watched(watched: Watched) -> None:
    page = watched.open("flux")
    fill(page, {**FLUX, "steps": "80"})
    run(page)
    expect(page.locator(".progress-what")).to_have_text(re.compile(r"KSampler, step \d+ of 80"))
    running = page.locator(".graph .node.is-running")
    expect(running).to_have_attribute("data-node", "5")
    expect(page.locator(".graph .node.is-done[data-node='4']")).to_have_count(1)
    page.locator(".frame .preview").wait_for()
    assert 0 < page.locator(".progress progress").evaluate("e => e.value") < 1
    assert page.locator(".progress-where").inner_text() == "flux, node 5 of 7"
    assert page.locator(".progress-time").inner_text().endswith(" s")
    expect(page.locator("#run")).to_be_disabled()
    result(page)
    expect(page.locator("#run")).to_be_enabled()
    expect(running).to_have_count(0)


def test_the_empty_stage_names_what_comes(watched: Watched) -> None:
    """Where the caller chooses between a moving picture and a video, it promises neither."""
    for name, words in (("flux", "The picture appears here"), ("wan2", "The result appears here")):
        page = watched.open(name)
        expect(page.locator(".frame.is-empty")).to_have_text(words)


def test_a_run_is_cancelled(watched: Watched) -> None:
    page = watched.open("flux")
    fill(page, {**FLUX, "steps": "100"})
    run(page)
    expect(page.locator(".progress-what")).to_contain_text("step")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("heading", name="Cancelled").wait_for()
    expect(page.locator("#run")).to_be_enabled()
    expect(page.locator("#runs .is-cancelled")).to_have_attribute(
        "aria-label", re.compile("cancelled")
    )


def test_a_fault_is_said_at_its_field(watched: Watched) -> None:
    watched.expected = {422}
    page = watched.open("flux")
    fill(page, {"width": "17", "prompt": ""})
    run(page)
    error = page.locator("#param-width-error")
    expect(error).to_have_text("Input should be a multiple of 8")
    width, prompt = page.locator("#param-width"), page.locator("#param-prompt")
    expect(page.locator("#param-prompt-error")).to_have_text("this param is required")
    expect(prompt).to_be_focused()
    for field in (width, prompt):
        expect(field).to_have_attribute("aria-invalid", "true")
        name = field.get_attribute("id")
        assert f"{name}-error" in (field.get_attribute("aria-describedby") or "")
    expect(page.locator("#alert")).to_be_hidden()
    assert page.locator(".frame.is-empty").count() == 1
    fill(page, {"prompt": "a fox", **FLUX})
    run(page)
    result(page)
    expect(error).to_be_hidden()
    assert width.get_attribute("aria-invalid") is None


def test_what_is_no_value_is_said_before_the_service_is_asked(watched: Watched) -> None:
    asked: list[str] = []
    page = watched.open("workflow")
    page.on("request", lambda request: asked.append(request.method))
    fill(page, {"workflow": "{"})
    run(page)
    expect(page.locator("#param-workflow-error")).to_contain_text("this is no JSON")
    assert "POST" not in asked


def test_faults_inside_of_a_graph_are_said_with_their_place(watched: Watched) -> None:
    watched.expected = {422}
    page = watched.open("workflow")
    graph = {**GRAPH, "1": {"class_type": "EmptyImag", "inputs": {}}}
    fill(page, {"workflow": json.dumps(graph)})
    run(page)
    expect(page.locator("#param-workflow-error")).to_contain_text("EmptyImage")
    expect(page.locator("#param-workflow-error")).to_contain_text("1")


def test_sliders_have_the_bounds_and_steps_of_the_params(watched: Watched) -> None:
    page = watched.open("wan2")

    def slider(name: str) -> Any:
        return page.locator(f"[data-param={name}] [type=range]").evaluate(
            "e => [e.min, e.max, e.step, e.value]"
        )

    assert slider("width") == ["16", "1280", "16", "832"]
    assert slider("length") == ["1", "161", "4", "33"]
    assert slider("cfg") == ["0", "100", "0.1", "6"]
    page.locator("[data-param=length] [type=range]").fill("41")
    expect(page.locator("#param-length")).to_have_value("41")
    page.locator("#param-length").fill("9")
    assert slider("length")[3] == "9"
    assert page.locator("[data-param=seed] [type=range]").count() == 0
    assert page.locator("#param-format option").all_inner_texts() == ["webp", "mp4"]


def test_seeds_are_random_until_one_is_kept(watched: Watched) -> None:
    page = watched.open("flux")
    fill(page, FLUX)
    seeds: list[str] = []
    for _ in range(2):
        run(page)
        expect(page.locator("#runs li")).to_have_count(len(seeds) + 1)
        seeds.append(fact(page, "seed"))
    assert seeds[0] != seeds[1]
    page.get_by_role("button", name="Draw a seed and keep it").click()
    kept = page.locator("#param-seed").input_value()
    assert kept.isdigit()
    expect(page.get_by_role("button", name="Random")).to_have_attribute("aria-pressed", "false")
    run(page)
    expect(page.locator("#runs li")).to_have_count(3)
    assert fact(page, "seed") == kept
    page.get_by_role("button", name="Random").click()
    assert page.locator("#param-seed").input_value() == ""


def test_params_of_which_one_is_given(watched: Watched) -> None:
    page = watched.open("flux-lora")
    fill(page, FLUX)
    listed = page.locator("#param-lora_name option")
    expect(listed).to_have_text(["Choose…", "character-demo.safetensors"])
    expect(page.locator("#param-lora_name")).to_have_value("character-demo.safetensors")
    expect(page.locator("[data-param=lora_id]")).to_be_hidden()
    page.get_by_role("radio", name="LoRA ID").check()
    page.locator("#param-lora_id").fill("demo")
    with page.expect_request("**/flux-lora") as asked:
        run(page)
    sent = asked.value.post_data_json or {}
    assert sent["lora_id"] == "demo"
    assert "lora_name" not in sent
    assert "seed" not in sent
    result(page)


def test_params_that_may_be_absent_are_sent_when_they_are_switched_on(watched: Watched) -> None:
    page = watched.open("kinds")
    expect(page.locator("#workflow-description")).to_have_text("For the tests: <b>not bold</b>.")
    page.locator("#param-class").select_option("large")
    with page.expect_request("**/kinds") as asked:
        run(page)
    values = {"class": "large", "text": "", "color": 255, "batch": 5}
    assert asked.value.post_data_json == values
    result(page)
    page.get_by_label("Send Note").check()
    expect(page.locator("#param-note")).to_be_focused()
    page.locator("#param-note").fill("a note")
    with page.expect_request("**/kinds") as asked:
        run(page)
    assert asked.value.post_data_json == {**values, "note": "a note"}
    expect(page.locator("#runs li")).to_have_count(2)


def test_all_outputs_are_shown(watched: Watched) -> None:
    page = watched.open("kinds")
    page.locator("#param-class").select_option("small")
    page.locator("#param-text").fill("<i>five</i>")
    page.get_by_label("Send Sound").check()
    page.locator("#param-sound").set_input_files(
        {"name": "a.wav", "mimeType": "audio/wav", "buffer": sound()}
    )
    expect(page.locator("[data-param=sound] audio")).to_be_visible()
    run(page)
    result(page)
    outputs = page.get_by_role("list", name="Outputs").get_by_role("button")
    kinds, texts = set(), []
    for number in range(outputs.count()):
        outputs.nth(number).click()
        expect(outputs.nth(number)).to_have_attribute("aria-pressed", "true")
        kinds.add(result(page).locator("> :first-child").evaluate("e => e.tagName"))
        texts += result(page).locator("pre").all_inner_texts()
        if result(page).locator("audio").count():
            page.wait_for_function("document.querySelector('.is-done audio').duration > 0.4")
    assert kinds == {"IMG", "PRE", "AUDIO"}
    assert "<i>five</i> 5" in texts
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().stat().st_size > 0


def sound() -> bytes:
    """Return half a second of silence."""
    output = io.BytesIO()
    with wave.open(output, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(8000))
    return output.getvalue()


def test_pictures_are_dropped_and_pasted(watched: Watched) -> None:
    page = watched.open("seedvr2")
    data = base64.b64encode(png(40, 30)).decode()
    carried = f"""(type) => {{
        const bytes = Uint8Array.from(atob("{data}"), (c) => c.charCodeAt(0));
        const carrier = new DataTransfer();
        carrier.items.add(new File([bytes], `${{type}}.png`, {{ type: "image/png" }}));
        const zone = document.querySelector("[data-param=image] .drop");
        const event = type === "drop"
            ? new DragEvent("drop", {{ dataTransfer: carrier, bubbles: true, cancelable: true }})
            : new ClipboardEvent("paste", {{ clipboardData: carrier, bubbles: true }});
        (type === "drop" ? zone : document.body).dispatchEvent(event);
    }}"""
    chosen = page.locator("[data-param=image] .chosen")
    for way in ("drop", "paste"):
        page.evaluate(carried, way)
        expect(chosen).to_contain_text(f"{way}.png")
        expect(chosen).to_contain_text("40 × 30")
        assert chosen.locator("img").evaluate("e => e.decode().then(() => e.naturalWidth)") == 40
        page.get_by_role("button", name=f"Remove {way}.png").click()
        expect(chosen).to_have_count(0)
        expect(page.locator("#param-image")).to_be_focused()
    page.get_by_label("Image, URL").fill("file:///etc/passwd")
    run(page)
    expect(page.locator("#param-image-error")).to_contain_text("a URL starts with https://")


def test_history_stays_and_its_settings_are_used_again(watched: Watched) -> None:
    page = watched.open("flux")
    fill(page, {**FLUX, "prompt": "a first fox"})
    run(page)
    result(page)
    seed = fact(page, "seed")
    page.goto(f"{watched.url}/#seedvr2")
    fill(page, {"image": "@", "resolution": "64"})
    run(page)
    expect(page.locator("#runs li")).to_have_count(2)
    page.reload()
    runs = page.locator("#runs button")
    expect(runs).to_have_count(2)
    for number in range(2):
        image = runs.nth(number).locator("img")
        assert image.evaluate("e => e.decode().then(() => e.naturalWidth)") == 160
    runs.nth(1).click()
    shown = result(page).locator("img")
    assert shown.evaluate("e => e.decode().then(() => e.naturalWidth)") == 64
    assert fact(page, "seed") == seed
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#workflow-name")).to_have_text("flux")
    expect(page.locator("#param-prompt")).to_have_value("a first fox")
    expect(page.locator("#param-seed")).to_have_value(seed)
    runs.nth(0).click()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("[data-param=image] .chosen")).to_contain_text("small.png")
    run(page)
    expect(page.locator("#runs li")).to_have_count(3)
    asked: list[str] = []

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.once("dialog", refuse)
    page.get_by_role("button", name="Clear").click()
    expect(runs).to_have_count(3)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Clear").click()
    assert asked == ["Remove all 3 runs from the history of this browser?"]
    expect(runs).to_have_count(0)
    page.reload()
    page.locator("#run:enabled").wait_for()
    expect(runs).to_have_count(0)


def test_a_run_goes_on_when_the_page_is_opened_again(watched: Watched) -> None:
    page = watched.open("flux-dev")
    fill(page, {**FLUX, "steps": "90", "prompt": "a patient fox"})
    run(page)
    expect(page.locator(".progress-what")).to_contain_text("step")
    page.reload()
    expect(page.locator(".progress-what")).to_contain_text("step")
    expect(page.locator("#param-prompt")).to_have_value("a patient fox")
    result(page)
    expect(page.locator("#runs li")).to_have_count(1)


def test_a_lost_connection_is_made_again_where_it_ended(watched: Watched) -> None:
    asked: list[str | None] = []

    def cut(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) > 1:
            route.continue_()
            return
        reply = route.fetch()
        body = reply.text()
        route.fulfill(
            response=reply, body=body[: body.index("\n\n", body.index("event: node")) + 2]
        )

    page = watched.open("flux")
    page.route("**/events?*", cut)
    fill(page, FLUX)
    run(page)
    result(page)
    assert asked[0] is None
    assert asked[1] is not None
    assert asked[1].isdigit()
    assert len(asked) == 2


def test_the_key_is_asked_for_once_and_kept_for_the_session(watched: Watched) -> None:
    """Behind a prefix, too: the page asks for nothing outside of it."""
    watched.expected = {401}
    outside: list[str] = []
    with_key: list[str] = []

    def note(request: Any) -> None:
        if not urllib.parse.unquote(request.url).startswith((watched.url + PREFIX, "blob:")):
            outside.append(request.url)
        if "authorization" in request.headers:
            with_key.append(urllib.parse.urlsplit(request.url).path)

    page = watched.page
    page.on("request", note)
    watched.open(path=f"{PREFIX}/")
    dialog = page.get_by_role("dialog", name="This service wants a key")
    field = dialog.get_by_label("API key")
    expect(field).to_be_focused()
    field.fill("wrong")
    field.press("Enter")
    expect(dialog).to_contain_text("This key is not known here.")
    field.fill(KEY)
    dialog.get_by_role("button", name="Continue").click()
    page.locator("#run:enabled").wait_for()
    fill(page, FLUX)
    run(page)
    result(page)
    assert {path.rpartition("/")[2] for path in with_key} >= {"workflows", "flux", "events", "0"}
    assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
    page.reload()
    page.locator("#run:enabled").wait_for()
    expect(dialog).to_be_hidden()
    assert outside == []


def test_without_a_key_the_page_says_so(watched: Watched) -> None:
    watched.expected = {401}
    page = watched.open(path=f"{PREFIX}/")
    page.get_by_role("button", name="Not now").click()
    page.get_by_role("heading", name="A key is needed").wait_for()


PROMPT = 'it\'s a "fox" — 狐 🦊 $HOME `id` \\n %s {x} ${y} </script>\nsecond line'


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
@pytest.mark.parametrize("workflow", ["flux", "flux-instantid", "workflow"])
def test_a_request_is_copied_as_code_that_runs(
    workflow: str, language: str, watched: Watched, works: list[Any], tmp_path: Path, node: str
) -> None:
    watched.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = watched.open(workflow)
    if workflow == "workflow":
        fill(page, {"workflow": json.dumps(GRAPH)})
    else:
        fill(page, {**FLUX, "prompt": PROMPT, "seed": "9007199254740991"})
    if workflow == "flux-instantid":
        name = 'it\'s "a" 狐.png'
        page.locator("#param-reference_image").set_input_files(picture(name))
        (tmp_path / name).write_bytes(png(64, 48))
    page.get_by_role("button", name="Code").click()
    dialog = page.get_by_role("dialog", name="This request as code")
    dialog.get_by_role("radio", name=language).check()
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    code = page.evaluate("navigator.clipboard.readText()")
    assert code.strip() == dialog.locator("pre").inner_text().strip()
    commands = {
        "curl": ["bash", "code.sh"],
        "Python": [sys.executable, "code.py"],
        "JavaScript": [node, "code.mjs"],
    }
    command = commands[language]
    (tmp_path / command[1]).write_text(code, encoding="utf-8")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = (
        tmp_path / ("workflow.bin" if workflow == "workflow" else f"{workflow}.png")
    ).read_bytes()
    assert size(made) == (64, 48)
    dialog.get_by_role("button", name="Close").click()
    run(page)
    result(page)
    by_code, by_page = works[-2:]
    assert by_code.graph == by_page.graph
    assert by_code.files == by_page.files


def test_the_copied_curl_waits_for_a_long_run(watched: Watched, tmp_path: Path) -> None:
    """One that is answered with 202 and a job, as all are that take longer than the deadline."""
    page = watched.open("flux")
    fill(page, FLUX)
    page.get_by_role("button", name="Code").click()
    dialog = page.get_by_role("dialog", name="This request as code")
    dialog.get_by_role("radio", name="curl").check()
    code = dialog.locator("pre").inner_text()
    assert code.count("-X POST") == 1
    # It may be answered at once each time.
    assert code.count("sleep 1\n") == 1
    later = code.replace("-X POST", "-X POST -H 'Prefer: respond-async'")
    done = subprocess.run(
        ["bash", "-c", later], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert size((tmp_path / "flux.png").read_bytes()) == (64, 48)
    wrong = later.replace('"width": 64', '"width": 65')
    assert wrong != later
    done = subprocess.run(
        ["bash", "-c", wrong], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 22


def test_nothing_is_found_by_axe(watch: Watch) -> None:
    """In both colour schemes, on a desk and in a hand, and in every state of the page."""
    found: list[str] = []

    def check(page: Page, state: str) -> None:
        response = Axe().run(page).response
        found.extend(f"{state}: {v['id']}, {v['nodes'][0]['html']}" for v in response["violations"])

    for scheme, width in (("light", 1280), ("dark", 390)):
        watched = watch(
            color_scheme=scheme, viewport={"width": width, "height": 844}, reduced_motion="reduce"
        )
        watched.expected = {422}
        page = watched.open("flux")
        check(page, "empty")
        fill(page, {**FLUX, "steps": "90"})
        run(page)
        page.locator(".frame .preview").wait_for()
        check(page, "running")
        result(page)
        check(page, "result")
        fill(page, {"width": "17"})
        run(page)
        page.locator("#param-width-error:visible").wait_for()
        check(page, "fault")
        fill(page, FLUX)
        page.locator("#picker").click()
        page.locator(".workflow").first.wait_for()
        check(page, "picker")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Code").click()
        check(page, "code")
        page.keyboard.press("Escape")
        for workflow in ("flux-lora", "kinds", "seedvr2", "workflow"):
            watched.open(workflow)
            check(page, workflow)
        watched.expected = {401}
        watched.open(path=f"{PREFIX}/")
        page.get_by_role("dialog").wait_for()
        check(page, "key")
    assert not found, "\n".join(found)


def test_the_keyboard_is_enough(watched: Watched) -> None:
    page = watched.open("seedvr2")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the form")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#picker")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator(".workflow").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#workflow-name")).to_have_text("flux")
    expect(page.locator("#workflows")).to_be_hidden()
    fill(page, FLUX)
    page.locator("#param-prompt").focus()
    ring = "e => getComputedStyle(e).outlineStyle + getComputedStyle(e).outlineWidth"
    assert page.locator("#param-prompt").evaluate(ring) == "solid2px"
    page.keyboard.press("Control+Enter")
    result(page)
    page.locator("#run").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#runs li")).to_have_count(2)
    page.locator("#runs button").last.focus()
    page.keyboard.press("Enter")
    result(page)


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1920])
def test_nothing_is_wider_than_the_screen(width: int, watch: Watch) -> None:
    watched = watch(viewport={"width": width, "height": 800})
    for workflow in ("flux-instantid", "kinds"):
        page = watched.open(workflow)
        page.locator(".graph svg").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_one_click_makes_a_picture(watched: Watched) -> None:
    """As it opens, without anything filled in."""
    page = watched.open()
    expect(page.locator("#workflow-name")).to_have_text("flux")
    run(page)
    made = result(page).locator("img")
    assert made.evaluate("e => e.decode().then(() => e.naturalWidth)") == 1024


def test_an_endpoint_that_is_off_is_marked(watched: Watched) -> None:
    def off(route: Route) -> None:
        reply = route.fetch()
        workflows = [w | {"enabled": w["name"] != "wan2"} for w in reply.json()]
        route.fulfill(response=reply, json=workflows)

    watched.page.route("**/workflows", off)
    page = watched.open("flux")
    page.locator("#picker").click()
    marked = page.locator(".workflow", has_text="wan2")
    expect(marked.locator(".off")).to_have_text("off")
    expect(page.locator(".workflow .off")).to_have_count(1)
    marked.click()
    expect(page.locator("#workflow-off")).to_contain_text("enabled: true")
    expect(page.locator("#run")).to_be_disabled()


def test_an_address_that_is_none_opens_the_first_workflow(watched: Watched) -> None:
    page = watched.page
    page.goto(f"{watched.url}/#%")
    expect(page.locator("#workflow-name")).to_have_text("flux")


def test_an_output_that_is_cut_off_is_said(watched: Watched) -> None:
    """The connection may be lost while the bytes come; the run is there after a reload."""
    page = watched.open("flux")
    page.evaluate(CUT_OFF)
    fill(page, FLUX)
    run(page)
    expect(page.locator("#stage .failure")).to_contain_text("does not answer")
    expect(page.locator(".frame.is-running")).to_have_count(0)
    expect(page.locator("#run")).to_be_enabled()
    page.reload()
    result(page)


CUT_OFF = """() => {
    Response.prototype.blob = () => Promise.reject(new TypeError("network error"));
}"""


def test_a_run_is_cancelled_before_the_service_has_answered(watched: Watched) -> None:
    """Whatever the service has begun by then ends."""
    page = watched.open("flux")
    held: list[Route] = []
    page.route("**/flux", lambda route: held.append(route))
    fill(page, {**FLUX, "steps": "100"})
    run(page)
    page.wait_for_timeout(200)
    [route] = held
    reply = route.fetch()
    job = reply.json()["job"]
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_timeout(200)
    route.fulfill(response=reply)
    page.get_by_role("heading", name="Cancelled").wait_for()
    said = page.request.get(f"{watched.url}/jobs/{job}").json()
    assert said["status"] == "cancelled"


def test_text_is_pasted_although_it_brings_a_picture_of_itself(watched: Watched) -> None:
    """As word processors and spreadsheets copy it."""
    page = watched.open("flux-instantid")
    is_left = page.locator("#param-prompt").evaluate(
        """(target) => {
            const carrier = new DataTransfer();
            carrier.setData("text/plain", "a fox");
            carrier.items.add(new File([new Uint8Array(8)], "a.png", { type: "image/png" }));
            const options = { clipboardData: carrier, bubbles: true, cancelable: true };
            return target.dispatchEvent(new ClipboardEvent("paste", options));
        }"""
    )
    assert is_left
    expect(page.locator("[data-param=reference_image] .chosen")).to_have_count(0)


def test_a_file_that_is_dropped_beside_its_field_does_not_replace_the_page(
    watched: Watched,
) -> None:
    page = watched.open("seedvr2")
    for kind in ("dragover", "drop"):
        is_left = page.locator("#stage").evaluate(
            """(target, kind) => {
                const carrier = new DataTransfer();
                carrier.items.add(new File([new Uint8Array(8)], "a.png", { type: "image/png" }));
                const options = { dataTransfer: carrier, bubbles: true, cancelable: true };
                return target.dispatchEvent(new DragEvent(kind, options));
            }""",
            kind,
        )
        assert not is_left


def test_a_key_that_no_header_can_hold_is_refused_at_once(watched: Watched) -> None:
    watched.expected = {401}
    page = watched.open(path=f"{PREFIX}/")
    dialog = page.get_by_role("dialog", name="This service wants a key")
    dialog.get_by_label("API key").fill("schlüssel 🔑")
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog).to_contain_text("This key is not known here.")
    dialog.get_by_label("API key").fill(KEY)
    dialog.get_by_role("button", name="Continue").click()
    page.locator("#run:enabled").wait_for()
