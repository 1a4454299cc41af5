"""Drives the console in Chromium as a person does, in an environment of its own, and prints what it saw as JSON.

Variables: BASE_URL, TOKEN (of everything), OTHER_TOKEN (of another domain), DOMAIN (with samples, a golden data set and
a policy under which a person decides), CHROMIUM, AXE (axe.min.js), SHOTS (a folder for screenshots; optional).
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

BASE, DOMAIN = os.environ["BASE_URL"], os.environ["DOMAIN"]
FAMILY = f"{DOMAIN}-lora"
PATIENCE = 300_000
SHOTS = os.environ.get("SHOTS")
saw: dict[str, object] = {}
faults: list[str] = []


@contextmanager
def session(browser, token: str, **options: object) -> Iterator[Page]:
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    page.on("console", lambda told: faults.append(f"{page.url}: {told.text}") if told.type == "error" else None)
    page.goto(f"{BASE}/console/sign-in#token={token}")
    page.wait_for_url(f"{BASE}/console/")
    assert token not in page.url
    yield page
    context.close()


def train(page: Page, seed: int) -> str:
    """Request a training by the form and watch its page until it is done, without a reload."""
    page.goto(f"{BASE}/console/train")
    page.locator("#domain").fill("No Domain")
    page.get_by_role("button", name="Train", exact=True).click()
    saw["refused field"] = page.locator("[aria-invalid=true]").get_attribute("name")
    saw["refusal"] = page.get_by_role("alert").inner_text()
    page.locator("#domain").fill(DOMAIN)
    page.locator("#golden_dataset_id").fill(f"{DOMAIN}-golden")
    page.locator("#max_steps").fill("10")
    page.locator("#rank").fill("8")
    page.locator("#seed").fill(str(seed))
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_url(f"{BASE}/console/jobs/*")
    page.evaluate("window.opened = true")
    page.locator("#state", has_text="succeeded").wait_for(timeout=PATIENCE)
    saw["watched without a reload"] = page.evaluate("window.opened")
    saw["last step"] = page.locator("#step").inner_text()
    saw["plots"] = page.locator("canvas").count()
    return page.url


def reviewed(page: Page, adapter_id: str) -> None:
    """Wait until a version's score waits for a person."""
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline:
        page.goto(f"{BASE}/console/review/{adapter_id}")
        if page.locator("article.sample").count():
            return
        time.sleep(1)
    raise AssertionError(page.content())


def approve(page: Page, adapter_id: str) -> None:
    """Read the samples and approve, by keyboard alone."""
    page.keyboard.press("j")
    saw["focused sample"] = page.evaluate("document.activeElement.id")
    saw["worst first"] = [float(one) for one in page.locator("article.sample > header .score").all_inner_texts()]
    page.keyboard.press("b")
    page.locator("#sample-1 .base-answer dd").wait_for(timeout=PATIENCE)
    saw["base model"] = page.locator("#sample-1 .base-answer dt").inner_text()
    shot(page, "review")
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{BASE}/console/review")
    page.goto(f"{BASE}/console/versions/{adapter_id}")
    saw["approved"] = page.locator("h1").inner_text()


def compare(page: Page, first: str, second: str) -> None:
    page.goto(f"{BASE}/console/versions/{first}")
    page.get_by_role("link", name="compare").first.click()
    saw["compared"] = page.locator("h2", has_text="minus").inner_text()
    saw["measures"] = page.get_by_role("rowheader", name="accuracy", exact=True).count()
    saw["samples compared"] = page.get_by_role("region", name="Samples").locator("tbody tr").count()
    assert second in saw["compared"], saw["compared"]


def look_around(page: Page, adapter_id: str) -> str:
    """A version's curves and forms, from there its data set with its records, and the health of every part."""
    page.goto(f"{BASE}/console/versions/{adapter_id}")
    page.locator("canvas").first.wait_for()
    saw["curves"] = page.locator("canvas").count()
    saw["forms"] = page.get_by_role("region", name="Forms of this version").locator("tbody tr").count()
    page.get_by_text("Trained from").get_by_role("link").first.click()
    page.wait_for_url(f"{BASE}/console/datasets/*")
    saw["records"] = page.locator("article.sample").count()
    dataset = page.url
    page.goto(f"{BASE}/console/health")
    saw["figures"] = page.locator("#parts").inner_text()
    return dataset


def play(page: Page) -> None:
    """One prompt to the base model and the family, and a rating."""
    page.goto(f"{BASE}/console/playground")
    page.get_by_label("Prompt", exact=True).fill("<b>What is the colour of the north gate?</b>")
    page.get_by_text("System prompt and sampling").click()
    page.get_by_label("Longest answer, tokens").fill("8")
    for box in page.get_by_role("checkbox").all():
        box.set_checked(box.get_attribute("value") in (FAMILY, os.environ["BASE_MODEL"]))
    page.get_by_role("button", name="Answer", exact=True).click()
    page.locator(".answer footer:not([hidden])").nth(1).wait_for(timeout=PATIENCE)
    saw["answers"] = page.locator(".answer").count()
    saw["provenance"] = page.locator(".provenance").all_inner_texts()
    saw["hover"] = page.locator(".answer .text span").first.get_attribute("title")
    page.get_by_role("button", name="Good answer").first.click()
    page.locator(".answer [role=status]", has_text="recorded").first.wait_for()
    saw["rated"] = page.locator(".answer [role=status]").first.inner_text()
    shot(page, "playground")


def live(page: Page) -> None:
    """An answer's event comes by itself into an open page."""
    page.goto(f"{BASE}/console/live?domain={DOMAIN}")
    page.get_by_text("connected").wait_for()
    before = page.locator("#events tr").count()
    other = page.context.new_page()
    play_one(other)
    until(page, f"document.querySelectorAll('#events tr').length > {before}")
    saw["live"] = page.locator("#events tr").first.inner_text()
    other.close()
    shot(page, "live")


def follow_a_trace(page: Page) -> str:
    """From the newest event to all events of its trace."""
    page.goto(f"{BASE}/console/live?type=AdapterActivated")
    page.locator("#events a").first.click()
    page.wait_for_url(f"{BASE}/console/trace/*")
    saw["trace"] = page.locator("tbody tr").count()
    shot(page, "trace")
    return page.url


def replay(page: Page, letter: str) -> None:
    """A dead letter's page by keyboard: Replay, and it is gone."""
    page.goto(letter)
    saw["letter"] = page.locator("h1").inner_text()
    shot(page, "dead-letter")
    page.get_by_role("button", name="Replay").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{BASE}/console/dead-letters?replayed=*")
    saw["replayed"] = page.locator("main [role=status].note").inner_text()
    saw["letters left"] = page.locator("tbody a").count()


def play_one(page: Page) -> None:
    page.goto(f"{BASE}/console/playground?model={FAMILY}")
    page.get_by_label("Prompt", exact=True).fill("Hello")
    page.get_by_role("button", name="Answer", exact=True).click()
    page.locator(".answer footer:not([hidden])").wait_for(timeout=PATIENCE)


def violations(page: Page, paths: list[str]) -> dict[str, list[str]]:
    """What axe-core finds on each page: rule and element."""
    axe = Path(os.environ["AXE"]).read_text()
    found = {}
    for path in paths:
        page.goto(BASE + path)
        page.wait_for_timeout(300)
        page.evaluate(axe)  # by the debugger: the page's own policy permits no script but its own
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found[path] = [f"{one['id']}: {node['html'][:120]}" for one in result["violations"] for node in one["nodes"]]
    return {path: named for path, named in found.items() if named}


def too_wide(page: Page, paths: list[str]) -> list[str]:
    """Pages that have to be scrolled sideways."""
    found = []
    for path in paths:
        page.goto(BASE + path)
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found.append(path)
    return found


def paint(page: Page, paths: list[str]) -> dict[str, float]:
    """Milliseconds until the first content of each page."""
    found = {}
    for path in paths:
        page.goto(BASE + path)
        until(page, "performance.getEntriesByName('first-contentful-paint').length > 0")
        found[path] = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return found


def until(page: Page, condition: str) -> None:
    """Wait for a condition; by the debugger, as the pages' own policy permits no evaluation in them."""
    deadline = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
    with session(browser, os.environ["TOKEN"], viewport={"width": 1280, "height": 860}) as page:
        job = train(page, 1)
        first, second = f"{FAMILY}-v1.0.0", f"{FAMILY}-v1.0.1"
        reviewed(page, first)
        approve(page, first)
        train(page, 2)
        reviewed(page, second)
        faults.clear()  # a refused form, and a version that was not there yet: the browser reports both as errors
        compare(page, second, first)
        play(page)
        live(page)
        dataset = look_around(page, first)
        trace = follow_a_trace(page)
        page.goto(f"{BASE}/console/dead-letters")
        letter = page.locator("tbody a").first.evaluate("link => link.href")
        paths = [
            "/console/", "/console/review", f"/console/review/{second}", f"/console/versions/{first}",
            f"/console/compare?versions={first}&versions={second}", "/console/jobs", job.removeprefix(BASE),
            "/console/train", "/console/playground", "/console/live", "/console/health", f"/console/at?family={FAMILY}",
            "/console/dead-letters", letter.removeprefix(BASE), trace.removeprefix(BASE), dataset.removeprefix(BASE),
        ]  # fmt: skip
        saw["axe"] = violations(page, paths)
        saw["paint"] = paint(page, paths)
        page.goto(f"{BASE}/console/")
        shot(page, "fleet")
    with session(browser, os.environ["TOKEN"], color_scheme="dark", viewport={"width": 360, "height": 740}) as page:
        saw["axe, dark and narrow"] = violations(page, paths)
        saw["too wide at 360 px"] = too_wide(page, paths)
    zoomed = {"viewport": {"width": 640, "height": 430}, "device_scale_factor": 2, "reduced_motion": "reduce"}
    with session(browser, os.environ["TOKEN"], **zoomed) as page:
        saw["too wide at 200 %"] = too_wide(page, paths)
        page.goto(f"{BASE}/console/live")
        saw["moving"] = page.evaluate("document.getAnimations().length")
        replay(page, letter)
    saw["faults"] = list(faults)
    with session(browser, os.environ["OTHER_TOKEN"]) as page:
        page.goto(f"{BASE}/console/versions/{first}")
        saw["another domain"] = page.locator("h1").inner_text()
        page.goto(f"{BASE}/console/")
        saw["another domain lists"] = DOMAIN in page.content()
    browser.close()
print(json.dumps(saw))
