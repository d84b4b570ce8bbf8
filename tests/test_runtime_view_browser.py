"""The map's page in headless Chromium: what a pilot sees, on a desk and on a phone."""

from __future__ import annotations

import os
import re
import runpy
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("aiohttp", reason="the map needs aiohttp (the view extra)")
pytest.importorskip("playwright", reason="needs the Python package playwright, and Chromium")
from playwright import sync_api as playwright

from s4g.core.engine import load_engine
from s4g.core.sources import open_ground
from s4g.runtime.fix import Fix, Reason, State
from s4g.runtime.score_truth import read_truth
from s4g.runtime.view_replay import read_log
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import Pack, open_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_view.py"))))

CHROMIUM = os.environ.get("S4G_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}
PATIENCE_MS = 60_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="needs Chromium (or $S4G_CHROMIUM)"),
    # Playwright's own event loop leaves its pipes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pack_file(
    tmp_path_factory: pytest.TempPathFactory, toy_encoder: Path, toy_source: Path
) -> Path:
    """The toy pack with its imagery."""
    ground, engine = open_ground(str(toy_source)), load_engine(toy_encoder, "cpu", 1)
    path = tmp_path_factory.mktemp("pack") / "toy.s4gpack"
    plan = plan_pack(ground, engine.spec, levels_m=(48.0,))
    build_pack([ground], engine, plan, path, BuildOptions(imagery_quality=80))
    ground.close()
    return path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def pack(pack_file: Path, stack: ExitStack) -> Pack:
    return stack.enter_context(open_pack(pack_file))


class Window:
    """A page, and what went wrong on it or left this machine."""

    def __init__(self, stack: ExitStack, browser: Any, url: str, **options: Any) -> None:
        context = browser.new_context(**({"viewport": DESK} | options))
        stack.callback(context.close)
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._console)
        self.page.goto(url)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location})")

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def wait_for_text(self, selector: str, text: str) -> None:
        found = self.page.locator(selector, has_text=re.compile(f"^{re.escape(text)}$"))
        found.wait_for()

    def wait(self, code: str) -> None:
        """Wait until something is so; the page itself may evaluate no text (its policy)."""
        toy.wait_until(lambda: self.page.evaluate(code))

    def value(self, code: str) -> Any:
        return self.page.evaluate(code)

    def assert_clean(self) -> None:
        """No complaint, and nothing asked of another machine."""
        own = {urlsplit(self.page.url).netloc}
        outside = [u for u in self.requests if not u.startswith("data:")]
        assert {urlsplit(url).netloc for url in outside} == own
        # A tile or a picture that is not there is an answer, not an error.
        assert [c for c in self.complaints if "404" not in c] == []
        missing = [c for c in self.complaints if not re.search(r"/(tiles|live)/", c)]
        assert missing == []


@pytest.fixture
def served(stack: ExitStack, pack: Pack) -> Any:
    return toy.live(stack, pack)


def keep_up(served: Any, made: Fix, window: Window, shown: str) -> None:
    """Say the same again until the page shows it: what is old is called so after two seconds."""
    for _ in range(200):
        served.view.observe(toy.seen(made))
        try:
            window.page.locator("#state-name", has_text=shown).wait_for(timeout=500)
            return
        except playwright.TimeoutError:
            continue
    raise AssertionError(f"never showed {shown}, but {window.text('#state-name')}")


def test_the_badge_follows_the_state_and_says_why(
    stack: ExitStack, browser: Any, served: Any, pack: Pack
) -> None:
    window = Window(stack, browser, served.url)
    window.wait_for_text("#state-name", "WAITING")
    for state, reason, said, why, tone in (
        (State.ACQUIRING, Reason.AMBIGUOUS, "ACQUIRING", "Several places look alike", "wait"),
        (State.TRACK, None, "TRACK", "", "good"),
        (State.DEGRADED, Reason.BLURRED, "DEGRADED", "The picture is blurred.", "warn"),
        (State.NO_FIX, Reason.DARK, "NO FIX", "The picture is too dark.", "bad"),
        (State.OUT_OF_PACK, None, "OUT OF PACK", "", "out"),
    ):
        keep_up(served, toy.fix(pack, 1, state, reason=reason), window, said)
        assert window.text("#state-reason").startswith(why)
        assert window.value("document.getElementById('state').dataset.tone") == tone
    events = window.page.locator("#events li")
    assert events.count() == 5
    assert "OUT OF PACK" in events.first.inner_text()
    window.assert_clean()


def test_an_old_fix_is_never_shown_as_current(
    stack: ExitStack, browser: Any, served: Any, pack: Pack
) -> None:
    window = Window(stack, browser, served.url)
    keep_up(served, toy.fix(pack, 1), window, "TRACK")
    window.wait("document.querySelector('path.ellipse')")
    window.wait_for_text("#state-name", "NO DATA")
    assert "The run gives no new result" in window.text("#state-reason")
    assert window.value("document.querySelector('path.ellipse')") is None
    assert window.value("document.querySelector('.drone').dataset.tone") == "old"
    keep_up(served, toy.fix(pack, 2), window, "TRACK")
    window.assert_clean()


def test_the_end_of_the_run_is_said(browser: Any, pack: Pack) -> None:
    with ExitStack() as page, ExitStack() as run:
        served = toy.live(run, pack)
        window = Window(page, browser, served.url)
        keep_up(served, toy.fix(pack, 1), window, "TRACK")
        run.close()
        window.wait_for_text("#state-name", "ENDED")


ELLIPSE = "document.querySelector('path.ellipse').getBBox().width"


def test_the_ellipse_is_the_95_percent_radius_and_scales_with_sigma(
    stack: ExitStack, browser: Any, served: Any, pack: Pack
) -> None:
    window = Window(stack, browser, served.url)
    metres_a_px = (
        "(() => { const line = document.querySelector('.leaflet-control-scale-line');"
        " const [n, unit] = line.textContent.split(' ');"
        " return n * (unit === 'km' ? 1000 : 1) / line.offsetWidth; })()"
    )
    widths = {}
    for sigma_m in (4.0, 8.0, 16.0):
        keep_up(served, toy.fix(pack, 1, sigma_m=sigma_m), window, "TRACK")
        window.wait(f"document.getElementById('r95').textContent === '{2.448 * sigma_m:.1f}'")
        served.view.observe(toy.seen(toy.fix(pack, 1, sigma_m=sigma_m)))
        window.wait("document.querySelector('path.ellipse')")
        widths[sigma_m] = window.value(ELLIPSE)
        expected_px = 2 * 2.448 * sigma_m / window.value(metres_a_px)
        assert widths[sigma_m] == pytest.approx(expected_px, rel=0.06)
    assert widths[8.0] == pytest.approx(2 * widths[4.0], rel=0.05)
    assert widths[16.0] == pytest.approx(4 * widths[4.0], rel=0.05)
    assert window.value("document.querySelector('path.hpl')") is None
    window.page.click("#show-hpl")
    keep_up(served, toy.fix(pack, 1), window, "TRACK")
    window.wait("document.querySelector('path.hpl')")
    window.assert_clean()


def test_the_map_is_drawn_of_the_packs_own_tiles(
    stack: ExitStack, browser: Any, served: Any, pack: Pack
) -> None:
    window = Window(stack, browser, served.url)
    window.wait("document.querySelectorAll('.leaflet-tile-loaded').length > 0")
    drawn = window.value(
        "[...document.querySelectorAll('.leaflet-tile-loaded')].filter(i => i.naturalWidth === 256)"
        ".map(i => new URL(i.src).pathname)"
    )
    assert drawn and all(re.fullmatch(r"/tiles/\d+/\d+/\d+\.webp", path) for path in drawn)
    # Pixels of a tile as the browser shows it are those that the pack holds.
    zoom, x, y = (int(part) for part in re.findall(r"\d+", drawn[0]))
    shown = window.value(
        "async (src) => { const i = new Image(); i.src = src; await i.decode();"
        " const c = new OffscreenCanvas(256, 256).getContext('2d'); c.drawImage(i, 0, 0);"
        " return [...c.getImageData(0, 0, 256, 256).data]; }".join(["(", f")('{drawn[0]}')"])
    )
    import numpy as np

    from s4g.core.tile_image import decode_tile
    from s4g.core.tile_pyramid import PyramidGround

    imagery = pack.imagery()
    assert isinstance(imagery, PyramidGround)
    data = imagery.tile(zoom, x, y)
    imagery.close()
    assert data is not None
    held = decode_tile(data, "tile", 256)
    both = held[..., 3] > 0
    apart = np.abs(np.array(shown).reshape(256, 256, 4)[both] - held[both].astype(int))
    assert apart.max() <= 2  # decoders round
    window.assert_clean()


def test_a_pack_without_imagery_has_a_border_and_a_grid(
    stack: ExitStack, browser: Any, tmp_path: Path, toy_encoder: Path, toy_source: Path
) -> None:
    ground, engine = open_ground(str(toy_source)), load_engine(toy_encoder, "cpu", 1)
    plan = plan_pack(ground, engine.spec, levels_m=(48.0,))
    build_pack([ground], engine, plan, tmp_path / "bare.s4gpack", BuildOptions(overview=False))
    ground.close()
    pack = stack.enter_context(open_pack(tmp_path / "bare.s4gpack"))
    served = toy.live(stack, pack)
    window = Window(stack, browser, served.url)
    keep_up(served, toy.fix(pack, 1), window, "TRACK")
    assert window.value("document.querySelectorAll('path.border').length") == 1
    assert window.text("#no-imagery") == "This pack carries no imagery"
    inked = window.value(
        "(() => { const c = document.querySelector('canvas.overlay'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return d.filter((v, i) => i % 4 === 3 && v)"
        ".length; })()"
    )
    assert inked > 1000
    assert not [url for url in window.requests if "/tiles/" in url]
    window.assert_clean()


def test_pictures_and_candidates_are_shown_beside_each_other(
    stack: ExitStack, browser: Any, served: Any, pack: Pack
) -> None:
    window = Window(stack, browser, served.url)
    keep_up(served, toy.fix(pack, 1), window, "TRACK")
    for number in range(2, 400):
        served.view.observe(toy.seen(toy.fix(pack, number)))
        if window.value("document.getElementById('frame').naturalWidth") == 64:
            break
        window.page.wait_for_timeout(100)
    told = window.value(
        "[document.hidden, document.getElementById('pictures').open,"
        " document.getElementById('frame').src, document.getElementById('frame').complete,"
        " document.getElementById('frame').hidden]"
    )
    assert window.value("document.getElementById('frame').naturalWidth") == 64, (
        told,
        window.requests[-6:],
        served.view.picture,
    )
    assert window.page.locator("#candidates li").count() == 2
    assert window.value("document.querySelectorAll('path.candidate').length") == 2
    window.page.click("#show-candidates")
    window.wait("document.querySelectorAll('path.candidate').length === 0")
    window.assert_clean()


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_fits_the_screen(
    stack: ExitStack, browser: Any, served: Any, pack: Pack, size: dict[str, int], scheme: str
) -> None:
    options = {"viewport": size, "color_scheme": scheme}
    window = Window(stack, browser, served.url, **options)
    keep_up(served, toy.fix(pack, 1), window, "TRACK")
    assert window.value("document.documentElement.scrollWidth") == size["width"]
    assert window.value("document.documentElement.scrollHeight") == size["height"]
    for selector in ("#state", "#map", "aside"):
        box = window.page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
        assert box["height"] > 40 and box["y"] + box["height"] <= size["height"]
    assert window.page.locator("#map").bounding_box()["height"] >= 0.3 * size["height"]
    # Every button can be hit with a thumb.
    for box in [b.bounding_box() for b in window.page.locator(".tools button:visible").all()]:
        assert box["height"] >= 36 and box["x"] + box["width"] <= size["width"]
    # The state is told in letters that stand out: WCAG 2.2 asks for 4.5 (1.4.3).
    told = {tone: window.value(CONTRAST % tone) for tone in TONES}
    assert {tone: ratio for tone, ratio in told.items() if ratio < 4.5} == {}
    window.assert_clean()


TONES = ("good", "warn", "bad", "out", "wait", "old")
CONTRAST = """(() => {
  document.getElementById("state").dataset.tone = "%s";
  const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((v) => {
    v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const style = getComputedStyle(document.getElementById("state"));
  const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
})()"""


def test_the_token_vanishes_from_the_address_and_the_map_goes_on(
    stack: ExitStack, browser: Any, pack: Pack
) -> None:
    served = toy.live(stack, pack, "0123456789abcdef")
    window = Window(stack, browser, served.url)
    keep_up(served, toy.fix(pack, 1), window, "TRACK")
    assert window.page.url == served.url.split("?")[0]
    assert window.value("document.cookie") == ""
    window.page.reload()
    keep_up(served, toy.fix(pack, 1), window, "TRACK")
    window.assert_clean()


def test_without_the_token_the_browser_sees_nothing(
    stack: ExitStack, browser: Any, pack: Pack
) -> None:
    served = toy.live(stack, pack, "0123456789abcdef")
    window = Window(stack, browser, served.url.split("?")[0])
    assert window.text("body").startswith("403: open the map with the URL that s4g-run printed")


@pytest.fixture
def replayed(stack: ExitStack, browser: Any, pack: Pack, tmp_path: Path) -> Window:
    """Thirty fixes, the second ten of them lost, with the truth three metres north of them."""
    fixes, rows = [], ["t,lat,lon"]
    for number in range(30):
        state = State.NO_FIX if 10 <= number < 20 else State.TRACK
        reason = Reason.DARK if 10 <= number < 20 else None
        made = toy.fix(pack, number, state, reason=reason)
        fixes.append(made)
        lat, lon = pack.frame.to_wgs84(5.0 * number - 60.0, 13.0)
        rows.append(f"{made.t},{float(lat):.9f},{float(lon):.9f}")
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    truth = read_truth(tmp_path / "truth.csv")
    log = read_log(toy.write_log(tmp_path / "fixes.jsonl", fixes), truth)
    client = toy.replay(stack, pack, log)
    return Window(stack, browser, f"http://127.0.0.1:{client.port}/")


def slide(window: Window, index: int) -> None:
    window.page.locator("#slider").evaluate(
        f"s => {{ s.value = {index}; s.dispatchEvent(new Event('input')); }}"
    )


def test_the_slider_leads_through_the_flight(replayed: Window) -> None:
    replayed.wait_for_text("#state-name", "TRACK")
    assert replayed.text("#clock") == "0:00 / 0:02"
    first = replayed.value("document.getElementById('map').dataset.place")
    slide(replayed, 15)
    assert replayed.text("#state-name") == "NO FIX"
    assert replayed.text("#state-reason") == "The picture is too dark."
    assert replayed.text("#place") == "–"
    assert replayed.value("document.querySelector('.drone').dataset.tone") == "old"
    assert replayed.value("document.querySelector('path.ellipse')") is None
    slide(replayed, 29)
    assert replayed.text("#state-name") == "TRACK"
    assert replayed.text("#clock") == "0:02 / 0:02"
    assert replayed.value("document.getElementById('map').dataset.place") != first
    replayed.assert_clean()


def test_the_truth_is_shown_as_scoring_alone(replayed: Window) -> None:
    replayed.wait_for_text("#state-name", "TRACK")
    assert "for scoring only, never used" in replayed.text("#truth-box")
    assert replayed.text("#error") == "3.0"
    assert replayed.text("#error-median") == "3.0"
    assert replayed.text("#error-held") == "20/20"
    slide(replayed, 12)
    assert replayed.text("#error") == "–"
    assert replayed.page.locator("#show-truth").is_visible()


def test_events_are_jumped_to_by_button_key_and_list(replayed: Window) -> None:
    replayed.wait_for_text("#state-name", "TRACK")
    at = "Number(document.getElementById('slider').value)"
    replayed.page.click("#next")
    assert replayed.value(at) == 10
    replayed.page.keyboard.press("Shift+ArrowRight")
    assert replayed.value(at) == 20
    replayed.page.click("#previous")
    assert replayed.value(at) == 10
    replayed.page.locator("#events button").first.click()
    assert replayed.value(at) == 20


def test_the_flight_plays_and_stops_at_its_end(replayed: Window) -> None:
    replayed.wait_for_text("#state-name", "TRACK")
    replayed.page.locator("#slider").focus()
    replayed.page.keyboard.press("Space")
    assert replayed.page.locator("#play").get_attribute("aria-label") == "Pause"
    replayed.wait("document.getElementById('slider').value === '29'")
    replayed.wait("document.getElementById('play').getAttribute('aria-label') === 'Play'")


def test_a_log_of_two_hundred_thousand_fixes_is_shown(
    stack: ExitStack, browser: Any, pack: Pack, tmp_path: Path
) -> None:
    line = toy.fix(pack, 0).to_json()
    before, after = re.split(r'"t":[\d.]+', line, maxsplit=1)
    middle, rest = re.split(r'"lat":[\d.]+', after, maxsplit=1)
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        for number in range(200_000):
            lat = 46.952 + 5e-7 * (number % 2000)
            file.write(f'{before}"t":{number / 10}{middle}"lat":{lat:.7f}{rest}\n')
    client = toy.replay(stack, pack, read_log(path, None))
    window = Window(stack, browser, f"http://127.0.0.1:{client.port}/")
    window.wait_for_text("#state-name", "TRACK")
    assert window.text("#clock") == "0:00 / 5:33:19"
    for index in (199_999, 100_000, 50_000):
        slide(window, index)
    window.wait("document.getElementById('clock').textContent.startsWith('1:23:20')")
    window.assert_clean()
