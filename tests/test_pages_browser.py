"""The pages in a real Chromium with the real application: care, limits, review, roles, accessibility."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from argon2 import PasswordHasher
from axe_playwright_python.async_playwright import Axe
from browser_station import DEADLINE_S, Station, chromium, make_station, until
from playwright.async_api import Page, expect
from sqlalchemy import Engine
from test_review import T0, fill, wave
from wall_fakes import alarm

from alerts.database import open_engine
from alerts.evidence import Evidence, EvidenceBeat, EvidenceMap
from alerts.people import People
from alerts.store import Store
from alerts.stores import AlarmStores
from bus.messages import Action, AlarmEvent, SettingsEvent, StatusEvent

__all__ = ["chromium", "make_station"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.services,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]

QUICK = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
VTACH = {"value": 168.0, "limit": 100.0, "detail": "7 ventricular beats at 168/min"}
MAP = EvidenceMap(
    "VT", 0.9, "N", 0.1, 0, 10_000, [(0.5, 5.0), (5.0, 15.0)], [[0.2, 0.8], [-0.3, 0.5]], [], "", "occlusion"
)

LEFT = """([selector, end]) => {
  const [, minutes, seconds] = /(\\d):(\\d\\d)/.exec(document.querySelector(selector).textContent) ?? [0, NaN, NaN];
  return Math.abs(60 * Number(minutes) + Number(seconds) - (end - rhythmwatch.ward.now()) / 1000) < 1.5;
}"""
"""Whether a countdown says how long it is until `end`."""


@contextmanager
def database(station: Station) -> Iterator[Engine]:
    """Open the database of a station beside its web process."""
    engine = open_engine(station.settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def account(station: Station, role: str) -> str:
    """Make an account with the password of the station's first one; its name."""
    with database(station) as engine:
        People(engine).add_user(f"the {role}", QUICK.hash(station.password), role, 1)
    return f"the {role}"


def told(patient: str, reason: str, **more: object) -> SettingsEvent:
    """Say what is in force for a patient, as the worker does."""
    fields: dict[str, object] = {
        "patient": patient, "device": "dev", "ms": int(time.time() * 1000), "reason": reason, "user": "station",
        "profile": "adult", "values": {}, "off": (),
    }  # fmt: skip
    return msgspec.convert(fields | more, SettingsEvent)


def keep(station: Station, *events: AlarmEvent) -> None:
    """Write alarms into the history, each with evidence of 20 s."""
    store = Store(station.settings.database_url)
    store.write(0, [(f"1-{number}", event) for number, event in enumerate(events)], "1-99")
    store.close()
    mv = np.sin(np.arange(5000) / 20.0).round(3).tolist()
    with database(station) as engine:
        for event in events:
            start = event.onset_ms - 10_000
            beats = [
                EvidenceBeat(start + 800 * i, 7, 200 * i, "V" if i > 12 else "N", 0.9, "N", 0.1, 800) for i in range(25)
            ]
            rule = "5 ventricular beats at 152/min, limit 5 at 100/min"
            evidence = Evidence(
                from_ms=start, to_ms=start + 20_000, fs=250.0, lead="MLII", samples_mv=mv, columns="", column_ms=32.0,
                bins=32, top_hz=45.0, beats=beats, rule=rule, model="model 1", probabilities={"V": 0.9}, map=MAP,
            )  # fmt: skip
            AlarmStores(engine).evidence.keep(event, evidence, event.onset_ms + 30_000)


async def acted(station: Station, name: str, count: int) -> list[tuple[str, Action]]:
    """Wait until so many acts of a name have come through the stream, and give them."""
    async with asyncio.timeout(DEADLINE_S):
        while len(found := [(patient, act) for patient, act in station.ward.actions if act.name == name]) < count:
            await asyncio.sleep(0.02)
    return found


def read(path: Path) -> bytes:
    """Read what was downloaded."""
    return Path(path).read_bytes()


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
