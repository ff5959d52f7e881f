"""The evidence process: cuts what was seen round each alarm out of the recordings, and what the networks made of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from alerts.archive import Archive, Strip
from alerts.archive_files import MISSING
from alerts.database import open_engine, upgrade
from alerts.evidence import Evidence, EvidenceBeat, EvidenceMap, EvidenceStore, Feature, stretch_of
from alerts.model import Kind
from bus.clock import keeping_time, now_ms
from bus.messages import DEFAULT_PARTITIONS, AlarmEvent, partition_of
from bus.streams import Bus
from bus.tasks import end
from dsp import frontend, spectrogram
from dsp.layout import FS
from dsp.spectrogram import BINS, HOP
from ingest.recordings import Recording
from rhythmwatch.metrics import Figure, exposing
from rhythmwatch.models import Models
from rhythmwatch.quantise import loudness
from rhythmwatch.reasons import explain_evidence
from rhythmwatch.views import TOP_HZ

log = structlog.get_logger()

LEAD_IN_MS: Final = 60_000
"""Signal before the strip that filters and detectors settle in, and that a rhythm is compared with."""
SETTLE_MS: Final = 6_000
"""The recorder writes this late."""
PATIENCE_MS: Final = 300_000
"""Where samples are missing at the end, they are waited for this long."""
BACK_MS: Final = 86_400_000
"""After a stand-still alarms of this long are caught up with."""
AT_ONCE: Final = 500
"""Alarms that are looked at together."""
POLL_S: Final = 2.0
MAX_WAIT_S: Final = 30.0
STOP_S: Final = 3.0
"""Longest that the strip at hand is waited for at the end; on a full machine, behind all others, it may take longer."""
RHYTHM_KINDS: Final = frozenset({Kind.VFIB, Kind.VTACH, Kind.AFIB, Kind.ASYSTOLE})
"""Kinds that rest on a rhythm verdict, or on the lack of beats beside one."""


def cut(archive: Archive, models: Models, alarm: AlarmEvent, lead: str = "") -> Evidence | None:
    """Cut the evidence of an alarm.

    Parameters
    ----------
    archive : Archive
    models : Models
        For what in the signal made a rhythm verdict.
    alarm : AlarmEvent
    lead : str
        That was analysed; else the first.

    Returns
    -------
    Evidence or None
        None where nothing was recorded.
    """
    from_ms, to_ms = stretch_of(alarm)
    strip = archive.read(alarm.patient, from_ms - LEAD_IN_MS, to_ms)
    skip = round(LEAD_IN_MS * strip.fs / 1000)
    if not strip.fs or (strip.units[skip:] == MISSING).all():
        return None
    column = strip.leads.index(lead) if lead in strip.leads else 0
    # Whole samples alone: the grid of the strip may end within one.
    wave = strip.mv[: skip + int((to_ms - from_ms) * strip.fs / 1000), column]
    beats = archive.beats(alarm.patient, from_ms, to_ms)
    return Evidence(
        from_ms=from_ms,
        to_ms=to_ms,
        fs=strip.fs,
        lead=strip.leads[column],
        samples_mv=_samples(wave[skip:]),
        columns=base64.b64encode(_columns(wave, strip.fs)).decode(),
        column_ms=HOP * 1000 / FS,
        bins=BINS,
        top_hz=TOP_HZ,
        beats=_beats(beats),
        rule=alarm.detail,
        model=models.version,
        probabilities=_probabilities(beats, alarm),
        map=_map(strip, column, models, alarm),
    )


def is_complete(archive: Archive, alarm: AlarmEvent) -> bool:
    """Whether the strip of an alarm is recorded to its end."""
    _, to_ms = stretch_of(alarm)
    strip = archive.read(alarm.patient, to_ms - 1_000, to_ms)
    return bool(strip.fs) and not bool((strip.units[-3:] == MISSING).all())


def _columns(wave: NDArray[np.float32], fs: float) -> bytes:
    """Spectrogram of the strip, after the lead-in."""
    slot, zero = np.zeros(1, np.int64), np.zeros(1, np.int64)
    fronts, spectra = frontend.new_states(1), spectrogram.new_states(1)
    frontend.reset(fronts, slot, np.ones(1, np.int64), zero)
    spectrogram.reset(spectra, slot, zero)
    signal = frontend.step(fronts, slot, wave[:, None], np.array([0, len(wave)], np.int64), fs).signal
    columns = spectrogram.step(spectra, slot, signal)
    skip = -(-(LEAD_IN_MS * FS // 1000) // HOP) - int(columns.first[0])
    return loudness(columns.re, columns.im)[max(0, skip) :].tobytes()


def _samples(wave: NDArray[np.float32]) -> list[float | None]:
    """Millivolts to four places, None where there is no sample."""
    samples: list[float | None] = np.round(wave.astype(np.float64), 4).tolist()
    for absent in np.flatnonzero(np.isnan(wave)).tolist():
        samples[absent] = None
    return samples


def _beats(beats: NDArray[Any]) -> list[EvidenceBeat]:
    # By columns: a structured array gives one field of one record at a time far more slowly.
    columns = {name: beats[name].tolist() for name in beats.dtype.names or () if name != "map"}
    maps = [base64.b64encode(row.tobytes()).decode() for row in beats["map"]]
    return [
        EvidenceBeat(
            ms=columns["ms"][at],
            epoch=columns["epoch"][at],
            sample=columns["sample"][at],
            code=columns["code"][at].decode(),
            p=round(columns["p"][at], 4),
            second=columns["second"][at].decode(),
            second_p=round(columns["second_p"][at], 4),
            rr_ms=columns["rr_ms"][at],
            map=maps[at] if columns["mapped"][at] else "",
        )
        for at in range(len(beats))
    ]


def _probabilities(beats: NDArray[Any], alarm: AlarmEvent) -> dict[str, float]:
    """Mean over the beats between onset and raising, by class; each says its best two."""
    behind = beats[(beats["ms"] >= alarm.onset_ms - 20) & (beats["ms"] <= alarm.raised_ms)]
    sums: dict[str, float] = {}
    for beat in behind:
        for name, p in (("code", "p"), ("second", "second_p")):
            code = beat[name].decode()
            sums[code] = sums.get(code, 0.0) + float(beat[p])
    return {code: round(total / len(behind), 4) for code, total in sorted(sums.items(), key=lambda item: -item[1])}


def _map(strip: Strip, column: int, models: Models, alarm: AlarmEvent) -> EvidenceMap | None:
    if alarm.kind not in RHYTHM_KINDS:
        return None
    units = strip.units[:, column : column + 1]
    recording = Recording("alarm", strip.fs, strip.leads[column : column + 1], strip.gain, units)
    try:
        reason = explain_evidence(recording, models, (alarm.raised_ms - strip.from_ms) / 1000)
    except ValueError:
        return None
    return EvidenceMap(
        code=reason["code"],
        p=reason["p"],
        second=reason["second"],
        second_p=reason["second_p"],
        from_ms=strip.from_ms + round(reason["begin_s"] * 1000),
        to_ms=strip.from_ms + round(reason["end_s"] * 1000),
        bands=[(low, high) for low, high in reason["bands"]],
        cells=reason["map"],
        features=[Feature(**feature) for feature in reason["features"]],
        rule=reason["rule"],
        method=reason["method"],
    )


@dataclass(slots=True)
class Counters:
    """What the evidence process did since its start."""

    alarms: int = 0
    """Settled, with evidence or without."""
    empty: int = 0
    """Alarms of which nothing was recorded."""
    faults: int = 0
    """Strips that could not be cut."""
    failures: int = 0
    """Of disk and database."""


def figures(counters: Counters) -> Iterator[Figure]:
    """Figures of the evidence process for Prometheus."""
    yield Figure("alarms", counters.alarms, "Alarms whose evidence is settled.")
    yield Figure("empty", counters.empty, "Alarms of which nothing was recorded.")
    yield Figure("faults", counters.faults, "Strips that could not be cut.")
    yield Figure("failures", counters.failures, "Failures of disk and database, tried again.")


def cut_due(
    store: EvidenceStore,
    archive: Archive,
    models: Models,
    now_ms: int,
    counters: Counters,
    partitions: Collection[int] = range(DEFAULT_PARTITIONS),
    total: int = DEFAULT_PARTITIONS,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Cut the evidence of alarms whose strip is recorded, or will not be any more, and count them.

    Parameters
    ----------
    store : EvidenceStore
    archive : Archive
    models : Models
    now_ms : int
        Server time.
    counters : Counters
        Changed in place.
    partitions : collection of int
        Only alarms of patients of these.
    total : int
        Partitions of the bus.
    stopped : callable
        Whether to end after the strip at hand.
    """

    def mine(patient: str) -> bool:
        return partition_of(patient, total) in partitions

    for alarm in store.wanted(now_ms - BACK_MS, now_ms, AT_ONCE, mine=mine):
        if stopped():
            return
        _, to_ms = stretch_of(alarm)
        # What came late is recorded late.
        age = now_ms - (max(to_ms, alarm.changed_ms) if alarm.retrospective else to_ms)
        if age < SETTLE_MS or (age < PATIENCE_MS and not is_complete(archive, alarm)):
            continue
        lead = store.lead_at(alarm.patient, alarm.raised_ms)
        try:
            evidence = cut(archive, models, alarm, lead)
        except (ValueError, LookupError, ArithmeticError) as error:
            # One strip that can't be read must not hold up the evidence of all others.
            log.error("evidence can't be cut", alarm=alarm.id, why=f"{type(error).__name__}: {error}")
            counters.faults += 1
            evidence = None
        store.keep(alarm, evidence, now_ms)
        counters.alarms += 1
        counters.empty += evidence is None


async def examine(
    bus_url: str,
    history: str,
    recordings: Path,
    partitions: Collection[int],
    models: Models,
    stop: asyncio.Event,
    *,
    poll_s: float = POLL_S,
    metrics: str = "",
) -> bool:
    """Cut evidence until `stop` is set; what fails is tried again.

    Parameters
    ----------
    bus_url : str
        Address of the bus, for the time alone.
    history : str
        Address of the history database.
    recordings : Path
        Folder of the recorder.
    partitions : collection of int
        Of the patients whose alarms are examined; several processes share the work.
    models : Models
    stop : asyncio.Event
        Set to end it.
    poll_s : float
        Pause between two looks.
    metrics : str
        ``host:port`` for Prometheus; empty for none.

    Returns
    -------
    bool
        Whether all is closed. Else a thread still has a strip in hand, of which nothing is kept: the next process cuts
        it, and this one should end without waiting.
    """
    with contextlib.suppress(OSError):
        # Nobody waits for it: the live path goes first.
        os.nice(10)
    # By another time than that of the recorder strips would be cut before they are recorded, or hours late.
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(keeping_time(await stack.enter_async_context(Bus(bus_url))))
        files = stack.enter_context(contextlib.ExitStack())
        engine = open_engine(history)
        files.callback(engine.dispose)
        archive = Archive(history, recordings)
        files.callback(archive.close)
        store, counters, ready, wait, failing = EvidenceStore(engine), Counters(), False, poll_s, ""
        with exposing(metrics, "evidence", lambda: figures(counters)):
            while not stop.is_set():
                try:
                    due = partial(cut_due, store, archive, models, now_ms(), counters, partitions, stopped=stop.is_set)
                    if not await _done(due if ready else partial(upgrade, engine), stop):
                        log.warning("evidence process left a strip, the next one cuts it")
                        files.pop_all()
                        return False
                    if not ready:
                        ready = True
                        continue
                    wait, failing = poll_s, ""
                except (SQLAlchemyError, OSError) as error:
                    counters.failures += 1
                    problem = str(error).split("\n", 1)[0]
                    if problem != failing:
                        log.warning("evidence can't be kept, tried again until it works", why=problem)
                    wait, failing = min(2 * wait, MAX_WAIT_S), problem
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait)
    log.info("evidence process ended", alarms=counters.alarms)
    return True


async def _done(work: Callable[[], None], stop: asyncio.Event) -> bool:
    """Do work in a thread that need not be waited for; False where it goes on `STOP_S` after `stop` was set."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if not result.done():
            result.set_exception(error) if error is not None else result.set_result(None)

    def run() -> None:
        failed: Exception | None = None
        try:
            work()
        except Exception as error:
            failed = error
        # The loop may have ended without us.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, failed)

    threading.Thread(target=run, name="evidence", daemon=True).start()
    stopped = asyncio.create_task(stop.wait(), name="stop")
    either: set[asyncio.Future[Any]] = {result, stopped}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not (await asyncio.wait({result}, timeout=STOP_S))[0]:
            return False
        result.result()
        return True
    finally:
        await end([stopped])
