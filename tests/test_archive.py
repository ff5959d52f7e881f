"""Recordings: what the recorder writes reads back sample by sample, late or not, with its beats and minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_desk import GAIN, T0, Desk, beat, desk, entry, frames, read_all, samples

from alerts.archive import Archive
from alerts.archive_files import MISSING, mit_annotations
from alerts.archive_index import Index, MinuteSums
from bus.messages import BeatEvent, Entry, Event, Inbound, RhythmEvent, StatusEvent, pack, pack_inbound
from bus.streams import Record
from ingest.codecs import encode_frame
from rhythmwatch.record import Recording

__all__ = ["desk"]


def test_what_was_sent_reads_back(desk: Desk) -> None:
    """Two leads over the border of an hour come back sample by sample, with rate, gain, leads and times."""
    units = samples(250 * 3700)
    desk.put([entry(frame) for frame in frames(units)])
    desk.recording.flush()
    strip = desk.archive.read("bed-1", T0, T0 + 3_700_000)
    assert (strip.fs, strip.leads, strip.gain, strip.from_ms) == (250.0, ("MLII", "V1"), GAIN, T0)
    assert np.array_equal(strip.units, units)
    assert strip.gaps == []
    assert len(desk.archive.segments("bed-1")) == 2
    late = desk.archive.read("bed-1", T0 + 3_599_000, T0 + 3_601_000, "V1")
    assert np.array_equal(late.units[:, 0], units[250 * 3599 : 250 * 3601, 1])
    assert np.allclose(late.mv[:, 0], units[250 * 3599 : 250 * 3601, 1] / GAIN)


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_a_strip_within_a_recording_has_no_gap(desk: Desk, shift: int) -> None:
    """Wherever a strip is cut, it is whole from its first row to its last, and no sample is a row off its time."""
    units = samples(250 * 40)
    sent = [entry(frame) for frame in frames(units)]
    desk.put([Inbound(item.kind, item.server_ms + shift, item.patient, item.payload) for item in sent])
    desk.recording.flush()
    rng = np.random.default_rng(shift)
    for begin, length in rng.integers((100, 20), 19_000, (40, 2)).tolist():
        strip = desk.archive.read("bed-1", T0 + begin, T0 + begin + length)
        assert len(strip.units) == round(length / 4)
        first = -(-(begin - shift) // 4)
        assert np.array_equal(strip.units[:-1], units[first : first + len(strip.units) - 1])


def test_segments_are_wfdb_records(desk: Desk) -> None:
    """A complete segment opens in wfdb with the same samples and beats; one that grows opens too."""
    units = samples(5000)
    desk.put([entry(frame) for frame in frames(units)])
    desk.put([beat(300), beat(2000, "V", mapped=True), beat(4100, "/")])
    desk.recording.flush()
    path = str(desk.root / desk.archive.segments("bed-1")[0].path)
    growing = wfdb.rdrecord(path, physical=False)
    assert np.array_equal(growing.d_signal, units)
    desk.recording.close()
    whole = wfdb.rdrecord(path, physical=False)
    assert np.array_equal(whole.d_signal, units)
    assert whole.sig_name == ["MLII", "V1"]
    assert whole.adc_gain == [GAIN, GAIN]
    assert (whole.base_datetime.timestamp() - (T0 / 1000)) % 3600 == pytest.approx(0, abs=0.01)
    notes = wfdb.rdann(path, "atr")
    assert notes.sample.tolist() == [300, 2000, 4100]
    assert notes.symbol == ["N", "V", "/"]


def test_a_gap_stays_a_gap(desk: Desk) -> None:
    """Frames that never came are missing samples, and the time behind them is right."""
    units = samples(2500)
    sent = [entry(frame) for frame in frames(units)]
    desk.put([*sent[:3], *sent[6:]])
    desk.recording.flush()
    strip = desk.archive.read("bed-1", T0, T0 + 10_000)
    assert strip.gaps == [(T0 + 3_000, T0 + 6_000)]
    assert np.isnan(strip.mv[750:1500]).all()
    assert np.array_equal(strip.units[1500:], units[1500:])
    assert (strip.units[750:1500] == MISSING).all()


def test_stored_frames_fill_the_gap(desk: Desk) -> None:
    """Data that the device had kept goes where it belongs, before or after later frames are on disk."""
    units = samples(2500)
    sent = frames(units)
    live = [entry(frame) for frame in (*sent[:3], *sent[6:])]
    kept = [entry(frame, Entry.BACKFILL, 60_000) for frame in sent[3:6]]
    desk.put([*live[:3], kept[0], *live[3:]])
    desk.recording.flush()
    desk.put(kept[1:])
    desk.recording.flush()
    assert np.array_equal(read_all(desk, 10), units)
    assert desk.recording.counters.late == 3


def test_backfill_of_an_epoch_that_has_ended(desk: Desk) -> None:
    """A device that ran unseen before it was restarted gets its time from its own clock against ours."""
    old, new = samples(1000, seed=2), samples(1000, seed=3)
    shift = 3_600_000
    before = [replace(frame, device_ms=frame.device_ms - shift) for frame in frames(old, epoch=1)]
    now = frames(new, epoch=2)
    desk.put([entry(frame) for frame in now])
    desk.put([entry(frame, Entry.BACKFILL, 10_000) for frame in before])
    desk.recording.flush()
    assert np.array_equal(desk.archive.read("bed-1", T0 - shift, T0 - shift + 4_000).units, old)
    assert np.array_equal(read_all(desk, 4), new)


def test_what_came_first_stays(desk: Desk) -> None:
    """A frame that repeats an index with other samples changes nothing."""
    units = samples(1000)
    desk.put([entry(frame) for frame in frames(units)])
    desk.recording.flush()
    desk.put([entry(frame) for frame in frames(samples(1000, seed=9))])
    desk.recording.flush()
    assert np.array_equal(read_all(desk, 4), units)


def test_a_lone_frame_from_the_future_is_not_believed(desk: Desk) -> None:
    """A far index with nothing behind it is counted and moves neither data nor clock."""
    units = samples(1500)
    sent = [entry(frame) for frame in frames(units)]
    odd = Inbound(Entry.FRAME, sent[2].server_ms, "bed-1", encode_frame(replace(frames(units)[0], sample=10**9)))
    desk.put([*sent[:3], odd, *sent[3:]])
    desk.recording.flush()
    assert np.array_equal(read_all(desk, 6), units)
    assert desk.recording.counters.refused == {"jump": 1}
    assert len(desk.archive.segments("bed-1")) == 1


def test_samples_of_32_bits(desk: Desk) -> None:
    """Samples beyond 16 bits are kept beside the others, bit by bit."""
    units = samples(1000).astype(np.int32)
    units[300, 1] = 1_000_000
    units[700:] = np.iinfo(np.int32).min
    desk.put([entry(frame) for frame in frames(units)])
    desk.recording.flush()
    wanted = units.copy()
    assert np.array_equal(read_all(desk, 4), wanted)
    assert {segment.bits for segment in desk.archive.segments("bed-1")} == {16, 32}


def test_another_format_within_an_epoch_is_counted(desk: Desk) -> None:
    """As in the pipeline, frames whose gain changed are left out, and counted."""
    sent = frames(samples(750))
    desk.put([entry(sent[0]), entry(replace(sent[1], gain=100.0)), entry(sent[2])])
    desk.recording.flush()
    assert desk.recording.counters.refused == {"changed": 1}
    assert desk.archive.read("bed-1", T0, T0 + 3_000).gaps == [(T0 + 1_000, T0 + 2_000)]


def test_a_device_that_slept_is_put_at_the_time_of_the_wall(desk: Desk) -> None:
    """An index that stood still for ten minutes goes on ten minutes later, and the sleep is a gap."""
    units = samples(2000)
    sent = frames(units)
    desk.put([entry(frame) for frame in sent[:4]])
    desk.put([entry(frame, delay=600_000) for frame in sent[4:]])
    desk.recording.flush()
    strip = desk.archive.read("bed-1", T0, T0 + 608_000)
    assert np.array_equal(strip.units[:1000], units[:1000])
    assert np.array_equal(strip.units[-1000:], units[1000:])
    assert strip.gaps == [(T0 + 4_000, T0 + 604_000)]


def test_beats_keep_their_verdict(desk: Desk) -> None:
    """Class, probabilities, RR and map of a beat come back, on the clock of the strip."""
    desk.put([entry(frame) for frame in frames(samples(2500))])
    desk.put([beat(250), beat(450, "V", 500, mapped=True)])
    desk.recording.flush()
    found = desk.archive.beats("bed-1", T0 + 500, T0 + 10_000)
    assert found["ms"].tolist() == [T0 + 1000, T0 + 1800]
    assert found["code"].tolist() == [b"N", b"V"]
    assert found["rr_ms"].tolist() == [800, 500]
    assert found["map"][1].tobytes() == bytes(range(19))
    assert found["mapped"].tolist() == [0, 1]
    assert found["p"] == pytest.approx([0.9, 0.9])


def test_minutes(desk: Desk) -> None:
    """Rates, ectopic beats, time in fibrillation and quality of a minute, exact over restarts."""
    desk.put([entry(frame) for frame in frames(samples(250 * 10))])
    events: list[Event] = [StatusEvent("bed-1", "bed-1", T0, "MLII", ("MLII", "V1"), "good")]
    for second in range(1, 180):
        if second == 70:
            events.append(RhythmEvent("bed-1", "bed-1", 1, second * 250, T0 + second * 1000, "AFIB", 0.9))
        if second == 100:
            events.append(RhythmEvent("bed-1", "bed-1", 1, second * 250, T0 + second * 1000, "N", 0.9))
        code = "V" if second in (80, 90) else "A" if second == 85 else "N"
        fast = 60 <= second < 120
        beat_ms = T0 + second * 1000
        events.append(BeatEvent("bed-1", "bed-1", 1, second * 10, beat_ms, code, 0.9, "V", 0.0, 500 if fast else 1000))
    for begin in range(0, len(events), 23):
        desk.put(events[begin : begin + 23])
        desk.recording.flush()
        desk.start()
    trend = desk.archive.minutes("bed-1", T0, T0 + 120_000)
    assert trend.ms.tolist() == [T0, T0 + 60_000]
    assert trend.beats.tolist() == [59, 60]
    assert trend.hr.tolist() == [60.0, 120.0]
    assert trend.hr_min.tolist() == [60.0, 68.6]
    assert trend.hr_max.tolist() == [60.0, 120.0]
    assert (trend.pvc.tolist(), trend.sveb.tolist()) == ([0, 2], [0, 1])
    assert trend.af.tolist() == [0.0, 0.5]
    assert trend.quality.tolist() == [1.0, 1.0]


@given(
    st.lists(st.tuples(st.integers(0, 5_000_000), st.sampled_from("NVALRF/Q")), max_size=40, unique_by=lambda x: x[0])
)
@settings(max_examples=30, deadline=None)
def test_annotations_read_back(marks: list[tuple[int, str]]) -> None:
    """What is laid out as MIT annotations, wfdb reads."""
    import tempfile

    marks = sorted(marks)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.atr").write_bytes(mit_annotations([(sample, code, "") for sample, code in marks]))
        if not marks:
            return
        found = wfdb.rdann(f"{folder}/x", "atr")
        assert list(zip(found.sample.tolist(), found.symbol, strict=True)) == marks


@pytest.mark.postgres
def test_the_index_in_postgresql(postgres: str, tmp_path: Path) -> None:
    """Segments, sums of minutes and places work on PostgreSQL as on SQLite, written in parts."""
    with Index(postgres) as index, Archive(postgres, tmp_path) as archive:
        index.upgrade()
        recording = Recording(tmp_path, index, [0])
        units = samples(2500)
        for number, frame in enumerate(frames(units, "pg-1")):
            late = StatusEvent("pg-1", "pg-1", T0 + number * 20_000, "MLII", ("MLII",), "good")
            recording.take_entries(0, [Record(f"{number + 1}-0", pack_inbound(entry(frame)))])
            recording.take_events(0, [Record(f"{number + 1}-0", pack(late))])
            recording.flush()
            recording.close()
            recording = Recording(tmp_path, index, [0])
        assert np.array_equal(archive.read("pg-1", T0, T0 + 10_000).units, units)
        assert archive.minutes("pg-1", T0, T0 + 60_000).quality.tolist() == [1.0]
        one, two = MinuteSums(beats=3, hr_min=50.0, hr_max=60.0), MinuteSums(beats=4, hr_min=40.0, hr_max=None)
        index.commit([], [("pg-2", T0, one)], [])
        index.commit([], [("pg-2", T0, two)], [])
        trend = archive.minutes("pg-2", T0, T0 + 1)
        assert (trend.beats[0], trend.hr_min[0], trend.hr_max[0]) == (7, 40.0, 60.0)
        assert index.places([0])[0].entries == "10-0"
        assert archive.erase("pg-1") == 1
        assert archive.minutes("pg-1", 0, 2**62).ms.size == 0
