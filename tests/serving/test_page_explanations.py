"""Why an item stands where it does, as the page shows it."""

from typing import Any

import httpx2
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.serving.browsing import base_url, choose_user

MIXTURE = {"general": 0.5, "specific": 0.5}


def post(page: Page, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a response of the service."""
    return httpx2.post(f"{base_url(page)}v1/{path}", json=body, timeout=60).raise_for_status().json()


def signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{abs(value):.2f}".replace("-", "\N{MINUS SIGN}")


def shows_influences(item: Locator, answer: dict[str, Any]) -> None:
    """Wait until an item shows the effects of an explanation, largest first, and its evidence."""
    ordered = sorted(answer["history"], key=lambda effect: -abs(effect["score"]))
    expect(item.locator(".influences li > span:first-child")).to_have_text([effect["title"] for effect in ordered])
    expect(item.locator(".influences .value")).to_have_text([signed(effect["score"]) for effect in ordered])
    (word,) = set(answer["evidence"].values())
    expect(item.locator(".evidence strong")).to_have_text(word or "rarely")


def test_parts_of_a_recommendation_and_the_items_it_rests_on(page: Page) -> None:
    choose_user(page, "u03")
    items = page.locator("#ranking > li")
    expect(items).to_have_count(10)
    body = {"user_id": "u03", "adapter": MIXTURE}
    ranking = post(page, "recommend", body)["ranking"]
    model = [item["log_odds"] for item in ranking]
    prior = [item["log_prior"] for item in ranking]
    third = items.nth(2)
    expect(third.locator("table")).to_be_hidden()
    third.locator("summary").click()
    values = [signed(terms[2] - sum(terms) / len(terms)) for terms in (model, prior)]
    expect(third.locator("td:nth-child(2)")).to_have_text(values)
    place = round(2.718281828 ** -prior[2])
    expect(third.locator("th")).to_have_text(
        [f"language modellog-odds of yes {signed(model[2])}", f"indexplace {place} in the index's order"]
    )
    shows_influences(third, post(page, "explain", {**body, "item_id": ranking[2]["item_id"]}))
    # The first item is open from the beginning, but its explanation takes passes of the model, so it waits.
    first = items.nth(0)
    expect(first.locator("table")).to_be_visible()
    expect(first.locator(".influences")).to_have_count(0)
    first.get_by_role("button", name="Show what the history adds").click()
    shows_influences(first, post(page, "explain", {**body, "item_id": ranking[0]["item_id"]}))


def test_an_opened_item_is_explained_again_for_each_ranking(page: Page) -> None:
    choose_user(page, "u03")
    expect(page.locator("#ranking > li")).to_have_count(10)
    title = page.locator("#ranking .title").nth(1).inner_text()
    page.locator("#ranking summary").nth(1).click()
    item = page.locator("#ranking > li").filter(has=page.get_by_text(title, exact=True))
    expect(item.locator(".influences li")).to_have_count(4)
    page.get_by_label("Weight of the second adapter").press("ArrowLeft")
    body = {"user_id": "u03", "adapter": {"general": 0.55, "specific": 0.45}}
    found = {each["title"]: each["item_id"] for each in post(page, "recommend", body)["ranking"]}
    shows_influences(item, post(page, "explain", {**body, "item_id": found[title]}))


def test_selected_items_have_no_place_in_an_index(page: Page) -> None:
    choose_user(page, "u03")
    page.get_by_label("Selected items").check()
    for words in ("red lamp", "A title nobody has seen"):
        page.get_by_label("Add a title to rank").fill(words)
        page.keyboard.press("Enter")
        expect(page.get_by_label("Add a title to rank")).to_have_value("")
    item = page.locator("#ranking > li").filter(has_text="A title nobody has seen")
    expect(item).to_have_count(1)
    if item.locator("details").get_attribute("open") is None:
        item.locator("summary").click()
    else:
        item.get_by_role("button").click()
    expect(item.locator("th")).to_have_count(1)
    candidates = ["x00", {"title": "A title nobody has seen"}]
    body = {"user_id": "u03", "candidates": candidates, "candidate": 1, "adapter": MIXTURE}
    shows_influences(item, post(page, "explain", body))


@pytest.mark.parametrize("adapter", ["general", ""])
def test_a_failed_explanation_can_be_asked_for_again(page: Page, adapter: str) -> None:
    """The backbone alone reads no evidence."""
    page.get_by_label("First adapter", exact=True).select_option(adapter)
    page.get_by_label("Second adapter", exact=True).select_option(label="none")
    failing = True

    def answer(route: Route) -> None:
        route.fulfill(status=422, json={"detail": "no"}) if failing else route.continue_()

    page.route("**/v1/explain", answer)
    choose_user(page, "u03")
    first = page.locator("#ranking > li").first
    first.get_by_role("button").click()
    expect(first.locator(".explanation")).to_contain_text("no")
    failing = False
    first.get_by_role("button").click()
    expect(first.locator(".influences li")).not_to_have_count(0)
    expect(first.locator(".evidence")).to_have_count(1 if adapter else 0)
