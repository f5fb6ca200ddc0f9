"""What the tests of the page do in a browser."""

from typing import Any

import httpx2
from playwright.sync_api import Page, expect


def base_url(page: Page) -> str:
    """Return the URL of the page without the state that its fragment holds."""
    return page.url.split("#")[0]


def ranking(page: Page) -> list[tuple[str, str]]:
    """Return the shown titles and probabilities."""
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    shown = page.locator("#ranking li").all()
    return [(item.locator(".title").inner_text(), item.locator(".probability").inner_text()) for item in shown]


def answer(page: Page, path: str, body: dict[str, Any]) -> list[tuple[str, str]]:
    """Return titles and probabilities of a response of the service."""
    response = httpx2.post(f"{base_url(page)}{path}", json=body, timeout=60).raise_for_status().json()
    return [(item["title"], f"{100 * item['probability']:.1f} %") for item in response["ranking"]]


def choose_user(page: Page, user: str) -> None:
    page.get_by_label("User id").fill(user)
    page.keyboard.press("Enter")


def settled(page: Page, path: str, body: dict[str, Any]) -> None:
    """Wait until the page shows the response of the service."""
    expected = answer(page, path, body)
    expect(page.locator("#ranking .title")).to_have_text([title for title, _ in expected])
    expect(page.locator("#ranking .probability")).to_have_text([share for _, share in expected])
