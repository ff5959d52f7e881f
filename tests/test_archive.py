"""Recordings: what the recorder writes reads back sample by sample, whatever died, came late or filled up meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stories
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from alerts.archive import Archive
from alerts.archive_files import MISSING, mit_annotations
from alerts.archive_index import Index, MinuteSums
from bus.messages import BeatEvent, Entry, Event, Inbound, RhythmEvent, StatusEvent, pack, pack_inbound
from bus.server import embedded
from bus.streams import START, Bus, Record, milliseconds, order
from ingest.codecs import encode_frame
from ingest.frame import Frame
from rhythmwatch import record_files
from rhythmwatch.record import Recording
from rhythmwatch.recorder import Recorder
from rhythmwatch.worker import HELD_MS, Worker

T0 = 1_760_000_040_000
"""Begin of a minute."""
GAIN = 200.0
DEADLINE_S = 60.0


class Desk:
    """A recorder's core over files and a database of its own, and a reader beside it."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'history.db'}"
        self.root = folder / "recordings"
        self.index = Index(self.url)
        self.index.upgrade()
        self.archive = Archive(self.url, self.root)
        self.number = 0
        self.start()

    def start(self) -> None:
        """Begin as a new process would."""
        self.recording = Recording(self.root, self.index, [0])

    def put(self, entries: Sequence[Inbound | Event]) -> None:
        """Let entries and events come, in this order."""
        for item in entries:
            self.number += 1
            if isinstance(item, Inbound):
                self.recording.take_entries(0, [Record(f"{self.number}-0", pack_inbound(item))])
            else:
                self.recording.take_events(0, [Record(f"{self.number}-0", pack(item))])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def samples(count: int, leads: int = 2, seed: int = 1) -> np.ndarray:
    """Draw samples of which none is missing."""
    return np.random.default_rng(seed).integers(-3000, 3000, (count, leads)).astype(np.int16)


def frames(
    units: np.ndarray, device: str = "bed-1", epoch: int = 1, first: int = 0, rate: float = 250.0, gain: float = GAIN
) -> list[Frame]:
    """Cut samples into frames of a second."""
    step = round(rate)
    names = ("MLII", "V1", "V5")[: units.shape[1]]
    return [
        Frame(device, epoch, at // step, first + at, T0 + round((first + at) * 1000 / rate), rate, names, gain, part)
        for at in range(0, len(units), step)
        for part in (units[at : at + step],)
    ]


def entry(frame: Frame, kind: Entry = Entry.FRAME, delay: int = 0) -> Inbound:
    """Make the entry of a frame that arrives as its last sample is taken, or later."""
    end = T0 + round((frame.sample + len(frame.samples)) * 1000 / frame.rate)
    return Inbound(kind, end + delay, frame.device, encode_frame(frame))


def beat(sample: int, code: str = "N", rr_ms: int = 800, epoch: int = 1, mapped: bool = False) -> BeatEvent:
    """Make a beat at 250 Hz."""
    mark = bytes(range(19)) if mapped else b""
    return BeatEvent("bed-1", "bed-1", epoch, sample, T0 + sample * 4, code, 0.9, "V", 0.05, rr_ms, mark)


def read_all(desk: Desk, seconds: float) -> np.ndarray:
    """Read what was recorded since the begin."""
    return desk.archive.read("bed-1", T0, T0 + round(seconds * 1000)).units


def test_what_was_sent_reads_back(desk: Desk):
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
def test_a_strip_within_a_recording_has_no_gap(desk: Desk, shift: int):
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


def test_segments_are_wfdb_records(desk: Desk):
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


def test_a_gap_stays_a_gap(desk: Desk):
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


def test_stored_frames_fill_the_gap(desk: Desk):
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


def test_backfill_of_an_epoch_that_has_ended(desk: Desk):
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


def test_what_came_first_stays(desk: Desk):
    """A frame that repeats an index with other samples changes nothing."""
    units = samples(1000)
    desk.put([entry(frame) for frame in frames(units)])
    desk.recording.flush()
    desk.put([entry(frame) for frame in frames(samples(1000, seed=9))])
    desk.recording.flush()
    assert np.array_equal(read_all(desk, 4), units)


def test_a_lone_frame_from_the_future_is_not_believed(desk: Desk):
    """A far index with nothing behind it is counted and moves neither data nor clock."""
    units = samples(1500)
    sent = [entry(frame) for frame in frames(units)]
    odd = Inbound(Entry.FRAME, sent[2].server_ms, "bed-1", encode_frame(replace(frames(units)[0], sample=10**9)))
    desk.put([*sent[:3], odd, *sent[3:]])
    desk.recording.flush()
    assert np.array_equal(read_all(desk, 6), units)
    assert desk.recording.counters.refused == {"jump": 1}
    assert len(desk.archive.segments("bed-1")) == 1


def test_samples_of_32_bits(desk: Desk):
    """Samples beyond 16 bits are kept beside the others, bit by bit."""
    units = samples(1000).astype(np.int32)
    units[300, 1] = 1_000_000
    units[700:] = np.iinfo(np.int32).min
    desk.put([entry(frame) for frame in frames(units)])
    desk.recording.flush()
    wanted = units.copy()
    assert np.array_equal(read_all(desk, 4), wanted)
    assert {segment.bits for segment in desk.archive.segments("bed-1")} == {16, 32}


def test_another_format_within_an_epoch_is_counted(desk: Desk):
    """As in the pipeline, frames whose gain changed are left out, and counted."""
    sent = frames(samples(750))
    desk.put([entry(sent[0]), entry(replace(sent[1], gain=100.0)), entry(sent[2])])
    desk.recording.flush()
    assert desk.recording.counters.refused == {"changed": 1}
    assert desk.archive.read("bed-1", T0, T0 + 3_000).gaps == [(T0 + 1_000, T0 + 2_000)]


def test_a_device_that_slept_is_put_at_the_time_of_the_wall(desk: Desk):
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


def test_beats_keep_their_verdict(desk: Desk):
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


def test_minutes(desk: Desk):
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


def test_a_kill_at_any_moment_loses_and_doubles_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """The process dies at each of its writes in turn; the next one goes on to the same recording."""
    units = samples(2500)
    items: list[Inbound | Event] = []
    for number, frame in enumerate(frames(units)):
        items += [entry(frame), beat(number * 250 + 100)]
    real, after = os.pwrite, 0

    def dies(file: int, data: Any, at: int) -> int:
        nonlocal after
        after -= 1
        if after < 0:
            real(file, memoryview(data)[: len(data) // 2], at)
            raise KeyboardInterrupt
        return real(file, data, at)

    monkeypatch.setattr(record_files.os, "pwrite", dies)
    done = 0
    for moment in (0, 1, 2, 0, 1, 2, 3):
        desk.start()
        after = moment
        try:
            desk.put(items[done : done + 6])
            desk.recording.flush()
        except KeyboardInterrupt:
            continue
        done += 6
    after = 1_000_000
    desk.start()
    desk.put(items[done:])
    desk.recording.flush()
    assert np.array_equal(read_all(desk, 10), units)
    assert desk.archive.beats("bed-1", T0, T0 + 10_000)["sample"].tolist() == [n * 250 + 100 for n in range(10)]


def test_a_full_disk_is_waited_out(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """Nothing counts as read while the disk is full; with space again all of it is there, once."""
    units = samples(1000)
    desk.put([entry(frame) for frame in frames(units)])
    desk.put([beat(300)])
    real = os.pwrite

    def full(file: int, data: Any, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record_files.os, "pwrite", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            desk.recording.flush()
    assert desk.index.places() == {}
    monkeypatch.setattr(record_files.os, "pwrite", real)
    desk.recording.flush()
    assert desk.index.places()[0].entries == "4-0"
    assert np.array_equal(read_all(desk, 4), units)
    assert desk.archive.beats("bed-1", T0, T0 + 4_000)["sample"].tolist() == [300]


def test_what_nobody_agreed_to_is_not_kept(desk: Desk):
    """Samples, beats and minutes from before an admission and after a withdrawal are left out, and counted."""
    desk.recording = Recording(
        desk.root, desk.index, [0], may_keep=lambda patient, ms: T0 + 3_000 <= ms < T0 + 6_000 and patient == "bed-1"
    )
    units = samples(2500)
    desk.put([entry(frame) for frame in frames(units)])
    desk.put([beat(number * 250 + 100) for number in range(10)])
    desk.put([StatusEvent("bed-1", "bed-1", T0 + 600_000, "MLII", ("MLII",), "no_data")])
    desk.recording.flush()
    strip = desk.archive.read("bed-1", T0, T0 + 10_000)
    assert strip.gaps == [(T0, T0 + 3_000), (T0 + 6_000, T0 + 10_000)]
    assert np.array_equal(strip.units[750:1500], units[750:1500])
    assert desk.archive.beats("bed-1", T0, T0 + 10_000)["sample"].tolist() == [850, 1100, 1350]
    assert desk.recording.counters.refused == {"not agreed": 14}
    assert desk.archive.minutes("bed-1", T0, T0 + 600_000).ms.size == 0


def test_retention_deletes_what_is_old(desk: Desk):
    """Segments and minutes from before the limit go with their files, and nothing else does."""
    units = samples(250 * 7300, leads=1)
    desk.put([entry(frame) for frame in frames(units)])
    desk.recording.flush()
    before = T0 + 2 * 3_600_000 - 1
    desk.recording.leave(before)
    assert desk.archive.expire(before) == 1
    assert sorted(path.name for path in desk.root.rglob("*.dat")) == ["000001.dat", "000002.dat"]
    assert np.array_equal(desk.archive.read("bed-1", T0 + 3_600_000, T0 + 7_300_000).units, units[250 * 3600 :])
    assert desk.archive.read("bed-1", T0, T0 + 3_600_000).units.size == 0


def test_erasure_takes_a_stretch(desk: Desk):
    """Samples, beats and trends of a stretch are gone from disk, what is around it stays, and recording goes on."""
    units = samples(2500)
    sent = [entry(frame) for frame in frames(units)]
    desk.put(sent[:8])
    desk.put([beat(number * 250 + 100) for number in range(8)])
    desk.recording.flush()
    assert desk.archive.erase("bed-1", T0 + 2_000, T0 + 5_000) == 1
    desk.put(sent[8:])
    desk.put([beat(2100)])
    desk.recording.flush()
    strip = desk.archive.read("bed-1", T0, T0 + 10_000)
    assert strip.gaps == [(T0 + 2_000, T0 + 5_000)]
    assert np.array_equal(strip.units[1250:], units[1250:])
    wanted = [number * 250 + 100 for number in (0, 1, 5, 6, 7, 8)]
    assert desk.archive.beats("bed-1", T0, T0 + 10_000)["sample"].tolist() == wanted
    assert units[600:700].tobytes() not in next(desk.root.rglob("*.dat")).read_bytes()


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_order_and_any_restart_gives_the_same_recording(data: st.DataObject):
    """Frames of a second in any order, some twice, some lost, with restarts between: each index holds what was sent."""
    count = data.draw(st.integers(2, 12))
    units = samples(count * 250)
    sent = frames(units)
    lost = data.draw(st.sets(st.integers(1, count - 1), max_size=3))
    there = [number for number in range(count) if number not in lost]
    order = [there[0], *data.draw(st.permutations(there[1:] + data.draw(st.lists(st.sampled_from(there), max_size=3))))]
    with private_desk() as desk:
        for number in order:
            kind = data.draw(st.sampled_from([Entry.FRAME, Entry.BACKFILL])) if number else Entry.FRAME
            desk.put([entry(sent[number], kind)])
            todo = data.draw(st.sampled_from(["nothing", "flush", "restart"]))
            if todo != "nothing":
                desk.recording.flush()
            if todo == "restart":
                desk.start()
        desk.recording.flush()
        (segment,) = desk.archive.segments("bed-1")
        raw = np.fromfile(desk.root / f"{segment.path}.dat", "<i2").reshape(-1, 2)
        for number in there:
            assert np.array_equal(raw[number * 250 : number * 250 + 250], sent[number].samples)
        for number in lost:
            assert (raw[number * 250 : number * 250 + 250] == -32768).all()


@contextmanager
def private_desk() -> Iterator[Desk]:
    """Make a desk for one example."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="rw-archive-"))
    try:
        yield Desk(folder)
    finally:
        shutil.rmtree(folder)


@given(
    st.lists(st.tuples(st.integers(0, 5_000_000), st.sampled_from("NVALRF/Q")), max_size=40, unique_by=lambda x: x[0])
)
@settings(max_examples=30, deadline=None)
def test_annotations_read_back(marks: list[tuple[int, str]]):
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
def test_the_index_in_postgresql(postgres: str, tmp_path: Path):
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
        assert index.places()[0].entries == "10-0"
        assert archive.erase("pg-1") == 1
        assert archive.minutes("pg-1", 0, 2**62).ms.size == 0


# --- the process -------------------------------------------------------------------------------------------------


async def until(condition: Any) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def bus(tmp_path: Path) -> Any:
    """Connect to a fresh embedded server."""
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=1) as opened:
        yield opened


def run_recorder(bus: Bus, desk: Desk, stop: asyncio.Event) -> tuple[Recorder, asyncio.Task[None]]:
    """Start a recorder that hurries."""
    recorder = Recorder(
        bus,
        desk.index,
        desk.root,
        [0],
        stop,
        may_keep=lambda patient, ms: True,
        poll_s=0.02,
        write_s=0.05,
        flush_s=0.1,
        wait_s=0.02,
    )
    return recorder, asyncio.create_task(recorder.run())


async def test_the_process_records_what_is_on_the_bus(bus: Bus, desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """Entries and events land on disk; while disk or database refuse, the bus is held, and nothing is lost."""
    units = samples(2500)
    sent = [(0, pack_inbound(entry(frame))) for frame in frames(units)]
    stop = asyncio.Event()
    recorder, task = run_recorder(bus, desk, stop)
    await bus.append_in(sent[:4])
    await until(lambda: desk.archive.read("bed-1", T0, T0 + 10_000).units.size)
    real = desk.index.commit

    def refuses(*_: Any) -> None:
        raise OperationalError("insert", None, Exception("database is full"))

    monkeypatch.setattr(desk.index, "commit", refuses)
    positions = await bus.append_in(sent[4:])
    epoch = await bus.claim(0)
    await bus.commit(0, epoch, [pack(beat(300)), pack(beat(2000))], [], None, positions[-1])
    await until(lambda: recorder.counters.failures > 1)
    held = await bus.held(0)
    assert held["in"] < positions[0]
    monkeypatch.setattr(desk.index, "commit", real)
    await bus.append_in([(0, pack_inbound(Inbound(Entry.TICK, T0, "", b"")))])
    async with asyncio.timeout(DEADLINE_S):
        while (await bus.held(0))["in"] <= positions[-1] or desk.archive.beats("bed-1", T0, T0 + 10_000).size < 2:
            await asyncio.sleep(0.02)
    stop.set()
    await task
    assert np.array_equal(read_all(desk, 10), units)


async def test_a_loss_on_the_bus_is_counted(bus: Bus, desk: Desk):
    """What was dropped before it was recorded is said, not passed over."""
    await bus.append_in([(0, pack_inbound(entry(frame))) for frame in frames(samples(1000))])
    stop = asyncio.Event()
    _, task = run_recorder(bus, desk, stop)
    await until(lambda: desk.index.places())
    stop.set()
    await task
    positions = await bus.append_in([(0, pack_inbound(entry(frame))) for frame in frames(samples(500), first=1000)])
    await bus.give_up(0, "in", positions[0])
    recorder, task = run_recorder(bus, desk, stop := asyncio.Event())
    await until(lambda: recorder.counters.lost == 1)
    stop.set()
    await task


async def test_the_worker_waits_for_the_recorder(bus: Bus):
    """Entries that are held are not trimmed; after four hours they are, and the reader learns it."""
    worker = Worker(bus, stories.models(), [0], 1)
    await bus.append_in([(0, b"x")] * 3000)
    first = (await bus.read({0: START}, count=1))[0][1][0].position
    newest = (await bus.last([0], "in"))[0]
    assert await bus.hold("recorder", {0: {"in": first}}) == []
    await worker._trim(0, newest)
    assert len((await bus.read({0: START}, count=5000))[0][1]) == 3000
    later = f"{milliseconds(newest) + HELD_MS + 1}-0"
    await bus.hold("recorder", {0: {"events": START}})
    await worker._trim(0, later)
    assert await bus.hold("recorder", {0: {"events": START}}) == [], "nothing was dropped from a stream that is empty"
    assert await bus.hold("recorder", {0: {"in": first}}) == [(0, "in", f"{milliseconds(newest) + 1}-0")]
    await bus.hold("recorder", {0: {"in": newest}})
    await worker._trim(0, newest)
    assert len((await bus.read({0: START}, count=5000) or [(0, [])])[0][1]) < 3000


def stored(desk: Desk) -> tuple[int, int]:
    """How far the entries are stored for good."""
    place = desk.index.places().get(0)
    return order(place.entries if place else START)


@pytest.mark.timeout(300)
async def test_kill_9_of_the_process(tmp_path: Path, desk: Desk):
    """The real process, killed twice without warning, leaves a whole recording behind."""
    units = samples(250 * 40)
    sent = [(0, pack_inbound(entry(frame))) for frame in frames(units)]
    async with embedded(tmp_path / "bus") as url, Bus(url, partitions=1) as bus:
        command = [
            *(sys.executable, "-m", "rhythmwatch", "recorder", "--bus", url, "--history", desk.url),
            *("--recordings", str(desk.root), "--partitions", "0", "--everything"),
        ]
        for begin, end in ((0, 15), (15, 30), (30, 40)):
            # All at once, before the process is there to read: it moves its place once for them.
            positions = await bus.append_in(sent[begin:end])
            process = await asyncio.create_subprocess_exec(*command)
            try:
                if end == 40:
                    await until(lambda: desk.archive.read("bed-1", T0, T0 + 40_000).gaps == [])
                else:
                    await until(lambda last=positions[-1]: stored(desk) >= order(last))
            finally:
                process.send_signal(signal.SIGKILL)
                await process.wait()
    assert np.array_equal(read_all(desk, 40), units)
