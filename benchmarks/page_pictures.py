"""The pictures of the service's page in docs/.

They show adapters and a fusion, each light and dark, two mixtures side by side, a phone, and one user's own mixture.

lorarec demo --out demo-output
lorarec personal train-router demo-output/dataset demo-output/adapters/general demo-output/adapters/specific \
    --out chosen --cases 120 --epochs 2
python benchmarks/page_pictures.py demo-output chosen
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

USER = "42"
SPECIFIC_STEPS = 4
WINDOW: ViewportSize = {"width": 1180, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
#: The name under which users' own mixtures are served.
OWN = "by-user"
#: Milliseconds.
WAIT = 120_000
#: Colours of a picture: the most frequent ones, which are its flat surfaces, and others for swatches and edges of text.
FREQUENT, OTHERS = 32, 64


@contextmanager
def page_of_user(browser: Browser, url: str, scheme: Scheme, size: ViewportSize = WINDOW) -> Iterator[Page]:
    """The page with the ranking of the user."""
    with browser.new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_label("User id").fill(USER)
        page.keyboard.press("Enter")
        expect(page.locator("#ranking > li")).to_have_count(10, timeout=WAIT)
        yield page


def wait_for(url: str) -> None:
    """Wait until the service answers: its address is printed before."""
    while True:
        try:
            urlopen(f"{url}/livez").close()
        except OSError:
            time.sleep(0.5)
        else:
            return


def save(picture: bytes, path: Path) -> None:
    """Save a picture with few colours, and so in few bytes; the most frequent ones stay as they are."""
    image = Image.open(BytesIO(picture)).convert("RGB")
    colours, places, counts = np.unique(
        np.asarray(image).reshape(-1, 3).astype(int), axis=0, return_inverse=True, return_counts=True
    )
    frequent = colours[np.argsort(-counts)[:FREQUENT]]
    others = image.quantize(OTHERS, method=Image.Quantize.MAXCOVERAGE).getpalette()
    palette = np.concatenate([frequent, np.reshape(others or [], (-1, 3))])
    nearest = np.abs(colours[:, None] - palette).sum(axis=2).argmin(axis=1)
    reduced = Image.fromarray(nearest[places].reshape(image.height, image.width).astype(np.uint8), "P")
    reduced.putpalette(palette.astype(np.uint8).tobytes())
    reduced.save(path, optimize=True)


def explain_first(page: Page) -> None:
    """Ask what the history adds to the first item."""
    page.get_by_role("button", name="Show what the history adds").click()
    expect(page.locator(".influences")).to_have_count(1, timeout=WAIT)
    page.mouse.move(0, 0)


def photograph(browser: Browser, url: str, scheme: Scheme, path: Path) -> None:
    """The whole page: the slider between general and specific, and why the first item stands there."""
    with page_of_user(browser, url, scheme) as page:
        page.locator("#system-adapters").check()
        slider = page.get_by_label("Weight of the second adapter")
        for _ in range(SPECIFIC_STEPS):
            slider.press("ArrowRight")
        share = f"{float(slider.input_value()) / 100:.2f}"
        expect(page.locator("#weights tbody td").nth(1)).to_have_text(share, timeout=WAIT)
        slider.blur()
        explain_first(page)
        save(page.screenshot(full_page=True), path)


def photograph_fusion(browser: Browser, url: str, scheme: Scheme, path: Path) -> None:
    """The whole page with the ranking of the fusion, and why the first item stands there."""
    with page_of_user(browser, url, scheme) as page:
        explain_first(page)
        save(page.screenshot(full_page=True), path)


def photograph_comparison(browser: Browser, url: str, scheme: Scheme, path: Path) -> None:
    """The rankings of the fusion and of the specific adapter side by side."""
    with page_of_user(browser, url, scheme) as page:
        page.get_by_label("Compare two mixtures").check()
        expect(page.locator("#comparison tbody tr")).to_have_count(10, timeout=WAIT)
        save(page.screenshot(full_page=True), path)


def photograph_phone(browser: Browser, url: str, scheme: Scheme, path: Path) -> None:
    """What a phone shows after a user was chosen."""
    with page_of_user(browser, url, scheme, PHONE) as page:
        page.locator("#system-adapters").check()
        expect(page.locator("#weights tbody tr")).to_have_count(1, timeout=WAIT)
        page.locator("#system-adapters").blur()
        save(page.screenshot(), path)


def photograph_own_weights(browser: Browser, url: str, path: Path) -> None:
    """The user's weights by layer under the mixture of their own."""
    with page_of_user(browser, url, "light") as page:
        page.locator("#system-adapters").check()
        page.get_by_label("First adapter", exact=True).select_option(OWN)
        expect(page.locator("#weights-note")).to_contain_text(f"{OWN} is mixed for user {USER}.", timeout=WAIT)
        save(page.locator("#weights-part").screenshot(), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="what `lorarec demo --out` wrote")
    parser.add_argument("chosen", type=Path, help="what `lorarec personal train-router` wrote from it")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        adapters = Path(scratch) / "adapters"
        adapters.mkdir()
        for folder in (arguments.demo / "adapters").iterdir():
            (adapters / folder.name).symlink_to(folder.resolve())
        (adapters / OWN).symlink_to(arguments.chosen.resolve())
        words = [arguments.demo / "dataset", "--adapters", adapters, "--db", f"{scratch}/histories.db"]
        words += ["--fusion", arguments.demo / "fusion"]
        command = [sys.executable, "-m", "lorarec", "serve", *map(str, words), "--port", "0"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            address = re.search(r"http://\S+", server.stderr.readline())
            assert address, server.stderr.read()
            wait_for(address[0])
            path = shutil.which("chromium") or playwright.chromium.executable_path
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for scheme in SCHEMES:
                photograph(browser, address[0], scheme, arguments.out / f"page_{scheme}.png")
                photograph_fusion(browser, address[0], scheme, arguments.out / f"page_fusion_{scheme}.png")
                photograph_comparison(browser, address[0], scheme, arguments.out / f"page_comparison_{scheme}.png")
                photograph_phone(browser, address[0], scheme, arguments.out / f"page_phone_{scheme}.png")
            photograph_own_weights(browser, address[0], arguments.out / "page_personal.png")
            browser.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
