"""What a shift meets at the edges of the pages, in a real Chromium: phone, empty ward, lost line, link to a bed."""

from __future__ import annotations

import re

import pytest
from browser_station import Station, chromium, make_station, until
from playwright.async_api import Page, expect

__all__ = ["chromium", "make_station"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]

PHONE = {"width": 390, "height": 844}


async def log_in_again(page: Page, station: Station) -> None:
    """Fill the log-in in that the page was led to."""
    await page.wait_for_url(re.compile(r"/login"))
    await page.fill("#user", "station")
    await page.fill("#password", station.password)
    await page.click("button[type=submit]")


async def test_alarms_are_acknowledged_from_the_list_on_a_phone(make_station) -> None:
    """No part of an alarm lies beside the screen, and its button least of all."""
    station = await make_station(alarming=True)
    page = await station.open("/alarms", **PHONE)
    buttons = page.locator(".alarm-list .ack")
    await expect(buttons.first).to_be_visible()
    spills = await page.evaluate("""() => [...document.querySelectorAll(".alarm-list .ack, .alarm-list .since")]
      .filter((one) => one.getBoundingClientRect().right > innerWidth).length""")
    assert spills == 0
    await expect(page.get_by_role("row").nth(1)).to_contain_text("ago")
    row = page.locator(".alarm-list tbody tr").first
    ident = await row.get_attribute("data-alarm")
    await row.locator(".ack").click()
    await expect(page.locator(f'[data-alarm="{ident}"] .ack')).to_have_count(0)
    await page.goto(station.url + "/admit")
    await expect(page.get_by_role("button", name="Admit: Bed 02")).to_be_in_viewport(ratio=1)
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url(station.url + "/login")


async def test_lost_line_is_no_heart_that_stands_still(make_station) -> None:
    """What a page can't know it doesn't say: without a line the rate is not known, not "no beat for 9 s"."""
    station = await make_station(count=2)
    page = await station.open()
    await expect(page.locator(".tile small").first).to_have_text("bpm")
    await page.context.set_offline(True)
    await expect(page.locator(".tile[data-stale]")).to_have_count(2)
    await until(page, "[...rhythmwatch.ward.beds.values()].every((bed) => rhythmwatch.ward.rate(bed).age > 3000)")
    await expect(page.locator(".tile small").first).to_have_text("rate not known")
    await expect(page.get_by_text("no beat for")).to_have_count(0)
    station.problems.clear()  # that nothing could be loaded


async def test_link_to_a_bed_outlives_the_log_in(make_station) -> None:
    """Who is logged out by time comes back to the patient; after a log-out the next one begins at the wall."""
    station = await make_station(count=2)
    page = await station.open("/patient/Bed%2002")
    await expect(page.locator("h1")).to_contain_text("Bed 02")
    await page.context.clear_cookies()
    await page.evaluate("void rhythmwatch.stays.load()")
    await log_in_again(page, station)
    await page.wait_for_url(station.url + "/patient/Bed%2002")
    await page.get_by_role("button", name="Log out").click()
    await log_in_again(page, station)
    await page.wait_for_url(station.url + "/")
    station.problems.clear()  # that the session was over


async def test_times_of_another_zone_are_named(make_station) -> None:
    """A page far from the ward says whose clock it shows, and whose the hours of the day are."""
    station = await make_station(count=1, zone="Europe/Berlin")
    page = await station.open(timezone_id="Asia/Kolkata")
    await expect(page.locator("#foot .zone")).to_contain_text("GMT+5:30")
    await expect(page.locator("#foot .zone")).to_contain_text("CE")
    await page.get_by_role("link", name="Load").click()
    await expect(page.get_by_role("heading", name="By hour of the day")).to_contain_text("(CE")
    near = await station.open(timezone_id="Europe/Berlin")
    await expect(near.locator("#foot .zone")).to_have_text(re.compile("^Times: "))


async def test_empty_ward_says_what_to_do(make_station) -> None:
    """The first page of a new ward leads to the enrolment; there is nothing to judge and nothing to judge it by."""
    station = await make_station(count=0)
    page = await station.open()
    middle = await page.locator(".grid .empty").bounding_box()
    assert middle is not None
    assert abs(middle["x"] + middle["width"] / 2 - 640) < 20
    await page.get_by_role("link", name="Review").click()
    await expect(page.locator(".review")).to_contain_text("Nothing waits to be judged")
    await expect(page.get_by_role("button", name="True")).to_be_hidden()
    await page.get_by_role("link", name="Wall").click()
    await page.get_by_role("link", name="Enrol the first device").click()
    await page.wait_for_url(station.url + "/admin")


async def test_enrolment_says_what_comes_next(make_station) -> None:
    """The secret is shown with what to do with it, and one button to close it."""
    station = await make_station(count=0, devices_address="mqtt://127.0.0.1:1883")
    page = await station.open("/admin")
    devices = page.get_by_role("region", name="Devices", exact=True)
    await devices.get_by_label("Device").fill("bed-7")
    await devices.get_by_role("button", name="Enrol device").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("then admit a patient")
    await expect(dialog).to_contain_text("Only programs on this machine")
    await expect(dialog.get_by_role("button")).to_have_count(1)
    await dialog.get_by_role("button", name="Close").click()
    await expect(devices).to_contain_text("bed-7")
    await page.reload()
    await expect(page.get_by_role("cell", name="Device enrolled")).to_be_visible()


async def test_note_outlives_what_happens_at_other_beds(make_station) -> None:
    """Half a note stays in its field when somebody is admitted elsewhere meanwhile."""
    station = await make_station(count=2)
    page = await station.open("/patient/Bed%2002")
    care = page.locator(".care")

    async def admit(name: str) -> None:
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill(name)
        await dialog.get_by_role("button", name="Admit").click()
        await expect(dialog).to_have_count(0)

    await care.get_by_role("button", name="Admit").click()
    await admit("Ada Example")
    await care.get_by_label("New note").fill("walked to the window, no")
    await page.evaluate("""async () => {
      const { csrf } = await (await fetch("/api/session")).json();
      const body = JSON.stringify({ name: "Bob Example", bed: "1" });
      await fetch("/api/patients/Bed%2001/admit", { method: "POST", body,
        headers: { "X-CSRF-Token": csrf, "Content-Type": "application/json" } });
      await rhythmwatch.stays.load();
    }""")
    await until(page, "rhythmwatch.stays.person('Bed 01') === 'Bob Example'")
    await expect(care.get_by_label("New note")).to_have_value("walked to the window, no")
    await care.get_by_label("New note").press_sequentially(" dizziness")
    await care.get_by_role("button", name="Write").click()
    await expect(care.locator(".note-row")).to_contain_text("walked to the window, no dizziness")
    await expect(care.get_by_label("New note")).to_have_value("")
