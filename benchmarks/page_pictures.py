"""The pictures of the service's page in docs/: adapters and a fusion, light and dark, and one user's own mixture.

lorarec demo --out demo-output
lorarec personal choose demo-output/dataset demo-output/adapters/general demo-output/adapters/specific --out chosen
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
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

USER = "42"
SPECIFIC_STEPS = 4
#: The name under which users' own mixtures are served.
OWN = "by-user"
#: Milliseconds.
WAIT = 120_000
#: Colours of a picture: few, since it shows flat surfaces and text.
COLOURS = 128


@contextmanager
def page_of_user(browser: Browser, url: str, scheme: str) -> Iterator[Page]:
    """The page with the ranking of the user."""
    with browser.new_context(color_scheme=scheme, viewport={"width": 1180, "height": 900}) as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_label("User id").fill(USER)
        page.keyboard.press("Enter")
        expect(page.locator("#ranking li")).to_have_count(10, timeout=WAIT)
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
    Image.open(BytesIO(picture)).quantize(COLOURS).save(path, optimize=True)


def photograph(browser: Browser, url: str, scheme: str, path: Path) -> None:
    """The whole page, the slider between general and specific."""
    with page_of_user(browser, url, scheme) as page:
        page.locator("#system-adapters").check()
        slider = page.get_by_label("Weight of the second adapter")
        for _ in range(SPECIFIC_STEPS):
            slider.press("ArrowRight")
        share = f"{float(slider.input_value()) / 100:.2f}"
        expect(page.locator("#weights tbody td").nth(1)).to_have_text(share, timeout=WAIT)
        slider.blur()
        page.wait_for_timeout(500)  # rows slide to their new places
        save(page.screenshot(full_page=True), path)


def photograph_fusion(browser: Browser, url: str, scheme: str, path: Path) -> None:
    """The whole page with the ranking of the fusion, and the parts of the first item's score."""
    with page_of_user(browser, url, scheme) as page:
        expect(page.locator("#ranking details")).to_have_count(10, timeout=WAIT)
        page.wait_for_timeout(500)
        save(page.screenshot(full_page=True), path)


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
    parser.add_argument("chosen", type=Path, help="what `lorarec personal choose` wrote from it")
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
            for scheme in ("light", "dark"):
                photograph(browser, address[0], scheme, arguments.out / f"page_{scheme}.png")
                photograph_fusion(browser, address[0], scheme, arguments.out / f"page_fusion_{scheme}.png")
            photograph_own_weights(browser, address[0], arguments.out / "page_personal.png")
            browser.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
