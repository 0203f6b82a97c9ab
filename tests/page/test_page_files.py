"""The page without a browser: what its files say, and how they are served."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from gptnode.api.page_files import page_routes

FOLDER = Path(str(resources.files("gptnode.api"))) / "page"
SCRIPTS = sorted(FOLDER.glob("*.js"))
STYLES = sorted(FOLDER.glob("*.css"))
VOID = {"meta", "link", "img", "input", "br", "circle", "path", "rect", "use"}
MADE_OF_MARKUP = re.compile(
    r"\.(inner|outer)HTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function"
)


class Page(HTMLParser):
    """index.html: its elements with their attributes, and whether its tags match."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text_of: dict[str, str] = {}
        self.open: list[tuple[str, str]] = []
        self.mismatched: list[str] = []
        self.feed((FOLDER / "index.html").read_text())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag not in VOID:
            self.open.append((tag, found.get("id") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop()[0] != tag:
            self.mismatched.append(tag)

    def handle_data(self, data: str) -> None:
        for _, key in self.open:
            if key:
                self.text_of[key] = self.text_of.get(key, "") + data

    @property
    def ids(self) -> list[str]:
        return [found["id"] or "" for _, found in self.elements if "id" in found]

    def having(self, attribute: str) -> list[str]:
        return [found[attribute] or "" for _, found in self.elements if attribute in found]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=page_routes())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def test_tags_match_and_ids_are_unique(page: Page) -> None:
    assert page.mismatched == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids)) > 50


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_element_that_a_script_asks_for_is_in_the_page(script: Path, page: Page) -> None:
    asked = re.findall(r'byId\("([^"]+)"\)', script.read_text())
    assert set(asked) <= set(page.ids)


def test_symbols_and_references_lead_to_something(page: Page) -> None:
    text = "".join(path.read_text() for path in SCRIPTS)
    states = re.findall(r'mark: "(\w+)"', text)
    icons = re.findall(r'icon\("([\w-]+)"', text)
    assert states
    assert icons
    referred = [*(f"state-{state}" for state in states), *icons]
    for attribute in ("aria-labelledby", "aria-describedby", "for"):
        referred += [key for value in page.having(attribute) for key in value.split()]
    referred += [href[1:] for href in page.having("href") if href.startswith("#")]
    assert set(referred) <= set(page.ids)


def test_each_control_has_a_name(page: Page) -> None:
    labelled = set(page.having("for"))
    for tag, found in page.elements:
        if tag in ("input", "textarea", "select"):
            assert found.get("id") in labelled, found
        if tag == "button" and found.get("id"):
            key = found["id"] or ""
            assert found.get("aria-label") or page.text_of.get(key, "").strip(), found
        if tag in ("dialog", "nav", "section"):
            assert found.get("aria-labelledby") or found.get("aria-label"), found


def test_the_page_has_its_landmarks_and_one_first_heading(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert [tags.count(tag) for tag in ("header", "main", "nav", "h1")] == [1, 1, 1, 1]
    assert page.elements[0] == ("html", {"lang": "en"})
    (skip,) = [found for _, found in page.elements if found.get("class") == "skip"]
    assert (skip["href"] or "")[1:] in page.ids


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(page: Page) -> None:
    for tag, found in page.elements:
        assert "style" not in found
        assert not [name for name in found if name.startswith("on")]
        assert tag != "style"
        if tag == "script":
            assert found["src"]
    text = "".join(path.read_text() for path in FOLDER.iterdir())
    addresses = set(re.findall(r"https?://[^\s\"')]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_elements_are_made_of_text_never_of_markup(script: Path) -> None:
    assert MADE_OF_MARKUP.search(script.read_text()) is None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_imports_lead_to_files_of_the_page(script: Path) -> None:
    for name in re.findall(r'from "\./([^"]+)"', script.read_text()):
        assert (FOLDER / name).is_file()


def test_motion_stops_for_those_who_want_none() -> None:
    assert all(
        "prefers-reduced-motion" in path.read_text()
        for path in STYLES
        if "animation:" in path.read_text()
    )


def contrast(first: str, second: str) -> float:
    """As WCAG 2 has it, of two colours such as ``#1b1d20``."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_controls_can_be_told_from_what_is_behind_them(theme: int) -> None:
    found = re.findall(
        r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", (FOLDER / "base.css").read_text()
    )
    colours = {name: pair[theme] for name, *pair in found}
    for back in ("ground", "surface", "raised"):
        for text in ("text", "soft", "accent"):
            assert contrast(colours[text], colours[back]) >= 4.5, (text, back)
    for text, back in [
        ("on-accent", "accent-fill"), ("text", "accent-wash"), ("bad", "bad-wash"),
        ("warn", "warn-wash"), ("good", "surface"), ("warn", "surface"), ("bad", "surface"),
        *(("text", f"hop-{n}-wash") for n in range(4)),
    ]:  # fmt: skip
        assert contrast(colours[text], colours[back]) >= 4.5, (text, back)
    for line, back in [("edge", "surface"), *((f"hop-{n}", "surface") for n in range(4))]:
        assert contrast(colours[line], colours[back]) >= 3, (line, back)


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html"),
        ("/page/app.js", "text/javascript"),
        ("/page/base.css", "text/css"),
        ("/page/mark.svg", "image/svg+xml"),
    ],
)
async def test_files_come_with_their_type_and_the_headers_that_keep_the_page_safe(
    client: httpx.AsyncClient, path: str, media_type: str
) -> None:
    response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(media_type)
    policy = dict(
        part.split(maxsplit=1) for part in response.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {
        "'self'"
    }
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"


async def test_a_file_that_the_browser_has_is_not_sent_again(client: httpx.AsyncClient) -> None:
    etag = (await client.get("/page/app.js")).headers["etag"]
    again = await client.get("/page/app.js", headers={"if-none-match": f'"other", W/{etag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert "content-security-policy" in again.headers
    other = await client.get("/page/app.js", headers={"if-none-match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize("name", ["none.js", "../api.py", "%2e%2e/app.py", "..%2fapp.py", ""])
async def test_nothing_but_the_files_of_the_page_is_served(
    client: httpx.AsyncClient, name: str
) -> None:
    assert (await client.get(f"/page/{name}")).status_code == 404
