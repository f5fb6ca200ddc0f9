"""The page of a service with a fusion, in a browser."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx2
from playwright.sync_api import Browser, expect

from lorarec.serving.service import Service


def test_the_page_shows_the_parts_of_fused_scores(
    browser: Browser, make_fused: Callable[..., Service], served: Callable[..., AbstractContextManager[str]]
) -> None:
    with served(make_fused()) as url, browser.new_context(reduced_motion="reduce") as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        expect(page.get_by_label("The fusion")).to_be_checked()
        expect(page.get_by_label("First adapter", exact=True)).to_be_hidden()
        expect(page.locator("#fusion-part")).to_contain_text("shop, listed, sasrec, item-knn, tf-idf, popularity")
        page.get_by_label("User id").fill("u03")
        page.keyboard.press("Enter")
        expect(page.locator("#ranking > li")).to_have_count(10)
        answer = httpx2.post(f"{url}/v1/recommend", json={"user_id": "u03"}, timeout=60).json()
        expect(page.locator("#ranking .title")).to_have_text([item["title"] for item in answer["ranking"]])
        expect(page.locator("#weights-part")).to_be_hidden()
        details = page.locator("#ranking details")
        expect(details.nth(0)).to_have_attribute("open", "")
        minus = "\N{MINUS SIGN}"
        values = [f"{minus if part < 0 else '+'}{abs(part):.2f}" for part in answer["ranking"][0]["parts"].values()]
        expect(details.nth(0).locator("td:nth-child(2)")).to_have_text(values)
        expect(details.nth(0).locator("th")).to_have_text(
            [
                *("shoplanguage model", "listedlanguage model", "sasrecnext-item model", "item-knnco-occurrence"),
                *("tf-idftitles", "popularity", "indexplace in the index's order", "new itemprior of new items"),
            ]
        )
        color = "nodes => nodes.map((node) => getComputedStyle(node).backgroundColor)"
        colors = details.nth(0).locator(".swatch").evaluate_all(color)
        assert len(colors) == 8
        assert colors[0] == colors[1]  # both are language models
        assert len(set(colors)) == 7
        expect(details.nth(1)).not_to_have_attribute("open", "")
        details.nth(1).locator("summary").focus()
        page.keyboard.press("Enter")
        expect(details.nth(1).locator("table")).to_be_visible()
        # The choice between the fusion and adapters.
        page.locator("#system-adapters").check()
        expect(page.get_by_label("First adapter", exact=True)).to_be_visible()
        expect(details.nth(0).locator("th")).to_have_text([re.compile("^language model"), re.compile("^index")])
        expect(page.locator("#weights-part")).to_be_visible()
        page.get_by_label("The fusion").check()
        expect(details.nth(1).locator("table")).to_be_visible()
        assert complaints == []


def test_without_adapters_there_is_nothing_to_choose(
    browser: Browser, make_fused: Callable[..., Service], served: Callable[..., AbstractContextManager[str]]
) -> None:
    with served(make_fused(folder=None)) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_label("User id").fill("u03")
        page.keyboard.press("Enter")
        expect(page.locator("#ranking details")).to_have_count(10)
        expect(page.get_by_label("The fusion")).to_be_hidden()
