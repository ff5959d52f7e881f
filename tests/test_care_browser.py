"""Care of a patient in a real Chromium with the real application: who lies where, and with which limits."""

from __future__ import annotations

import re
import time

import pytest
from browser_desk import account, acted, told
from browser_station import chromium, make_station, until
from playwright.async_api import expect

from bus.messages import StatusEvent

__all__ = ["chromium", "make_station"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]

NO_POLL = "const every = setInterval; setInterval = (act, ms) => (ms === 20_000 ? 0 : every(act, ms));"
OVERTAKEN = """async () => {
  const { stays } = rhythmwatch;
  const answers = [];
  stays.api = { get: () => new Promise((answer) => answers.push(answer)) };
  const loads = [stays.load(), stays.load()];
  for (const turn of [1, 0]) {
    answers[turn]([{ patient: "Bed 01", bed: ["older", "newer"][turn] }]);
    await loads[turn];
  }
  return stays.label("Bed 01");
}"""


async def test_patient_is_admitted_and_discharged_by_name(make_station) -> None:
    """A device without a patient shows so; admitted, the bed has the name; the discharge says whom and what goes."""
    station = await make_station(count=4)
    wall = await station.open()
    tile = wall.locator('[data-bed="Bed 02"]')
    await expect(tile).to_contain_text("No patient")
    desk = await station.open("/admit", user=account(station, "clinician"))
    await desk.get_by_role("button", name="Admit: Bed 02").click()
    dialog = desk.get_by_role("dialog")
    await expect(dialog).to_contain_text("Admit a patient to Bed 02")
    await dialog.get_by_label("Name").fill("Ada Example")
    await dialog.get_by_label("Bed").fill("12 A")
    await dialog.get_by_label("Ward").fill("West")
    await dialog.get_by_role("button", name="Admit").click()
    await expect(desk.get_by_role("row", name="Ada Example")).to_contain_text("West")
    assert [patient for patient, _ in await acted(station, "admit", 1)] == ["Bed 02"]
    station.ward.send(told("Bed 02", "admit"))
    await expect(tile).to_contain_text("Bed 12 A")
    await expect(tile).to_contain_text("Ada Example")
    await desk.get_by_role("button", name=re.compile("Discharge: Bed 12 A")).click()
    await expect(dialog).to_contain_text("Discharge Ada Example, Bed 12 A?")
    await expect(dialog).to_contain_text("limits go back to the profile")
    await dialog.get_by_role("button", name="Discharge").click()
    await expect(desk.get_by_role("button", name="Admit: Bed 02")).to_be_visible()
    station.ward.send(told("Bed 02", "discharge", vacant=True))
    await expect(tile).to_contain_text("No patient")


async def test_new_bed_is_asked_about_at_once_and_the_newest_answer_counts(make_station) -> None:
    """Who lies in a bed that has just come is not left to the next poll; an answer that comes late changes nothing."""
    station = await make_station(count=1)
    page = await (await station.open()).context.new_page()
    await page.add_init_script(NO_POLL)
    await page.goto(station.url)
    await expect(page.locator(".tile")).to_have_count(1)
    await until(page, "rhythmwatch.stays.known")
    station.ward.send(StatusEvent("Bed 09", "dev", int(time.time() * 1000), "MLII", ("MLII",), "good"))
    await expect(page.locator('[data-bed="Bed 09"]')).to_contain_text("No patient")
    assert await page.evaluate(OVERTAKEN) == "newer"


async def test_limits_are_set_and_a_lethal_alarm_off_is_seen(make_station) -> None:
    """A changed limit goes into the stream; switching a lethal alarm off asks by name, and the wall shows it."""
    station = await make_station(count=4)
    wall = await station.open()
    page = await station.open("/patient/Bed%2001", user=account(station, "clinician"))
    above = page.locator("#limit-tachy")
    await above.fill("400")
    await expect(page.locator(".limit[data-kind=TACHY] .count").first).to_contain_text("from 60 to 250")
    await above.fill("110")
    await page.get_by_role("button", name="Set limits").click()
    await expect(page.locator(".limits")).to_contain_text("Sent.")
    station.ward.send(told("Bed 01", "limits", values={"tachy": 110.0}, user="the clinician"))
    await expect(page.locator(".limits")).to_contain_text("Changed by the clinician")
    await expect(above).to_have_value("110")
    await page.locator("#on-VFIB").uncheck()
    await page.get_by_role("button", name="Set limits").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Switch off Ventricular fibrillation for Bed 01?")
    await page.get_by_role("dialog").get_by_role("button", name="Switch off").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    acts = await acted(station, "limits", 2)
    assert {patient for patient, _ in acts} == {"Bed 01"}
    assert [act.values for _, act in acts] == [{"tachy": 110.0}, {"VFIB": False}]
    station.ward.send(told("Bed 01", "limits", off=("VFIB",), lethal_off=("VFIB",), values={"tachy": 110.0}))
    await expect(wall.locator('[data-bed="Bed 01"] .tile-off')).to_have_text("VF alarm off")
    for problem in [text for text in station.problems if "404" in text]:
        station.problems.remove(problem)
