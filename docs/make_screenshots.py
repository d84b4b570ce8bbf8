"""Make the pictures of the live map in docs/images, of a real run over `make demo`'s flight.

    python docs/make_screenshots.py --pack demo/region.s4gpack

Needs the `view` extra, the Python package playwright and Chromium. A pack with imagery
(`s4g-pack … --imagery`) shows sharper ground than the demo's own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = os.environ.get("S4G_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
# Frame of the flight from which on a picture of it is taken, well after its first fix.
SHOWN_FRAME = 34
QUALITY, ATTEMPTS = 86, 10
PATIENCE_MS = 120_000


def main() -> None:
    """Fly the demo, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, default=ROOT / "demo" / "region.s4gpack")
    parser.add_argument("--flight", type=Path, default=ROOT / "demo" / "flight")
    parser.add_argument("--fixes", type=Path, default=ROOT / "demo" / "fixes.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    asked = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        flight = asked.flight
        live = [
            "--camera", flight / "frames", "--telemetry", flight / "telemetry.csv",
            "--intrinsics", flight / "camera.json", "--pack", asked.pack, "--realtime",
            "--view", "0", "--quiet",
        ]  # fmt: skip
        with served(live) as url:
            desk = open_page(browser, url, DESK, "light")
            phone = open_page(browser, url, PHONE, "dark")
            for page in (desk, phone):
                page.click("#show-hpl")
            desk.click("#show-surface")
            for page, name in ((desk, "live-map.jpg"), (phone, "live-map-phone.jpg")):
                take_in_track(page, asked.out / name)
        replay = ["view", asked.fixes, "--pack", asked.pack]
        with served([*replay, "--truth", flight / "truth.csv", "--port", "0"]) as url:
            page = open_page(browser, url, DESK, "light")
            page.locator("#clock", has_text=" / ").wait_for()
            page.evaluate(
                "() => { const s = document.getElementById('slider');"
                " s.value = Math.round(0.62 * s.max); s.dispatchEvent(new Event('input')); }"
            )
            page.wait_for_timeout(1500)
            take(page, asked.out / "replay.jpg")
        browser.close()


@contextmanager
def served(words: list[Any]) -> Iterator[str]:
    """Run a command that serves a map; yield its URL, and end it."""
    command = [str(Path(sys.executable).with_name("s4g-run")), *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        urls = (re.search(r"http://\S+", line) for line in process.stderr)
        url = next((found[0] for found in urls if found), None)
        if url is None:
            raise SystemExit("error: s4g-run told no URL; run it by hand to see what it says")
        try:
            yield url
        finally:
            process.terminate()


def open_page(browser: Any, url: str, size: dict[str, int], scheme: str) -> Any:
    """Open the map in a window of its own."""
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    return page


def take(page: Any, path: Path) -> None:
    """Take a picture of what is shown."""
    page.screenshot(path=path, type="jpeg", quality=QUALITY)


def take_in_track(page: Any, path: Path) -> None:
    """Take a picture while the drone is well under way and its position is matched."""
    for _ in range(ATTEMPTS):
        wait_for_track(page)
        take(page, path)
        if page.locator("#state-name").inner_text() == "TRACK":
            return


def wait_for_track(page: Any) -> None:
    """Wait until the drone is well under way, its position matched and its picture shown."""
    ready = (
        "() => document.getElementById('state-name').textContent === 'TRACK'"
        " && document.getElementById('frame').naturalWidth > 0"
        f" && Number(document.querySelector('#stats dd')?.textContent) > {SHOWN_FRAME}"
        " && document.querySelector('path.ellipse')"
    )
    while not page.evaluate(ready):
        page.wait_for_timeout(100)


if __name__ == "__main__":
    main()
