"""What a limit would have done: the rules run again over the beats, rhythms and states that are kept.

Nothing is classified again, so a day takes seconds. Kept beats have no shapes and kept rhythms only their changes;
technical alarms and multiform beats can't be tried on them. A pause that runs into a lost signal is not counted. Calls
of `Past` block.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from numpy.typing import NDArray
from sqlalchemy import Engine, select

from alerts import rules
from alerts.archive import Archive
from alerts.limits import LIMITS_OF, Limits
from alerts.model import RATE, TECHNICAL, Beat, Evidence, Horizon, Kind, Quality, Rhythm
from alerts.rules_technical import BLOCK
from alerts.tables import RhythmRow, StatusRow, table_of

DELAY: Final = 2 * RATE
"""That a beat is known after its R peak; of no weight for counts."""
LOOK_BACK_MS: Final = 3_600_000
"""Rhythm and state at the begin are those of the last change within this time."""
CALM_S: Final = 70
"""A normal rhythm is told for this long, which ends whatever stands; then it needs no more telling."""
REACH: Final = 15 * RATE
"""A blind stretch is told this much after its begin at most; it began with the last beat before."""
BLIND: Final = frozenset({"lead_off", "missing", "no_data"})

RHYTHMS: Final = table_of(RhythmRow)
STATUSES: Final = table_of(StatusRow)


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of a patient for a time, as evidence in order.

    Attributes
    ----------
    seconds : float
        Length of the time.
    beats : int
        In it.
    """

    evidence: tuple[Evidence, ...]
    seconds: float
    beats: int


def kinds_of(name: str) -> frozenset[Kind]:
    """Kinds that a limit decides about and that can be tried on the past; empty for none."""
    return frozenset(
        kind
        for kind, names in LIMITS_OF.items()
        if name in names and kind not in TECHNICAL and kind is not Kind.MULTIFORM
    )


def count(past: Past, limits: Limits, kinds: frozenset[Kind]) -> int:
    """Count the alarms of some kinds that limits would have given."""
    state = rules.new_state(DELAY, limits)
    found: set[tuple[Kind, int]] = set()
    for item in past.evidence:
        for condition in rules.step(state, item, limits):
            if condition.on and condition.kind in kinds:
                found.add((condition.kind, condition.onset))
    return len(found)


def load(archive: Archive, engine: Engine, patient: str, from_ms: int, to_ms: int) -> Past:
    """Read what is kept.

    Parameters
    ----------
    archive : Archive
        For the beats.
    engine : sqlalchemy.Engine
        Of the history, for rhythms and states.
    patient : str
        The channel.
    from_ms, to_ms : int
        Wall time, ms.
    """
    beats = archive.beats(patient, from_ms, to_ms)
    since = from_ms - LOOK_BACK_MS
    with engine.connect() as connection:
        changed = select(RHYTHMS.c.ms, RHYTHMS.c.code).where(RHYTHMS.c.patient == patient)
        changed = changed.where(RHYTHMS.c.ms >= since, RHYTHMS.c.ms < to_ms).order_by(RHYTHMS.c.ms)
        rhythms = [(row.ms, row.code) for row in connection.execute(changed)]
        told = select(STATUSES.c.ms, STATUSES.c.quality).where(STATUSES.c.patient == patient)
        told = told.where(STATUSES.c.ms >= since, STATUSES.c.ms < to_ms).order_by(STATUSES.c.ms)
        states = [(row.ms, row.quality) for row in connection.execute(told)]
    return past_of(beats, rhythms, states, from_ms, to_ms)


def past_of(
    beats: NDArray[Any], rhythms: Sequence[tuple[int, str]], states: Sequence[tuple[int, str]], from_ms: int, to_ms: int
) -> Past:
    """Make evidence of what is kept.

    Parameters
    ----------
    beats : ndarray of alerts.archive.TIMED_BEAT
        Ascending.
    rhythms, states : sequence of (int, str)
        Wall time and code (quality) of each change, ascending; they may begin before `from_ms`.
    from_ms, to_ms : int
        Wall time, ms.
    """

    def index(ms: int) -> int:
        return max(0, round((ms - from_ms) * RATE / 1000))

    end = index(to_ms)
    found: list[Evidence] = []
    last = -1
    peaks: list[int] = []
    for ms, code, p in zip(beats["ms"].tolist(), beats["code"].tolist(), beats["p"].tolist(), strict=True):
        r = index(ms)
        if r > last and code:
            found.append(Beat(r, r + DELAY, code.decode(), p))
            peaks.append(r)
            last = r
    found += _rhythms([(index(ms), code) for ms, code in rhythms], end)
    found += _states([(index(ms), quality) for ms, quality in states], peaks)
    found.append(Horizon(end - DELAY, end))
    inside = (item for item in found if rules.known_at(item) <= end)
    return Past(tuple(rules.in_order(inside)), (to_ms - from_ms) / 1000, len(peaks))


def _rhythms(changes: Sequence[tuple[int, str]], end: int) -> Iterator[Rhythm]:
    for (at, code), (until, _) in pairwise([*changes, (end, "")]):
        if code in ("N", "NOISE"):
            until = min(until, at + CALM_S * RATE)
        for moment in range(at, until, RATE):
            yield Rhythm(moment, code, 1.0)


def _states(changes: Sequence[tuple[int, str]], peaks: Sequence[int]) -> Iterator[Quality]:
    """Give the flags of the states; a blind one begins with the last beat before it."""
    last = 0
    for at, quality in changes:
        begin = at
        if quality in BLIND:
            before = bisect_left(peaks, at)
            if before and at - peaks[before - 1] <= REACH:
                begin = min(at, peaks[before - 1] + BLOCK + 1)
        last = max(last, begin)
        yield Quality(last, "", quality == "lead_off", quality in ("missing", "no_data"), quality == "noisy")
