"""The pages in a real Chromium: a real server on a real bus, with a ward that is played into the streams."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from browser_station import LIVE, chromium, make_station, until
from PIL import Image
from playwright.async_api import expect
from wall_fakes import USER, alarm

__all__ = ["chromium", "make_station"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]
VTACH = {"value": 168.0, "limit": 100.0, "detail": "7 ventricular beats in a row"}
PIXELS = """([name, selector]) => {
  const canvas = document.querySelector(name === null ? selector : `[data-bed="${name}"] ${selector}`);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let hash = 0, painted = 0;
  for (let i = 3; i < data.length; i += 4) {
    if (data[i] > 100 && data[i - 3] + data[i - 2] + data[i - 1] > 150) { painted++; hash = (hash * 31 + i) | 0; }
  }
  return [painted, hash];
}"""
ORANGE = """(name) => {
  const canvas = document.querySelector(`[data-bed="${name}"] canvas`);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, 14).data;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] > 240 && data[i + 1] > 130 && data[i + 1] < 180 && data[i + 2] < 90) return true;
  }
  return false;
}"""


async def test_wall_shows_every_bed_with_a_moving_trace(make_station) -> None:
    """After the log-in eight beds are there, each with a waveform that moves, its rate and its rhythm."""
    station = await make_station()
    page = await station.open()
    await expect(page.locator(".tile")).to_have_count(8)
    for name in ("Bed 01", "Bed 08"):
        _, before = await until(page, f"(a) => (found => found[0] > 300 && found)(({PIXELS})(a))", [name, "canvas"])
        await until(page, f"(a) => ({PIXELS})(a.slice(0, 2))[1] !== a[2]", [name, "canvas", before])
        await expect(page.locator(f'[data-bed="{name}"] .tile-hr b')).to_have_text(re.compile(r"^\d+$"))
    await expect(page.locator('[data-bed="Bed 03"] .tile-rhythm')).to_have_text("Atrial fibrillation")
    await expect(page.locator("#foot")).to_contain_text("Not a medical device")
    await expect(page.locator("#banner")).to_be_hidden()


async def test_sweep_draws_only_what_is_new(make_station) -> None:
    """Frames draw the samples that came since the last one; the whole canvas is painted only when it must be."""
    station = await make_station()
    page = await station.open()
    stats = "rhythmwatch.view().tiles[0].sweep.stats"
    ready = f"rhythmwatch.view().tiles[0]?.sweep.stats.samples > 500 && {stats}.repaints > 0"
    first = await until(page, f"{ready} && {{...{stats}}}")
    after = await until(page, f"(n) => {stats}.samples > n + 500 && {{...{stats}}}", first["samples"])
    assert after["repaints"] - first["repaints"] <= 2  # a change of gain may cost one
    assert after["samples"] - first["samples"] < 2_000


async def test_ectopic_beats_are_marked_on_the_wall(make_station) -> None:
    """A bed in ventricular tachycardia carries the marks of its V beats above the trace."""
    station = await make_station(alarming=True)
    page = await station.open()
    await until(page, ORANGE, "Bed 02")


async def test_patient_page_shows_spectrogram_beats_and_alarms(make_station) -> None:
    """One patient: waveform, spectrogram under it, each beat with its class, and the alarms of this patient alone."""
    station = await make_station(alarming=True)
    page = await station.open("/patient/Bed%2002")
    await until(page, f"(a) => ({PIXELS})(a)[0] > 2000", [None, "canvas.wave"])
    await until(page, f"(a) => ({PIXELS})(a)[0] > 20000", [None, "canvas.heat"])
    await expect(page.locator(".latest tbody tr").first.locator(".cls")).to_have_text("V")
    await expect(page.locator(".legend")).to_contain_text("Premature ventricular")
    await expect(page.locator(".block.alarms .al")).to_have_count(1)
    await expect(page.locator(".block.alarms")).to_contain_text("Ventricular tachycardia")
    # A beat that the page marks lies on the largest sample near it: both share one axis.
    offsets = await until(
        page,
        """(() => {
      const trace = rhythmwatch.view().sweep.trace;
      const inside = trace.beats.filter((b) => b.index > trace.start + 50 && b.index < trace.end - 50);
      return inside.length > 3 && inside.map((b) => {
        let best = b.index;
        for (let i = b.index - 20; i <= b.index + 20; i++) if (trace.at(i) > trace.at(best)) best = i;
        return best - b.index;
      });
    })()""",
    )
    assert max(abs(offset) for offset in offsets) <= 2


async def test_alarm_appears_sounds_and_is_acknowledged_for_all(make_station) -> None:
    """An alarm comes up by itself on two pages; one acknowledges, the other sees it at once, with the name."""
    station = await make_station()
    one = await station.open()
    two = await station.open("/alarms")
    await expect(one.locator("#bar")).to_contain_text("No alarm waits")
    await one.mouse.click(640, 20)  # a gesture, so that the browser lets it sound
    raised = alarm("Bed 05", "VTACH", 3, **VTACH)
    station.ward.raise_alarm(raised)
    for page in (one, two):
        bar = page.locator("#bar .bar-first")
        await expect(bar).to_contain_text("Bed 05")
        await expect(bar).to_contain_text("Ventricular tachycardia")
        await expect(bar).to_contain_text("Rate 168 > 100/min")
    await expect(one.locator('[data-bed="Bed 05"]')).to_have_attribute("data-level", "high")
    await until(one, "rhythmwatch.signals.played.high > 0 && rhythmwatch.signals.allowed")
    await expect(two.locator("tbody tr")).to_have_count(1)
    asked: list[str] = []
    two.on("request", lambda request: asked.append(request.url))
    await one.locator("#bar .bar-ack").click()
    await expect(two.locator("tbody tr")).to_contain_text(f"Acknowledged by {USER}")
    # The page of the list did not ask: it was told, over the connection that it has.
    assert [url for url in asked if not url.endswith("/api/beds")] == []
    await expect(two.locator("#bar")).to_contain_text("1 acknowledged")
    await expect(one.locator('[data-bed="Bed 05"]')).to_have_attribute("data-seen", "")
    assert await one.evaluate("rhythmwatch.signals.tone") is None


async def test_most_urgent_alarm_stands_first_and_technical_hides_none(make_station) -> None:
    """Six alarms: the lethal one leads the bar, the rest are counted, a technical one has its own place."""
    station = await make_station(alarming=True)
    page = await station.open()
    await expect(page.locator("#bar .bar-first .bar-bed")).to_have_text("Bed 02")
    await expect(page.locator("#bar .chip-more")).to_have_text("+5 more")
    station.ward.raise_alarm(alarm("Bed 06", "BRADY", 2, value=44.0, limit=50.0))
    tile = page.locator('[data-bed="Bed 06"]')
    await expect(tile.locator(".tile-tech")).to_contain_text("Leads off")
    await expect(tile.locator(".tile-alarm")).to_contain_text("HR 44 < 50")
    await expect(tile).to_have_attribute("data-level", "medium")
    await expect(tile.locator(".tile-hr b")).to_have_text("--")


async def test_bed_that_falls_silent_looks_stale(make_station) -> None:
    """Two seconds after the last samples a trace is grey and says since when; it recovers with the data."""
    station = await make_station()
    page = await station.open()
    tile = page.locator('[data-bed="Bed 04"]')
    await expect(tile.locator(".tile-hr b")).to_have_text(re.compile(r"^\d+$"))
    station.ward.patients["Bed 04"].silent = True
    await expect(tile.locator(".tile-stale")).to_contain_text(re.compile(r"No new signal since \d\d:\d\d:\d\d"))
    await expect(tile.locator(".tile-hr b")).to_have_text("--")
    await expect(page.locator(".tile[data-stale]")).to_have_count(1)
    assert "grayscale" in await tile.locator("canvas").evaluate("(c) => getComputedStyle(c).filter")
    station.ward.patients["Bed 04"].silent = False
    await expect(tile.locator(".tile-stale")).to_be_hidden()


async def test_beds_keep_their_places_until_somebody_arranges_them(make_station) -> None:
    """An alarm moves no bed; "by urgency" does, once; a reload keeps what was chosen."""
    station = await make_station()
    page = await station.open()
    names = "[...document.querySelectorAll('.tile')].map((tile) => tile.dataset.bed)"
    await expect(page.locator(".tile")).to_have_count(8)
    order = await page.evaluate(names)
    assert order == sorted(order)
    station.ward.raise_alarm(alarm("Bed 08", "VFIB", 3))
    await expect(page.locator("#bar .bar-bed")).to_have_text("Bed 08")
    assert await page.evaluate(names) == order
    await page.get_by_text("By urgency").click()
    assert (await page.evaluate(names))[0] == "Bed 08"
    await page.reload()
    await expect(page.locator(".tile")).to_have_count(8)
    assert (await page.evaluate(names))[0] == "Bed 08"


async def test_a_chosen_beat_is_explained(make_station) -> None:
    """A click and the arrow keys choose a beat; the panel has classes, figures and the map."""
    station = await make_station(alarming=True)
    page = await station.open("/patient/Bed%2002")
    panel = page.locator(".chosen")
    await expect(panel).to_contain_text("Click a beat")
    await until(
        page, "(({ beats, head }) => beats.length > 4 && beats[3].index < head - 20)(rhythmwatch.view().sweep.trace)"
    )
    await page.keyboard.press("ArrowLeft")
    newest = int(await panel.get_attribute("data-sample"))
    await page.keyboard.press("ArrowLeft")
    before = int(await panel.get_attribute("data-sample"))
    assert before < newest
    await page.keyboard.press("ArrowRight")
    assert int(await panel.get_attribute("data-sample")) == newest
    place = await page.evaluate("""() => {
      const { sweep } = rhythmwatch.view(), { trace } = sweep;
      const beat = trace.beats.filter((beat) => beat.index < trace.head - 20).at(-2);
      const box = sweep.canvas.getBoundingClientRect();
      const x = ((beat.index % sweep.span) + sweep.span) % sweep.span * sweep.scale / sweep.ratio;
      return [box.x + x, box.y + box.height / 2, beat.sample];
    }""")
    await page.mouse.click(place[0], place[1])
    await expect(panel).to_have_attribute("data-sample", str(place[2]))
    await expect(panel).to_contain_text("800 ms")
    await expect(panel).to_contain_text("Premature ventricular")
    await expect(panel).to_contain_text("70 % of the network's verdict")
    await expect(panel).to_have_attribute("data-map", "yes")


async def test_a_file_is_classified(make_station) -> None:
    """A picture gives class, probabilities, map and its warnings; a file that is none gives one clear line."""
    station = await make_station()
    page = await station.open("/files")
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64)).astype(np.uint8)).save(out, "PNG")
    result = page.locator(".file-result")
    await page.set_input_files("#file", {"name": "beat.png", "mimeType": "image/png", "buffer": out.getvalue()})
    await page.get_by_role("button", name="Classify").click()
    await expect(result.locator("tbody tr")).to_have_count(8, timeout=150_000)
    await expect(result).to_contain_text("resized from 64 x 64")
    await expect(result.locator("canvas")).to_be_visible()
    assert station.problems == []
    await page.set_input_files("#file", {"name": "a.csv", "mimeType": "text/csv", "buffer": b"II\n1\n2\n"})
    await page.get_by_role("button", name="Classify").click()
    await expect(result).to_contain_text("says no sampling rate", timeout=150_000)
    # The browser notes every 422 on its console.
    assert [text for text in station.problems if "422" not in text] == []
    station.problems.clear()


async def test_keyboard_does_it_all(make_station) -> None:
    """With keys alone: acknowledge, go from bed to bed, open one, come back, see the list."""
    station = await make_station()
    page = await station.open()
    station.ward.raise_alarm(alarm("Bed 02", "TACHY", 2, value=131.0, limit=120.0))
    await expect(page.locator("#bar .bar-bed")).to_have_text("Bed 02")
    await page.keyboard.press("a")
    await expect(page.locator("#bar")).to_contain_text("1 acknowledged")
    await expect(page.locator(".tile")).to_have_count(8)
    await page.locator(".tile").first.focus()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("/patient/Bed%2005"))
    await page.keyboard.press("Escape")
    await expect(page.locator(".tile")).to_have_count(8)
    await page.keyboard.press("l")
    await expect(page.locator("tbody tr")).to_have_count(1)


REFUSING = """
  let touched = false;
  addEventListener("pointerdown", () => { touched = true; }, { capture: true });
  window.AudioContext = class extends AudioContext {
    get state() { return touched ? super.state : "suspended"; }
    resume() { return touched ? super.resume() : Promise.reject(new DOMException("no gesture", "NotAllowedError")); }
  };
"""


async def test_sounds_that_the_browser_refuses_are_announced_loudly(make_station) -> None:
    """Until a person clicks, a bar says that alarms are silent; after a click it goes and sounds are on.

    Whether a page may sound is Chromium's guess from what it saw before, so its refusal is played.
    """
    station = await make_station()
    page = await (await station.open()).context.new_page()
    await page.add_init_script(REFUSING)
    await page.goto(station.url + "/alarms")
    await until(page, LIVE)
    await expect(page.locator("#quiet")).to_be_visible()
    await page.locator("#quiet").click()
    await expect(page.locator("#quiet")).to_be_hidden()
    await page.get_by_role("link", name="Help").click()
    await page.get_by_role("button", name="Low").click()
    assert await page.evaluate("rhythmwatch.signals.played.low") == 1


async def test_pages_fit_a_phone(make_station) -> None:
    """On a narrow screen nothing sticks out sideways, on any page, and the alarm can be acknowledged."""
    station = await make_station(alarming=True)
    page = await station.open(width=390, height=780)
    for path in ("/", "/alarms", "/patient/Bed%2002"):
        await page.goto(station.url + path)
        await until(page, LIVE)
        await expect(page.locator("#bar .bar-ack")).to_be_visible()
        await page.wait_for_load_state("networkidle")
        assert await page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), path
        assert await page.evaluate("document.querySelector('#page').scrollWidth <= innerWidth"), path
