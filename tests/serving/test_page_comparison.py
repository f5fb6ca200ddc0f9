"""Two mixtures side by side on the page."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx2
from playwright.sync_api import Browser, Page, expect

from lorarec.serving.service import Service
from tests.serving.browsing import answer, base_url, choose_user


def column(page: Page, name: str) -> list[str]:
    cells = page.locator(f"#comparison tbody td:nth-child({'AB'.index(name) + 2}) .title")
    return cells.all_inner_texts()


def test_two_mixtures_and_what_moved(page: Page) -> None:
    choose_user(page, "u03")
    expect(page.locator("#ranking > li")).to_have_count(10)
    page.get_by_label("Compare two mixtures").check()
    table = page.locator("#comparison")
    expect(table.locator("tbody tr")).to_have_count(10)
    expect(page.locator("#ranking > li")).to_have_count(0)
    expect(page.locator("#weights-part")).to_be_hidden()
    expect(table.locator("thead th")).to_have_text(
        ["Place", "A general 0.50, specific 0.50", "B general 0.00, specific 1.00"]
    )
    mixtures = page.get_by_role("group", name="Mixture")
    expect(mixtures).to_have_count(2)
    mixtures.nth(0).get_by_role("slider").press("Home")
    expect(table.locator("thead th").nth(1)).to_have_text("A general 1.00, specific 0.00")
    shares = [{"general": 1, "specific": 0}, {"general": 0, "specific": 1}]
    before, after = (
        [title for title, _ in answer(page, "v1/recommend", {"user_id": "u03", "adapter": adapter})]
        for adapter in shares
    )
    assert (column(page, "A"), column(page, "B")) == (before, after)
    assert before != after
    moves = {"higher": 0, "lower": 0, "same": 0}
    for place, title in enumerate(after):
        note = table.locator("tbody tr").nth(place).locator("td:nth-child(3) .moved")
        if title not in before:
            expect(note).to_have_text("not in A")
            continue
        change = before.index(title) - place
        moves["higher" if change > 0 else "lower" if change else "same"] += 1
        arrow = f"\N{BLACK UP-POINTING TRIANGLE} {change}up {change}"
        fall = f"\N{BLACK DOWN-POINTING TRIANGLE} {-change}down {-change}"
        expect(note).to_have_text(arrow if change > 0 else fall if change else "")
    gone = sum(title not in after for title in before)
    expect(table.get_by_text("not in B")).to_have_count(gone)
    expect(page.locator("#changes")).to_have_text(
        f"10 items in B: {moves['higher']} higher than in A, {moves['lower']} lower, "
        f"{moves['same']} in the same place, {gone} not in A."
    )
    page.get_by_label("Compare two mixtures").uncheck()
    expect(page.locator("#ranking > li")).to_have_count(10)
    expect(table).to_be_hidden()
    expect(page.get_by_role("slider")).to_have_count(1)


def test_an_item_is_marked_in_both_columns(page: Page) -> None:
    choose_user(page, "u03")
    page.get_by_label("Compare two mixtures").check()
    cells = page.locator("#comparison td")
    expect(cells).to_have_count(20)
    title = next(title for title in column(page, "A") if title in column(page, "B"))
    cells.filter(has=page.get_by_text(title, exact=True)).first.hover()
    expect(page.locator("#comparison .same .title")).to_have_text([title, title])


def test_a_fusion_is_compared_with_adapters(
    browser: Browser, make_fused: Callable[..., Service], served: Callable[..., AbstractContextManager[str]]
) -> None:
    with served(make_fused()) as url, browser.new_context(reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(url)
        choose_user(page, "u03")
        expect(page.locator("#ranking > li")).to_have_count(10)
        page.get_by_label("Compare two mixtures").check()
        heads = page.locator("#comparison thead th")
        expect(heads).to_have_text(["Place", "A the fusion", "B general 0.00, specific 1.00"])
        fused = httpx2.post(f"{base_url(page)}v1/recommend", json={"user_id": "u03"}, timeout=60).json()["ranking"]
        assert column(page, "A") == [item["title"] for item in fused]
