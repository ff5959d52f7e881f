"""Reports as PDF: figures of a day, paper true to scale, words and intended use on every page, and their routes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC

import numpy as np
import pypdfium2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people_app import Site, running_site
from sqlalchemy import insert
from test_review import RATE, T0, beats_of, fill, minutes_of, strip_of, wave

from alerts.archive import RHYTHMS, TIMED_BEAT
from alerts.archive_view import trends
from alerts.care_model import Person, Stay
from alerts.day_summary import Episode, Pause, Run, Summary, summarise
from alerts.evidence import Evidence, EvidenceBeat, EvidenceMap
from alerts.judging import Judgement
from alerts.limits import Limits, values_of
from alerts.report_day import DayReport, Example, day_report, wanted_strips
from alerts.report_event import EventReport, event_report, spectrogram
from alerts.report_page import clock, span, wrapped, zone_name
from bus.messages import AlarmEvent, SettingsEvent
from web.settings import WebSettings

MM = 72 / 25.4
PERSON = Person("x", "Jürgen Groß-Özdemir", "4711", "1951-03-09", "male")
STAY = Stay(1, "x", "bed-1", "12", "Süd", "adult", "v", 0)


def alarm(**changes: object) -> AlarmEvent:
    """Make an alarm that was acknowledged and is over."""
    fields = {
        "id": "bed-1/VTACH/1/2500", "patient": "bed-1", "device": "bed-1", "kind": "VTACH", "priority": 3,
        "presence": "off", "revision": 2, "epoch": 1, "onset_sample": 2500, "onset_ms": T0 + 10_000,
        "raised_ms": T0 + 12_000, "changed_ms": T0 + 30_000, "cleared_ms": T0 + 15_000, "acked_by": "Jürgen",
        "acked_ms": T0 + 30_000, "value": 152.0, "limit": 100.0, "lethal": True, "reason": "acknowledged",
        "detail": "5 ventricular beats at 152/min, limit 5 at 100/min",
    }  # fmt: skip
    return AlarmEvent(**(fields | changes))


def evidence(**changes: object) -> Evidence:
    """Make evidence of 22 s: a pulse of 1 mV from 2 to 3 s, one loud column of the spectrogram at 5 s."""
    mv = np.zeros(5500)
    mv[500:750] = 1.0
    columns = np.zeros((688, 24), np.uint8)
    columns[156:160] = 255
    fields = {
        "from_ms": T0, "to_ms": T0 + 22_000, "fs": RATE, "lead": "MLII", "samples_mv": mv.tolist(),
        "columns": base64.b64encode(columns.tobytes()).decode(), "column_ms": 32.0, "bins": 24, "top_hz": 46.875,
        "beats": [EvidenceBeat(T0 + 1000, 1, 250, "V", 0.9, "N", 0.1, 800)],
        "rule": "5 ventricular beats at 152/min, limit 5 at 100/min", "model": "abc123", "probabilities": {"V": 0.93},
    }  # fmt: skip
    return Evidence(**(fields | changes))


def content(**changes: object) -> EventReport:
    """Make what a report says."""
    fields = {
        "alarm": alarm(), "changes": [alarm(reason="raised", revision=0), alarm()], "evidence": evidence(),
        "judgements": [Judgement("false", "Åsa", T0 + 60_000, "Zähneputzen")], "made_ms": T0 + 90_000,
        "made_by": "the monitor", "stay": STAY, "person": PERSON,
    }  # fmt: skip
    return EventReport(**(fields | changes))


def text_of(data: bytes) -> list[str]:
    """Read the text of each page."""
    document = pypdfium2.PdfDocument(data)
    try:
        pages = []
        for page in document:
            text = page.get_textpage()
            pages.append(text.get_text_range().replace("\r\n", "\n"))
            text.close()
            page.close()
        return pages
    finally:
        document.close()


def picture_of(data: bytes, number: int = 0, scale: float = 4.0) -> np.ndarray:
    """Render a page, `scale` pixels a point."""
    document = pypdfium2.PdfDocument(data)
    page = document[number]
    pixels = np.asarray(page.render(scale=scale).to_pil().convert("RGB")).astype(int)
    page.close()
    document.close()
    return pixels


def test_event_report_says_all():
    """Rule, value, times, who acknowledged, judgement, person with umlauts, and the intended use on each page."""
    pages = text_of(event_report(content(), UTC))
    whole = "\n".join(pages)
    for words in (
        "Ventricular tachycardia, high priority", "5 ventricular beats at 152/min", "152, limit 100",
        "by Jürgen, 2025-10-09 08:54:30", "false alarm, by Åsa", "Zähneputzen", "Jürgen Groß-Özdemir, born 1951-03-09",
        "bed 12, Süd", "2025-10-09 08:54:10.0", "lasted 5 s", "abc123", "V 93%", "began", "raised", "25 mm/s, 10 mm/mV",
    ):  # fmt: skip
        assert words in whole, words
    for number, page in enumerate(pages, 1):
        assert "not for diagnosis or treatment" in page
        assert f"page {number} of {len(pages)}" in page


def test_paper_of_the_report_is_true_to_scale():
    """On the printed page a second is 25 mm and 1 mV 10 mm, measured on the rendered page."""
    scale = 4.0
    pixels = picture_of(event_report(content(), UTC), scale=scale)
    millimetre = MM * scale
    dark = (pixels.max(axis=2) < 70).astype(int)
    left = round((23.5 + 25) * millimetre)
    band = dark[:, left : round((23.5 + 100) * millimetre)]
    # The row of the flat trace is the one that the pulse interrupts.
    for low in np.flatnonzero(band.sum(axis=1) > 30 * millimetre).tolist():
        columns = np.flatnonzero(band[low])
        breaks = np.flatnonzero(np.diff(columns) > 5 * millimetre)
        if breaks.size == 1:
            break
    begin, end = columns[breaks[0]], columns[breaks[0] + 1]
    assert (end - begin) / millimetre == pytest.approx(25.0, abs=0.5)
    middle = dark[: low - 5, left + (begin + end) // 2]
    high = np.flatnonzero(middle)[-1]
    assert (low - high) / millimetre == pytest.approx(10.0, abs=0.4)


def test_spectrogram_shows_what_is_loud_and_what_spoke():
    """Loud columns are dark; cells that spoke for the verdict are orange, of a rhythm and of a beat."""
    plain = spectrogram(evidence())
    assert plain is not None
    assert plain.shape == (96, 688, 3)
    assert plain[:, 100].min() == 255
    assert plain[:, 157].max() < 120
    cells = [[0.0, 1.0], [0.0, 0.0]]
    said = EvidenceMap("VT", 0.9, "N", 0.1, T0, T0 + 8_000, [(0.0, 10.0), (10.0, 46.875)], cells, [], "", "")
    rhythm = spectrogram(evidence(map=said))
    assert rhythm is not None
    orange = (rhythm[:, :, 0] > 200) & (rhythm[:, :, 2] < 150)
    assert orange[-10:, 130:150].all()
    assert not orange[:60].any()
    assert not orange[:, :120].any()
    packed = bytes([70, *(255 if cell == 9 else 128 for cell in range(18))])
    beat = EvidenceBeat(T0 + 5_000, 1, 1250, "V", 0.9, "N", 0.1, 800, base64.b64encode(packed).decode())
    beats = spectrogram(evidence(beats=[beat]))
    assert beats is not None
    changed = (beats != plain).any(axis=2)
    at = np.flatnonzero(changed.any(axis=0))
    # Cell 9 of 6 times 3 is the fourth in time: 0.192 s before R, and the lowest in frequency.
    middle = (at[0] + at[-1] + 1) / 2 * 0.032
    assert middle == pytest.approx(5.0 - 0.192, abs=0.05)
    assert not changed[:-16].any()
    assert spectrogram(evidence(columns="")) is None


def test_event_report_without_anything():
    """Nobody admitted, nothing recorded, not judged: the report says so."""
    bare = content(stay=None, person=None, evidence=None, judgements=[], changes=[], alarm=alarm(acked_by=None))
    (page,) = text_of(event_report(bare, UTC))
    for words in ("nobody admitted", "No recording of this alarm is kept", "not yet", "by nobody"):
        assert words in page


def day_beats(rows: list[tuple[int, str, int]]) -> np.ndarray:
    """Make beats of (ms after T0, code, rr_ms)."""
    beats = np.zeros(len(rows), TIMED_BEAT)
    beats["ms"] = [T0 + ms for ms, _, _ in rows]
    beats["code"] = [code.encode() for _, code, _ in rows]
    beats["rr_ms"] = [rr for _, _, rr in rows]
    return beats


def test_summary_finds_runs_pauses_and_extremes():
    """Runs, pairs, pauses, rates and fibrillation of a made-up stretch, each where it is."""
    rows, ms = [], 0
    plan = [*[("N", 1000)] * 10, *[("V", 400)] * 5, ("N", 1000), ("V", 500), ("V", 500), ("N", 3000)]
    plan += [*[("N", 500)] * 6, *[("V", 800)] * 3, *[("N", 1000)] * 6, ("N", 0), ("N", 1000)]
    for code, rr in plan:
        ms += rr or 5000
        rows.append((ms, code, rr))
    beats = day_beats(rows)
    rhythms = [(T0 - 1, "N"), (T0 + 4_000, "AFIB"), (T0 + 9_000, "N"), (T0 + 11_000, "AFIB"), (T0 + 20_000, "AFIB")]
    found = summarise(T0, T0 + 60_000, minutes_of(1), beats, rhythms, 2.5)
    assert found.runs == (Run(T0 + 10_400, 5, 150.0),)
    assert (found.slow_runs, found.pairs, found.pvc) == (1, 1, 10)
    assert found.pauses == (Pause(T0 + 14_000, 3.0),)
    assert found.fastest is not None
    assert (found.fastest.rate, found.fastest.ms) == (150.0, T0 + 10_800)
    assert found.slowest is not None
    assert found.slowest.rate == pytest.approx(240 / 5.0, abs=6)
    assert found.episodes == (Episode(T0 + 11_000, T0 + 60_000), Episode(T0 + 4_000, T0 + 9_000))
    assert found.first_pvc_ms == T0 + 10_400
    assert found.af_share == 0.25


def test_ventricular_fibrillation_is_no_pause():
    """Beats that can't be found while the ventricles fibrillate are neither a pause nor a rate."""
    rows = [(number * 1000, "N", 1000) for number in range(1, 11)] + [(20_000, "N", 10_000)]
    rows += [(20_000 + number * 1000, "N", 1000) for number in range(1, 6)]
    rhythms = [(T0 - 1, "N"), (T0 + 14_000, "VFL"), (T0 + 19_000, "N")]
    found = summarise(T0, T0 + 30_000, minutes_of(1), day_beats(rows), rhythms, 2.5)
    assert found.pauses == ()
    assert found.wild == (Episode(T0 + 14_000, T0 + 19_000),)
    assert found.slowest is not None
    assert found.slowest.rate == 60.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("NVA"), st.sampled_from([0, 300, 700, 1500, 3000])), max_size=60))
def test_any_beats_can_be_summed_up(plan: list[tuple[str, int]]):
    """Counts agree with a plain count, whatever the beats are."""
    rows, ms = [], 0
    for code, rr in plan:
        ms += rr or 4000
        rows.append((ms, code, rr))
    found = summarise(T0, T0 + ms + 1, minutes_of(0), day_beats(rows), [], 2.5)
    assert found.pvc == sum(code == "V" for code, _ in plan)
    assert len(found.pauses) == sum(rr > 2500 for _, rr in plan)
    in_runs = sum(run.beats for run in found.runs)
    assert in_runs + 2 * found.pairs <= found.pvc
    for _, begin in wanted_strips(found):
        assert begin >= T0


def report_of(summary: Summary) -> bytes:
    """Make a report with a strip."""
    made = trends(minutes_of(120), T0, T0 + 7_200_000, 300_000)
    example = Example("Lowest rate, 41/min", strip_of(wave(10, 1)), beats_of([(100, "N"), (300, "V")]))
    alarms = [("Pause", 3), ("Frequent PVCs", 2)]
    return day_report(DayReport("bed-1", summary, made, [example], alarms, "MLII", T0, "me", STAY, PERSON), UTC)


def test_day_report_says_all():
    """Figures, lists, alarms and strips are on the pages, with the intended use on each."""
    rows = [(number * 1000, "V" if number in (20, 21, 22) else "N", 500 if number in (21, 22) else 1000)
            for number in range(1, 60)]  # fmt: skip
    summary = summarise(T0, T0 + 7_200_000, minutes_of(120), day_beats(rows), [(T0, "AFIB")], 2.5)
    pages = text_of(report_of(summary))
    whole = "\n".join(pages)
    for words in (
        "Summary of 2 h", "HR mean", "60/min", "AF burden", "25.0% (30 min)", "Pause 3, Frequent PVCs 2", "PVC /h",
        "Runs of 3 or more PVC", "Lowest rate, 41/min", "Jürgen Groß-Özdemir",
    ):  # fmt: skip
        assert words in whole, words
    assert all("not for diagnosis or treatment" in page for page in pages)


def test_day_report_of_nothing():
    """A stretch without beats or trends still makes a report."""
    summary = summarise(T0, T0 + 3_600_000, minutes_of(0), day_beats([]), [], 2.5)
    made = trends(minutes_of(0), T0, T0 + 3_600_000, 60_000)
    pages = text_of(day_report(DayReport("bed-1", summary, made, [], [], "MLII", T0, "me"), UTC))
    assert "nobody admitted" in pages[0]
    assert "HR mean" in pages[0]


def test_times_are_those_of_the_ward_in_summer_and_in_winter():
    """A report tells each time as clocks in the ward did then, and names the zone; an unknown zone is refused."""
    zone = WebSettings(redis_url="redis://localhost", zone="Europe/Berlin").time_zone()
    winter, summer = 1_768_478_400_000, 1_784_116_800_000
    assert [clock(ms, zone) for ms in (winter, summer)] == ["2026-01-15 13:00:00", "2026-07-15 14:00:00"]
    assert [zone_name(ms, zone) for ms in (winter, summer)] == ["CET", "CEST"]
    assert WebSettings(redis_url="redis://localhost").time_zone() is None
    assert clock(winter, None)
    for name in ("Mars/Olympus", "Europe", "../etc"):
        with pytest.raises(ValueError, match="write a name like"):
            WebSettings(redis_url="redis://localhost", zone=name)


@given(st.text(st.characters(codec="latin-1", exclude_categories=("Cc",)), max_size=200), st.floats(5.0, 60.0))
@settings(max_examples=60, deadline=None)
def test_wrapping_loses_no_letter(text: str, width: float):
    """Lines hold all letters in order."""
    assert "".join(wrapped(text, 3.0, width)).replace(" ", "") == text.replace(" ", "")


def test_durations_are_for_people():
    """Seconds, minutes and hours as they are said."""
    assert [span(ms) for ms in (4_400, 60_000, 61_000, 3_600_000, 7_500_000)] == [
        "4 s", "1 min", "1 min 1 s", "1 h", "2 h 05 min",
    ]  # fmt: skip


# --- routes ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("reports")
    with running_site(folder) as site:
        fill(site.url, folder / "recordings", wave(120))
        stores = site.parts().alarm_stores
        assert stores is not None
        site.store.write(0, [("1-0", alarm(reason="raised", revision=0)), ("2-0", alarm())], "2-0")
        stores.evidence.keep(alarm(), evidence(), T0 + 60_000)
        with site.engine.begin() as connection:
            row = {"patient": "bed-1", "device": "bed-1", "epoch": 1, "p": 0.9}
            connection.execute(insert(RHYTHMS), {**row, "sample": 1, "ms": T0 + 4, "code": "N"})
        yield site


def test_report_of_an_alarm_by_its_route(site: Site):
    """Who monitors gets the PDF, a viewer doesn't, and the audit trail knows."""
    path = "/api/alarms/bed-1/VTACH/1/2500/report.pdf"
    assert site.client.get(path, headers=site.enter("viewer")).status_code == 403
    before = len(site.audit.rows())
    answer = site.client.get(path, headers=site.enter("monitor"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
    assert "by the monitor" in text_of(answer.content)[0]
    assert len(site.audit.rows()) == before + 1
    unknown = site.client.get("/api/alarms/none/report.pdf", headers=site.enter("monitor"))
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "This alarm is not known. Reload the page.")


def test_report_of_a_stretch_by_its_route(site: Site):
    """The summary has the figures of the recording and strips of it."""
    query = {"from": T0, "to": T0 + 120_000}
    path = "/api/patients/bed-1/report.pdf"
    assert site.client.get(path, params=query, headers=site.enter("viewer")).status_code == 403
    answer = site.client.get(path, params=query, headers=site.enter("monitor"))
    assert answer.status_code == 200, answer.text
    whole = "\n".join(text_of(answer.content))
    for words in ("Summary of 2 min", "60/min", "First ventricular beat", "Ventricular tachycardia 1"):
        assert words in whole, words
    assert "over 2.5 s" in whole
    changed = SettingsEvent("bed-1", "bed-1", T0 + 1, "limits", "anna", "adult", values_of(Limits(pause_s=1.8)), ())
    site.store.write(0, [("3-0", changed)], "3-0")
    answer = site.client.get(path, params=query, headers=site.enter("monitor"))
    assert "over 1.8 s" in "\n".join(text_of(answer.content))
    nothing = site.client.get(path, params={"from": 1, "to": 1000}, headers=site.enter("monitor"))
    assert nothing.status_code == 404
