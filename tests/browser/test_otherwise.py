"""The page when things go otherwise: half-written, at once, refused, cut off, and used for hours."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from .acts import FLUX, fact, fill, picture, result, run
from .conftest import CROWDED, KEY, MODAL_KEY, PREFIX, PROXIED, Watched

Watch = Callable[..., Watched]
EVENTS = "**/events?*"
JOB = re.compile("/jobs/job_[0-9a-z]+$")
SLOW = {**FLUX, "steps": "80"}

# Waits pass as if they were shorter.
HURRY = "{ const wait = setTimeout; window.setTimeout = (done, ms) => wait(done, ms / 20); }"
COUNTED = """{
    const { createObjectURL: create, revokeObjectURL: revoke } = URL;
    const left = window.addresses = new Set();
    URL.createObjectURL = (object) => {
        const address = create.call(URL, object);
        left.add(address);
        return address;
    };
    URL.revokeObjectURL = (address) => (left.delete(address), revoke.call(URL, address));
}"""
SHOWN = """[...document.querySelectorAll("[src^='blob:'], [href^='blob:']")].map(
    (e) => e.getAttribute("src") ?? e.getAttribute("href"))"""


def go_to(page: Page, workflow: str) -> None:
    page.evaluate("name => { location.hash = name; }", workflow)
    expect(page.locator("#workflow-name")).to_have_text(workflow)


def node(page: Page, number: str) -> Any:
    return page.locator(f".graph .node[data-node='{number}']")


def told(route: Route, change: Callable[[dict[str, Any]], None]) -> None:
    """Let a run be told as it was, but with another end."""
    reply = route.fetch()
    head, _, end = reply.text().rpartition("data: ")
    doc = json.loads(end)
    change(doc)
    route.fulfill(response=reply, body=f"{head}data: {json.dumps(doc)}\n\n")


# What is typed


def test_what_is_half_written_comes_back_as_it_was_typed(watched: Watched) -> None:
    page = watched.open("flux")
    for name, text in {"steps": "1e", "seed": "12x", "width": "", "prompt": "a fox,"}.items():
        page.locator(f"#param-{name}").fill("")
        page.locator(f"#param-{name}").press_sequentially(text)
    go_to(page, "flux-lora")
    page.get_by_role("radio", name="LoRA ID").check()
    page.locator("#param-lora_id").fill("dem")
    go_to(page, "flux-instantid")
    page.get_by_label("Reference image, URL").fill("htp:/")
    go_to(page, "workflow")
    page.locator("#param-workflow").fill('{"1": ')
    go_to(page, "kinds")
    page.get_by_label("Send Note").check()
    page.locator("#param-note").fill(" ")
    page.get_by_label("Send Picture").check()
    page.locator("#param-picture").set_input_files(picture())

    go_to(page, "flux")
    expect(page.locator("#param-prompt")).to_have_value("a fox,")
    expect(page.locator("#param-seed")).to_have_value("12x")
    expect(page.locator("#param-width")).to_have_value("")
    assert page.locator("#param-steps").evaluate("e => e.validity.badInput")
    page.locator("#param-steps").press("End")
    page.locator("#param-steps").press("1")
    expect(page.locator("#param-steps")).to_have_value("1e1")
    go_to(page, "flux-lora")
    expect(page.locator("#param-lora_id")).to_have_value("dem")
    expect(page.locator("[data-param=lora_name]")).to_be_hidden()
    go_to(page, "flux-instantid")
    expect(page.get_by_label("Reference image, URL")).to_have_value("htp:/")
    go_to(page, "workflow")
    expect(page.locator("#param-workflow")).to_have_value('{"1": ')
    go_to(page, "kinds")
    expect(page.locator("#param-note")).to_have_value(" ")
    expect(page.locator("#param-note")).to_be_enabled()
    expect(page.locator("[data-param=picture] .chosen")).to_contain_text("small.png")


def test_a_fault_goes_once_its_field_is_changed(watched: Watched) -> None:
    page = watched.open("flux")
    page.locator("#param-seed").fill("12x")
    run(page)
    error = page.locator("#param-seed-error")
    expect(error).to_contain_text("a seed is a whole number")
    page.locator("#param-seed").fill("12")
    expect(error).to_be_hidden()
    assert page.locator("#param-seed").get_attribute("aria-invalid") is None


def test_what_is_no_picture_is_not_taken_for_one(watched: Watched) -> None:
    page = watched.open("seedvr2")
    error = page.locator("#param-image-error")
    page.locator("[data-param=image] .drop").evaluate(
        """(zone) => {
            const carrier = new DataTransfer();
            carrier.items.add(new File(["a fox"], "fox.txt", { type: "text/plain" }));
            zone.dispatchEvent(new DragEvent("drop", { dataTransfer: carrier, bubbles: true }));
        }"""
    )
    expect(error).to_have_text("fox.txt is no picture")
    expect(page.locator(".chosen")).to_have_count(0)
    broken: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG"}
    page.locator("#param-image").set_input_files(broken)
    expect(error).to_be_hidden()
    expect(page.locator(".chosen")).to_contain_text("This browser cannot show it.")
    page.locator("#param-image").set_input_files(picture())
    expect(page.locator(".chosen")).to_contain_text("64 × 48")


def test_a_file_that_is_gone_is_said_at_its_field(watched: Watched) -> None:
    page = watched.open("seedvr2")
    fill(page, {"image": "@", "resolution": "64"})
    page.evaluate("() => { Blob.prototype.arrayBuffer = () => Promise.reject(new Error()); }")
    run(page)
    expect(page.locator("#param-image-error")).to_have_text(
        "small.png cannot be read; choose it again"
    )
    expect(page.locator("#run")).to_be_enabled()


# At once


def test_one_run_and_one_cancel_however_often_one_clicks(watched: Watched) -> None:
    sent: list[str] = []
    held: list[Route] = []
    page = watched.open("flux")
    page.on("request", lambda request: sent.append(request.method))
    page.route(JOB, lambda route: held.append(route))
    fill(page, SLOW)
    page.locator("#run").dblclick()
    expect(page.locator(".progress-what")).to_contain_text("step")
    page.locator("#run").press("Control+Enter")
    cancel = page.get_by_role("button", name="Cancel")
    cancel.dblclick()
    expect(cancel).to_have_text("Cancelling…")
    go_to(page, "wan2")
    expect(cancel).to_be_disabled()
    page.locator("#cancel").dispatch_event("click")
    assert (sent.count("POST"), sent.count("DELETE")) == (1, 1)
    held[0].continue_()
    page.get_by_role("heading", name="Cancelled").wait_for()


def test_another_workflow_is_looked_at_while_one_runs(watched: Watched) -> None:
    """The run goes on in its place, and its graph is lit when one comes back."""
    page = watched.open("flux")
    fill(page, {**FLUX, "steps": "100"})
    run(page)
    expect(node(page, "5")).to_have_class(re.compile("is-running"))
    go_to(page, "wan2")
    page.locator(".graph svg").wait_for()
    expect(page.locator(".graph .node.is-running, .graph .node.is-done")).to_have_count(0)
    expect(page.locator(".progress-where")).to_contain_text("flux")
    go_to(page, "flux")
    expect(node(page, "5")).to_have_class(re.compile("is-running"))
    expect(node(page, "4")).to_have_class(re.compile("is-(done|cached)"))
    go_to(page, "wan2")
    result(page)
    assert fact(page, "workflow") == "flux"


def test_two_runs_are_found_again(watch: Watch) -> None:
    """Both were under way when the browser was closed; one is watched, both are kept."""
    watched = watch()
    page = watched.open("flux")
    other = page.context.new_page()
    other.goto(f"{watched.url}/#flux-dev")
    other.locator("#run:enabled").wait_for()
    for one in (page, other):
        fill(one, {**FLUX, "steps": "60"})
        run(one)
    for one in (page, other):
        expect(one.locator(".progress-what")).not_to_have_text("Sending…")
    other.close()
    page.goto("about:blank")
    page.goto(f"{watched.url}/")
    result(page)
    expect(page.locator("#runs img")).to_have_count(2)


def test_a_run_is_begun_while_another_is_removed(watched: Watched) -> None:
    page = watched.open("flux")
    fill(page, FLUX)
    run(page)
    result(page)
    page.evaluate(
        """() => {
            document.querySelector("#stage .quiet").click();
            document.getElementById("run").click();
        }"""
    )
    result(page)
    expect(page.locator("#run")).to_be_enabled()
    expect(page.locator("#runs li")).to_have_count(1)
    expect(node(page, "5")).to_have_class(re.compile("is-done"))


# What a run tells


def test_what_the_engine_has_already_is_marked(watched: Watched) -> None:
    page = watched.open("flux")
    fill(page, {**FLUX, "width": "72", "prompt": "kept for the next run"})
    run(page)
    result(page)
    fill(page, {"seed": "7", "steps": "40"})
    run(page)
    expect(node(page, "5")).to_have_class(re.compile("is-running"))
    for number in ("3", "4", "6"):
        expect(node(page, number)).to_have_class(re.compile("is-cached"))
    expect(page.locator("#graph-legend")).to_contain_text("kept from a run before")
    result(page)
    names = page.locator(".graph .node").evaluate_all("all => all.map((e) => e.classList[1] ?? '')")
    assert sorted(set(names)) == ["is-cached", "is-done"]
    colours = [
        node(page, number).locator(".box").evaluate("e => getComputedStyle(e).strokeDasharray")
        for number in ("4", "5")
    ]
    assert colours[0] != colours[1]
    page.goto(f"{watched.url}/#wan2")
    expect(page.locator("#graph-legend")).to_be_hidden()


def test_what_the_start_took_and_cost_is_shown(watched: Watched) -> None:
    timings = {
        "startup": {"seconds": 61.25, "usd": 0.0332},
        "queue": {"seconds": 1.5, "usd": 0.0},
        "execution": {"seconds": 2.25, "usd": 0.0012},
    }

    def change(doc: dict[str, Any]) -> None:
        doc["timings"] = timings

    page = watched.open("flux")
    page.route(EVENTS, lambda route: told(route, change))
    fill(page, FLUX)
    run(page)
    result(page)
    shown = page.locator(".timings")
    expect(shown.locator("summary")).to_have_text("65.0 s and $0.034 in all, waiting included")
    shown.locator("summary").click()
    rows = shown.locator("tr").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        ["Start-up", "61.3 s", "$0.033"],
        ["Queue", "1.50 s", "$0"],
        ["Run", "2.25 s", "$0.0012"],
    ]
    timings["startup"]["usd"] = None  # type: ignore[assignment]
    run(page)
    expect(page.locator("#runs li")).to_have_count(2)
    expect(shown.locator("summary")).to_have_text("65.0 s in all, waiting included")
    page.reload()
    page.locator("#runs button").last.click()
    expect(shown).to_contain_text("$0.034")


def test_a_run_that_failed_says_what_it_took_and_where(watched: Watched) -> None:
    def change(doc: dict[str, Any]) -> None:
        problem = {"title": "A node raises", "detail": "it is too large", "code": "node-error"}
        about = {"file": "workflows/flux.yaml", "line": 9, "node": "5", "class_type": "KSampler"}
        doc.update(status="failed", problem={**problem, **about}, outputs=[])

    page = watched.open("flux")
    page.route(EVENTS, lambda route: told(route, change))
    fill(page, FLUX)
    run(page)
    failure = page.locator("#stage .failure")
    expect(failure).to_contain_text("workflows/flux.yaml:9, node 5 (KSampler)")
    expect(page.locator(".timings")).to_contain_text("in all")
    expect(node(page, "5")).to_have_class(re.compile("is-failed"))


def test_the_graph_is_scrolled_to_what_runs(watch: Watch) -> None:
    watched = watch(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    page = watched.open("flux")
    place = page.locator("#graph-picture")
    page.locator(".graph svg").wait_for()
    assert place.evaluate("e => e.scrollWidth > e.clientWidth")
    fill(page, SLOW)
    run(page)
    expect(node(page, "5")).to_have_class(re.compile("is-running"))
    top = page.evaluate("scrollY")
    seen = """e => {
        const [inner, outer] = [e, e.closest("#graph-picture")].map((one) => one.getBoundingClientRect());
        return inner.left >= outer.left && inner.right <= outer.right;
    }"""
    assert node(page, "5").evaluate(seen)
    assert page.evaluate("scrollY") == top
    result(page)
    place.evaluate("e => e.scrollTo(e.scrollWidth, 0)")
    go_to(page, "flux-lora")
    page.locator(".graph svg").wait_for()
    assert place.evaluate("e => e.scrollLeft") == 0


def test_a_video_has_a_small_picture(watched: Watched) -> None:
    page = watched.open("wan2")
    fill(page, {**FLUX, "length": "5", "format": "mp4"})
    run(page)
    result(page)
    shades = page.locator("#runs img").evaluate(
        """async (image) => {
            await image.decode();
            const pen = new OffscreenCanvas(160, 160).getContext("2d");
            pen.drawImage(image, 0, 0);
            return [...pen.getImageData(0, 0, 160, 160).data];
        }"""
    )
    assert set(shades[3::4]) == {255}
    assert len(set(shades)) > 20


def test_a_document_is_not_opened_as_a_page_of_this_host(watched: Watched) -> None:
    def change(doc: dict[str, Any]) -> None:
        for output in doc["outputs"]:
            if output["media_type"] == "text/plain":
                output["media_type"] = "text/html"

    page = watched.open("kinds")
    page.route(EVENTS, lambda route: told(route, change))
    page.locator("#param-class").select_option("small")
    run(page)
    result(page)
    expect(page.get_by_role("link", name="Open")).to_have_count(1)
    texts = page.get_by_role("list", name="Outputs").get_by_role("button")
    for number in range(texts.count()):
        texts.nth(number).click()
        if result(page).locator("pre").count():
            expect(page.get_by_role("link", name="Download")).to_have_count(1)
            expect(page.get_by_role("link", name="Open")).to_have_count(0)
            return
    pytest.fail("there is no text")


# Cut off


def cut(route: Route) -> None:
    """End what is told of a run after its first node."""
    reply = route.fetch()
    body = reply.text()
    route.fulfill(response=reply, body=body[: body.index("\n\n", body.index("event: node")) + 2])


def test_a_service_that_is_away_for_a_while(watched: Watched) -> None:
    """The page says so, tries again, and goes on where it was."""
    watched.expected, watched.cut_off = {502, 429}, True
    page = watched.open("flux")
    asked: list[str | None] = []
    is_back = False

    def answer(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) == 1:
            cut(route)
        elif is_back:
            route.continue_()
        elif len(asked) % 3 == 0:
            route.abort()
        else:
            route.fulfill(status=(502, 429)[len(asked) % 2], body="not now")

    page.add_init_script(HURRY)
    page.reload()
    page.locator("#run:enabled").wait_for()
    page.route(EVENTS, answer)
    fill(page, FLUX)
    run(page)
    expect(page.locator(".progress-what")).to_have_text("The connection is lost; trying again…")
    is_back = True
    result(page)
    assert asked[0] is None
    assert len(asked) > 2
    assert {number and number.isdigit() for number in asked[1:]} == {True}


def test_a_service_that_stays_away_is_looked_for_again(watched: Watched) -> None:
    """Nothing is lost: the run is in the history, and is found once the service is back."""
    watched.cut_off = True
    page = watched.page
    page.add_init_script(HURRY)
    watched.open("flux")
    page.route(EVENTS, lambda route: route.abort())
    fill(page, FLUX)
    run(page)
    failure = page.locator("#stage .failure")
    expect(failure).to_contain_text("The connection to the service is lost.")
    expect(page.locator("#run")).to_be_enabled()
    expect(page.locator("#runs button")).to_have_attribute(
        "aria-label", re.compile("under way when last seen")
    )
    page.get_by_role("button", name="Look again").click()
    expect(failure).to_have_count(0)
    expect(failure).to_contain_text("The connection to the service is lost.")
    page.unroute(EVENTS)
    page.locator("#runs button").click()
    result(page)
    expect(page.locator("#runs img")).to_have_count(1)


def test_a_run_that_the_service_has_forgotten_keeps_its_settings(watched: Watched) -> None:
    watched.expected = {404}
    page = watched.open("flux")
    fill(page, {**FLUX, "prompt": "a forgotten fox"})
    page.route(
        EVENTS,
        lambda route: route.continue_(
            url=re.sub("job_[0-9a-z]{26}", "job_" + 26 * "0", route.request.url)
        ),
    )
    run(page)
    page.get_by_role("heading", name="The run is gone").wait_for()
    page.locator("#param-prompt").fill("another")
    page.reload()
    page.locator("#runs .is-bad").click()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.locator("#param-prompt")).to_have_value("a forgotten fox")


def test_a_service_that_does_not_answer_at_all_is_asked_again(watched: Watched) -> None:
    watched.cut_off = True
    page = watched.page
    page.add_init_script(HURRY)
    watched.open("flux")
    held: list[Route] = []
    page.route(EVENTS, lambda route: route.continue_() if held else held.append(route))
    fill(page, FLUX)
    run(page)
    result(page)
    assert len(held) == 1


def test_a_run_of_which_nothing_is_told_for_long_is_not_lost(watched: Watched) -> None:
    """Streams end after minutes; those on which nothing happened are no failures."""
    page = watched.page
    page.add_init_script(HURRY)
    page.add_init_script(
        "{ const now = performance.now; performance.now = () => 1e5 * now.call(performance); }"
    )
    watched.open("flux")
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 12:
            route.continue_()
        else:
            headers = {"content-type": "text/event-stream"}
            route.fulfill(status=200, headers=headers, body=": still here\n\n")

    page.route(EVENTS, answer)
    fill(page, FLUX)
    run(page)
    result(page)
    assert len(asked) == 13


def test_what_is_refused_for_now_is_said(watched: Watched) -> None:
    watched.expected = {429}
    page = watched.open("flux")
    detail = "8 runs wait for this worker; ask again in 30 seconds"
    problem = {"title": "The queue is full", "detail": detail, "code": "queue-full", "status": 429}
    page.route(
        "**/flux",
        lambda route: route.fulfill(
            status=429,
            headers={"content-type": "application/problem+json", "retry-after": "30"},
            body=json.dumps(problem),
        ),
    )
    fill(page, {**FLUX, "prompt": "a refused fox"})
    run(page)
    expect(page.locator("#alert")).to_contain_text(detail)
    expect(page.locator("#alert")).to_be_focused()
    expect(page.locator("#run")).to_be_enabled()
    expect(page.locator("#param-prompt")).to_have_value("a refused fox")


# Too many listen


@pytest.mark.usefixtures("crowd")
def test_a_run_that_cannot_be_watched_is_shown_at_its_end(watched: Watched) -> None:
    """The page says so, and asks for the run now and then."""
    watched.expected = {429}
    page = watched.open(path=f"{CROWDED}/#flux")
    page.locator("#run:enabled").wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    fill(page, SLOW)
    begun = time.monotonic()
    run(page)
    expect(page.locator(".progress-what")).to_contain_text("cannot be watched now")
    result(page)
    took = time.monotonic() - begun
    assert sum("/events" in one for one in asked) == 1
    assert 1 <= sum(bool(JOB.search(one)) for one in asked) <= took + 2
    expect(node(page, "9")).to_have_class(re.compile("is-done"))
    expect(page.locator("#runs img")).to_have_count(1)
    run(page)
    expect(page.locator(".progress-what")).to_contain_text("cannot be watched now")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("heading", name="Cancelled").wait_for()


def test_a_run_that_nobody_watches_is_asked_for_with_pauses(watch: Watch) -> None:
    """As long as the service says, else a second: with too many listeners it answers at once."""
    watched = watch()
    page = watched.open("flux")
    other = page.context.new_page()
    other.goto(f"{watched.url}/#flux")
    held: list[Route] = []
    page.context.route(EVENTS, lambda route: held.append(route))
    jobs: list[str] = []
    for one in (page, other):
        one.locator("#run:enabled").wait_for()
        fill(one, FLUX)
        with one.expect_request(EVENTS) as listened:
            run(one)
        jobs += re.findall("job_[0-9a-z]+", listened.value.url)
    other.close()
    page.goto("about:blank")
    page.context.unroute_all()
    answers: list[dict[str, str]] = [{"retry-after": "10"}, {"retry-after": "0"}, {}]
    doc = {"job": jobs[0], "status": "running"}
    page.route(
        f"**/jobs/{jobs[0]}",
        lambda route: (
            route.fulfill(json=doc, headers=answers.pop(0)) if answers else route.continue_()
        ),
    )
    page.add_init_script(HURRY)
    page.goto(f"{watched.url}/")
    expect(page.locator("#runs img")).to_have_count(2)
    pauses: list[float] = page.evaluate(
        """(end) => {
            const all = performance.getEntriesByType("resource").filter(({ name }) => name.endsWith(end));
            return all.slice(1).map(({ startTime }, before) => startTime - all[before].responseEnd);
        }""",
        f"/jobs/{jobs[0]}",
    )
    assert len(pauses) == 3
    assert all(took >= least for took, least in zip(pauses, (500, 50, 50), strict=True))


# Keys


def test_what_stands_in_front_is_not_given_the_key(watched: Watched) -> None:
    """With auth: proxy the page works where the tokens are added, and says what 401 is without."""
    watched.expected = {401}
    page = watched.page
    page.context.set_extra_http_headers(MODAL_KEY)
    watched.open(path=f"{PROXIED}/")
    page.locator("#run:enabled").wait_for()
    fill(page, FLUX)
    run(page)
    result(page)
    page.context.set_extra_http_headers({})
    run(page)
    expect(page.locator("#alert")).to_contain_text("proxy auth tokens")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#run")).to_be_enabled()


def test_a_key_is_forgotten(watched: Watched) -> None:
    watched.expected = {401}
    page = watched.open(path=f"{PREFIX}/")
    dialog = page.get_by_role("dialog", name="This service wants a key")
    expect(dialog.get_by_role("button", name="Forget the key")).to_be_hidden()
    dialog.get_by_label("API key").fill(KEY)
    dialog.get_by_label("API key").press("Enter")
    page.locator("#run:enabled").wait_for()
    page.get_by_role("button", name="API key").click()
    dialog.get_by_role("button", name="Forget the key").click()
    expect(dialog).to_be_hidden()
    assert page.evaluate("JSON.stringify(sessionStorage)") == "{}"
    fill(page, FLUX)
    run(page)
    dialog.get_by_label("API key").fill(KEY)
    dialog.get_by_label("API key").press("Enter")
    result(page)


def test_a_key_is_given_later(watched: Watched) -> None:
    watched.expected = {401}
    page = watched.open(path=f"{PREFIX}/")
    page.get_by_role("button", name="Not now").click()
    page.get_by_role("button", name="Enter a key").click()
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("API key").press("Enter")
    page.locator("#run:enabled").wait_for()
    expect(page.locator("#workflow-name")).to_have_text("flux")


def test_a_browser_that_keeps_nothing(watched: Watched) -> None:
    """The key and the history go with the page, which works all the same."""
    watched.expected = {401}
    page = watched.page
    refuse = "{ get() { throw new DOMException('no', 'SecurityError'); } }"
    for name in ("sessionStorage", "indexedDB"):
        page.add_init_script(f"Object.defineProperty(window, '{name}', {refuse})")
    watched.open(path=f"{PREFIX}/")
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("API key").press("Enter")
    page.locator("#run:enabled").wait_for()
    fill(page, FLUX)
    run(page)
    result(page)
    expect(page.locator("#runs img")).to_have_count(1)
    expect(page.locator("#history-note")).to_contain_text("keeps no history")


def test_code_is_selected_where_it_cannot_be_copied(watched: Watched) -> None:
    watched.page.add_init_script(
        "Object.defineProperty(navigator, 'clipboard', { value: undefined })"
    )
    page = watched.open("flux")
    page.get_by_role("button", name="Code").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#code-note")).to_contain_text("copy it by hand")
    selected = page.evaluate("String(getSelection())")
    assert selected.strip() == page.locator("#code").inner_text().strip()


# For hours


def test_addresses_of_pictures_are_given_back(watched: Watched) -> None:
    """Over 20 runs the page holds the addresses of what it shows, and no others."""
    page = watched.page
    page.add_init_script(COUNTED)
    watched.open("flux-instantid")
    for _ in range(3):
        page.locator("#param-reference_image").set_input_files(picture())
        go_to(page, "flux")
        go_to(page, "flux-instantid")
    go_to(page, "kinds")
    page.locator("#param-class").select_option("small")
    run(page)
    result(page)
    outputs = page.get_by_role("list", name="Outputs").get_by_role("button")
    for _ in range(3):
        for number in range(outputs.count()):
            outputs.nth(number).click()
    go_to(page, "flux")
    fill(page, {**FLUX, "steps": "1"})
    for number in range(2, 22):
        run(page)
        expect(page.locator("#runs li")).to_have_count(number)
    left = "[...addresses]"
    shown = set(page.evaluate(SHOWN))
    # And that of the picture in the form that is not shown.
    assert len(set(page.evaluate(left)) - shown) == 1
    assert len(shown) == 21 + 1
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#runs li")).to_have_count(20)
    assert len(page.evaluate(left)) == 20 + 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#runs li")).to_have_count(0)
    assert len(page.evaluate(left)) == 1
