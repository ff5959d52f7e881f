"""Training data of the rhythm stage: recordings run through the live stages, and the rhythm of each second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import frontend, qrs
from dsp.qrs import QrsWeights
from inference import rhythm
from inference.rhythm import Rows
from inference.training import splits
from inference.training.qrs_data import MOTION_TRAIN, Noise
from inference.training.records import Record, names, read, read_challenge

OTHER: Final = 0
VT: Final = 1
VF: Final = 2
NOISE: Final = 3
AF: Final = 4
DOUBT: Final = 5

MEANING: Final = {
    **dict.fromkeys(("(VT",), VT),
    **dict.fromkeys(("(VF", "(VFIB", "(VFL"), VF),
    **dict.fromkeys(("(AFIB", "(AFL"), AF),
    **dict.fromkeys(("(NOISE",), NOISE),
    **dict.fromkeys(("(VER", "(IVR", "(HGEA"), DOUBT),
}
"""Class of each rhythm code of the databases; a code that is not here is `OTHER`."""

AGREE: Final = 3
"""Seconds that must be of one rhythm for a label; others are `DOUBT`."""

MOTION_TEST: Final = ((300, 420), (540, 660), (780, 900))
"""Stretches (s) of the noise stress records whose electrode motion tests."""

SVDB_AF: Final = ("804", "867")
"""Records of svdb that look like atrial fibrillation and flutter; svdb has no rhythm labels, so these teach nothing."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Example:
    """One lead of a recording, or a copy made worse, behind the live stages.

    Attributes
    ----------
    database, name : str
        As in ``mitdb`` and ``100``.
    copy : str
        ``clean``, ``second`` (the other lead) or ``noisy``.
    rows : Rows
        Of one patient.
    label : ndarray of int8, shape (m,)
        Rhythm of the last `AGREE` seconds of each row.
    whole : str
        Label of the whole recording (cinc2017), else empty.
    """

    database: str
    name: str
    copy: str
    rows: Rows
    label: NDArray[np.int8]
    whole: str

    @property
    def key(self) -> str:
        """``database/name``."""
        return f"{self.database}/{self.name}"


def through(mv: NDArray[np.float32], rate: float, weights: QrsWeights) -> Rows:
    """Run one lead through front end, QRS detector and rhythm kernels.

    Parameters
    ----------
    mv : ndarray of float32, shape (n,)
        mV; NaN where missing.
    rate : float
        Hz.
    weights : QrsWeights

    Returns
    -------
    Rows
    """
    slots = np.zeros(1, np.int64)
    start = np.zeros(1, np.int64)
    front, beats, states = frontend.new_states(1), qrs.new_states(1), rhythm.new_states(1)
    frontend.reset(front, slots, np.ones(1, np.int64), start)
    qrs.reset(beats, slots, start)
    raw = np.ascontiguousarray(mv, np.float32)[:, None]
    signal = frontend.step(front, slots, raw, np.array([0, len(raw)]), rate).signal
    return rhythm.step(states, slots, signal, qrs.step(beats, slots, signal, weights))


def seconds(record: Record, count: int) -> NDArray[np.int8]:
    """Label each second of a record by the rhythm of the seconds before its end.

    Parameters
    ----------
    record : Record
    count : int
        Seconds.

    Returns
    -------
    ndarray of int8, shape (count,)
    """
    each = np.full(max(len(record.mv), 1), OTHER, np.int8)
    if record.rhythms.size:
        each[: record.rhythms[0]] = DOUBT
    ends = [*record.rhythms[1:], len(each)][: record.rhythms.size]
    for code, first, last in zip(record.rhythm_codes, record.rhythms, ends, strict=True):
        each[first:last] = MEANING.get(code, OTHER)
    for first, last in record.flutter:
        each[first:last] = VF
    labels = np.full(count, DOUBT, np.int8)
    for k in range(count):
        part = each[max(0, int((k + 1 - AGREE) * record.rate)) : int((k + 1) * record.rate)]
        if part.size and (part == part[0]).all():
            labels[k] = part[0]
    return labels


def noisy(
    mv: NDArray[np.float32],
    rate: float,
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator, int, float], NDArray[np.float64]],
    share: float,
    decibels: tuple[float, float],
) -> NDArray[np.float32]:
    """Add noise in stretches of 20 to 120 s.

    Parameters
    ----------
    mv : ndarray of float32, shape (n,)
        mV.
    rate : float
        Hz.
    rng : Generator
    draw : callable
        ``draw(rng, n, rate)`` gives noise with a standard deviation of 1.
    share : float
        Of stretches with noise.
    decibels : (float, float)
        Range of signal-to-noise ratios as in the noise stress test: (peak to peak)^2 / 8 of QRS over noise power.

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    out = np.nan_to_num(mv).astype(np.float64)
    each = int(rate)
    tall = np.ptp(out[: len(out) // each * each].reshape(-1, each), axis=1)
    tall = tall[tall > 0.05]
    size = float(np.median(tall)) / np.sqrt(8.0) if tall.size else 0.3
    at = 0
    while at < len(out):
        end = min(len(out), at + int(rng.uniform(20, 120) * rate))
        if rng.random() < share:
            out[at:end] += size * 10 ** (-rng.uniform(*decibels) / 20) * draw(rng, end - at, rate)
        at = end
    return out.astype(np.float32)


def motion(data_dir: Path, stretches: tuple[tuple[int, int], ...]) -> tuple[list[NDArray[np.float32]], float]:
    """Electrode motion by itself: ``118e_6`` minus ``118``, one array a lead.

    Parameters
    ----------
    data_dir : Path
    stretches : tuple of (int, int)
        Seconds to take, joined.

    Returns
    -------
    list of ndarray of float32
        mV.
    float
        Rate, Hz.
    """
    loud = read(data_dir, "nstdb", "118e_6")
    alone = loud.mv - read(data_dir, "mitdb", "118").mv[: len(loud.mv)]
    parts = [alone[int(first * loud.rate) : int(last * loud.rate)] for first, last in stretches]
    joined = np.concatenate(parts).astype(np.float32)
    return [joined[:, lead] for lead in range(joined.shape[1])], loud.rate


def recordings(
    data_dir: Path, database: str, wanted: list[str], weights: QrsWeights, copies: int, settings: dict[str, float]
) -> Iterator[Example]:
    """Run WFDB records with their copies.

    Parameters
    ----------
    data_dir : Path
    database : str
    wanted : list of str
        Names of records.
    weights : QrsWeights
    copies : int
        Noisy copies of each; with any, the second lead comes as one more.
    settings : dict
        ``seed``, ``share``, ``low`` and ``high`` (dB) of the noise.

    Yields
    ------
    Example
    """
    noise = Noise(data_dir) if copies else None
    for name in wanted:
        record = read(data_dir, database, name)
        first = record.lead()
        leads = [first, *(k for k in range(record.mv.shape[1]) if k != first)][: 2 if copies else 1]
        made = [("clean" if lead == first else "second", record.mv[:, lead]) for lead in leads]
        rng = np.random.default_rng([int(settings["seed"]), *name.encode()])
        for _ in range(copies if noise is not None else 0):
            assert noise is not None  # noqa: S101
            bounds = (settings["low"], settings["high"])
            made.append(("noisy", noisy(record.mv[:, first], record.rate, rng, noise.draw, settings["share"], bounds)))
        for copy, mv in made:
            rows = through(mv, record.rate, weights)
            yield Example(database, name, copy, rows, seconds(record, len(rows.end)), "")


def challenge(data_dir: Path, weights: QrsWeights, *, test: bool) -> Iterator[Example]:
    """Run the recordings of the AF challenge 2017: those that train, or those that test.

    Yields
    ------
    Example
    """
    for record in read_challenge(data_dir / "cinc2017.tar"):
        if splits.challenge_test(record.name) != test:
            continue
        rows = through(record.mv[:, 0], record.rate, weights)
        meaning = {"A": AF, "~": NOISE}.get(record.label, OTHER)
        yield Example("cinc2017", record.name, "clean", rows, np.full(len(rows.end), meaning, np.int8), record.label)


def training_examples(data_dir: Path, weights: QrsWeights, settings: dict[str, float], say: Progress) -> list[Example]:
    """All that trains: vfdb and the challenge without test records, DS1, svdb (AF only), electrode motion.

    Parameters
    ----------
    data_dir : Path
    weights : QrsWeights
    settings : dict
        See `recordings`; also ``copies``.
    say : callable
        Takes a line for people.

    Returns
    -------
    list of Example
    """
    found: list[Example] = []
    copies = int(settings["copies"])
    malignant = [name for name in names(data_dir, "vfdb") if name not in splits.VFDB_TEST]
    for database, wanted in (("vfdb", malignant), ("mitdb", list(splits.DS1))):
        found += recordings(data_dir, database, wanted, weights, copies, settings)
        say(f"{database}: {len(wanted)} records run")
    ectopic = [name for name in names(data_dir, "svdb") if name not in SVDB_AF]
    found += recordings(data_dir, "svdb", ectopic, weights, 0, settings)
    say(f"svdb: {len(ectopic)} records run")
    waves, rate = motion(data_dir, MOTION_TRAIN)
    for lead, mv in enumerate(waves):
        rows = through(np.tile(mv, 2), rate, weights)
        label = np.full(len(rows.end), NOISE, np.int8)
        found.append(Example("nstdb", f"motion{lead}", "clean", rows, label, ""))
    found += challenge(data_dir, weights, test=False)
    say("cinc2017: training part run")
    return found
