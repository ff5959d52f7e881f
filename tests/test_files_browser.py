"""The page of files and the chosen beat in a real Chromium: heat map over the spectrogram, stepping, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import edfio
import numpy as np
import pytest
from browser_station import chromium, make_station, until
from playwright.async_api import Page, expect
from test_imaging import cut
from wall_fakes import make_loop

from rhythmwatch.imaging import write_images
from rhythmwatch.models import load_models
from web import routes

__all__ = ["chromium", "make_station"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]

SAID_MS = 150_000
"""Longer than the server itself waits for its answer on a file."""

COLOURED = """(selector) => {
  const canvas = document.querySelector(selector);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let coloured = 0;
  for (let i = 0; i < data.length; i += 4) if (Math.abs(data[i] - data[i + 2]) > 20) coloured++;
  return [canvas.width, canvas.height, coloured];
}"""


def loop_mv() -> np.ndarray:
    """Give 24 s of a made ECG, mV at 250 Hz."""
    return make_loop(3, "N", 80, 0.1).wave / 200.0


async def give(page: Page, name: str, data: bytes) -> None:
    """Choose a file and have it classified."""
    await page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": data})
    await page.get_by_role("button", name="Classify", exact=True).click()


def content(kind: str, folder: Path) -> bytes:
    """Write the made ECG as a file of a kind."""
    mv = loop_mv()
    if kind == "edf":
        edfio.Edf([edfio.EdfSignal(mv * 1000, 250, label="ECG II", physical_dimension="uV")]).write(folder / "a.edf")
        return (folder / "a.edf").read_bytes()
    if kind == "json":
        return json.dumps({"rate": 250, "samples": np.round(mv, 4).tolist()}).encode()
    return ("# rate = 250\nII\n" + "\n".join(f"{v:.4f}" for v in mv)).encode()


async def test_a_recording_is_stepped_through_beat_by_beat(make_station, tmp_path: Path) -> None:
    """Each kind of recording gives its beats; arrows and clicks choose one, with map, second-best class and facts."""
    station = await make_station(count=1)
    page = await station.open("/files")
    for kind in ("json", "edf", "csv"):
        await give(page, f"strip.{kind}", content(kind, tmp_path))
        await expect(page.locator(".file-result h2")).to_contain_text("24 s", timeout=SAID_MS)
        await expect(page.locator(".file-beat")).to_have_attribute("data-beat", "0")
    rows = page.locator(".file-beats tbody tr")
    assert await rows.count() > 20
    assert await page.evaluate(COLOURED, ".file-beat canvas") >= [48, 24, 50]
    await page.locator(".file-result h2").click()
    for key, at in (
        ("ArrowRight", "1"),
        ("ArrowRight", "2"),
        ("ArrowLeft", "1"),
        ("ArrowLeft", "0"),
        ("ArrowLeft", "0"),
    ):
        await page.keyboard.press(key)
        await expect(page.locator(".file-beat")).to_have_attribute("data-beat", at)
    await rows.nth(7).click()
    await expect(page.locator(".file-beat")).to_have_attribute("data-beat", "7")
    await expect(rows.nth(7)).to_have_attribute("aria-selected", "true")
    await expect(page.locator(".file-beat")).to_contain_text("of the network's verdict came from this image")
    await expect(page.locator(".file-beat dt").first).to_have_text("2nd")
    await expect(page.locator(".file-beat")).to_contain_text("Beat 8 of")


async def test_wrong_files_are_refused_in_one_line(make_station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty, no picture, half of a WFDB record, damaged, too large: each says what is wrong."""
    monkeypatch.setattr(routes, "LARGEST_FILE", 1 << 20)
    station = await make_station(count=1)
    page = await station.open("/files")
    result = page.locator(".file-result")
    for name, data, says in (
        ("a.csv", b"", "empty"),
        ("a.png", b"abc", "no PNG or JPEG"),
        ("a.hea", b"a 1 250 10\n", "two files"),
        ("a.edf", b"abc", "no EDF"),
        ("a.csv", b"x" * ((1 << 20) + 1), "too large: 1 MiB"),
    ):
        await give(page, name, data)
        await expect(result.get_by_role("alert")).to_contain_text(says, timeout=SAID_MS)
        await page.evaluate("document.querySelector('.file-result').replaceChildren()")
    # The browser notes every refusal on its console.
    assert [text for text in station.problems if "422" not in text and "413" not in text] == []
    station.problems.clear()


@pytest.mark.data
async def test_a_rhythm_window_is_explained(make_station, data_dir: Path, tmp_path: Path) -> None:
    """The image of a window in ventricular flutter shows the rhythm, its map and what differed before."""
    record = cut(data_dir, "mitdb/207", tmp_path / "data", 0, 120)
    write_images([record], None, tmp_path / "out", load_models(), split="patient", of="windows")
    path = sorted((tmp_path / "out/train/VFL").glob("*.png"))[2]
    station = await make_station(count=1)
    page = await station.open("/files")
    await give(page, "window.png", path.read_bytes())
    await expect(page.locator(".file-result h2")).to_contain_text("Window of a rhythm: Ventric", timeout=SAID_MS)
    await expect(page.locator(".features tbody tr").first).to_be_visible()
    width, height, coloured = await page.evaluate(COLOURED, ".file-result canvas")
    assert (width > 100, height) == (True, 24)
    assert coloured > 20


async def test_a_normal_beat_gets_its_map_when_it_is_chosen(make_station) -> None:
    """On the patient page a normal beat has no map yet; chosen, it is worked out from what the page holds.

    A page that isn't drawn for a while meanwhile, as one behind another, gets it nevertheless, and so does one whose
    spectrogram has moved on past the beat.
    """
    station = await make_station(count=1)
    page = await station.open("/patient/Bed%2001")
    trace = "rhythmwatch.ward.beds.get('Bed 01').trace"
    held = f"{trace}.end - {trace}.start > 10 * 250 && {trace}.beats.length > 8"
    await until(page, f"{held} && {trace}.columns?.end * 8 > {trace}.beats.at(-5).index + 250")
    panel = page.locator(".chosen")
    async with page.expect_request("**/api/classify"):
        for _ in range(4):
            await page.keyboard.press("ArrowLeft")
        await expect(panel).to_have_attribute("data-code", "N")
        await expect(panel).to_have_attribute("data-map", "no")
    await page.evaluate(f"{trace}.advance({trace}.last + 2000)")
    await page.evaluate(f"{trace}.columns.start = {trace}.columns.end")
    await expect(panel).to_have_attribute("data-map", "again", timeout=SAID_MS)
    await expect(panel).to_contain_text("Judged again from the last half minute")
    assert (await page.evaluate(COLOURED, ".chosen canvas"))[2] > 20
