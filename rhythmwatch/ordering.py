"""From what the sequencer says to work for the fold: stretches of samples, begins, and entries, in one queue a patient.

Late frames (stored by the device, or behind the window) are put in order by a sequencer of their own and judged apart
from the live signal, as a patient beside the patient (`Patient.late`): what they hold is listed afterwards and calls
nobody. Nothing here depends on what was worked off before, only on the patient's entries and their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from bus.messages import Inbound
from dsp.layout import FS
from ingest.frame import Frame
from ingest.sequencer import Gap, Late, NewEpoch, Run, Step
from rhythmwatch.patient import Patient
from rhythmwatch.stages import DELAY

REFILL_S: Final = 60.0
"""A gap up to this is filled with missing samples; after a longer one the signal stages begin anew."""
REST_MS: Final = 3_600_000
"""Without a frame for this long the stretch of a live signal is over, too, and its rows are given back."""
LATE_IDLE_MS: Final = 5_000
"""Without another late frame for this long their stretch is over, and its last beats are decided."""


class Begin(msgspec.Struct, frozen=True, gc=False):
    """An epoch begins, or its signal goes on after a long gap.

    Attributes
    ----------
    origin_ms : float or None
        Of late data: wall time of sample 0.
    """

    step: NewEpoch | None
    sample: int
    origin_ms: float | None = None


class Samples(msgspec.Struct, frozen=True, gc=False):
    """A stretch of samples, mV, that an entry of server time `ms` released.

    Attributes
    ----------
    origin_ms : float or None
        Of late data: wall time of sample 0.
    filled : bool
        None of it came from the device, so that it says nothing of the device's clock.
    """

    mv: NDArray[np.float32]
    ms: int
    origin_ms: float | None = None
    filled: bool = False


class Told(msgspec.Struct, frozen=True, gc=False):
    """An entry that is looked at itself."""

    entry: Inbound


class Rest(msgspec.Struct, frozen=True, gc=False):
    """The stretch is over: what follows begins anew, so that the signal stages need keep nothing of it."""


Work: TypeAlias = Begin | Samples | Told | Rest


def missing(rate: float, leads: int) -> NDArray[np.float32]:
    """Make the missing samples after the end of a stretch that let the last beats be decided without their future."""
    return np.full((round((DELAY / FS + 1.0) * rate), leads), np.nan, np.float32)


def enqueue(patient: Patient, steps: Sequence[Step], ms: int, queue: deque[Work]) -> Sequence[Frame]:
    """Turn sequencer steps into work, one stretch for what one entry released.

    Parameters
    ----------
    patient : Patient
        Live, or what came late of one.
    steps : sequence of Step
    ms : int
        Server time of the entry.
    queue : deque
        Work is added at its end.

    Returns
    -------
    sequence of Frame
        Those that come too late for this patient.
    """
    if not steps:
        return ()
    origin = patient.queued_origin_ms if patient.channel else None
    if len(steps) == 1 and isinstance(steps[0], Run) and not patient.broken:
        # Mostly an entry brings the frame that follows, and nothing else happened.
        queue.append(Samples(steps[0].frame.millivolts(), ms, origin))
        return ()
    parts: list[NDArray[np.float32]] = []
    late: list[Frame] = []

    def close() -> None:
        if parts:
            queue.append(Samples(parts[0] if len(parts) == 1 else np.concatenate(parts), ms, origin))
            parts.clear()

    def fill() -> None:
        close()
        queue.append(Samples(missing(rate, leads), ms, origin, filled=True))

    rate, leads = patient.queued_rate, patient.queued_leads
    for step in steps:
        if isinstance(step, Run):
            if patient.broken:
                patient.broken = False
                queue.append(Begin(None, step.frame.sample, origin))
            parts.append(step.frame.millivolts())
        elif isinstance(step, Gap):
            if patient.broken:
                continue
            if step.count > REFILL_S * rate:
                fill()
                queue.append(Begin(None, step.sample + step.count, origin))
            else:
                parts.append(np.full((step.count, leads), np.nan, np.float32))
        elif isinstance(step, NewEpoch):
            if rate and not patient.broken:
                fill()
            close()
            patient.broken = False
            rate, leads = patient.queued_rate, patient.queued_leads = step.rate, len(step.leads)
            queue.append(Begin(step, step.sample, origin))
        elif isinstance(step, Late):
            late.append(step.frame)
    close()
    return late


def enqueue_late(patient: Patient, frame: Frame, ms: int, queue: deque[Work]) -> int:
    """Put a late frame in order among the late ones of a patient.

    Parameters
    ----------
    patient : Patient
        Live; its timeline says when the frame was taken.
    frame : Frame
    ms : int
        Server time of its entry.
    queue : deque
        Of ``patient.late``.

    Returns
    -------
    int
        Frames that can't be judged any more: older than what was judged late already.
    """
    late = patient.late
    assert late is not None  # noqa: S101
    late.queued_origin_ms = patient.timeline.guess_ms(frame, ms) - frame.sample * 1000 / frame.rate
    late.queued_ms = ms
    return len(enqueue(late, late.sequencer.push(frame, ms), ms, queue))


def end_late(late: Patient, ms: int, queue: deque[Work]) -> int:
    """Let time pass for late data: what waits is released, and a stretch that does not go on is ended.

    Returns
    -------
    int
        As of `enqueue_late`.
    """
    over = ms - late.queued_ms >= LATE_IDLE_MS
    steps = late.sequencer.flush() if over else late.sequencer.tick(ms)
    lost = len(enqueue(late, steps, ms, queue))
    if over and late.queued_rate and not late.broken:
        late.broken = True
        queue.append(Samples(missing(late.queued_rate, late.queued_leads), ms, late.queued_origin_ms))
        queue.append(Rest())
    return lost


def silent_ms(patient: Patient, ms: int) -> int:
    """Tell how long no live frame has come, ms; 0 where none ever came."""
    clock = patient.timeline.clock
    return ms - clock.ms(clock.end) if clock.rate else 0


def end_live(patient: Patient, ms: int, queue: deque[Work]) -> None:
    """Let time pass for a live signal: the stretch of a device that has been silent for long is ended."""
    if not patient.broken and silent_ms(patient, ms) >= REST_MS:
        patient.broken = True
        queue.append(Rest())
