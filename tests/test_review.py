"""Review of recordings: outlines, trends, exports that other programs read, pictures, and the routes over them."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import edfio
import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from people_app import Site, running_site
from PIL import Image
from sqlalchemy import insert

from alerts import export
from alerts.archive import RHYTHMS, TIMED_BEAT, Archive, Minutes, Strip
from alerts.archive_files import MISSING
from alerts.archive_index import Index
from alerts.archive_view import outline, trends
from alerts.strip_picture import strip_png
from bus.messages import BeatEvent, Entry, Inbound, StatusEvent, pack, pack_inbound
from bus.streams import Record
from ingest.codecs import encode_frame
from ingest.frame import Frame
from rhythmwatch.record import Recording

T0 = 1_760_000_040_000
RATE, GAIN = 250.0, 200.0


def strip_of(units: np.ndarray, gain: float = GAIN, fs: float = RATE) -> Strip:
    """Make a strip of two leads."""
    return Strip("bed-1", T0, fs, ("MLII", "V1")[: units.shape[1]], gain, units.astype(np.int32))


def beats_of(rows: list[tuple[int, str]], fs: float = RATE) -> np.ndarray:
    """Make beats at rows of a strip."""
    beats = np.zeros(len(rows), TIMED_BEAT)
    beats["ms"] = [T0 + round(row * 1000 / fs) for row, _ in rows]
    beats["code"] = [code.encode() for _, code in rows]
    return beats


def wave(seconds: int, leads: int = 2) -> np.ndarray:
    """Make a lively signal in units, some of it missing."""
    t = np.arange(seconds * int(RATE)) / RATE
    beat = np.exp(-0.5 * ((t % 0.8 - 0.4) / 0.012) ** 2) * 1.1 + 0.2 * np.exp(-0.5 * ((t % 0.8 - 0.65) / 0.05) ** 2)
    units = np.rint(beat * GAIN)[:, None] * np.arange(1, leads + 1)
    return units.astype(np.int32)


MARKS = [(100, "N"), (300, "V"), (1900, "A")]
RHYTHM = [(T0 - 5_000, "N"), (T0 + 4_000, "AFIB")]


def unpacked(data: bytes, folder: Path) -> str:
    """Unpack a record; gives its path without an ending."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        packed.extractall(folder)
        (head,) = (name for name in packed.namelist() if name.endswith(".hea"))
    return str(folder / head.removesuffix(".hea"))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 700), st.sampled_from([200.0, 1000.0, 31.5]), st.sampled_from([250.0, 360.0, 128.0]),
    st.integers(0, 2**32 - 1), st.sampled_from([3000, 2**15 - 1, 2**23]),
)  # fmt: skip
def test_exports_read_back(n: int, gain: float, fs: float, seed: int, largest: int):
    """Any samples come back from WFDB bit by bit, from EDF+ as near as 16 bits allow, gaps as gaps."""
    import tempfile

    rng = np.random.default_rng(seed)
    units = rng.integers(-largest, largest, (n, 2), endpoint=True).astype(np.int32)
    units[rng.random((n, 2)) < 0.05] = MISSING
    units[0] = 1
    strip = strip_of(units, gain, fs)
    with tempfile.TemporaryDirectory() as folder:
        path = unpacked(export.wfdb_zip("x", strip, beats_of([]), []), Path(folder))
        found = wfdb.rdrecord(path, physical=False)
    lowest = -(2**15) if found.fmt[0] == "16" else MISSING
    assert np.array_equal(np.where(found.d_signal == lowest, MISSING, found.d_signal), units)
    assert (found.fs, found.adc_gain[0]) == (fs, pytest.approx(gain))
    file = edfio.read_edf(export.edf(strip, beats_of([]), []))
    step = max(1, -(-int(np.abs(units[units != MISSING]).max()) // (2**15 - 1)))
    for column in range(2):
        there = units[:, column] != MISSING
        signal = file.signals[column]
        assert signal.sampling_frequency == pytest.approx(fs)
        got = signal.data[:n][there] * gain
        tolerance = step * 0.51 + largest * 1e-4
        assert np.abs(got - units[:, column][there]).max() <= tolerance
        assert (signal.digital[:n][~there] == -(2**15)).all()


def test_edf_is_exact_at_the_usual_gain():
    """At 200 units a mV the digital samples of EDF+ are those of the device."""
    units = wave(10)
    file = edfio.read_edf(export.edf(strip_of(units), beats_of(MARKS), RHYTHM))
    assert [signal.label for signal in file.signals] == ["ECG MLII", "ECG V1"]
    assert np.array_equal(file.signals[1].digital, units[:, 1])
    assert file.signals[0].data == pytest.approx(units[:, 0] / GAIN, abs=1e-3)
    assert file.startdatetime.replace(tzinfo=UTC).timestamp() == pytest.approx(T0 / 1000, abs=1e-3)


def test_annotations_of_exports(tmp_path: Path):
    """Beats, rhythms and gaps stand in the exports where they were."""
    units = wave(10)
    units[1000:1250] = MISSING
    strip = strip_of(units)
    notes = wfdb.rdann(unpacked(export.wfdb_zip("x", strip, beats_of(MARKS), RHYTHM), tmp_path), "atr")
    assert list(zip(notes.sample.tolist(), notes.symbol, notes.aux_note, strict=True)) == [
        (0, "+", "(N"), (100, "N", ""), (300, "V", ""), (1000, "+", "(AFIB"), (1900, "A", ""),
    ]  # fmt: skip
    found = edfio.read_edf(export.edf(strip, beats_of(MARKS), RHYTHM)).annotations
    assert [(note.onset, note.duration, note.text) for note in found] == [
        (0.0, None, "N"), (0.4, None, "N"), (1.2, None, "V"), (4.0, None, "AFIB"),
        (4.0, 1.0, "no signal recorded"), (7.6, None, "A"),
    ]  # fmt: skip


def test_csv_reads_back():
    """Every sample has its line with its time; a missing one is empty."""
    units = wave(2)
    units[3, 1] = MISSING
    rows = list(csv.reader(io.StringIO(export.csv(strip_of(units)).decode())))
    assert rows[0] == ["time", "ms", "MLII (mV)", "V1 (mV)"]
    assert rows[1][0] == "2025-10-09T08:54:00.000000Z"
    assert (rows[4][0], float(rows[4][1])) == ("2025-10-09T08:54:00.012000Z", T0 + 12)
    assert rows[4][3] == ""
    assert [float(row[2]) for row in rows[1:]] == pytest.approx(units[:, 0] / GAIN)


def test_nothing_recorded_is_said():
    """An export of a stretch without a sample is refused in words."""
    with pytest.raises(export.ExportError, match="Nothing was recorded"):
        export.checked(strip_of(np.full((100, 2), MISSING)))


def test_picture_is_true_to_scale():
    """A pulse of 1 mV stands 10 mm high, a second is 25 mm wide, and the file says how many dots an inch has."""
    units = np.zeros((2500, 1), np.int32)
    units[250:500] = 200
    picture = Image.open(io.BytesIO(strip_png(strip_of(units), beats_of([]), "Müller, Bett 3")))
    assert picture.info["dpi"][0] == pytest.approx(203.2, abs=0.1)
    pixels = np.asarray(picture.convert("L"))
    dark = pixels[200:360, 64:] < 60
    levels = [int(np.flatnonzero(dark[:, column]).mean()) for column in (100, 300, 600)]
    assert levels[0] - levels[1] == pytest.approx(80, abs=2)
    assert levels[0] == levels[2]
    edges = [column for column in range(150, 500) if dark[:, column].sum() > 40]
    assert edges[0] == pytest.approx(200, abs=2)
    assert edges[-1] == pytest.approx(400, abs=2)


def minutes_of(count: int) -> Minutes:
    """Make trends of minutes: 60 beats at 1000 ms each, one of them ectopic."""
    ones = np.ones(count, np.int64)
    return Minutes(
        ms=T0 + 60_000 * np.arange(count), beats=60 * ones, pvc=ones, sveb=0 * ones, hr=60.0 * ones,
        hr_min=50.0 + np.arange(count), hr_max=90.0 + np.arange(count), af=0.0 * ones, quality=1.0 * ones,
        af_ms=15_000 * ones, signal_ms=60_000 * ones, rr_ms=60_000 * ones, rr_count=60 * ones,
    )  # fmt: skip


def test_trends_sum_up():
    """Steps hold the mean, extremes and sums of their minutes; a step without any is unknown."""
    begin = T0 - T0 % 300_000
    made = trends(minutes_of(10), begin, begin + 1_200_000, 300_000)
    first = (T0 - begin) // 60_000
    counts = [5 - first, 5, 10 - 5 - (5 - first)]
    assert made.pvc.tolist()[:3] == counts
    assert made.hr.tolist()[:3] == [60.0] * 3
    assert made.hr_min.tolist()[:2] == [50.0, 50.0 + 5 - first]
    assert made.hr_max.tolist()[:2] == [90.0 + 4 - first, 90.0 + 9 - first]
    assert made.af.tolist()[:3] == [0.25] * 3
    assert made.quality[1] == 1.0
    assert np.isnan(made.hr[3])
    assert np.isnan(made.pvc[3])


# --- over an archive ---------------------------------------------------------------------------------------------


def fill(site_url: str, folder: Path, units: np.ndarray, patient: str = "bed-1") -> None:
    """Record samples of two leads with a beat a second, every tenth ventricular."""
    with Index(site_url) as index:
        index.upgrade()
        recording = Recording(folder, index, [0])
        events: list[bytes] = [pack(StatusEvent(patient, patient, T0, "MLII", ("MLII", "V1"), "good"))]
        step = int(RATE)
        frames = []
        for number in range(len(units) // step):
            part = units[number * step : (number + 1) * step].astype(np.int16)
            frame = Frame(patient, 1, number, number * step, T0 + number * 1000, RATE, ("MLII", "V1"), GAIN, part)
            entry = Inbound(Entry.FRAME, T0 + (number + 1) * 1000, patient, encode_frame(frame))
            frames.append(Record(f"{number + 1}-0", pack_inbound(entry)))
            code = "V" if number % 10 == 9 else "N"
            mark = bytes(range(19)) if code == "V" else b""
            beat = BeatEvent(
                patient, patient, 1, number * step + 100, T0 + number * 1000 + 400, code, 0.97, "N", 0.02, 1000, mark
            )
            events.append(pack(beat))
        recording.take_entries(0, frames)
        recording.take_events(0, [Record(f"{number + 1}-0", event) for number, event in enumerate(events)])
        recording.flush()
        recording.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("review")
    with running_site(folder) as site:
        units = wave(300)
        units[250 * 60 : 250 * 70] = -(2**15)
        fill(site.url, folder / "recordings", units)
        with site.engine.begin() as connection:
            row = {"patient": "bed-1", "device": "bed-1", "epoch": 1, "p": 0.9}
            connection.execute(insert(RHYTHMS), {**row, "sample": 1, "ms": T0 + 4, "code": "N"})
            connection.execute(insert(RHYTHMS), {**row, "sample": 30_000, "ms": T0 + 120_000, "code": "AFIB"})
        yield site


def ask(site: Site, what: str, role: str = "viewer", **query: object):
    """Ask a route of the patient."""
    values = {"from": T0, "to": T0 + 300_000} | query
    return site.client.get(f"/api/patients/bed-1/{what}", params=values, headers=site.enter(role))


def test_disclosure(site: Site):
    """A line a minute with the extremes of each point, nulls in the gap, and what happened."""
    answer = ask(site, "disclosure", width=300)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["lead"], body["width"]) == ("MLII", 300)
    assert [line["ms"] for line in body["lines"]] == [T0 + 60_000 * n for n in range(5)]
    first = body["lines"][0]
    assert (len(first["min"]), len(first["max"])) == (300, 300)
    assert max(first["max"]) == pytest.approx(1100, abs=10)
    gap = body["lines"][1]["max"]
    assert gap[:50] == [None] * 50
    assert None not in gap[50:]
    kinds = {event["type"] for event in body["events"]}
    assert kinds == {"beat", "rhythm"}
    assert sum(event["type"] == "beat" for event in body["events"]) == 30
    assert {"ms": T0 + 120_000, "type": "rhythm", "code": "AFIB"} in body["events"]


def test_strip(site: Site):
    """Samples, gap, beats with verdict and map, and the rhythm in force."""
    body = ask(site, "strip", **{"from": T0 + 55_000, "to": T0 + 75_000}).json()
    assert (body["fs"], body["leads"], body["from_ms"]) == (RATE, ["MLII", "V1"], T0 + 55_000)
    assert body["gaps"] == [[T0 + 60_000, T0 + 70_000]]
    assert [len(column) for column in body["mv"]] == [5000, 5000]
    assert body["mv"][0][1250:3750] == [None] * 2500
    assert body["mv"][1][:1250] == pytest.approx((wave(60)[250 * 55 :, 1] / GAIN).tolist(), abs=1e-4)
    beat = body["beats"][4]
    assert (beat["ms"], beat["code"], beat["rr_ms"], beat["second"]) == (T0 + 59_400, "V", 1000, "N")
    assert beat["map"]
    assert body["rhythms"] == [{"ms": T0 + 4, "code": "N"}]
    one = ask(site, "strip", lead="V1", **{"to": T0 + 1000}).json()
    assert (one["leads"], len(one["mv"])) == (["V1"], 1)


def test_trend_route(site: Site):
    """One value a step, null where nothing is known."""
    body = ask(site, "trends", **{"to": T0 + 600_000}, step=60_000).json()
    assert body["ms"] == [T0 + 60_000 * n for n in range(10)]
    assert body["hr"][:3] == [60.0] * 3
    assert body["pvc"][:3] == [6.0] * 3
    assert body["quality"][1] == 1.0
    assert body["hr"][-1] is None


def test_recorded_says_from_when_to_when(site: Site):
    """A page learns where to begin."""
    body = ask(site, "recorded").json()
    assert body["leads"] == ["MLII", "V1"]
    assert body["from_ms"] == T0
    nobody = site.client.get("/api/patients/nobody/recorded", headers=site.enter("viewer")).json()
    assert nobody == {"from_ms": None, "to_ms": None, "leads": []}


@pytest.mark.parametrize("wanted", ["wfdb", "edf", "csv", "png"])
def test_downloads(site: Site, wanted: str, tmp_path: Path):
    """Each format is a download that its reader opens; it is in the audit trail, and a viewer may not have it."""
    assert ask(site, "export", format=wanted).status_code == 403
    before = [row.act for row in site.audit.rows()].count("recording.export")
    answer = ask(site, "export", "monitor", format=wanted, **{"to": T0 + 100_000})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="bed-1_{T0}.')
    if wanted == "wfdb":
        record = wfdb.rdrecord(unpacked(answer.content, tmp_path), physical=False)
        assert np.array_equal(record.d_signal[:15_000], wave(60))
    elif wanted == "edf":
        assert np.array_equal(edfio.read_edf(answer.content).signals[0].digital[:15_000], wave(60)[:, 0])
    elif wanted == "csv":
        assert len(answer.content.splitlines()) == 25_001
    else:
        assert Image.open(io.BytesIO(answer.content)).format == "PNG"
    assert [row.act for row in site.audit.rows()].count("recording.export") == before + 1


def test_refusals_are_sentences(site: Site):
    """What can't be asked is refused with one line that says what to do."""
    cases = [
        (ask(site, "strip", **{"to": T0}), 422, "ends before it begins"),
        (ask(site, "strip", **{"to": T0 + 3_600_000}), 422, "10 min are the most"),
        (ask(site, "disclosure", **{"to": T0 + 90_000_000}), 422, "24 h are the most"),
        (ask(site, "export", "monitor", format="wfdb", **{"from": 0, "to": 1000}), 404, "Nothing was recorded"),
        (ask(site, "export", "monitor", format="doc"), 422, "format"),
    ]
    for answer, status, words in cases:
        assert answer.status_code == status, answer.text
        assert words in answer.json()["detail"]
    nobody = site.client.get("/api/patients/x/strip", params={"from": 1, "to": 2000}, headers=site.enter("viewer"))
    assert nobody.json()["mv"] == []


def test_a_day_is_disclosed_within_a_second(tmp_path: Path):
    """24 h of two leads at 250 Hz are outlined in no more than a second of processor time (the best of three)."""
    url = f"sqlite:///{tmp_path / 'day.db'}"
    hour = np.tile(wave(60), (60, 1)).astype("<i2")
    with Index(url) as index:
        index.upgrade()
        from alerts.archive_files import Segment, segment_length, segment_path

        length = segment_length(RATE)
        for number in range(24):
            begin = T0 + number * 3_600_000
            path = segment_path("bed-1", 1, number, 16)
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{path}.dat").write_bytes(hour.tobytes())
            segment = Segment(
                path, "bed-1", "bed-1", 1, number * length, length, begin, begin + 3_600_000, RATE, GAIN,
                ("MLII", "V1"), 16, ((number * length, float(begin)),),
            )  # fmt: skip
            index.commit([segment], [], [])
    times = []
    with Archive(url, tmp_path) as archive:
        for _ in range(3):
            began = time.process_time()
            drawn = outline(archive, "bed-1", T0, T0 + 86_400_000, 600)
            times.append(time.process_time() - began)
    assert drawn.low.shape == (1440, 600)
    assert np.array_equal(drawn.high[0], drawn.high[1439])
    assert min(times) <= 1.0
