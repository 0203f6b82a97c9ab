"""The page as people use it: a real Chromium before a real swarm."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .swarms import Swarm, swarm_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

pytestmark = pytest.mark.e2e

AXE = "GPTNODE_TEST_AXE"
"""Names the file axe.min.js of axe-core, which looks for what keeps people out."""

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
DESKTOP = {"width": 1280, "height": 820}
PHONE = {"width": 390, "height": 844}
DEADLINE_S = 90.0  # far beyond what anything here takes, also on a busy machine
ANSWERED = "document.querySelectorAll('.turn.answer[aria-busy=false]').length === {}"

Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens the page at a URL; at the end nothing may have gone wrong in it."""
    wrong: list[str] = []
    pages: list[Page] = []

    def told(said: ConsoleMessage) -> None:
        """A browser tells of each response that is no success; a conflict is none on purpose."""
        if said.type == "error" and "status of 412" not in said.text:
            wrong.append(f"{said.location.get('url')}: {said.text}")

    def opened(url: str, *, ready: bool = True, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        context.set_default_timeout(DEADLINE_S * 1000)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", told)
        page.goto(url)
        if ready:
            page.wait_for_selector("#link-state.live")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        assert page.evaluate("window.violations") == []
        page.context.close()
    assert wrong == []


def ask(page: Page, text: str) -> None:
    page.fill("#message", text)
    page.press("#message", "Enter")


def ask_without_end(page: Page) -> None:
    """The random model goes on for long when it is greedy."""
    page.evaluate("document.querySelector('#set-temperature').value = '0'")
    ask(page, "w1 w2 w3")


def wait_until(page: Page, condition: str, arg: object = None) -> None:
    """Until the JavaScript expression or function is true; the page's policy forbids Playwright's
    own way of waiting, which is eval in the page."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not page.evaluate(condition, arg):
        assert time.monotonic() < deadline_s, condition
        page.wait_for_timeout(50)


def answers(page: Page, count: int) -> str:
    """The text of the last of so many answers, when it is over."""
    wait_until(page, ANSWERED.format(count))
    return page.locator(".turn.answer .said").last.inner_text()


def picture(page: Page) -> str:
    """What the picture shows, in words."""
    return page.locator("#picture svg").get_attribute("aria-label") or ""


def wait_for_picture(page: Page, words: str) -> None:
    wait_until(
        page,
        "(words) => document.querySelector('#picture svg')?.getAttribute('aria-label')"
        ".includes(words)",
        words,
    )


def audit(page: Page) -> None:
    """No violation of WCAG 2 A or AA that axe-core can find, where axe-core is."""
    path = os.environ.get(AXE)
    if path is None:
        return
    page.evaluate(Path(path).read_text())
    found = page.evaluate(
        "async () => (await axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a',"
        " 'wcag21aa', 'wcag22aa', 'best-practice']})).violations"
    )
    told = [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]
    assert told == []


def test_a_question_is_answered_by_the_peers_and_they_are_named(
    bundled: Swarm, open_page: Open
) -> None:
    page = open_page(bundled.url)
    wait_for_picture(page, "anna computes blocks 0–3")
    wait_for_picture(page, "ben computes blocks 4–7")
    ask(page, "Who are you?")
    assert "demo model" in answers(page, 1)
    facts = page.locator(".turn.answer .facts").inner_text()
    assert "tokens" in facts
    assert "first after" in facts
    assert "anna → ben" in facts
    assert page.locator("#figure-answers").inner_text() != "0"
    assert "anna serves blocks 0-3; ben serves blocks 4-7" in page.locator("#events").inner_text()
    assert "0–7" in page.locator("#peers tr").first.inner_text()
    audit(page)


def test_a_chat_goes_on_is_retried_and_begins_anew(bundled: Swarm, open_page: Open) -> None:
    page = open_page(bundled.url)
    page.click("#starters button >> nth=1")
    first = answers(page, 1)
    ask(page, "Tell me a story.")
    answers(page, 2)
    assert page.locator(".retry").count() == 1  # of the last answer
    sent: list[Any] = []
    page.on("request", lambda one: sent.append(one.post_data_json) if one.post_data else None)
    page.click(".retry")
    answers(page, 2)
    roles = [message["role"] for message in sent[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert sent[-1]["messages"][1]["content"] == first
    page.click("#new-chat")
    assert page.locator(".turn").count() == 0
    assert page.locator("#welcome").is_visible()


def test_settings_go_with_the_question_and_a_kept_chat_is_there_again(
    bundled: Swarm, open_page: Open
) -> None:
    page = open_page(bundled.url)
    page.click("#open-settings")
    page.fill("#set-system", "Be brief.")
    page.fill("#set-temperature", "0")
    page.fill("#set-max-tokens", "5")
    page.check("#set-keep")
    audit(page)
    page.keyboard.press("Escape")
    with page.expect_request("**/v1/chat/completions") as request:
        ask(page, "Who are you?")
    body = request.value.post_data_json
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"]) == (0, 5)
    assert "top_p" not in body
    answer = answers(page, 1)
    assert "ended by the token limit" in page.locator(".turn.answer .facts").inner_text()
    page.reload()
    assert answers(page, 1) == answer
    assert page.input_value("#set-system") == "Be brief."
    page.click("#open-settings")
    page.click("#reset-settings")
    page.keyboard.press("Escape")
    page.reload()
    assert page.locator(".turn").count() == 0


@pytest.mark.parametrize("stop", ["button", "escape"])
def test_an_answer_is_stopped_and_what_was_said_stays(
    endless: Swarm, open_page: Open, stop: str
) -> None:
    page = open_page(endless.url)
    ask_without_end(page)
    wait_until(page, "document.querySelector('.turn.answer .said').innerText.length > 40")
    page.wait_for_selector("#picture.flowing")
    assert not page.locator("#send").is_visible()
    if stop == "button":
        page.click("#stop")
    else:
        page.keyboard.press("Escape")
    said = answers(page, 1)
    assert len(said) > 40
    assert "stopped by you" in page.locator(".turn.answer .facts").inner_text()
    assert page.locator("#send").is_visible()
    wait_until(page, "document.querySelector('#figure-answering').textContent === '0'")
    page.wait_for_selector("#picture:not(.flowing)")
    assert answers(page, 1) == said


def test_an_edit_of_the_map_moves_the_route_and_is_taken_back(
    bundled: Swarm, open_page: Open
) -> None:
    before = bundled.map_path.read_text()
    page = open_page(bundled.url)
    page.click("#map-link")
    page.wait_for_selector(".order")
    assert page.input_value("#map-text") == before
    assert page.locator("#map-apply").is_disabled()
    page.click(".order:nth-child(2) li:first-child button[title='Move down']")
    page.wait_for_selector("#preview:not([hidden])")
    assert page.locator("#before").inner_text().split("\n") == ["anna 0–3", "ben 4–7"]
    assert page.locator("#after").inner_text().split("\n") == ["anna 0–7"]
    assert bundled.map_path.read_text() == before
    audit(page)
    page.click("#map-apply")
    wait_until(page, "document.querySelector('#map-state').innerText.startsWith('Applied')")
    assert bundled.map_path.read_text() == bundled.map_text(("anna", "ben"), ("anna", "ben"))
    page.click("[data-to=swarm]")
    wait_for_picture(page, "anna computes blocks 0–7")
    ask(page, "Who are you?")
    assert "demo model" in answers(page, 1)
    page.click("#map-link")
    page.click("#map-undo")
    wait_until(page, "document.querySelector('#map-state').innerText.includes('is back')")
    assert bundled.map_path.read_text() == before
    page.click("[data-to=swarm]")
    wait_for_picture(page, "ben computes blocks 4–7")


def test_peers_with_embedding_or_head_are_shown_with_them(bundled: Swarm, open_page: Open) -> None:
    before = bundled.map_path.read_text()
    page = open_page(bundled.url)
    wait_for_picture(page, "anna computes blocks 0–3 (")
    document = json.loads(before)
    for route in document["routes"]:
        route["embed" if route["blocks"].startswith("0-") else "head"] = True
    logs = [bundled.folder / f"{name}.log" for name in ("anna", "ben")]
    taken = [log.read_text().count("map taken") for log in logs]
    try:
        bundled.map_path.write_text(json.dumps(document))
        wait_for_picture(page, "anna computes blocks 0–3 and the embedding (")
        wait_for_picture(page, "ben computes blocks 4–7 and the head (")
        # The page follows the map on its own: the servers may take it a moment later.
        deadline_s = time.monotonic() + DEADLINE_S
        while any(
            log.read_text().count("map taken") <= count
            for log, count in zip(logs, taken, strict=True)
        ):
            assert time.monotonic() < deadline_s, "the servers take the map"
            time.sleep(0.05)
        ask(page, "Who are you?")
        assert "demo model" in answers(page, 1)
    finally:
        bundled.map_path.write_text(before)
    wait_for_picture(page, "anna computes blocks 0–3 (")


def test_a_wrong_map_is_shown_where_it_is_wrong_and_not_written(
    bundled: Swarm, open_page: Open
) -> None:
    before = bundled.map_path.read_text()
    page = open_page(bundled.url)
    page.click("#map-link")
    page.wait_for_selector(".order")
    page.fill("#map-text", before.replace('"peers": ["ben", ', '"peers": ["bob", '))
    page.wait_for_selector("#problems li")
    told = page.locator("#problems").inner_text()
    assert told.startswith('line 9, routes[1].peers[0]: no peer is called "bob"')
    assert page.locator(".gutter .wrong").inner_text() == "9"
    assert page.locator("#map-apply").is_disabled()
    assert page.get_attribute("#map-text", "aria-invalid") == "true"
    page.click("#problems button")
    selected = page.evaluate(
        "(() => { const box = document.querySelector('#map-text');"
        " return box.value.slice(box.selectionStart, box.selectionStart + 5); })()"
    )
    assert selected == '"bob"'
    audit(page)
    page.fill("#map-text", "{")
    page.click("#map-check")
    wait_until(page, "document.querySelector('#problems').innerText.includes('not valid')")
    assert bundled.map_path.read_text() == before
    page.click("#map-reload")
    wait_until(page, "!document.querySelector('#problems').innerText")
    assert page.input_value("#map-text") == before


def test_an_edit_elsewhere_is_not_overwritten(bundled: Swarm, open_page: Open) -> None:
    before = bundled.map_path.read_text()
    page = open_page(bundled.url)
    page.click("#map-link")
    page.wait_for_selector(".order")
    page.fill("#map-text", before + "\n")
    page.wait_for_selector("#map-apply:not(:disabled)")
    elsewhere = before.replace('"name": "api"', '"name": "laptop"')
    try:
        bundled.map_path.write_text(elsewhere)
        page.click("#map-apply")
        page.wait_for_selector("#map-notice:not([hidden])")
        assert bundled.map_path.read_text() == elsewhere
        page.click("#map-reload")
        wait_until(page, "document.querySelector('#map-text').value.includes('laptop')")
    finally:
        bundled.map_path.write_text(before)


def test_a_phone_shows_one_room_at_a_time_and_targets_are_large(
    bundled: Swarm, open_page: Open
) -> None:
    page = open_page(bundled.url, viewport=PHONE, has_touch=True, is_mobile=True)
    for view, room in (("chat", "#chat"), ("swarm", "#swarm"), ("map", "#map")):
        page.tap(f"[data-to={view}]")
        page.wait_for_selector(room)
        shown = [each for each in ("#chat", "#swarm", "#map") if page.locator(each).is_visible()]
        assert shown == [room]
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        small = page.evaluate(
            "[...document.querySelectorAll('button, a, input')].filter((each) =>"
            " each.checkVisibility() && !each.matches('.skip, .legend *, [type=checkbox]') &&"
            " (each.getBoundingClientRect().height < 44 || each.getBoundingClientRect().width < 44)"
            ").map((each) => each.outerHTML)"
        )
        assert small == []
        audit(page)
    page.tap("[data-to=chat]")
    page.fill("#message", "Who are you?")
    page.tap("#send")
    assert "demo model" in answers(page, 1)


def test_the_theme_is_the_systems_until_somebody_chooses(bundled: Swarm, open_page: Open) -> None:
    page = open_page(bundled.url, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    ask(page, "Who are you?")
    answers(page, 1)
    audit(page)
    page.click("#theme")
    assert page.evaluate(ground) != dark
    page.reload()
    assert page.evaluate(ground) != dark
    assert "light" in (page.get_attribute("#theme", "aria-label") or "")
    page.click("#theme")
    assert page.evaluate(ground) == dark


def test_everything_can_be_done_with_the_keyboard_alone(bundled: Swarm, open_page: Open) -> None:
    page = open_page(bundled.url)

    def focused() -> str:
        return str(page.evaluate("document.activeElement.id"))

    page.keyboard.press("Tab")
    assert page.locator(".skip").is_visible()
    page.keyboard.press("Enter")
    assert focused() == "message"
    page.keyboard.type("Who are you?")
    page.keyboard.press("Enter")
    answers(page, 1)
    assert focused() == "message"
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(focused())
        outline = page.evaluate(
            "(() => { const style = getComputedStyle(document.activeElement);"
            " const box = document.activeElement.closest('.composer, .editor');"
            " return style.outlineStyle !== 'none' ||"
            " (box !== null && getComputedStyle(box).boxShadow !== 'none'); })()"
        )
        assert outline or focused() == "", focused()
    assert {"new-chat", "open-settings", "theme"} <= set(seen)
    page.locator("#open-settings").focus()
    page.keyboard.press("Enter")
    assert page.locator("#settings").is_visible()
    page.keyboard.press("Escape")
    assert focused() == "open-settings"


def test_a_screen_reader_hears_sentences_not_tokens(endless: Swarm, open_page: Open) -> None:
    page = open_page(endless.url)
    page.evaluate(
        "window.heard = []; new MutationObserver(() => heard.push(spoken.textContent))"
        ".observe(document.querySelector('#spoken'), {childList: true})"
    )
    ask_without_end(page)
    wait_until(page, "document.querySelector('.turn.answer .said').innerText.length > 400")
    page.keyboard.press("Escape")
    answers(page, 1)
    heard = page.evaluate("window.heard")
    assert heard[-1].endswith("End of the answer.")
    assert len(heard) <= 4
    # The words themselves are in no live region.
    assert page.evaluate("document.querySelector('.turn').closest('[aria-live]')") is None


def test_who_wants_no_motion_gets_none(endless: Swarm, open_page: Open) -> None:
    page = open_page(endless.url, reduced_motion="reduce")
    ask_without_end(page)
    page.wait_for_selector("#picture.flowing")
    running = page.evaluate("document.getAnimations().filter((one) => one.playState === 'running')")
    assert running == []
    page.keyboard.press("Escape")


def test_a_token_is_asked_for_once_and_kept_for_the_tab(
    browser: Browser, open_page: Open, tmp_path: Path
) -> None:
    from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder

    token = tmp_path / "token"
    model = {"name": MODEL_NAME, "path": str(bundled_model_folder())}
    options = ("--token-file", str(token), "--create-token", "--read-only-map")
    with swarm_of(tmp_path, model, ("0-3", "4-7"), *options) as swarm:
        page = browser.new_page()
        page.goto(swarm.url)
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token-input", "certainly not the token")
        page.keyboard.press("Enter")
        wait_until(page, "document.querySelector('#token-hint').innerText.includes('not')")
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token-input", token.read_text().strip())
        page.keyboard.press("Enter")
        page.wait_for_selector("#link-state.live")
        ask(page, "Who are you?")
        assert "demo model" in answers(page, 1)
        page.click("#map-link")
        wait_until(page, "document.querySelector('#map-file').innerText.includes('read')")
        assert not page.locator("#map-apply").is_visible()
        page.reload()
        page.wait_for_selector("#link-state.live")
        assert not page.locator("#token-dialog").is_visible()
        page.close()


def test_a_server_is_killed_mid_answer_the_picture_shows_it_and_the_answer_goes_on(
    endless: Swarm, open_page: Open
) -> None:
    page = open_page(endless.url)
    ask_without_end(page)
    wait_until(page, "document.querySelector('.turn.answer .said').innerText.length > 40")
    length = len(page.locator(".turn.answer .said").inner_text())
    endless.kill("ben")
    wait_for_picture(page, "anna computes blocks 2–3")
    wait_until(
        page, f"document.querySelector('.turn.answer .said').innerText.length > {length + 400}"
    )
    wait_until(page, "document.querySelector('#events').innerText.includes('ben (blocks')")
    assert "anna serves blocks 2-3" in page.locator("#events").inner_text()
    state = page.locator("#peers tr").last.inner_text()
    assert "lost" in state or "down" in state
    page.keyboard.press("Escape")
    answers(page, 1)
    assert "anna → ben, then anna" in page.locator(".turn.answer .facts").inner_text()
    endless.start_server("ben")
    endless.wait_ready("ben")


def test_when_the_node_ends_the_page_says_so_and_goes_on_when_it_is_back(
    endless: Swarm, browser: Browser
) -> None:
    page = browser.new_page()  # what the browser tells of lost connections is no error here
    page.goto(endless.url)
    page.wait_for_selector("#link-state.live")
    endless.kill("api")
    page.wait_for_selector("#link-state.lost")
    ask_without_end(page)
    page.wait_for_selector(".said .failed")
    assert "can't be reached" in page.locator(".said .failed").inner_text()
    port = endless.url.rstrip("/").rpartition(":")[2]
    endless.start("api", "api", "--listen", f"127.0.0.1:{port}")
    endless.wait_ready("api")
    page.wait_for_selector("#link-state.live", timeout=30_000)
    page.click(".retry")
    wait_until(page, "document.querySelector('.turn.answer .said').innerText.length > 40")
    page.close()


MARKDOWN = {
    "plain <b>text</b>": "<p>plain &lt;b&gt;text&lt;/b&gt;</p>",
    "**bold** and `a*b*` and 2*3*4": (
        "<p><strong>bold</strong> and <code>a*b*</code> and 2*3*4</p>"
    ),
    "one\ntwo\n\nthree": "<p>one<br>two</p><p>three</p>",
    "- a\n- b\n  more\n\n1. c\n2. d": (
        '<ul><li>a</li><li>b<br>more</li></ul><ol start="1"><li>c</li><li>d</li></ol>'
    ),
    "# Title\ntext": "<h4>Title</h4><p>text</p>",
    "[link](javascript:alert(1)) ![i](https://x.example/i.png)": (
        "<p>[link](javascript:alert(1)) ![i](https://x.example/i.png)</p>"
    ),
    "**not closed": "<p>**not closed</p>",
}


@pytest.mark.parametrize("text", MARKDOWN)
def test_markdown_becomes_elements_and_markup_stays_text(
    bundled: Swarm, open_page: Open, text: str
) -> None:
    page = open_page(bundled.url)
    shown = page.evaluate(
        "async (text) => { const { showMarkdown } = await import('/page/markdown.js');"
        " const box = document.createElement('div'); showMarkdown(box, text);"
        " return box.innerHTML; }",
        text,
    )
    assert shown == MARKDOWN[text]


def test_code_is_shown_as_it_is_also_while_it_streams(bundled: Swarm, open_page: Open) -> None:
    page = open_page(bundled.url)
    text = "see:\n```py\nif a < b:\n\n    **c**\n```\ndone"
    found = page.evaluate(
        "async (text) => { const { showMarkdown } = await import('/page/markdown.js');"
        " const box = document.createElement('div'); const seen = [];"
        " for (let at = 1; at <= text.length; at += 1) {"
        "   showMarkdown(box, text.slice(0, at));"
        "   seen.push(box.querySelector('pre')?.textContent ?? null); }"
        " return [box.firstChild.textContent, seen.at(-1), seen.at(-20), box.children.length]; }",
        text,
    )
    assert found == ["see:", "if a < b:\n\n    **c**", "if a < b:\n", 3]


def test_events_are_read_however_the_network_cuts_them(bundled: Swarm, open_page: Open) -> None:
    page = open_page(bundled.url)
    stream = ': hello\r\n\r\nevent: swarm\ndata: {"a":1}\n\ndata: één\ndata: two\r\r'
    found = page.evaluate(
        "async (stream) => { const { eventsOf } = await import('/page/events.js');"
        " const bytes = new TextEncoder().encode(stream); const all = [];"
        " for (let size = 1; size <= bytes.length; size += 1) {"
        "   const body = new ReadableStream({ start(to) {"
        "     for (let at = 0; at < bytes.length; at += size)"
        "       to.enqueue(bytes.slice(at, at + size));"
        "     to.enqueue(new TextEncoder().encode('\\n')); to.close(); } });"
        "   const events = [];"
        "   for await (const each of eventsOf(new Response(body))) events.push(each);"
        "   all.push(JSON.stringify(events)); }"
        " return [...new Set(all)]; }",
        stream,
    )
    assert [json.loads(one) for one in found] == [
        [{"type": "swarm", "data": '{"a":1}'}, {"type": "message", "data": "één\ntwo"}]
    ]
