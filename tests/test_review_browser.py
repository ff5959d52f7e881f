"""Review in a real Chromium with the real application: alarms judged, strips read, exported and measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_desk import VTACH, account, database, keep
from browser_station import chromium, make_station, until
from playwright.async_api import expect
from test_review import T0, fill, wave
from wall_fakes import alarm

from alerts.stores import AlarmStores

__all__ = ["chromium", "make_station"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]


def read(path: Path) -> bytes:
    """Read what was downloaded."""
    return Path(path).read_bytes()


async def test_alarms_are_judged_with_one_key_each(make_station) -> None:
    """The queue shows strip and rule; N goes on, F judges; what is left stays for the next shift."""
    station = await make_station(count=4)
    first = alarm("Bed 02", "VTACH", 3, presence="off", **VTACH)
    second = alarm("Bed 03", "PAUSE", 2, presence="off", value=2.8, limit=2.5, id="Bed 03/PAUSE/7/1000")
    keep(station, first, second)
    page = await station.open("/review", user=account(station, "monitor"))
    await expect(page.locator(".queued")).to_have_count(2)
    await expect(page.locator(".rule")).to_have_text("5 ventricular beats at 152/min, limit 5 at 100/min")
    await expect(page.locator(".judged h2")).to_have_text("Ventricular tachycardia")
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".judged .chosen")).to_contain_text("Normal")
    await page.keyboard.press("n")
    await expect(page.locator(".judged h2")).to_have_text("Pause")
    await expect(page.get_by_role("button", name="F False")).to_be_enabled()
    await page.keyboard.press("f")
    await expect(page.locator(".queued")).to_have_count(1)
    await expect(page.locator(".judged h2")).to_have_text("Ventricular tachycardia")
    with database(station) as engine:
        assert [said.verdict for said in AlarmStores(engine).judging.of_alarm(second.id)] == ["false"]


async def test_strip_is_reviewed_and_exported(make_station) -> None:
    """Full disclosure shows the minutes; a click opens the strip; exports and the report are downloaded."""
    station = await make_station(count=4)
    fill(station.settings.database_url, Path(station.settings.recordings), wave(180), "bed-1")
    page = await station.open("/review/bed-1", user=account(station, "monitor"))
    lines = page.locator("canvas.lines")
    await until(page, "rhythmwatch.view().data?.lines.length >= 3")
    assert await page.evaluate("rhythmwatch.view().from") == T0
    await lines.click(position={"x": 400, "y": 40})
    await expect(page.locator(".strip-card")).to_contain_text("MLII")
    assert await page.evaluate("rhythmwatch.view().strip.data.beats.length") > 0
    starts = {"WFDB": b"PK", "EDF": b"0", "CSV": b"", "PNG": b"\x89PNG", "Report (PDF)": b"%PDF"}
    for name, start in starts.items():
        async with page.expect_download() as waiting:
            await page.get_by_role("link", name=name, exact=True).last.click()
        data = read(await (await waiting.value).path())
        assert data.startswith(start), name
        assert len(data) > 500, name


async def test_frozen_strip_is_measured_while_the_heart_goes_on(make_station) -> None:
    """Space holds the last seconds still, marked as not live; calipers move by key; the live trace moves on."""
    station = await make_station(count=4)
    page = await station.open("/patient/Bed%2001")
    await until(page, "(({ trace }) => trace.head - trace.start > 1500)(rhythmwatch.ward.beds.get('Bed 01'))")
    await page.keyboard.press(" ")
    await expect(page.locator(".held-panel")).to_contain_text("Frozen, not live")
    first = page.get_by_role("slider", name="First caliper")
    said = page.locator(".calipers-said")
    gap = int((await said.text_content()).split(" ms")[0])
    assert 600 < gap < 1100
    await first.focus()
    for _ in range(5):
        await page.keyboard.press("Shift+ArrowLeft")
    await expect(said).to_have_text(f"{gap + 200} ms · {round(60_000 / (gap + 200))}/min")
    await page.get_by_role("button", name="QT", exact=True).click()
    await expect(said).to_contain_text("Bazett")
    drawn = await page.evaluate("rhythmwatch.view().sweep.stats.samples")
    await until(page, "(n) => rhythmwatch.view().sweep.stats.samples > n + 200", drawn)
    await page.locator("h1").click()
    await page.keyboard.press(" ")
    await expect(page.locator(".held-panel")).to_have_count(0)
