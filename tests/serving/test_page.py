"""The page in a browser, with a real server."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import httpx2
from playwright.sync_api import Browser, Page, Route, expect

from lorarec.serving.service import Service
from tests.serving.browsing import base_url, choose_user, ranking, settled

KEY = "lång random text"


def test_nothing_comes_from_elsewhere(page: Page, page_url: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    choose_user(page, "u03")
    expect(page.locator("#ranking li")).to_have_count(10)
    assert len(asked) >= 6
    assert all(url.startswith((page_url, "data:image/svg")) for url in asked)


def test_a_history_is_built_and_changed_by_keyboard_alone(page: Page) -> None:
    for _ in range(2):  # past the link to the ranking
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Titles you add")).to_be_checked()
    page.keyboard.press("Tab")
    field = page.get_by_label("Add a title", exact=True)
    expect(field).to_be_focused()
    page.keyboard.type("RED ch")
    expect(page.locator("[role=option]")).to_have_text(["red chair", "“RED ch” as typed"])
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_have_count(0)
    page.keyboard.press("ArrowDown")
    expect(page.locator("[role=option]")).to_have_count(2)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(page.locator("[role=option][aria-selected=true]")).to_have_text("red chair")
    active = page.locator("[role=option][aria-selected=true]").get_attribute("id")
    expect(field).to_have_attribute("aria-activedescendant", active or "")
    page.keyboard.press("Enter")
    expect(field).to_have_value("")
    page.keyboard.type("lamp black")
    page.keyboard.press("Enter")  # before the answer is there
    expect(page.locator("#history li span")).to_have_text(["red chair", "black lamp"])
    mixture = {"general": 0.5, "specific": 0.5}
    settled(page, "v1/recommend", {"history": ["x05", "x03"], "adapter": mixture})
    expect(page.locator("#status")).to_contain_text("10 items, the first is ")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Remove red chair")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove black lamp")).to_be_focused()
    settled(page, "v1/recommend", {"history": ["x03"], "adapter": mixture})


def test_the_slider_changes_order_and_weights(page: Page) -> None:
    choose_user(page, "u03")
    expect(page.locator("#latest li")).to_have_count(6)
    slider = page.get_by_label("Weight of the second adapter")
    seen = []
    for keys, weight in (["Home"], 0.0), (["ArrowRight"] * 6, 0.3), (["End"], 1.0):
        slider.focus()
        for key in keys:
            page.keyboard.press(key)
        settled(page, "v1/recommend", {"user_id": "u03", "adapter": {"general": 1 - weight, "specific": weight}})
        cells = page.locator("#weights tbody tr").first.locator("td")
        expect(cells).to_have_text([f"{1 - weight:.2f}", f"{weight:.2f}", ""])
        expect(slider).to_have_attribute("aria-valuetext", f"general {1 - weight:.2f}, specific {weight:.2f}")
        seen.append([title for title, _ in ranking(page)])
    assert seen[0] != seen[2]
    expect(page.locator("#weights-note")).to_have_text("The weights are the same in all 28 layers.")


def test_one_adapter_or_none_and_a_mixture_by_layer(page: Page) -> None:
    choose_user(page, "u03")
    page.get_by_label("Second adapter", exact=True).select_option(label="none")
    expect(page.get_by_label("Weight of the second adapter")).to_be_hidden()
    settled(page, "v1/recommend", {"user_id": "u03", "adapter": "general"})
    page.get_by_label("First adapter", exact=True).select_option("layered")
    settled(page, "v1/recommend", {"user_id": "u03", "adapter": "layered"})
    expect(page.locator("#weights-note")).to_have_text("The weights differ by layer.")
    expect(page.locator("#weights thead th")).to_have_text(["Layer", "general", "specific"])
    rows = page.locator("#weights tbody tr")
    expect(rows.nth(0).locator("td")).to_have_text(["0.00", "1.00", ""])
    expect(rows.nth(7).locator("td")).to_have_text(["0.25", "0.75", ""])
    page.get_by_label("First adapter", exact=True).select_option(label="backbone only")
    settled(page, "v1/recommend", {"user_id": "u03", "adapter": {}})
    expect(page.locator("#weights-note")).to_have_text("No adapter is used: the backbone ranks alone.")


def weights(page: Page, rows: list[list[float]]) -> None:
    """Wait until the page shows weights, layer by layer."""
    shown = [text for row in rows for text in (*(f"{weight:.2f}" for weight in row), "")]
    expect(page.locator("#weights tbody td")).to_have_text(shown)


def test_a_personal_adapter_shows_what_each_user_gets(page: Page) -> None:
    choose_user(page, "u03")
    page.get_by_label("First adapter", exact=True).select_option("chosen")
    for label in ("Weight of the second adapter", "Second adapter"):
        expect(page.get_by_label(label, exact=True)).to_be_hidden()
    expect(page.get_by_text("This adapter has its own weights for each user and layer.")).to_be_visible()
    seen = []
    for user in ("u03", "u04"):
        choose_user(page, user)
        body = {"user_id": user, "adapter": "chosen"}
        settled(page, "v1/recommend", body)
        personal = httpx2.post(f"{base_url(page)}v1/recommend", json=body, timeout=60).json()["personal"]["chosen"]
        weights(page, list(personal["layers"].values()))
        expect(page.locator("#weights-note")).to_have_text(
            f"chosen is mixed for user {user}. The weights differ by layer."
        )
        expect(page.get_by_role("columnheader")).to_have_text(["Layer", "general", "specific"])
        seen.append(personal["layers"])
    assert seen[0] != seen[1]
    page.get_by_label("Titles you add").check()
    page.get_by_label("Add a title", exact=True).fill("red lamp")
    page.keyboard.press("Enter")
    settled(page, "v1/recommend", {"history": ["x00"], "adapter": "chosen"})
    mean = httpx2.get(f"{base_url(page)}v1/adapters/chosen").json()["layers"]
    weights(page, [list(layer["weights"].values()) for layer in mean])
    expect(page.locator("#weights-note")).to_contain_text("chosen has the mean weights of its users.")
    page.get_by_label("First adapter", exact=True).select_option("specific")
    expect(page.get_by_label("Second adapter", exact=True)).to_be_visible()


def test_items_one_picks_are_ranked(page: Page) -> None:
    choose_user(page, "u03")
    page.get_by_label("Selected items").check()
    expect(page.locator("#ranking li")).to_have_count(0)
    for words in ("red lamp", "blue", "red lamp", "A title nobody has seen"):
        page.get_by_label("Add a title to rank").fill(words)
        page.keyboard.press("Enter")
        expect(page.get_by_label("Add a title to rank")).to_have_value("")
    candidates = ["x00", "x02", {"title": "A title nobody has seen"}]
    adapter = {"general": 0.5, "specific": 0.5}
    settled(page, "v1/rank", {"user_id": "u03", "candidates": candidates, "adapter": adapter})


def test_a_user_id_needs_no_enter(page: Page) -> None:
    page.get_by_label("User id").fill("u03")
    page.keyboard.press("Tab")
    expect(page.locator("#latest li")).to_have_count(6)
    settled(page, "v1/recommend", {"user_id": "u03", "adapter": {"general": 0.5, "specific": 0.5}})


def test_an_older_answer_never_replaces_a_newer_one(page: Page) -> None:
    held: list[Route] = []
    page.route("**/v1/recommend", lambda route: route.continue_() if held else held.append(route))
    choose_user(page, "u03")
    while not held:
        page.wait_for_timeout(20)
    choose_user(page, "u05")
    settled(page, "v1/recommend", {"user_id": "u05", "adapter": {"general": 0.5, "specific": 0.5}})
    newer = ranking(page)
    held[0].continue_()
    page.wait_for_timeout(500)
    assert ranking(page) == newer


def test_errors_are_reported_in_one_line(page: Page) -> None:
    problem = page.get_by_role("alert")
    choose_user(page, "nobody")
    expect(problem).to_have_text("User “nobody” has no history.")
    choose_user(page, "u03")
    expect(page.locator("#ranking li")).to_have_count(10)
    expect(problem).to_have_text("")
    page.context.set_offline(True)
    page.get_by_label("Number of results").select_option("20")
    expect(problem).to_have_text("The service cannot be reached: is it running?")
    page.context.set_offline(False)
    page.get_by_label("Number of results").select_option("50")
    expect(page.locator("#ranking li")).to_have_count(27)
    expect(problem).to_have_text("")


def test_key_and_a_full_queue(
    browser: Browser, make_page_service: Callable[..., Service], served: Callable[..., AbstractContextManager[str]]
) -> None:
    service = make_page_service(queue=3, load=["general"])
    release = threading.Event()
    with served(service, KEY) as url, browser.new_context() as context, ThreadPoolExecutor(3) as threads:
        page = context.new_page()
        page.goto(url)
        problem = page.get_by_role("alert")
        expect(problem).to_have_text("The service requires an API key.")
        key = page.get_by_label("API key of this service")
        expect(key).to_be_focused()
        expect(key).to_have_attribute("type", "password")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(problem).to_have_text("The API key is wrong.")
        page.keyboard.type(KEY)
        page.keyboard.press("Enter")
        expect(key).to_be_hidden()
        choose_user(page, "u03")
        expect(page.locator("#ranking li")).to_have_count(10)
        assert KEY not in page.content()
        assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 1]
        for thread in service.batcher._threads:
            thread.submit(release.wait)
        body = {"user_id": "u03", "candidates": ["x01"]}
        headers = {"authorization": f"Bearer {KEY}".encode()}
        waiting = [threads.submit(httpx2.post, f"{url}/v1/rank", json=body, headers=headers) for _ in range(3)]
        while service.batcher._in_progress < 3:
            page.wait_for_timeout(20)
        page.get_by_label("Number of results").select_option("20")
        expect(problem).to_have_text("The service is busy: try again in 1 s.")
        release.set()
        assert [future.result().status_code for future in waiting] == [200] * 3
        page.get_by_role("button", name="Forget the API key").click()
        expect(problem).to_have_text("The service requires an API key.")
