"""A ward that isn't there: waves, beats, rhythms and alarms for the tests of the pages, without worker or model."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

import msgspec
import numpy as np

from alerts.people import Account
from bus.messages import Action, AlarmEvent, BeatEvent, RhythmEvent, SettingsEvent, StatusEvent, View, pack
from web.auth import Session
from web.feed import FeedItem, FeedKind
from web.parts import Parts
from web.settings import WebSettings

FS, HOP, BINS, TOP_HZ, LOOP_S = 250, 8, 32, 45.0, 24
EPOCH = 7
USER, PASSWORD = "station", "correct-horse"
# Amplitude (mV), place and width (s from R) of the waves of a beat.
NORMAL = ((0.12, -0.17, 0.025), (-0.12, -0.03, 0.009), (1.1, 0.0, 0.011), (-0.22, 0.03, 0.010), (0.28, 0.26, 0.045))
MAP = bytes([70, *(255 if cell == 9 else 128 for cell in range(18))])
ECTOPIC = ((1.5, 0.0, 0.035), (-0.9, 0.09, 0.04), (-0.45, 0.28, 0.06))


@dataclasses.dataclass(frozen=True)
class Loop:
    """A stretch of ECG that repeats without a seam."""

    wave: np.ndarray
    columns: np.ndarray
    beats: tuple[tuple[int, str], ...]
    hr: float
    rhythm: str


def make_loop(seed: int, rhythm: str, hr: float, ectopic: float) -> Loop:
    """Compose `LOOP_S` seconds of a rhythm: N, AFIB, VT, VFL or ASYS."""
    rng = np.random.default_rng(seed)
    n = LOOP_S * FS
    t = np.arange(n) / FS
    x = 0.05 * np.sin(2 * np.pi * t * 6 / LOOP_S + rng.uniform(0, 6)) + rng.normal(0, 0.008, n)
    beats: list[tuple[int, str]] = []
    if rhythm == "VFL":
        for f, a in ((4.5, 0.45), (5.25, 0.3), (3.75, 0.25), (6.0, 0.15)):
            x += a * np.sin(2 * np.pi * t * round(f * LOOP_S) / LOOP_S + rng.uniform(0, 6))
    elif rhythm != "ASYS":
        spread = 0.18 if rhythm == "AFIB" else 0.02
        count = round(LOOP_S * hr / 60)
        rr = np.clip(rng.normal(1, spread, count), 0.6, 1.6)
        at = np.cumsum(rr) / rr.sum() * LOOP_S - 0.4
        codes = ["V" if rhythm == "VT" else ("V" if rng.uniform() < ectopic else "N") for _ in at]
        codes = ["A" if code == "N" and rng.uniform() < ectopic / 3 else code for code in codes]
        for i, code in enumerate(codes):
            if code != "N" and rhythm == "N" and 0 < i < count - 1:
                at[i] -= 0.25 * LOOP_S / count
        for place, code in zip(at, codes, strict=True):
            for a, dt, width in ECTOPIC if code == "V" else NORMAL:
                if code == "A" and dt < -0.1:
                    a = -a
                d = (t - place - dt + LOOP_S / 2) % LOOP_S - LOOP_S / 2
                x += a * np.exp(-0.5 * (d / width) ** 2)
            beats.append((int(place * FS) % n, code))
    starts = np.arange(0, n, HOP)
    frames = x[(starts[:, None] + np.arange(-32, 32)) % n] * np.hanning(64)
    power = np.log1p(400 * np.abs(np.fft.rfft(frames, 160))[:, 1 : 1 + BINS] ** 2)
    columns = np.clip(power * 28, 0, 255).astype(np.uint8)
    wave = np.clip(x * 200, -32767, 32767).astype("<i2")
    return Loop(wave, columns, tuple(sorted(beats)), 0.0 if rhythm in ("VFL", "ASYS") else hr, rhythm)


@dataclasses.dataclass
class FakePatient:
    """A patient whose loop runs by the wall clock."""

    name: str
    loop: Loop
    index: int = 0
    next_at: float = 0.0
    began: float = 0.0
    silent: bool = False
    quality: str = "good"
    note: str = ""

    def step(self, now: float) -> list[View | BeatEvent]:
        """Play the next second."""
        start = self.index
        n = self.loop.wave.size
        pick = np.arange(start, start + FS) % n
        wave = self.loop.wave[pick]
        if self.quality == "lead_off":
            wave = np.full(FS, -32768, "<i2")
        first = -(-start // HOP)
        last = -(-(start + FS) // HOP)
        self.began = self.began or now - 1.2 - start / FS
        ms = int((self.began + start / FS) * 1000)
        beats = [
            BeatEvent(
                self.name, "dev", EPOCH, at + start - start % n + (n if at < start % n else 0),
                ms + ((at - start) % n) * 4, code, 0.97, "V" if code == "N" else "N", 0.02, 800,
                b"" if code == "N" else MAP,
            )
            for at, code in self.loop.beats
            if (at - start) % n < FS
        ]  # fmt: skip
        if self.quality == "lead_off":
            beats = []
        self.index += FS
        view = View(
            self.name, "dev", EPOCH, ms, start, FS, "MLII", wave.tobytes(),
            self.loop.columns[np.arange(first, last) % (n // HOP)].tobytes(), first, HOP, BINS, TOP_HZ,
            0.0 if self.quality == "lead_off" else self.loop.hr, ms + 800, self.loop.rhythm,
            sum(code == "V" for _, code in self.loop.beats) * 60 // LOOP_S, self.quality,
        )  # fmt: skip
        return [view, *sorted(beats, key=lambda beat: beat.sample)]


def alarm(patient: str, kind: str, priority: int, **more: object) -> AlarmEvent:
    """Make an alarm that has just come on."""
    now = int(time.time() * 1000)
    fields: dict[str, object] = {
        "id": f"{patient}/{kind}/{EPOCH}/1000", "patient": patient, "device": "dev", "kind": kind,
        "priority": priority, "presence": "on", "revision": 0, "epoch": EPOCH, "onset_sample": 1000,
        "onset_ms": now - 4000, "raised_ms": now, "changed_ms": now,
        "lethal": kind in ("VTACH", "VFIB", "ASYSTOLE"),
        "technical": kind in ("LEADS_OFF", "NO_DATA", "NOISY", "BATTERY"),
    } | more  # fmt: skip
    return msgspec.convert(fields | {"type": "alarm"}, AlarmEvent)


class FakeWard:
    """Feed, actions, accounts, sessions and open alarms in memory."""

    def __init__(self, patients: Iterable[FakePatient], alarms: Iterable[AlarmEvent] = ()) -> None:
        self.patients = {patient.name: patient for patient in patients}
        self.alarms = {event.id: event for event in alarms}
        self.queue: asyncio.Queue[FeedItem] = asyncio.Queue()
        self.kept: dict[str, Session] = {}
        self.users: dict[str, str] = {}
        self.roles: dict[str, str] = {}
        self.actions: list[tuple[str, Action]] = []
        self.broken = False
        self.marked = False

    def send(self, message: View | BeatEvent | AlarmEvent | StatusEvent | RhythmEvent) -> None:
        """Put a message on the feed."""
        kind = FeedKind.VIEW if isinstance(message, View) else FeedKind.EVENT
        self.queue.put_nowait(FeedItem(kind, pack(message), int(time.time() * 1000)))

    def raise_alarm(self, event: AlarmEvent) -> None:
        """Begin or change an alarm."""
        self.alarms[event.id] = event
        self.send(event)

    async def play(self, period: float = 1.0) -> None:
        """Let the patients live, each at its own moment of the second."""
        start = time.time()
        for i, patient in enumerate(self.patients.values()):
            patient.next_at = start + i * period / len(self.patients)
            self.send(StatusEvent(patient.name, "dev", int(start * 1000), "MLII", ("MLII", "V5"), patient.quality))
            self.send(RhythmEvent(patient.name, "dev", EPOCH, 0, int(start * 1000), patient.loop.rhythm, 0.9))
        while True:
            now = time.time()
            for patient in self.patients.values():
                if now >= patient.next_at:
                    patient.next_at += period
                    if not patient.silent:
                        for message in patient.step(now):
                            self.send(message)
            await asyncio.sleep(0.02)

    async def mark(self) -> None:
        """Note that it was asked where to begin."""
        if self.broken:
            raise ConnectionError("the bus is gone")
        self.marked = True

    async def items(self) -> AsyncGenerator[FeedItem, None]:
        """Yield what was sent."""
        while True:
            if self.broken:
                raise ConnectionError("the bus is gone")
            try:
                async with asyncio.timeout(0.25):
                    item = await self.queue.get()
            except TimeoutError:
                item = FeedItem(FeedKind.PULSE)
            yield item

    async def append(self, patient: str, action: Action) -> None:
        """Actions: an acknowledgement comes back as the worker would send it."""
        self.actions.append((patient, action))
        event = self.alarms.get(action.alarm or "")
        if action.name == "ack" and event is not None:
            now = int(time.time() * 1000)
            self.raise_alarm(
                msgspec.structs.replace(
                    event,
                    presence="ack",
                    revision=event.revision + 1,
                    acked_by=action.user,
                    acked_ms=now,
                    changed_ms=now,
                )
            )

    def open_alarms(self) -> list[AlarmEvent]:
        """Open alarms of the store."""
        return [event for event in self.alarms.values() if event.presence != "off"]

    def settings_in_force(self) -> list[SettingsEvent]:
        """Store: nobody changed any settings."""
        return []

    def password_hash(self, name: str) -> str | None:
        """Accounts."""
        return self.users.get(name)

    def add_user(self, name: str, password_hash: str) -> None:
        """Accounts."""
        self.users[name] = password_hash

    def account(self, name: str) -> Account | None:
        """Accounts: everybody is an admin unless `roles` says otherwise."""
        return Account(name, self.roles.get(name, "admin")) if name in self.users else None

    def count_users(self) -> int:
        """Accounts."""
        return len(self.users)

    async def put(self, key: str, session: Session, seconds: float) -> None:
        """Sessions."""
        self.kept[key] = session

    async def get(self, key: str) -> Session | None:
        """Sessions."""
        return self.kept.get(key)

    async def drop(self, key: str) -> None:
        """Sessions."""
        self.kept.pop(key, None)

    @contextlib.asynccontextmanager
    async def open(self, _settings: WebSettings) -> AsyncIterator[Parts]:
        """Give the parts of an app."""
        yield Parts(self, self, self, self, self)


def ward_of(count: int, alarming: bool = True) -> FakeWard:
    """Make a ward of `count` patients of whom six (or fewer) alarm."""
    kinds = [("N", 72.0, 0.0), ("N", 64.0, 0.1), ("AFIB", 104.0, 0.02), ("N", 88.0, 0.0), ("N", 55.0, 0.15)]
    patients = []
    for i in range(count):
        rhythm, hr, ectopic = kinds[i % len(kinds)]
        patients.append(FakePatient(f"Bed {i + 1:02d}", make_loop(i, rhythm, hr + i % 7, ectopic), index=i * 100))
    alarms: list[AlarmEvent] = []
    if alarming and count >= 8:
        step = count // 8
        names = [patient.name for patient in patients]
        patients[step].loop = make_loop(901, "VT", 168, 0)
        patients[3 * step].loop = make_loop(902, "N", 134, 0)
        patients[5 * step].quality = "lead_off"
        alarms = [
            alarm(names[step], "VTACH", 3, value=168.0, limit=100.0, detail="7 ventricular beats at 168/min"),
            alarm(names[2 * step], "AFIB", 2, detail="irregular for 60 s without P waves"),
            alarm(names[3 * step], "TACHY", 2, value=134.0, limit=120.0),
            alarm(names[4 * step], "PVC_PAIR", 1, detail="2 ventricular beats in a row"),
            alarm(names[5 * step], "LEADS_OFF", 2, detail="no rhythm or rate can be judged"),
            alarm(names[6 * step], "PAUSE", 2, value=2.8, limit=2.5, presence="latched"),
        ]
    return FakeWard(patients, alarms)
