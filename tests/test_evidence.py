"""Evidence of alarms: cut from the recording once it is there, with beats, spectrogram, probabilities and heat map."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import stories
from sqlalchemy import Engine

from alerts.archive import Archive
from alerts.archive_index import Index
from alerts.database import open_engine
from alerts.evidence import EvidenceStore, stretch_of
from alerts.store import Store
from bus.messages import AlarmEvent, StatusEvent, pack, pack_inbound, partition_of
from bus.server import embedded
from bus.streams import Record
from dsp.spectrogram import BINS
from rhythmwatch.evidencing import PATIENCE_MS, SETTLE_MS, STOP_S, Counters, cut, cut_due
from rhythmwatch.models import Models
from rhythmwatch.record import Recording
from rhythmwatch.supervisor import GRACE_S

T0 = 1_760_000_040_000
SECONDS = 80
STORY = "sinus:36,hr=75; vt:9,hr=180; sinus:12,hr=80; vf:8; sinus:30,hr=80"


class Ward:
    """What recorder and historian leave behind of one patient's story."""

    def __init__(self, folder: Path) -> None:
        self.url, self.folder = f"sqlite:///{folder / 'history.db'}", folder / "recordings"
        self.engine: Engine = open_engine(self.url)
        self.evidence, self.archive = EvidenceStore(self.engine), Archive(self.url, self.folder)
        self.archive.upgrade()
        self.store = Store(self.url)
        frames = stories.frames(stories.recording(STORY, SECONDS, 3, 360.0), "a")
        self.entries = [stories.frame_entry(f, T0 + (f.sample + len(f.samples)) * 1000 // 360) for f in frames]
        self.events = [event for _, event in stories.run(self.entries, (5,)).events]
        self.recording = Recording(self.folder, Index(self.url), [0])

    def keep(self, seconds: int) -> list[AlarmEvent]:
        """Record so many seconds and write the alarms of that time; those that were raised."""
        now = T0 + seconds * 1000
        taken = [e for e in self.entries if e.server_ms <= now]
        self.entries = [e for e in self.entries if e.server_ms > now]
        self.recording.take_entries(0, [self._record(n, pack_inbound(e)) for n, e in enumerate(taken)])
        alarms = [e for e in self.events if isinstance(e, AlarmEvent) and e.changed_ms <= now]
        events = [e for e in self.events if not isinstance(e, AlarmEvent) and getattr(e, "ms", 0) <= now]
        self.recording.take_events(0, [self._record(n, pack(e)) for n, e in enumerate(events)])
        self.recording.flush()
        told = [*alarms, *(e for e in events if isinstance(e, StatusEvent))]
        self.store.write(0, [(f"{now}-{n}", e) for n, e in enumerate(told)], f"{now}-99999")
        return [e for e in alarms if e.reason == "raised"]

    def _record(self, number: int, data: bytes) -> Record:
        return Record(f"{T0}-{number}", data)


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    ward = Ward(tmp_path)
    yield ward
    ward.recording.close()
    ward.archive.close()
    ward.store.close()
    ward.engine.dispose()


def test_the_strip_of_a_run_of_beats(ward: Ward):
    """VTACH: 10 s before its onset to 10 s after it was raised, its beats, and what the network held them to be."""
    alarm = next(e for e in ward.keep(SECONDS) if e.kind == "VTACH")
    lead = ward.evidence.lead_at("a", alarm.raised_ms)
    evidence = cut(ward.archive, stories.models(), alarm, lead)
    assert evidence is not None
    assert (evidence.from_ms, evidence.to_ms) == (alarm.onset_ms - 10_000, alarm.raised_ms + 10_000)
    assert evidence.lead == lead == "MLII"
    assert (evidence.fs, evidence.rule, evidence.model) == (360.0, alarm.detail, stories.models().version)
    seconds = (evidence.to_ms - evidence.from_ms) / 1000
    assert len(evidence.samples_mv) == int(seconds * 360)
    assert None not in evidence.samples_mv
    columns = np.frombuffer(base64.b64decode(evidence.columns), np.uint8).reshape(-1, BINS)
    assert len(columns) == pytest.approx(seconds * 1000 / evidence.column_ms, abs=80)
    assert columns.max() > 150
    run = [beat for beat in evidence.beats if alarm.onset_ms - 20 <= beat.ms <= alarm.raised_ms]
    assert [beat.code for beat in run].count("V") >= 5
    assert all(len(base64.b64decode(beat.map)) == 19 for beat in run if beat.code == "V")
    assert max(evidence.probabilities, key=evidence.probabilities.__getitem__) == "V"
    assert evidence.probabilities["V"] > 0.5


def test_the_heat_map_of_a_rhythm(ward: Ward):
    """VFIB: which bands of which half seconds made the verdict, on the clock of the strip."""
    alarm = next(e for e in ward.keep(SECONDS) if e.kind == "VFIB")
    evidence = cut(ward.archive, stories.models(), alarm)
    assert evidence is not None
    assert evidence.map is not None
    assert evidence.map.code in ("VFL", "VT")
    assert (len(evidence.map.cells), evidence.map.to_ms - evidence.map.from_ms) == (4, 5_000)
    assert abs(evidence.map.to_ms - alarm.raised_ms) <= 1_000
    assert max(max(row) for row in evidence.map.cells) == 1.0
    assert evidence.map.method


def settled(store: EvidenceStore, archive: Archive, models: Models, now_ms: int) -> int:
    """Cut what is due; how many alarms that settled."""
    counters = Counters()
    cut_due(store, archive, models, now_ms, counters)
    return counters.alarms


def test_evidence_is_cut_when_it_is_recorded_and_only_once(ward: Ward):
    """Nothing half is kept: the cutter waits for the end of the strip, keeps it, and does not come back to it."""
    models = stories.models()
    alarms = ward.keep(47)
    vtach = next(e for e in alarms if e.kind == "VTACH")
    end = stretch_of(vtach)[1]
    assert end > T0 + 47_000
    assert settled(ward.evidence, ward.archive, models, end + SETTLE_MS) == 0
    ward.keep(SECONDS)
    assert settled(ward.evidence, ward.archive, models, end + SETTLE_MS - 1) == 0
    assert settled(ward.evidence, ward.archive, models, end + SETTLE_MS) >= 1
    kept = ward.evidence.load(vtach.id)
    assert kept == cut(ward.archive, models, vtach, "MLII")
    assert vtach.id not in {e.id for e in ward.evidence.wanted(0, 2**60, 100)}
    # Retention of recordings does not reach it; its own does.
    ward.archive.erase("a")
    assert ward.evidence.load(vtach.id) == kept
    assert ward.evidence.expire(end + SETTLE_MS + 1) >= 1
    assert ward.evidence.load(vtach.id) is None


def test_each_process_cuts_the_evidence_of_its_own_patients(ward: Ward):
    """Of two with half of the partitions one settles the alarms of a patient; alarms of others don't fill its list."""
    models = stories.models()
    clinical = [e for e in ward.keep(SECONDS) if not e.technical]
    now = T0 + 100_000 + PATIENCE_MS
    mine = partition_of("a")
    lower, upper = (range(mine), range(mine, 64))
    counters = Counters()
    cut_due(ward.evidence, ward.archive, models, now, counters, stopped=lambda: True)
    assert counters.alarms == 0, "one that is to end begins no strip"
    settled_by = []
    for partitions in (lower, upper, range(64)):
        counters = Counters()
        cut_due(ward.evidence, ward.archive, models, now, counters, partitions)
        settled_by.append(counters.alarms)
    assert settled_by == [0, len(clinical), 0]
    ward.evidence.expire(now + 1)
    others = [msgspec.structs.replace(clinical[0], id=f"b/{n}", patient="b", raised_ms=T0 + n) for n in range(5)]
    ward.store.write(1, [(f"1-{n}", event) for n, event in enumerate(others)], "1-9")
    found = ward.evidence.wanted(0, now, 2, mine=lambda patient: patient == "a")
    assert [event.patient for event in found] == ["a", "a"]
    assert [event.patient for event in ward.evidence.wanted(0, now, 2)] == ["b", "b"]


def test_an_alarm_without_a_recording_is_settled_too(ward: Ward, tmp_path: Path):
    """Where nothing was recorded (no consent, a full disk) it is noted after a while and not tried for ever."""
    alarms = ward.keep(SECONDS)
    empty = Archive(ward.url, tmp_path / "elsewhere")
    ward.archive.erase("a")
    clinical = [e for e in alarms if not e.technical]
    assert settled(ward.evidence, empty, stories.models(), T0 + 90_000 + SETTLE_MS) == 0
    assert settled(ward.evidence, empty, stories.models(), T0 + 100_000 + PATIENCE_MS) == len(clinical)
    assert ward.evidence.load(clinical[0].id) is None
    assert ward.evidence.kept([clinical[0].id]) == set()
    empty.close()


STARVED = """
import sys, time
from rhythmwatch import evidencing
from rhythmwatch.cli import app

def starved(*_, **__):
    print("cutting", flush=True)
    time.sleep(600)

evidencing.cut_due = starved
app(sys.argv[1:])
"""


@pytest.mark.services
async def test_a_strip_in_hand_does_not_outlast_the_stop(tmp_path: Path):
    """Told to end while a strip takes for ever, as on a full machine, the process ends before it is killed."""
    async with embedded(tmp_path / "bus") as url, asyncio.timeout(120):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", STARVED, "evidence", "--bus", url, "--recordings", str(tmp_path / "recordings")),
            *("--history", f"sqlite:///{tmp_path / 'history.db'}"),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert await process.stdout.readline() == b"cutting\n"
            process.send_signal(signal.SIGTERM)
            loop = asyncio.get_running_loop()
            began = loop.time()
            said = await process.stderr.read()
            assert await process.wait() == 0
            assert loop.time() - began < GRACE_S
            assert b"left a strip" in said
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert STOP_S < GRACE_S / 2
