"""All pages in a real Chromium with the real application: accessible, by role, and laid out by choice."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from browser_desk import VTACH, account, keep
from browser_station import chromium, make_station, until
from playwright.async_api import Page, expect
from test_review import fill, wave
from wall_fakes import alarm

__all__ = ["chromium", "make_station"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]


async def faults(page: Page) -> list[str]:
    """Serious accessibility faults that axe finds on a page."""
    found = (await Axe().run(page)).response["violations"]
    return [
        f"{page.url} {one['id']}: {node['target']} {node.get('failureSummary', '')}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


async def test_no_page_has_a_serious_accessibility_fault(make_station) -> None:
    """Axe finds nothing serious on any page, dark and light, with alarms of every kind about."""
    station = await make_station(alarming=True)
    page = await station.open()
    await page.mouse.click(640, 700)
    keep(station, alarm("Bed 02", "VTACH", 3, presence="off", **VTACH))
    broken: list[str] = []
    fill(station.settings.database_url, Path(station.settings.recordings), wave(120), "bed-1")
    for path in (
        "/",
        "/alarms",
        "/patient/Bed%2002",
        "/review",
        "/review/bed-1",
        "/load",
        "/admit",
        "/files",
        "/admin",
        "/help",
    ):
        await page.goto(station.url + path)
        await until(page, "window.rhythmwatch?.link.state === 'live'")
        await page.wait_for_load_state("networkidle")
        for theme in ("dark", "light"):
            await page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
            broken += [f"{theme} {fault}" for fault in await faults(page)]
    assert broken == []


async def test_log_in_page_has_no_serious_accessibility_fault(make_station) -> None:
    """Axe finds nothing serious on the log-in."""
    station = await make_station(count=1)
    page = await (await station.browser.new_context()).new_page()
    await page.goto(station.url + "/login")
    assert await faults(page) == []
    await page.context.close()


async def test_viewer_sees_and_may_do_nothing(make_station) -> None:
    """A viewer has no button to act with, and the server refuses what the page doesn't offer."""
    station = await make_station(alarming=True)
    page = await station.open(user=account(station, "viewer"))
    await expect(page.locator("#bar .bar-bed")).to_have_text("Bed 02")
    await expect(page.locator("#bar .bar-ack")).to_be_hidden()
    await expect(page.locator("#bar .bar-pause")).to_be_hidden()
    await expect(page.get_by_role("link", name="Admin")).to_have_count(0)
    refused = await page.evaluate("""async () => {
      const { csrf } = await (await fetch("/api/session")).json();
      const ask = async (method, path, body) => (await fetch(path, { method, body: JSON.stringify(body),
        headers: { "X-CSRF-Token": csrf, "Content-Type": "application/json" } })).status;
      return [await ask("POST", "/api/alarms/Bed%2002/VTACH/7/1000/ack"), await ask("POST", "/api/pause"),
        await ask("PUT", "/api/patients/Bed%2001/limits", { profile: "athlete" }),
        await ask("POST", "/api/patients/Bed%2001/discharge"),
        await ask("POST", "/api/users", { name: "x", password: "long enough for it", role: "admin" })];
    }""")
    assert refused == [403] * 5
    assert all(act.name not in ("ack", "pause") for _, act in station.ward.actions)
    station.problems.clear()


async def test_beds_are_filtered_and_laid_out_by_choice(make_station) -> None:
    """The filter shows what matches and says when nothing does; the density is kept; a zoomed page still acts."""
    station = await make_station(alarming=True)
    page = await station.open()
    tiles = page.locator(".tile")
    await expect(tiles).to_have_count(8)
    await page.get_by_role("searchbox").fill("bed 03")
    await expect(tiles).to_have_count(1)
    await page.get_by_role("searchbox").fill("nobody")
    await expect(page.locator(".grid")).to_contain_text("No bed matches")
    await page.get_by_role("searchbox").fill("")
    await page.get_by_label("Beds a page").select_option("4")
    await expect(tiles).to_have_count(4)
    await page.reload()
    await expect(tiles).to_have_count(4)
    await page.set_viewport_size({"width": 640, "height": 360})
    await until(page, "innerWidth === 640 && document.scrollingElement.scrollWidth <= innerWidth")
    await tiles.last.scroll_into_view_if_needed()
    await expect(page.locator("#bar .bar-ack")).to_be_in_viewport()
