"""The rules of axe-core for the page, in each of its states."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Browser, Page, expect

from lorarec.serving.service import Service
from tests.serving.browsing import choose_user

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")

SCHEMES = [
    {"color_scheme": "light", "forced_colors": "none"},
    {"color_scheme": "dark", "forced_colors": "none"},
    {"color_scheme": "dark", "forced_colors": "active"},
]
WIDTHS = [320, 1180]


def check(page: Page) -> None:
    """Check the page in all colors and widths."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for scheme in SCHEMES:
            page.emulate_media(reduced_motion="reduce", **scheme)  # type: ignore[arg-type]
            found = axe.Axe().run(page).response
            assert len(found["passes"]) > 20
            assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []


def test_before_anything_is_chosen(page: Page) -> None:
    expect(page.locator("#examples button")).to_have_count(3)
    check(page)


def test_a_ranking_with_its_explanation_and_an_error(page: Page) -> None:
    page.get_by_label("First adapter", exact=True).select_option("layered")
    choose_user(page, "u03")
    expect(page.locator("#ranking > li")).to_have_count(10)
    page.locator("#ranking summary").nth(1).click()
    expect(page.locator(".influences")).to_have_count(1)
    expect(page.locator("#weights tbody tr")).to_have_count(28)
    check(page)
    page.context.set_offline(True)
    page.get_by_label("Weight of the second adapter").press("ArrowRight")
    expect(page.locator(".stale")).to_have_count(1)
    page.context.set_offline(False)
    check(page)


def test_titles_and_an_open_list_of_suggestions(page: Page) -> None:
    page.get_by_label("Titles you add").check()
    page.get_by_label("Add a title", exact=True).fill("red")
    page.keyboard.press("Enter")
    expect(page.locator("#history li")).to_have_count(1)
    page.get_by_label("Add a title", exact=True).fill("blue")
    expect(page.locator("[role=option]")).to_have_count(7)
    page.keyboard.press("ArrowDown")
    check(page)


def test_a_comparison(page: Page) -> None:
    choose_user(page, "u03")
    page.get_by_label("Compare two mixtures").check()
    expect(page.locator("#comparison tbody tr")).to_have_count(10)
    page.locator("#comparison td").first.hover()
    check(page)


def test_a_fusion_and_a_key(
    browser: Browser, make_fused: Callable[..., Service], served: Callable[..., AbstractContextManager[str]]
) -> None:
    with served(make_fused()) as url, browser.new_context(reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(url)
        choose_user(page, "u03")
        expect(page.locator("#ranking details")).to_have_count(10)
        page.evaluate("document.getElementById('key-form').hidden = false")
        page.evaluate("document.getElementById('forget').hidden = false")
        check(page)
