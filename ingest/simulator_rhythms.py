"""When the simulated heart beats, and how: the beats of one stretch of a script.

A rhythm is a generator of `PlannedBeat` in order of time. Sinus rhythms take their RR intervals from a tachogram with
the two spectral peaks of McSharry et al. 2003: 0.1 Hz (pressure) and 0.25 Hz (breathing) with a power ratio of 0.5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest.simulator_script import Segment

TACHOGRAM_HZ: Final = 4.0
_TACHOGRAM_POINTS: Final = 2048
_COUPLING: Final = 0.58
"""A premature ventricular beat comes after this part of an RR interval."""

RHYTHM_CODES: Final = {
    "bigeminy": "(B",
    "trigeminy": "(T",
    "af": "(AFIB",
    "flutter": "(AFL",
    "svt": "(SVTA",
    "vt": "(VT",
    "torsades": "(VT",
    "vfl": "(VFL",
    "vf": "(VF",
    "asystole": "(ASYS",
    "block3": "(BIII",
    "ivr": "(IVR",
    "aivr": "(IVR",
    "paced": "(P",
    "brady": "(SBR",
    "noise": "(NOISE",
    "leadoff": "(NOISE",
    "gap": "(NOISE",
}
"""MIT rhythm code of each rhythm; ``(N`` for the others."""


class PlannedBeat(NamedTuple):
    """One beat to come.

    `time` is that of its R peak, s; `shape` a name of `simulator_shapes.NAMES`; `code` its MIT code, empty for what is
    no beat; `rr` the interval that P and T adapt to, s; `size` scales it.
    """

    time: float
    shape: str
    code: str
    rr: float
    size: float = 1.0


def tachogram(rng: np.random.Generator) -> NDArray[np.float64]:
    """Make a periodic series of RR deviations with unit variance, at `TACHOGRAM_HZ`, shape (2048,)."""
    f = np.fft.rfftfreq(_TACHOGRAM_POINTS, 1 / TACHOGRAM_HZ)
    low = np.exp(-0.5 * ((f - 0.1) / 0.01) ** 2)
    high = np.exp(-0.5 * ((f - 0.25) / 0.01) ** 2)
    phases = rng.uniform(0, 2 * np.pi, f.size)
    series = np.fft.irfft(np.sqrt(0.5 * low + high) * np.exp(1j * phases), _TACHOGRAM_POINTS)
    scaled: NDArray[np.float64] = series / series.std()
    return scaled


def plan_beats(
    segment: Segment, start: float, end: float, last: float, series: NDArray[np.float64], rng: np.random.Generator
) -> list[PlannedBeat]:
    """Plan the beats of a stretch.

    Parameters
    ----------
    segment : Segment
        The rhythm and its options.
    start, end : float
        The stretch, s.
    last : float
        Time of the beat before, s; may lie far back.
    series : ndarray of float64, shape (2048,)
        The patient's `tachogram`.
    rng : numpy.random.Generator
        Drawn from in order of time.

    Returns
    -------
    list of PlannedBeat
        Times in ``[start, end)``, ascending.
    """
    return _Planner(segment, start, end, last, series, rng).beats()


class _Planner:
    def __init__(
        self,
        segment: Segment,
        start: float,
        end: float,
        last: float,
        series: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        self.o = segment
        self.rhythm = segment.rhythm
        self.start, self.end, self.last = start, end, last
        self.series, self.rng = series, rng

    def beats(self) -> list[PlannedBeat]:
        streams = {
            "af": self._fibrillation,
            "flutter": self._flutter,
            "svt": self._regular,
            "vt": self._regular,
            "torsades": self._torsades,
            "ivr": self._regular,
            "aivr": self._regular,
            "paced": self._regular,
            "pause": self._pauses,
            "block3": self._block,
            "asystole": self._p_waves_alone,
            "vf": self._nothing,
            "vfl": self._nothing,
        }
        stream = streams.get(self.rhythm, self._sinus)()
        size = self.o["amp"]
        planned = []
        for beat in itertools.takewhile(lambda beat: beat.time < self.end, stream):
            breath = 1 + 0.03 * math.sin(2 * math.pi * 0.25 * beat.time) + 0.015 * self.rng.standard_normal()
            planned.append(beat._replace(size=beat.size * size * breath))
        return planned

    def _first(self, wait: float) -> float:
        """Time of the first beat: `wait` after the one before, but not before the stretch begins."""
        return max(self.last + wait, self.start + 0.12)

    def _rr(self, time: float) -> float:
        deviation = self.series[int(time * TACHOGRAM_HZ) % _TACHOGRAM_POINTS]
        mean = 60.0 / self.o["hr"]
        return max(float(mean + self.o["hrv"] * deviation), 0.45 * mean)

    def _nothing(self) -> Iterator[PlannedBeat]:
        return iter(())

    def _ventricular(self, number: int) -> str:
        form = int(self.o["form"]) or 1 + number % 2
        return f"pvc{form}"

    def _kinds(self) -> Iterator[str]:
        """Give the kind of each beat to come: N, A, F or V; several V in a row are a run."""
        every, rhythm = int(self.o.options.get("every", 0)), self.rhythm
        pattern = {"bigeminy": "NV", "trigeminy": "NNV", "couplet": "N" * every + "VV"}.get(rhythm)
        if rhythm == "nsvt":
            pattern = "N" * every + "V" * int(self.o["run"])
        if pattern:
            yield from itertools.cycle(pattern)
        premature = False
        while True:
            draw = self.rng.random()
            if premature or draw >= self.o["pvc"] + self.o["pac"]:
                premature = False
                yield "N"
            else:
                premature = True
                ventricular = "F" if rhythm == "fusion" else "V"
                yield ventricular if draw < self.o["pvc"] else "A"

    def _sinus(self) -> Iterator[PlannedBeat]:
        base = self.rhythm if self.rhythm in ("lbbb", "rbbb") else "normal"
        code = {"lbbb": "L", "rbbb": "R"}.get(base, "N")
        early = "atrial" if base == "normal" else f"{base}_atrial"
        rr = self._rr(self.start)
        time = self.last if self.start - self.last < rr else self.start + 0.12 - rr
        previous, resume = "N", time
        ectopics = 0
        for kind in self._kinds():
            if kind == "V":
                if previous == "V":
                    time += 60.0 / self.o.options.get("vrate", 140.0)
                    resume = time + 1.25 * rr
                else:
                    resume = time + 2 * rr
                    time = max(time + _COUPLING * rr * (1 + 0.03 * self.rng.standard_normal()), self.start)
                yield PlannedBeat(time, self._ventricular(ectopics), "V", rr)
                ectopics += 1
                previous = kind
                continue
            if previous == "V":
                time = max(resume, time + 0.7 * rr)
            else:
                time += 0.62 * rr if kind == "A" else 1.08 * rr if previous == "A" else rr
            time = max(time, self.start)
            yield PlannedBeat(time, {"A": early, "F": "fusion"}.get(kind, base), {"N": code}.get(kind, kind), rr)
            previous = kind
            rr = self._rr(time)

    def _fibrillation(self) -> Iterator[PlannedBeat]:
        mean, spread = 60.0 / self.o["hr"], self.o["irregular"]
        time, number = self._first(mean), 0
        while True:
            rr = max(mean * math.exp(spread * self.rng.standard_normal() - spread**2 / 2), 0.29)
            if self.rng.random() < self.o["pvc"]:
                yield PlannedBeat(time, self._ventricular(number), "V", rr)
                number, rr = number + 1, rr + 0.2
            else:
                yield PlannedBeat(time, "no_p", "N", rr)
            time += rr

    def _flutter(self) -> Iterator[PlannedBeat]:
        """Conduct every second, third ... wave; a broken `block` mixes its two neighbours."""
        period, block = 60.0 / self.o["atrial"], self.o["block"]
        wave = math.ceil(self._first(period * block) / period)
        while True:
            waves = int(block) + (self.rng.random() < block % 1)
            yield PlannedBeat(wave * period, "no_p", "N", waves * period)
            wave += waves

    def _regular(self) -> Iterator[PlannedBeat]:
        rr = 60.0 / self.o["hr"]
        dual = self.rhythm == "paced" and self.o["dual"] >= 0.5
        shape, code, jitter = {
            "svt": ("svt", "A", 0.006),
            "vt": (self._ventricular(0), "V", 0.012),
            "ivr": (self._ventricular(0), "E", 0.03),
            "aivr": (self._ventricular(0), "V", 0.02),
            "paced": ("paced_dual" if dual else "paced", "/", 0.0),
        }[self.rhythm]
        time = self._first(_COUPLING * 0.8 if self.rhythm == "vt" else rr)
        while True:
            yield PlannedBeat(time, shape, code, rr)
            time += rr * (1 + jitter * self.rng.standard_normal())

    def _torsades(self) -> Iterator[PlannedBeat]:
        """Twist: the size of the complexes turns its sign with the period."""
        rr, time = 60.0 / self.o["hr"], self._first(0.45)
        while True:
            twist = math.sin(2 * math.pi * (time - self.start) / self.o["period"])
            size = math.copysign(0.25 + 0.95 * abs(twist), twist)
            yield PlannedBeat(time, "pvc1", "V", rr, size)
            time += rr * (1 + 0.04 * self.rng.standard_normal())

    def _pauses(self) -> Iterator[PlannedBeat]:
        rr = self._rr(self.start)
        time = self._first(rr)
        for number in itertools.count(1):
            yield PlannedBeat(time, "normal", "N", rr)
            rr = self._rr(time)
            time += self.o["length"] if number % int(self.o["every"]) == 0 else rr

    def _block(self) -> Iterator[PlannedBeat]:
        """Atria and ventricles each at their own rate."""
        escape = 60.0 / self.o["escape"]
        ventricle, atrium = self._first(min(escape, 2.0)), self.start + 0.12
        period = 60.0 / self.o["hr"]
        while True:
            if atrium < ventricle:
                yield PlannedBeat(atrium, "p_alone", "", 0.8)
                atrium += period * (1 + 0.02 * self.rng.standard_normal())
            else:
                yield PlannedBeat(ventricle, "pvc2", "E", escape, 0.8)
                ventricle += escape * (1 + 0.015 * self.rng.standard_normal())

    def _p_waves_alone(self) -> Iterator[PlannedBeat]:
        if self.o["p"] < 0.5:
            return
        time = self._first(0.8)
        while True:
            yield PlannedBeat(time, "p_alone", "", 0.8)
            time += 0.8 * (1 + 0.02 * self.rng.standard_normal())
