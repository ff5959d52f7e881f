"""Beat features: rows that depend on sample indices alone, and numbers that mean what their names say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from streaming import Piece, assert_cut_invariant

from dsp import spectrogram
from dsp.layout import BLOCK, FS, Flag, Peaks, Signal
from inference import features, features_image, features_rr, features_segment, features_shape
from inference.features import MAX_CHUNK, NAMES, WAIT

Patient = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]
"""Lead, flags of blocks, R peaks and when they were decided."""


def wave(x: NDArray[np.float32], r: int, gain: float = 1.0, wide: bool = False) -> None:
    """Add a beat at `r`: P, QRS and T of a usual one, or a wide complex without a P wave."""
    k = np.arange(x.size) - r
    bumps = (
        ((-1.2, 15.0, 0), (2.0, 14.0, 10))
        if wide
        else ((0.12, 8.0, -42), (1.0, 3.0, 0), (-0.3, 3.0, 8), (0.25, 16.0, 65))
    )
    for height, width, at in bumps:
        x += (gain * height * np.exp(-0.5 * ((k - at) / width) ** 2)).astype(np.float32)


def patient(rr: Sequence[int], wide: Sequence[int] = (), noise: float = 0.01, seed: int = 0) -> Patient:
    """Make a lead with beats `rr` samples apart, those numbered in `wide` being wide."""
    r = 150 + np.cumsum([0, *rr])
    size = (int(r[-1]) + 600) // BLOCK * BLOCK
    x = (noise * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)
    for number, at in enumerate(r):
        wave(x, int(at), wide=number in wide)
    decided = -(-(r + 110) // BLOCK) * BLOCK
    return x, np.zeros(size // BLOCK, np.uint8), r.astype(np.int64), decided.astype(np.int64)


def states(n: int) -> NDArray[Any]:
    """Make one record a patient that holds the state of both stages."""
    both = np.zeros(n, np.dtype([("spectrum", spectrogram.STATE), ("features", features.STATE)], align=True))
    both["spectrum"] = spectrogram.new_states(n)
    both["features"] = features.new_states(n)
    return both


def feed(
    patients: Sequence[Patient], store: NDArray[Any], slots: NDArray[np.int64], spans: Sequence[tuple[int, int]]
) -> list[Piece]:
    """Give each patient its span, in pieces of at most `MAX_CHUNK` samples."""
    spectra, own = np.ascontiguousarray(store["spectrum"]), np.ascontiguousarray(store["features"])
    pieces: list[list[Piece]] = [[] for _ in slots]
    at = [span[0] for span in spans]
    while True:
        live = [i for i, span in enumerate(spans) if at[i] < span[1]] or (
            [] if any(pieces) else list(range(len(slots)))
        )
        if not live:
            break
        ends = [min(spans[i][1], at[i] + MAX_CHUNK) for i in live]
        chosen = [patients[slots[i]] for i in live]
        masks = [
            (decided > at[i]) & (decided <= end) for i, end, (_, _, _, decided) in zip(live, ends, chosen, strict=True)
        ]
        signal = Signal(
            np.concatenate([x[at[i] : end] for i, end, (x, *_) in zip(live, ends, chosen, strict=True)]),
            np.concatenate(
                [f[at[i] // BLOCK : end // BLOCK] for i, end, (_, f, *_) in zip(live, ends, chosen, strict=True)]
            ),
            np.cumsum([0, *(end - at[i] for i, end in zip(live, ends, strict=True))]),
            np.array([at[i] for i in live]),
        )
        r = np.concatenate([one[2][mask] for one, mask in zip(chosen, masks, strict=True)])
        decided = np.concatenate([one[3][mask] for one, mask in zip(chosen, masks, strict=True)])
        offsets = np.cumsum([0, *(int(mask.sum()) for mask in masks)])
        peaks = Peaks(offsets, r, decided, np.ones(r.size, np.float32), np.array(ends) - 150)
        some = slots[live]
        spectrogram.step(spectra, some, signal)
        out = features.step(own, some, spectra, signal, peaks)
        for place, i in enumerate(live):
            a, b = out.offsets[place], out.offsets[place + 1]
            names = ("r", "decided", "features", "images", "rr_ms", "width_ms", "cluster", "flags")
            pieces[i].append({name: getattr(out, name)[a:b].copy() for name in names})
            at[i] = ends[place]
    store["spectrum"], store["features"] = spectra, own
    return [{name: np.concatenate([p[name] for p in parts]) for name in parts[0]} for parts in pieces]


def run(one: Patient) -> Piece:
    """Run one patient from the start to the end."""
    return feed([one], states(1), np.zeros(1, np.int64), [(0, one[0].size)])[0]


def column(rows: Piece, name: str) -> NDArray[np.float32]:
    """One feature of all rows."""
    return rows["features"][:, NAMES.index(name)]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**16),
    rr=st.lists(st.lists(st.integers(60, 420), min_size=3, max_size=14), min_size=1, max_size=3),
)
def test_cuts_and_batch_mates_change_no_bit(seed: int, rr: list[list[int]]) -> None:
    """Rows and state are the same bits for any cut into chunks and any company in a call, with any flags."""
    rng = np.random.default_rng(seed)
    patients = []
    for number, gaps in enumerate(rr):
        x, flags, r, decided = patient(gaps, wide=(1, 4), seed=seed + number)
        flags[:] = rng.choice(
            [0, int(Flag.NOISY), int(Flag.MISSING), int(Flag.SWITCHED)], flags.size, p=[0.85, 0.05, 0.05, 0.05]
        )
        late = rng.integers(0, 6, r.size) * BLOCK
        decided = np.maximum.accumulate(decided + late)
        keep = decided <= x.size
        patients.append((x, flags, r[keep], decided[keep]))

    def fed(store: NDArray[Any], slots: NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> list[Piece]:
        return feed(patients, store, slots, spans)

    whole = assert_cut_invariant(
        fed, lambda: states(len(patients)), [one[0].size for one in patients], (1, 2, 5, 7), seed, BLOCK
    )
    for rows in whole:
        assert np.isfinite(rows["features"]).all()
        assert np.isfinite(rows["images"]).all()


def test_rows_come_in_time() -> None:
    """A row needs the image's columns, and waits for the next peak until `WAIT` samples and no longer."""
    rows = run(patient([200, 200, 500, 200, 60, 200]))
    r, decided = rows["r"], rows["decided"]
    assert r.size == 7
    assert (decided % BLOCK == 0).all()
    assert (decided >= [features_image.end_needed(int(at)) for at in r]).all()
    assert (decided - r <= WAIT + BLOCK).all()
    assert decided[2] - r[2] >= WAIT
    known = column(rows, "rr_next_known")
    assert known.tolist() == [1, 1, 0, 1, 1, 1, 0]
    assert np.allclose(column(rows, "rr_next")[:2], 0.8)
    assert column(rows, "rr_next")[2] == pytest.approx(WAIT / FS)


def test_rr_features() -> None:
    """An early beat is early against each baseline, and RR across missing samples is not known."""
    gaps = [200] * 20 + [120, 280] + [200] * 5
    rows = run(patient(gaps))
    early = 21
    for name in ("rr_by_median8", "rr_by_median32", "rr_by_gate", "rr_by_q50", "rr_by_slow"):
        assert column(rows, name)[early] == pytest.approx(np.log(0.6), abs=0.05), name
        assert abs(column(rows, name)[15]) < 0.05, name
    assert rows["rr_ms"][0] == 0
    assert rows["rr_ms"][early] == 480
    x, flags, r, decided = patient(gaps)
    flags[(r[10] + 100) // BLOCK] = Flag.MISSING
    rows = run((x, flags, r, decided))
    assert rows["rr_ms"][11] == 0
    assert column(rows, "rr_known")[11] == 0


def test_majority_of_early_beats_fools_no_slow_baseline() -> None:
    """With five early beats to each late one the slow baseline stays at the late ones' interval."""
    gaps = [200] * 12 + ([120] * 5 + [230]) * 25
    rows = run(patient(gaps))
    assert column(rows, "rr_by_median8")[-3] == pytest.approx(0, abs=0.05)
    assert column(rows, "rr_by_slow")[-3] < np.log(0.75)


def test_irregularity_tells_bigeminy_from_fibrillation() -> None:
    """The minimum over lags is low for bigeminy and high for random intervals."""
    bigeminy = run(patient([140, 260] * 25))
    random = run(patient(np.random.default_rng(3).integers(100, 260, 50).tolist()))
    assert column(bigeminy, "irregular_min")[-1] < 0.02 < 0.15 < column(random, "irregular_min")[-1]
    assert column(bigeminy, "irregular_1")[-1] > 0.5


def test_wide_beats_have_a_cluster_of_their_own() -> None:
    """A wide beat is unlike the usual one, like its own kind, and wider; it has no P wave."""
    wide = (12, 17, 22)
    rows = run(patient([200] * 26, wide=wide))
    usual = [i for i in range(5, 26) if i not in wide]
    assert column(rows, "corr_dominant")[usual].min() > 0.95
    assert column(rows, "corr_dominant")[list(wide)].max() < 0.6
    assert column(rows, "corr_own")[22] > 0.9
    assert len(set(rows["cluster"][usual])) == 1
    assert rows["cluster"][12] == rows["cluster"][17] == rows["cluster"][22] != rows["cluster"][5]
    assert rows["width_ms"][list(wide)].min() > 1.5 * rows["width_ms"][usual].max()
    assert column(rows, "p_corr")[usual].min() > 0.7
    assert np.abs(column(rows, "amplitude_ratio")[usual]).max() < 0.2


def test_poor_signal_teaches_nothing_and_a_switch_forgets() -> None:
    """Noisy blocks leave the templates as they were; after a switch of leads the count of beats starts again."""
    x, flags, r, decided = patient([200] * 20)
    noisy = flags.copy()
    noisy[r[8] // BLOCK - 1 : r[12] // BLOCK + 2] = Flag.NOISY
    rows = run((x, noisy, r, decided))
    learnt = np.round(np.expm1(column(rows, "beats_learnt")))
    assert learnt[13] == learnt[8] == 8
    assert rows["cluster"][10] == -1
    assert rows["flags"][10] == Flag.NOISY
    switched = flags.copy()
    switched[(r[10] + 100) // BLOCK] = Flag.SWITCHED
    learnt = np.round(np.expm1(column(run((x, switched, r, decided)), "beats_learnt")))
    assert learnt[10:13].tolist() == [10, 0, 1]


def test_image_is_the_spectrum_round_the_r_peak() -> None:
    """Energy of the QRS lies in the columns round R, the difference is small for a usual beat, gain cancels out."""
    one = patient([200] * 20, noise=0.001)
    rows = run(one)
    assert rows["images"].shape[1:] == (4, 24, 48)
    log = rows["images"][15, 0]
    assert log[6:16, 12:].mean(axis=0).argmax() + 12 in range(28, 33)
    assert np.abs(rows["images"][15, 1][:12, 28:33]).max() < 0.3
    louder = run((2 * one[0], *one[1:]))
    assert np.abs(louder["images"][15, 0] - log).max() < 0.05


def test_phase_counts_from_the_r_peak() -> None:
    """The same beat at each of the eight places between two columns gives nearly the same signed images."""
    images = []
    for shift in range(8):
        x, flags, r, decided = patient([200] * 6, noise=0.0)
        moved = np.roll(x, shift)
        images.append(run((moved, flags, r + shift, decided))["images"][5, 2:, :12, 28:33])
    spread = np.ptp(np.stack(images), axis=0)
    assert spread.mean() < 0.12


def test_short_recording_has_sane_rows() -> None:
    """Ten seconds from the start: all numbers finite and bounded, the first beat like any other in shape."""
    rows = run(patient([200] * 10, wide=(4,)))
    assert rows["r"].size == 11
    assert np.abs(rows["features"]).max() < 50
    assert column(rows, "corr_dominant")[1] > 0.95
    assert column(rows, "corr_dominant")[4] < 0.6


def test_refusals() -> None:
    """Too long a chunk, blocks that don't follow, and impossible peaks are errors of the caller."""
    store, spectra, slots = features.new_states(1), spectrogram.new_states(1), np.zeros(1, np.int64)

    def step(size: int, start: int, peaks: int = 0) -> None:
        signal = Signal(
            np.zeros(size, np.float32), np.zeros(size // BLOCK, np.uint8), np.array([0, size]), np.array([start])
        )
        r = np.arange(peaks)
        found = Peaks(np.array([0, peaks]), r, np.full(peaks, 50), np.ones(peaks, np.float32), np.array([0]))
        features.step(store, slots, spectra, signal, found)

    with pytest.raises(ValueError, match="at most"):
        step(MAX_CHUNK + BLOCK, 0)
    with pytest.raises(ValueError, match="follow"):
        step(BLOCK, BLOCK)
    with pytest.raises(ValueError, match="closer"):
        step(BLOCK, 0, features.PENDING + 1)
    features.reset(store, slots, np.array([10 * BLOCK]))
    step(BLOCK, 10 * BLOCK)


def test_names() -> None:
    """Names are unique and each part of the row has its own."""
    assert len(set(NAMES)) == len(NAMES)
    assert len(NAMES) == len(features_rr.NAMES) + len(features_shape.NAMES) + len(features_image.NAMES)


@given(st.lists(st.floats(2.0**-20, 2.0**10, width=32), min_size=1, max_size=50))
def test_half_log(values: list[float]) -> None:
    """The fast logarithm is within 1e-4 of the exact one."""
    x = np.array(values, np.float32)
    out = np.empty_like(x)
    exact = 0.5 * np.log(x.astype(np.float64))
    features_image.half_log(x.copy(), out)
    assert np.abs(out - exact).max() < 1e-4


def test_twin_in_plain_python() -> None:
    """The uncompiled kernels give the same numbers as the compiled ones."""
    rng = np.random.default_rng(5)
    ring = rng.standard_normal(features.RING).astype(np.float32)
    for first in (0, 290):
        fast, plain = np.empty(features_segment.POINTS), np.empty(features_segment.POINTS)
        a = features_segment.segment(ring, 300, first, fast)
        b = features_segment.segment.py_func(ring, 300, first, plain)  # type: ignore[attr-defined]
        assert a == pytest.approx(b, rel=1e-4)
        assert np.allclose(fast, plain, atol=1e-5)
    compiled, interpreted = features.new_states(2)[:1], features.new_states(1)
    for rr in rng.uniform(0.3, 1.5, 40):
        features_rr.rr_update(compiled[0], rr, True)
        features_rr.rr_update.py_func(interpreted[0], rr, True)  # type: ignore[attr-defined]
    left, right = np.zeros(len(features_rr.NAMES), np.float32), np.zeros(len(features_rr.NAMES), np.float32)
    n = features_rr.rr_features(compiled[0], 0.7, 0.9, 1.4, np.empty(64), left)
    m = features_rr.rr_features.py_func(interpreted[0], 0.7, 0.9, 1.4, np.empty(64), right)  # type: ignore[attr-defined]
    assert n == m == len(features_rr.NAMES)
    assert np.allclose(left, right, atol=1e-4)
