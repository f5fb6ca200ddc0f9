"""The page below a path prefix."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, expect

from lorarec.serving.http_config import HttpConfig
from lorarec.serving.service import Service


def test_the_page_works_below_a_path_prefix(
    make_page_service: Callable[..., Service], served: Any, browser: Browser
) -> None:
    with served(make_page_service(), None, HttpConfig(root_path="/shop/rec")) as url, browser.new_context() as context:
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/shop/rec/")
        page.get_by_label("User id").fill("u03")
        page.keyboard.press("Enter")
        expect(page.locator("#ranking > li")).to_have_count(10)
    assert {"page.css", "page.js", "adapters", "recommend"} <= {address.rpartition("/")[2] for address in asked}
    assert all(address.startswith((f"{url}/shop/rec/", "data:")) for address in asked)
