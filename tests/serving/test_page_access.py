"""Accessibility of the page, small screens, and scripts that must not run."""

from collections.abc import Iterator
from itertools import pairwise

import httpx2
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from lorarec.serving.page import FILES

CONTROLS = {"button", "checkbox", "combobox", "link", "listbox", "radio", "region", "slider", "table", "textbox"}
#: Visible texts with their contrast ratios (WCAG 2.1, 1.4.3).
CONTRASTS = """() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
    const ground = (node) => {
        const own = parts(getComputedStyle(node).backgroundColor);
        return own.length === 4 && own[3] === 0 ? ground(node.parentElement) : own;
    };
    const found = [];
    for (const node of document.querySelectorAll("body *")) {
        const text = [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data).join("");
        const words = (text + (node.matches("select, [role=combobox]") ? node.value : "")).trim();
        if (!words || !node.checkVisibility() || node.matches("option")) continue;
        const [a, b] = [parts(getComputedStyle(node).color), ground(node)].map(luminance);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        found.push([words, ratio]);
    }
    return found;
}"""

#: Name of the focused element with style and width of its outline; null at the end of the page.
FOCUS = """() => {
    const node = document.activeElement;
    if (node === document.body) return null;
    const style = getComputedStyle(node.type === "radio" ? node.nextElementSibling : node);
    return [node.id || node.ariaLabel || node.textContent, style.outlineStyle, style.outlineWidth];
}"""


@pytest.fixture
def page(browser: Browser, page_url: str) -> Iterator[Page]:
    """The page after loading."""
    with browser.new_context(reduced_motion="reduce") as context:
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.goto(page_url)
        yield page


def use_all(page: Page) -> None:
    """Show all parts of the page; the weights of `layered` differ by layer, so that there is a row for each."""
    page.get_by_label("First adapter", exact=True).select_option("layered")
    page.get_by_label("Titles you add").check()
    page.get_by_label("Selected items").check()
    for label in ("Add a title", "Add a title to rank"):
        for words in ("red", "blue", "green"):
            page.get_by_label(label, exact=True).fill(words)
            page.keyboard.press("Enter")
            expect(page.get_by_label(label, exact=True)).to_have_value("")
    expect(page.locator("#ranking li")).to_have_count(3)
    expect(page.locator("#weights tbody tr")).to_have_count(28)
    page.evaluate("document.getElementById('key-form').hidden = false")
    page.evaluate("document.getElementById('forget').hidden = false")


def test_text_is_readable_in_both_schemes(page: Page) -> None:
    use_all(page)
    page.context.set_offline(True)
    page.get_by_label("Weight of the second adapter").press("ArrowRight")
    expect(page.get_by_role("alert")).not_to_have_text("")
    page.context.set_offline(False)
    page.get_by_label("Add a title", exact=True).fill("red")
    expect(page.locator("[role=option]")).to_have_count(7)
    page.keyboard.press("ArrowDown")
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        measured: list[tuple[str, float]] = page.evaluate(CONTRASTS)
        assert len(measured) > 100
        assert [pair for pair in measured if pair[1] < 4.5] == []
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(245, 244, 240)", "rgb(18, 23, 26)"]


def test_everything_has_a_name_and_headings_have_an_order(page: Page) -> None:
    use_all(page)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    nodes = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    named = [(role, name) for role, name in nodes if role in CONTROLS]
    assert len(named) > 15
    assert [pair for pair in named if not pair[1].strip()] == []
    assert {"banner", "main", "alert", "status", "region"} <= {role for role, _ in nodes}
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((node) => Number(node.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.evaluate("document.documentElement.lang") == "en"


def test_the_keyboard_reaches_everything_and_leaves_again(page: Page) -> None:
    use_all(page)
    page.locator(".skip").focus()
    reached: list[list[str]] = []
    while len(reached) < 60 and (focus := page.evaluate(FOCUS)):
        reached.append(focus)
        page.keyboard.press("Tab")
    names = [name for name, _, _ in reached]
    expected = {
        "Skip to the ranking",
        "forget",
        "key",
        "source-titles",
        "history-title",
        "items-selected",
        "candidates-title",
    }
    expected |= {"first", "second", "slider", "weights-box"}
    assert expected <= set(names)
    assert sum(name.startswith("Remove") for name in names) == 6
    assert len(names) == len(set(names)) + 3  # the same title is in both lists
    assert {(style, width) for _, style, width in reached} == {("solid", "3px")}


@pytest.mark.parametrize("width", [320, 360])
def test_a_phone_needs_no_scrolling_sideways(page: Page, width: int) -> None:
    use_all(page)
    page.locator("#ranking summary").last.click()
    expect(page.locator(".influences")).to_have_count(1)
    page.set_viewport_size({"width": width, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_label("Compare two mixtures").check()
    expect(page.locator("#comparison tbody tr")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def in_view(page: Page, selector: str) -> bool:
    """Return whether all of an element is on the screen."""
    return page.locator(selector).evaluate(
        "(node) => { const box = node.getBoundingClientRect(); return box.top >= 0 && box.bottom <= innerHeight; }"
    )


@pytest.fixture
def phone(browser: Browser, page_url: str) -> Iterator[Page]:
    """The page on a small phone."""
    viewport = {"width": 320, "height": 640}
    with browser.new_context(viewport=viewport, has_touch=True, reduced_motion="reduce") as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(page_url)
        yield page


def test_the_slider_and_the_first_items_are_in_view_on_a_phone(phone: Page) -> None:
    phone.get_by_label("User id").fill("u03")
    phone.keyboard.press("Enter")
    expect(phone.locator("#ranking > li")).to_have_count(10)
    assert phone.evaluate("scrollY") == 0
    for selector in ("#slider", "#ranking-heading", "#ranking > li:first-child .title"):
        assert in_view(phone, selector), selector
    for label in ("Latest items", "Items to rank"):  # what is folded can be opened
        phone.locator("summary").filter(has_text=label).click()
    expect(phone.locator("#latest li").first).to_be_visible()
    expect(phone.get_by_label("Number of results")).to_be_visible()


def test_examples_are_in_view_on_a_phone(phone: Page) -> None:
    expect(phone.locator("#examples button")).to_have_count(3)
    assert in_view(phone, "#examples")


def test_an_error_is_in_view_and_the_former_ranking_is_marked(phone: Page) -> None:
    phone.locator("#examples button").first.click()
    expect(phone.locator("#ranking > li")).to_have_count(10)
    title = phone.locator("#ranking .title").first
    color = "(node) => getComputedStyle(node).color"
    fresh = title.evaluate(color)
    phone.evaluate("scrollTo(0, document.body.scrollHeight)")
    phone.context.set_offline(True)
    # The request is sent without moving the page.
    phone.evaluate("document.getElementById('slider').dispatchEvent(new Event('input', {bubbles: true}))")
    expect(phone.get_by_role("alert")).to_have_text("The service cannot be reached: is it running?")
    assert in_view(phone, "#error")
    expect(phone.locator("#progress-note")).to_have_text("Out of date")
    assert title.evaluate(color) == phone.locator("#hint").evaluate(color) != fresh
    phone.context.set_offline(False)
    phone.evaluate("document.getElementById('slider').dispatchEvent(new Event('input', {bubbles: true}))")
    expect(phone.get_by_role("alert")).to_have_text("")
    expect(phone.locator("#progress-note")).to_have_text("")
    assert title.evaluate(color) == fresh


def test_waiting_is_shown_with_its_seconds(page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/recommend", lambda route: held.append(route))
    page.get_by_label("User id").fill("u03")
    page.keyboard.press("Enter")
    note = page.locator("#progress-note")
    expect(note).to_have_text("Ranking …")
    expect(page.locator(".progress")).to_be_visible()
    expect(note).to_have_text("Ranking … 2 s")
    held[0].continue_()
    expect(page.locator("#ranking > li")).to_have_count(10)
    expect(note).to_have_text("")
    expect(page.locator(".progress")).to_be_hidden()


def test_forced_colors_keep_what_colors_say(page: Page) -> None:
    use_all(page)
    page.locator("#ranking summary").last.click()
    expect(page.locator(".influences")).to_have_count(1)
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    background = "(node) => getComputedStyle(node).backgroundColor"

    def seen(selector: str) -> str:
        return page.locator(selector).first.evaluate(background)

    canvas = seen("body")
    assert seen("#source-titles + label") != seen("#source-user + label")
    for selector in (".bar span", ".parts .axis span", ".influence", ".stack .part-0", ".stack .part-1", ".swatch"):
        assert seen(selector) not in (canvas, "rgba(0, 0, 0, 0)"), selector
    assert seen(".stack .part-0") != seen(".stack .part-1")


def test_titles_and_ids_are_text(page: Page) -> None:
    opened: list[str] = []
    page.on("request", lambda request: opened.append(request.url))
    page.get_by_label("User id").fill("mallory")
    expect(page.locator("[role=option]").first).to_have_text("<i>mallory</i>/?&#%")
    page.keyboard.press("Enter")
    expect(page.locator("#latest")).to_contain_text("<script>window.ran = 1</script>")
    page.get_by_label("Titles you add").check()
    for words in ("<script>", "<img", "<b onclick", "<svg onload=window.ran=1>"):
        page.get_by_label("Add a title", exact=True).fill(words)
        expect(page.locator("[role=option]").first).to_contain_text(words)
        page.keyboard.press("Enter")
    expect(page.locator("#history li")).to_have_count(4)
    expect(page.locator("#ranking li")).to_have_count(10)
    page.get_by_label("Selected items").check()
    page.get_by_label("Add a title to rank").fill("<img")
    page.keyboard.press("Enter")
    expect(page.locator("#ranking li")).to_have_count(1)
    expect(page.locator("#ranking .title")).to_have_text('<img src=x onerror="window.ran = 1">')
    assert page.evaluate("window.ran") is None
    assert page.locator("main img, main script, main b, main i, main svg").count() == 0
    assert not any(url.endswith("/x") for url in opened)


def test_markup_and_scripts_are_forbidden_by_the_policy(page: Page) -> None:
    assert (
        page.evaluate(
            """() => {
            try { document.body.innerHTML = "<b>bold</b>"; } catch (error) { return error.name; }
        }"""
        )
        == "TypeError"
    )
    page.evaluate("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.2/x'}))")
    refused = "(async () => { try { await fetch('http://127.0.0.2/x') } catch (error) { return error.name } })()"
    assert page.evaluate(refused) == "TypeError"


@pytest.mark.parametrize("path", list(FILES))
def test_headers(page_url: str, path: str) -> None:
    headers = httpx2.get(f"{page_url}{path}").raise_for_status().headers
    rules = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
    assert rules["default-src"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
