"""Sound in a real Chromium with the real application: paused by staff, escalated, and as the standard asks."""

from __future__ import annotations

import re
import time

import msgspec
import numpy as np
import pytest
from browser_desk import VTACH, acted, told
from browser_station import chromium, make_station, until
from playwright.async_api import expect
from wall_fakes import alarm

__all__ = ["chromium", "make_station"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]

LEFT = """([selector, end]) => {
  const [, minutes, seconds] = /(\\d):(\\d\\d)/.exec(document.querySelector(selector).textContent) ?? [0, NaN, NaN];
  return Math.abs(60 * Number(minutes) + Number(seconds) - (end - rhythmwatch.ward.now()) / 1000) < 1.5;
}"""
"""Whether a countdown says how long it is until `end`."""


async def test_sound_is_paused_for_all_with_a_visible_countdown(make_station) -> None:
    """One click pauses every bed; the bar counts down; a lethal alarm that comes meanwhile sounds at once."""
    station = await make_station()
    page = await station.open()
    await page.mouse.click(640, 700)
    pause = page.locator(".bar-pause")
    await expect(pause).to_have_text("Pause sound 2 min")
    await expect(page.locator(".tile")).to_have_count(8)
    await page.keyboard.press("p")
    await acted(station, "pause", 8)
    until_ms = int(time.time() * 1000) + 119_000
    for name in station.ward.patients:
        station.ward.send(told(name, "pause", pause_until_ms=until_ms, pause_by="station"))
    await expect(pause).to_have_text(re.compile(r"Sound paused, 8 beds, [01]:\d\d · Resume"))
    await until(page, LEFT, [".bar-pause", until_ms])
    await until(page, LEFT, ['[data-bed="Bed 03"] .tile-silent', until_ms])
    await expect(page.locator('[data-bed="Bed 03"] .tile-silent')).to_contain_text("Silent")
    station.ward.raise_alarm(alarm("Bed 03", "TACHY", 2, value=131.0, limit=120.0, silent_until_ms=until_ms))
    await expect(page.locator("#bar .bar-age")).to_have_text(re.compile(r"silent for [01]:\d\d"))
    assert await page.evaluate("rhythmwatch.signals.tone") is None
    station.ward.raise_alarm(alarm("Bed 05", "VFIB", 3))
    await until(page, "rhythmwatch.signals.tone === 'high'")


async def test_alarm_that_nobody_answers_grows_louder(make_station) -> None:
    """Each step of the escalation is louder and is said in the bar."""
    station = await make_station(count=4)
    page = await station.open()
    await page.mouse.click(640, 700)
    first = alarm("Bed 02", "VTACH", 3, **VTACH)
    station.ward.raise_alarm(first)
    await until(page, "rhythmwatch.signals.tone === 'high' && rhythmwatch.signals.escalation === 0")
    station.ward.raise_alarm(msgspec.structs.replace(first, revision=1, escalation=2))
    await until(page, "rhythmwatch.signals.escalation === 2")
    await expect(page.locator("#bar .bar-detail")).to_contain_text("nobody answered")


async def test_sounds_keep_to_the_standard(make_station) -> None:
    """Pulses, gaps and bursts lie within the ranges of IEC 60601-1-8; with reduced motion nothing flashes."""
    station = await make_station(count=1)
    page = await station.open(reduced_motion="reduce")
    bursts = await page.evaluate("import('/ui/signals.js').then((module) => module.BURSTS)")
    assert [len(bursts[tone]["starts"]) for tone in ("high", "medium", "low")] == [10, 3, 1]
    for tone, (pulse, gap) in {"high": ((0.075, 0.2), (0.05, 0.125)), "medium": ((0.125, 0.25), (0.125, 0.25))}.items():
        burst = bursts[tone]
        assert pulse[0] <= burst["pulse"] <= pulse[1]
        gaps = np.diff(burst["starts"]) - burst["pulse"]
        close = gaps if tone == "medium" else gaps[[0, 1, 3, 5, 6, 8]]
        assert ((close >= gap[0] - 1e-9) & (close <= gap[1] + 1e-9)).all()
        assert 150 <= burst["pitch"] <= 1000
    high = np.diff(bursts["high"]["starts"]) - bursts["high"]["pulse"]
    assert high[[2, 7]] == pytest.approx(2 * bursts["high"]["pulse"] + high[0])
    assert 0.35 <= high[4] <= 1.3
    assert 2.5 <= bursts["high"]["every"] - bursts["high"]["starts"][-1] <= 15
    assert await page.evaluate("document.documentElement.dataset.flashHigh") is None
