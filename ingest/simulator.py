"""A simulated patient: scripted rhythms as samples of an ECG, with the beats and rhythms that are in them.

The model is that of `simulator_shapes`. A patient is a pure function of script, seed, rate and leads: samples are
rendered in blocks of fixed length on the sample index, so that they are bit-equal however they are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from ingest.frame import Frame
from ingest.simulator_rhythms import RHYTHM_CODES, PlannedBeat, plan_beats, tachogram
from ingest.simulator_script import ScriptError, Segment, parse_script
from ingest.simulator_shapes import LEADS, NAMES, shapes_of
from ingest.simulator_waves import (
    Waves,
    columns_of,
    motion_events,
    muscle_noise,
    rhythm_signal,
    rhythm_waves,
    wander_waves,
)

GAIN: Final = 200.0
"""Units per mV of all simulated samples."""
RAIL: Final = 1023
"""The converter's end, units; a lead that is off sits there."""
MISSING: Final = -32768

_BLOCK_S: Final = 8.0
_PIECE_S: Final = 120.0
_REACH_S: Final = 1.5
"""No event reaches farther from its centre."""
_SIGMAS: Final = 4.5
_TAU_S: Final = 3.2


class TrueBeat(NamedTuple):
    """A beat in the simulated signal: sample of its R peak, and its MIT code."""

    sample: int
    code: str


class TrueRhythm(NamedTuple):
    """A change of rhythm in the simulated signal: first sample, and its MIT code such as ``(VT``."""

    sample: int
    code: str


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in a stretch of simulated signal, in order of samples; beats that no lead shows are left out."""

    beats: tuple[TrueBeat, ...]
    rhythms: tuple[TrueRhythm, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A planned stretch: its events sorted by centre, and what goes on between the beats."""

    segment: Segment
    start: float
    end: float
    segment_start: float
    segment_end: float
    centre: NDArray[np.float64]
    width: NDArray[np.float64]
    peak: NDArray[np.float64]
    waves: Waves | None


class Simulator:
    """One simulated patient.

    Parameters
    ----------
    script : str or sequence of Segment
        See `simulator_script.parse_script`.
    rate : float
        Samples a second and lead, Hz.
    seed : int
        Makes the patient and every chance in the signal.
    leads : tuple of str
        Out of ``MLII``, ``V1``, ``V5``.
    loop : bool
        Play the script again and again, each time with other chances.
    truth : bool
        Keep beats and rhythms for `take_truth`; without it nothing grows however long it runs.

    Raises
    ------
    ScriptError
        If the script can't be played or a lead has no shapes.
    """

    def __init__(
        self,
        script: str | Sequence[Segment],
        rate: float = 250.0,
        seed: int = 0,
        leads: tuple[str, ...] = ("MLII", "V1"),
        *,
        loop: bool = False,
        truth: bool = True,
    ) -> None:
        self.script = parse_script(script) if isinstance(script, str) else tuple(script)
        if not self.script:
            raise ScriptError("an empty script")
        if not leads or len(set(leads)) != len(leads) or not set(leads) <= set(LEADS):
            raise ScriptError(f"leads {', '.join(leads)}: the simulator has {', '.join(LEADS)}, each once")
        self.rate, self.leads, self.seed, self.loop = float(rate), leads, seed, loop
        self._columns = columns_of(leads)
        self._shapes = shapes_of(seed, leads)
        rng = np.random.default_rng((seed, 2))
        self._series = tachogram(rng)
        self._wander = wander_waves(rng, len(leads))
        self._keep = truth
        self._beats: deque[TrueBeat] = deque()
        self._rhythms: deque[TrueRhythm] = deque()
        self._pieces: deque[_Piece] = deque()
        self._planned = 0.0
        self._stretches = self._stretch()
        self._last_beat = -10.0
        self._code = ""
        self._block, self._rendered = 0, 0
        # The first block is cut short by chance, so that many patients of one process are not rendered at one moment.
        self._block_n = round(_BLOCK_S * self.rate)
        self._first_n = int(rng.integers(self._block_n // 8, self._block_n + 1))
        self._ready: NDArray[np.int16] = np.empty((0, len(leads)), dtype=np.int16)
        self._used = 0
        self._position = 0
        decay = float(np.exp(-1.0 / (_TAU_S * self.rate)))
        self._leak = np.array([1.0, -1.0]) * (1 + decay) / 2, np.array([1.0, -decay])
        self._leak_state = np.zeros((1, len(leads)))
        self._muscle_state = np.zeros((2, len(leads)))

    @property
    def position(self) -> int:
        """Index of the next sample."""
        return self._position

    def samples(self, n: int) -> NDArray[np.int16]:
        """Give the next samples.

        Parameters
        ----------
        n : int
            How many a lead.

        Returns
        -------
        ndarray of int16, shape (m, leads)
            Units of 1/200 mV, -32768 where a sample is missing; ``m < n`` only where the script ends.
        """
        parts: list[NDArray[np.int16]] = []
        wanted = n
        while wanted > 0:
            if self._used == len(self._ready):
                self._ready, self._used = self._render(), 0
                if not len(self._ready):
                    break
            part = self._ready[self._used : self._used + wanted]
            parts.append(part)
            self._used += len(part)
            wanted -= len(part)
        self._position += n - wanted
        return np.concatenate(parts) if parts else np.empty((0, len(self.leads)), dtype=np.int16)

    def take_truth(self) -> Truth:
        """Hand over the beats and rhythm changes before `position` that were not handed over yet."""
        beats, rhythms = [], []
        while self._beats and self._beats[0].sample < self._position:
            beats.append(self._beats.popleft())
        while self._rhythms and self._rhythms[0].sample < self._position:
            rhythms.append(self._rhythms.popleft())
        return Truth(tuple(beats), tuple(rhythms))

    def _stretch(self) -> Iterator[tuple[Segment, float, float, float, float, int]]:
        """Cut the script into stretches of at most `_PIECE_S`, with start and end of the segment and its number."""
        begin, number = 0.0, 0
        while True:
            for segment in self.script:
                end, start = begin + segment.seconds, begin
                while start < end:
                    stop = min(start + _PIECE_S, end)
                    yield segment, start, stop, begin, end, number
                    start = stop
                begin, number = end, number + 1
            if not self.loop:
                return

    def _plan(self, until: float) -> None:
        while self._planned < until:
            stretch = next(self._stretches, None)
            if stretch is None:
                return
            segment, start, end, segment_start, segment_end, number = stretch
            rng = np.random.default_rng((self.seed, 3, number, round(start * 1000)))
            beats = plan_beats(segment, start, end, self._last_beat, self._series, rng)
            if beats:
                self._last_beat = beats[-1].time
            if self._keep:
                self._note(segment, start, beats)
            centre, width, peak = self._events(beats)
            if segment["motion"] > 0:
                bumps = motion_events(segment["motion"], start, end, len(self.leads), rng)
                centre, width = np.concatenate([centre, bumps[0]]), np.concatenate([width, bumps[1]])
                peak = np.concatenate([peak, bumps[2]])
            order = np.argsort(centre, kind="stable")
            waves = rhythm_waves(segment, np.random.default_rng((self.seed, 4, number)), len(self.leads))
            self._pieces.append(
                _Piece(segment, start, end, segment_start, segment_end, centre[order], width[order], peak[order], waves)
            )
            self._planned = end

    def _note(self, segment: Segment, start: float, beats: list[PlannedBeat]) -> None:
        code = RHYTHM_CODES.get(segment.rhythm, "(N")
        if code != self._code:
            self._rhythms.append(TrueRhythm(round(start * self.rate), code))
            self._code = code
        dark = segment.rhythm in ("leadoff", "gap") and (segment["lead"] == 0 or len(self.leads) == 1)
        if not dark:
            self._beats.extend(TrueBeat(round(b.time * self.rate), b.code) for b in beats if b.code)

    def _events(self, beats: list[PlannedBeat]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Lay the Gaussian events of beats out: centre and width (k,), s, and peak (k, leads), mV."""
        centres, widths = [np.empty(0)], [np.empty(0)]
        peaks = [np.empty((0, len(self.leads)))]
        for name in dict.fromkeys(beat.shape for beat in beats):
            shape = self._shapes[NAMES.index(name)]
            chosen = [beat for beat in beats if beat.shape == name]
            time = np.array([beat.time for beat in chosen])
            size = np.array([beat.size for beat in chosen])
            ratio = np.clip(np.array([beat.rr for beat in chosen]) / 0.8, 0.3, 1.6)
            stretch = ratio[:, None] ** shape.moves
            centres.append((time[:, None] + shape.at * stretch).ravel())
            widths.append(np.maximum(shape.width * stretch, 0.5 / self.rate).ravel())
            peaks.append((size[:, None, None] * shape.peak).reshape(-1, len(self.leads)))
        return np.concatenate(centres), np.concatenate(widths), np.concatenate(peaks)

    def _render(self) -> NDArray[np.int16]:
        """Render the next block; shorter or empty where the script ends."""
        first, length = self._rendered, self._block_n if self._block else self._first_n
        begin, end = first / self.rate, (first + length) / self.rate
        self._plan(end + _REACH_S)
        n = min(length, round(self._planned * self.rate) - first)
        if n <= 0:
            return np.empty((0, len(self.leads)), dtype=np.int16)
        while self._pieces[0].end + _REACH_S < begin:
            self._pieces.popleft()
        self._block, self._rendered = self._block + 1, first + n
        t = (first + np.arange(n)) / self.rate
        mv = self._gaussians(first, n, begin, end)
        level = np.zeros((3, n))
        cuts: list[tuple[_Piece, int, int]] = []
        for piece in self._pieces:
            low = min(max(round(piece.start * self.rate) - first, 0), n)
            high = min(max(round(piece.end * self.rate) - first, 0), n)
            if low == high:
                continue
            cuts.append((piece, low, high))
            options = piece.segment.options
            level[:, low:high] = [[options["wander"]], [options["muscle"]], [options["mains"]]]
            between = rhythm_signal(
                piece.segment, piece.waves, t[low:high], piece.segment_start, piece.segment_end, self._columns
            )
            if between is not None:
                mv[low:high] += between
        mv += level[0][:, None] * self._wander.at(t)
        muscle, self._muscle_state = muscle_noise(
            np.random.default_rng((self.seed, 5, self._block)), n, self._muscle_state
        )
        mv += level[1][:, None] * muscle
        if level[2].any():
            mv += (level[2] * np.sin(2 * np.pi * 50.0 * t))[:, None]
        mv, self._leak_state = lfilter(*self._leak, mv, axis=0, zi=self._leak_state)
        units: NDArray[np.int16] = np.clip(np.rint(mv * GAIN), -RAIL, RAIL).astype(np.int16)
        for piece, low, high in cuts:
            if piece.segment.rhythm in ("leadoff", "gap"):
                lead = int(piece.segment["lead"])
                value = RAIL if piece.segment.rhythm == "leadoff" else MISSING
                units[low:high, slice(None) if lead == 0 else slice(lead - 1, lead)] = value
        return units

    def _gaussians(self, first: int, n: int, begin: float, end: float) -> NDArray[np.float64]:
        """Sum the Gaussian events that reach into a block; shape (n, leads), mV."""
        mv = np.zeros((n, len(self.leads)))
        spans = [
            (p, *np.searchsorted(p.centre, (begin - _REACH_S, end + _REACH_S)).tolist())
            for p in self._pieces
            if p.start < end + _REACH_S
        ]
        if not spans:
            return mv
        centre = np.concatenate([p.centre[i:j] for p, i, j in spans])
        width = np.concatenate([p.width[i:j] for p, i, j in spans])
        peak = np.concatenate([p.peak[i:j] for p, i, j in spans])
        for narrow in (True, False):
            chosen = np.flatnonzero((width < 0.022) == narrow)
            if not chosen.size:
                continue
            c, w = centre[chosen, None], width[chosen, None]
            grid = np.arange(int(2 * _SIGMAS * float(w.max()) * self.rate) + 2)
            index = np.ceil((c - _SIGMAS * w) * self.rate).astype(np.int64) - first + grid
            value = np.exp(-0.5 * (((index + first) / self.rate - c) / w) ** 2)
            inside = (index >= 0) & (index < n)
            at = index[inside]
            for lead in range(mv.shape[1]):
                mv[:, lead] += np.bincount(at, (value * peak[chosen, lead, None])[inside], minlength=n)
        return mv


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """A whole script as samples: units of 1/200 mV of shape (n, leads), and what is in them."""

    samples: NDArray[np.int16]
    truth: Truth


def simulate(
    script: str | Sequence[Segment], rate: float = 250.0, seed: int = 0, leads: tuple[str, ...] = ("MLII", "V1")
) -> Simulation:
    """Play a script once, to its end; parameters as in `Simulator`."""
    simulator = Simulator(script, rate, seed, leads)
    seconds = sum(segment.seconds for segment in simulator.script)
    samples = simulator.samples(round(seconds * rate) + 1)
    return Simulation(samples, simulator.take_truth())


@dataclass(frozen=True, slots=True)
class SimulatedSource:
    """A simulated patient that plays as a device (`replay.Source`); its script goes round for ever.

    Attributes
    ----------
    device : str
        Device id.
    script : str
        See `simulator_script.parse_script`.
    seed : int
        Makes the patient.
    rate : float
        Hz.
    leads : tuple of str
        Out of ``MLII``, ``V1``, ``V5``.
    seconds : float
        Length of a frame.
    loop : bool
        Play the script again when it ends.
    """

    device: str
    script: str
    seed: int = 0
    rate: float = 250.0
    leads: tuple[str, ...] = ("MLII", "V1")
    seconds: float = 1.0
    loop: bool = True

    @property
    def gain(self) -> float:
        """Units per mV."""
        return GAIN

    def frames(self, epoch: int, start_ms: int) -> Iterator[Frame]:
        """Give the frames of one stream epoch."""
        simulator = Simulator(self.script, self.rate, self.seed, self.leads, loop=self.loop, truth=False)
        n, seq = max(round(self.seconds * self.rate), 1), 0
        while True:
            sample = simulator.position
            samples = simulator.samples(n)
            if not len(samples):
                return
            device_ms = start_ms + round(sample * 1000 / self.rate)
            yield Frame(self.device, epoch, seq, sample, device_ms, self.rate, self.leads, GAIN, samples)
            seq += 1
