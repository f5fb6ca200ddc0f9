"""The pictures of the service's page in docs/, light and dark, from what `lorarec demo` left.

lorarec demo --out demo-output
python benchmarks/page_pictures.py demo-output
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

USER = "42"
SPECIFIC_STEPS = 4
#: Colours of a picture: few, since it shows flat surfaces and text.
COLOURS = 128


def photograph(browser: Browser, url: str, scheme: str, path: Path) -> None:
    with browser.new_context(color_scheme=scheme, viewport={"width": 1180, "height": 900}) as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_label("User id").fill(USER)
        page.keyboard.press("Enter")
        expect(page.locator("#ranking li")).to_have_count(10, timeout=60_000)
        slider = page.get_by_label("Between them")
        for _ in range(SPECIFIC_STEPS):
            slider.press("ArrowRight")
        share = f"{float(slider.input_value()) / 100:.2f}"
        expect(page.locator("#weights tbody td").nth(1)).to_have_text(share, timeout=60_000)
        slider.blur()
        page.wait_for_timeout(500)  # rows slide to their new places
        page.screenshot(path=path, full_page=True)
    Image.open(path).quantize(COLOURS).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="what `lorarec demo --out` wrote")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        words = [
            arguments.demo / "dataset",
            "--adapters",
            arguments.demo / "adapters",
            "--db",
            f"{scratch}/histories.db",
        ]
        command = [sys.executable, "-m", "lorarec", "serve", *map(str, words), "--port", "0"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            told = re.search(r"http://\S+", server.stderr.readline())
            assert told, server.stderr.read()
            path = shutil.which("chromium") or playwright.chromium.executable_path
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for scheme in ("light", "dark"):
                photograph(browser, told[0], scheme, arguments.out / f"page_{scheme}.png")
            browser.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
