"""Links to a state of the page, events that it stores, and its first view."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx2
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from lorarec.serving.service import Service
from tests.serving.browsing import answer, base_url, choose_user, settled


def opened(page: Page, url: str) -> Page:
    """Open a link in a new tab."""
    tab = page.context.new_page()
    tab.goto(url)
    return tab


def test_a_link_shows_the_same_ranking(page: Page) -> None:
    choose_user(page, "u03")
    page.get_by_label("Number of results").select_option("20")
    page.get_by_label("Weight of the second adapter").press("Home")
    body = {"user_id": "u03", "top": 20, "adapter": {"general": 1, "specific": 0}}
    settled(page, "v1/recommend", body)
    tab = opened(page, page.url)
    settled(tab, "v1/recommend", body)
    expect(tab.get_by_label("User id")).to_have_value("u03")
    expect(tab.locator("#latest li")).to_have_count(6)
    # Another link in the same tab is followed as well.
    tab.evaluate("location.hash = location.hash.replace('u03', 'u05')")
    settled(tab, "v1/recommend", {**body, "user_id": "u05"})


@pytest.mark.parametrize("is_chosen", [False, True])
def test_a_link_that_is_read_late_keeps_what_was_typed(page: Page, is_chosen: bool) -> None:
    link = f"{base_url(page)}#user=u05&candidates=blue+lamp&candidates-id=&candidates=red+lamp&candidates-id="
    tab, held = page.context.new_page(), list[Route]()
    tab.route("**/v1/adapters", lambda route: held.append(route))
    tab.goto(link)
    tab.get_by_label("User id").fill("u03")
    if is_chosen:
        tab.keyboard.press("Enter")
        expect(tab.locator("#latest li")).to_have_count(6)
    held[0].continue_()
    expect(tab.locator("#candidates li span")).to_have_text(["blue lamp", "red lamp"])
    expect(tab.get_by_label("User id")).to_have_value("u03")
    tab.keyboard.press("Enter")
    expect(tab.locator("#latest li")).to_have_count(6)


def test_a_link_holds_titles_and_two_mixtures(page: Page) -> None:
    page.get_by_label("Titles you add").check()
    page.get_by_label("Selected items").check()
    for label, titles in (
        ("Add a title", ["red lamp", "<script>"]),
        ("Add a title to rank", ["blue lamp", "No & such=lamp"]),
    ):
        for words in titles:
            page.get_by_label(label, exact=True).fill(words)
            page.keyboard.press("Enter")
            expect(page.get_by_label(label, exact=True)).to_have_value("")
    page.get_by_label("Compare two mixtures").check()
    expect(page.locator("#comparison tbody tr")).to_have_count(2)
    shown = page.locator("#comparison").inner_text()
    tab = opened(page, page.url)
    expect(tab.locator("#comparison tbody tr")).to_have_count(2)
    assert tab.locator("#comparison").inner_text() == shown
    expect(tab.locator("#history li span")).to_have_text(["red lamp", "<script>window.ran = 1</script>"])
    expect(tab.locator("#candidates li span")).to_have_text(["blue lamp", "No & such=lamp"])
    assert tab.evaluate("window.ran") is None
    with tab.expect_request("**/v1/rank") as asked:
        tab.get_by_label("Compare two mixtures").uncheck()
    assert asked.value.post_data_json["history"] == ["x00", "x31"]
    assert asked.value.post_data_json["candidates"] == ["x02", {"title": "No & such=lamp"}]


def test_a_link_cannot_name_an_item_by_another_title(page: Page) -> None:
    link = f"{base_url(page)}#history=blue+lamp&history-id=x00&top=10&system=adapters&first=general&second=&weight=50"
    tab = page.context.new_page()
    with tab.expect_request("**/v1/recommend") as asked:
        tab.goto(link)
    assert asked.value.post_data_json["history"] == [{"title": "blue lamp"}]


def test_a_link_to_what_is_not_loaded_says_so(page: Page) -> None:
    for mixture, missing in (
        ("system=adapters&first=gone&second=specific", "gone"),
        ("system=adapters&first=general&second=%3Cb%3E", "<b>"),
        ("system=fusion&first=general&second=specific", "the fusion"),
    ):
        tab = opened(page, f"{base_url(page)}#user=u03&top=10&{mixture}&weight=50")
        message = f"The link names what is not loaded here: {missing}. Others rank instead."
        expect(tab.locator("#error")).to_have_text(message)
        expect(tab.locator("#ranking > li")).to_have_count(10)
        expect(tab.locator("#error")).to_have_text(message)
        tab.get_by_label("Number of results").select_option("20")
        expect(tab.locator("#error")).to_have_text("")
        tab.close()


def test_a_long_link_asks_for_each_title_once(page: Page) -> None:
    titles = "&".join("history=red+lamp&history-id=x00" for _ in range(500))
    asked: list[str] = []
    tab = page.context.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    with tab.expect_request("**/v1/recommend") as sent:
        tab.goto(f"{base_url(page)}#{titles}&top=10&system=adapters&first=general&second=&weight=50")
    assert sent.value.post_data_json["history"] == ["x00"] * 500
    assert len([url for url in asked if "/v1/items" in url]) == 1


def test_the_link_is_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copy = page.get_by_role("button", name="Copy link")
    expect(copy).to_be_hidden()
    choose_user(page, "u03")
    expect(page.locator("#ranking > li")).to_have_count(10)
    copy.click()
    expect(page.locator("#status")).to_have_text("The link was copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    assert "user=u03" in page.url


def test_an_event_changes_the_ranking(
    browser: Browser, make_page_service: Callable[..., Service], served: Callable[..., AbstractContextManager[str]]
) -> None:
    with served(make_page_service()) as url, browser.new_context(reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(url)
        choose_user(page, "u03")
        expect(page.locator("#ranking > li")).to_have_count(10)
        title = page.locator("#ranking .title").first.inner_text()
        add = page.get_by_role("button", name="Add", exact=True)
        expect(add).to_be_disabled()
        field = page.get_by_label("Add an event")
        field.fill(title)
        expect(page.locator("[role=option]").first).to_have_text(title)
        page.keyboard.press("Enter")
        expect(field).to_have_value(title)
        # The first attempt fails; the second one sends the same event.
        sent = []
        page.on("request", lambda request: sent.append(request.post_data) if request.url.endswith("events") else None)
        context.set_offline(True)
        add.click()
        expect(page.get_by_role("alert")).to_have_text("The service cannot be reached: is it running?")
        context.set_offline(False)
        add.click()
        expect(page.locator("#latest li")).to_have_count(7)
        expect(page.locator("#latest li").first).to_have_text(title)
        assert sent[0] == sent[1]
        adapter = {"general": 0.5, "specific": 0.5}
        settled(page, "v1/recommend", {"user_id": "u03", "adapter": adapter})
        expect(page.locator("#changes")).to_contain_text("entered")
        assert title not in page.locator("#ranking .title").all_inner_texts()
        expect(field).to_have_value("")
        expect(field).to_be_focused()
        assert httpx2.get(f"{url}/v1/history?user_id=u03").json()["items"][0]["title"] == title
        # An unknown user gets a first event, and then a ranking.
        choose_user(page, "newcomer")
        expect(page.get_by_role("alert")).to_have_text("User “newcomer” has no history.")
        expect(page.locator("#latest li")).to_have_count(0)
        field.fill("red lamp")
        page.keyboard.press("Enter")
        add.click()
        expect(page.locator("#latest li")).to_have_text(["red lamp"])
        settled(page, "v1/recommend", {"user_id": "newcomer", "adapter": adapter})


def test_an_event_needs_an_item_of_the_catalogue(page: Page) -> None:
    choose_user(page, "u03")
    field, add = page.get_by_label("Add an event"), page.get_by_role("button", name="Add", exact=True)
    field.fill("red chair")
    page.keyboard.press("Enter")
    expect(add).to_be_enabled()
    field.press("x")  # the text is not that of the item any more
    expect(add).to_be_disabled()
    expect(page.locator("[role=option]")).to_have_count(0)


def test_three_users_are_offered_at_the_start(page: Page) -> None:
    examples = page.locator("#examples button")
    expect(examples).to_have_count(3)
    user = examples.nth(1).inner_text().removeprefix("User ")
    examples.nth(1).click()
    expect(page.get_by_label("User id")).to_have_value(user)
    settled(page, "v1/recommend", {"user_id": user, "adapter": {"general": 0.5, "specific": 0.5}})
    expect(examples.first).to_be_hidden()
    assert len(answer(page, "v1/recommend", {"user_id": user, "adapter": {"general": 0.5, "specific": 0.5}})) == 10
