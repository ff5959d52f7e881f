"""The QRS detector: same beats whatever the cut, none in the dark, all shapes, and the figures on recordings."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as sps

from dsp.layout import BLIND, BLOCK, FS, Flag, Signal
from dsp.qrs import DELAY, QrsWeights, new_states, reset, step, walk
from inference import qrs_model
from inference.contract import KEY, ContractError
from inference.shipped import shipped
from inference.training import qrs_data
from inference.training.qrs_scores import detect
from inference.training.records import read
from inference.training.scoring import Counts, detection, gross
from inference.training.splits import DS1, DS2, PACED


@pytest.fixture(scope="module")
def weights() -> QrsWeights:
    """Load the shipped weights."""
    return qrs_model.load()


def ecg(times, seconds, *, height=1.0, width=0.012, t_wave=0.3, wander=0.0):
    """Make a plain ECG (mV, `FS`) with P, QRS and T at given beat times (s); R peaks on whole samples."""
    n = int(seconds * FS) // BLOCK * BLOCK
    t = np.arange(n) / FS
    x = wander * np.sin(2 * np.pi * 0.3 * t)
    for beat in np.round(np.asarray(times) * FS) / FS:
        for size, at, spread in (
            (0.12, -0.17, 0.022),
            (-0.15, -2.5 * width, width),
            (1.0, 0.0, width),
            (-0.25, 2.5 * width, width),
            (t_wave, 0.27, 0.05),
        ):
            x += height * size * np.exp(-((t - beat - at) ** 2) / (2 * spread**2))
    return x.astype(np.float32)


def one(x, flags=None, start=0):
    """Make a batch of one patient."""
    own = np.zeros(x.size // BLOCK, np.uint8) if flags is None else flags
    return Signal(np.ascontiguousarray(x, np.float32), own, np.array([0, x.size]), np.array([start]))


def beats(x, weights, flags=None):
    """R peaks of one patient, in s."""
    return detect(one(x, flags), weights)[0]


def regular(seconds, rr=0.8, first=0.5):
    return np.arange(first, seconds - 1.0, rr)


def test_a_plain_ecg_is_found_to_the_sample(weights):
    """Every beat of a clean ECG is found from the first second on, at its R peak within 4 ms."""
    times = regular(30)
    found = beats(ecg(times, 30), weights)
    assert detection(times, found) == Counts(times.size, 0, 0)
    assert np.max(np.abs(found - times)) <= 0.0041


@pytest.mark.parametrize("height", [0.1, 0.3, 3.0, -1.0, -0.2])
def test_size_and_sign_do_not_matter(weights, height):
    """From 0.1 to 3 mV and upside down, nothing is missed or invented after the first second."""
    times = regular(40)
    assert detection(times, beats(ecg(times, 40, height=height), weights), start=1.0) == Counts(
        int((times >= 1.0).sum()), 0, 0
    )


def test_tall_t_waves_are_no_beats(weights):
    """T waves of 80 % of R are not taken for beats."""
    times = regular(40)
    counts = detection(times, beats(ecg(times, 40, t_wave=0.8), weights), start=2.0)
    assert counts.fn == 0
    assert counts.fp == 0


@pytest.mark.parametrize("rr", [0.3, 0.45, 1.2, 2.0])
def test_rates_from_30_to_200_are_followed(weights, rr):
    """Intervals from 0.3 to 2 s are all seen."""
    times = regular(40, rr)
    shape = {"width": 0.010, "t_wave": 0.15}
    assert detection(times, beats(ecg(times, 40, **shape), weights), start=2.0).fn == 0


def test_wide_beats_among_narrow_ones_are_found(weights):
    """Ventricular-like beats, three times as wide and inverted, are found between normal ones."""
    times = regular(60)
    wide = times[5::4]
    narrow = np.setdiff1d(times, wide)
    x = ecg(narrow, 60) + ecg(wide - 0.15, 60, height=-1.4, width=0.035, t_wave=-0.4)
    truth = np.sort(np.concatenate((narrow, wide - 0.15)))
    counts = detection(truth, beats(x, weights), start=2.0)
    assert counts.fn <= 1
    assert counts.fp <= 1


def test_pacing_spikes_give_one_beat_each(weights):
    """A 2-ms spike 40 ms before a wide beat adds no beat of its own."""
    times = regular(40)
    x = ecg(times, 40, width=0.025)
    x[np.round((times - 0.08) * FS).astype(int)] += 2.0
    counts = detection(times, beats(x, weights), start=2.0)
    assert counts.fn == 0
    assert counts.fp == 0


def test_no_beat_in_flat_signal(weights):
    """A constant holds no beat, whether or not it is flagged."""
    assert beats(np.full(30 * FS, 0.7, np.float32), weights).size == 0


def test_white_noise_gives_few_beats(weights):
    """Noise without heart holds few beats: under one in 3 s."""
    x = np.random.default_rng(5).normal(0, 0.05, 60 * FS)
    smooth = sps.lfilter([1.0], [1.0, -0.7], x)
    assert beats(smooth, weights).size < 20


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_beat_is_reported_in_the_dark(weights, data):
    """In a block with a BLIND bit no beat is reported, whatever the signal does; elsewhere beats are still found."""
    times = regular(20)
    flags = np.zeros(20 * FS // BLOCK, np.uint8)
    bits = [Flag.MISSING, Flag.FLAT, Flag.SATURATED, Flag.LEAD_OFF]
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.integers(0, flags.size - 1))
        flags[first : first + data.draw(st.integers(1, 20))] |= int(data.draw(st.sampled_from(bits)))
    found = np.round(beats(ecg(times, 20), weights, flags) * FS).astype(int)
    assert not np.any(flags[found // BLOCK] & BLIND)
    dark = np.convolve((flags & BLIND) != 0, np.ones(25), "same") > 0
    clear = times[~dark[(times * FS).astype(int) // BLOCK]]
    assert detection(clear, found / FS).fn <= 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_the_cut_changes_no_bit(weights, cuts, seed):
    """Any cut into blocks gives the same beats, strengths and final state, for two patients at once."""
    rng = np.random.default_rng(seed)
    blocks = sum(cuts)
    n = blocks * BLOCK
    x = np.stack([ecg(regular(n / FS + 2, rr), n / FS)[:n] + rng.normal(0, 0.05, n) for rr in (0.7, 0.93)])
    x = x.astype(np.float32)
    flags = np.where(rng.random((2, blocks)) < 0.1, rng.choice([1, 16, 32, 2], (2, blocks)), 0).astype(np.uint8)
    slots = np.array([2, 0])
    start = np.array([500, 0])

    def run(edges) -> tuple:
        states = new_states(3)
        reset(states, slots, start)
        r, strength, decided, horizon = ([], []), ([], []), ([], []), None
        for a, b in itertools.pairwise(edges):
            piece = np.concatenate([row[a * BLOCK : b * BLOCK] for row in x])
            marks = np.concatenate([row[a:b] for row in flags])
            size = (b - a) * BLOCK
            signal = Signal(piece, marks, np.array([0, size, 2 * size]), start + a * BLOCK)
            peaks = step(states, slots, signal, weights)
            for p in range(2):
                own = slice(peaks.offsets[p], peaks.offsets[p + 1])
                r[p].extend(peaks.r[own])
                strength[p].extend(peaks.strength[own])
                decided[p].extend(peaks.decided[own])
                if horizon is not None:
                    assert np.all(peaks.r[own] >= horizon[p]), "a beat came before the horizon"
            horizon = peaks.horizon
        return r, strength, decided, horizon.tolist(), states.tobytes()

    whole = run([0, blocks])
    parts = run([0, *np.cumsum(cuts)])
    single = run(range(blocks + 1))
    assert whole[:2] == parts[:2] == single[:2]
    assert whole[3:] == parts[3:] == single[3:]
    for p in range(2):
        r, decided = np.array(single[0][p]), np.array(single[2][p])
        assert np.all(np.diff(r) > 0)
        assert np.all(decided - r <= DELAY + BLOCK)
        assert whole[2][p] == single[2][p]


def leads_of(x, lead, a, b, start=0):
    """Make a batch of one patient with two leads, blocks `a` to `b`."""
    own = slice(a * BLOCK, b * BLOCK)
    every = np.ascontiguousarray(x[:, own], np.float32)
    analysed = np.asarray(lead[a:b], np.int8)
    mixed = np.where(np.repeat(analysed, BLOCK) == 0, every[0], every[1])
    flags = np.zeros((2, b - a), np.uint8)
    return Signal(
        mixed, flags[0], np.array([0, (b - a) * BLOCK]), np.array([start + a * BLOCK]), every, flags, analysed,
        np.array([2]),
    )  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=6, max_size=12), st.integers(0, 2**32 - 1))
def test_the_cut_changes_no_bit_with_two_leads(weights, cuts, seed):
    """Beats, and those of the lead beside, are the same for any cut and any change of leads, and ascend."""
    rng = np.random.default_rng(seed)
    blocks = sum(cuts)
    n = blocks * BLOCK
    x = np.stack([ecg(regular(n / FS + 2, 0.8), n / FS, height=size)[:n] for size in (1.0, -0.3)])
    lead = np.repeat(rng.integers(0, 2, blocks // 5 + 1), 5)[:blocks]

    def run(edges) -> tuple:
        states, slots, r, beside = new_states(1), np.array([0]), [], []
        reset(states, slots, np.array([0]))
        for a, b in itertools.pairwise(edges):
            peaks = step(states, slots, leads_of(x, lead, a, b), weights)
            r.extend(peaks.r)
            beside.extend(zip(peaks.beside, peaks.beside_decided, strict=True))
            assert np.all(peaks.beside_decided <= b * BLOCK)
            assert np.all(np.abs(peaks.beside_decided - peaks.beside - DELAY) <= BLOCK)
        return r, beside, states.tobytes()

    whole = run([0, blocks])
    assert whole == run([0, *np.cumsum(cuts)]) == run(range(blocks + 1))
    assert np.all(np.diff(whole[0]) > 60)


def test_a_change_of_leads_costs_no_beat(weights):
    """A lead of a tenth of the size and the other sign is known by the time it is analysed."""
    times = regular(60)
    x = np.stack([ecg(times, 60), ecg(times, 60, height=-0.1)])
    lead = np.repeat([0, 1, 0, 1], 75)
    peaks = step_all(weights, leads_of(x, lead, 0, 300))
    counts = detection(times, peaks.r / FS, start=2.0)
    assert (counts.fn, counts.fp) == (0, 0)
    assert detection(times, np.sort(peaks.beside) / FS, start=2.0).fn == 0


def step_all(weights, signal):
    """Run one patient's batch from the start."""
    states, slots = new_states(1), np.array([0])
    reset(states, slots, signal.start)
    return step(states, slots, signal, weights)


def test_blocks_out_of_place_are_refused(weights):
    """A jump in the index, or a start within a block, is an error."""
    states = new_states(1)
    slots = np.array([0])
    with pytest.raises(ValueError, match="multiple"):
        reset(states, slots, np.array([7]))
    reset(states, slots, np.array([0]))
    with pytest.raises(ValueError, match="do not follow"):
        step(states, slots, one(np.zeros(FS, np.float32), start=FS), weights)


def test_a_switched_lead_is_learnt_anew(weights):
    """After a switch to a lead of a tenth of the size, beats are found within a second."""
    times = regular(40)
    x = ecg(times, 40)
    half = 20 * FS
    x[half:] = 0.1 * ecg(times, 40, height=-1.0)[half:] + 2.0
    flags = np.zeros(x.size // BLOCK, np.uint8)
    flags[half // BLOCK] = int(Flag.SWITCHED)
    counts = detection(times, beats(x, weights, flags), start=21.0)
    assert counts.fn == 0
    assert counts.fp == 0


def test_noisy_blocks_teach_nothing(weights):
    """Templates and level stay as they were through blocks marked noisy."""
    times = regular(30)
    x = ecg(times, 30)
    states = new_states(1)
    slots = np.array([0])
    reset(states, slots, np.array([0]))
    step(states, slots, one(x), weights)
    before = states.copy()
    later = one(4 * x, np.full(x.size // BLOCK, int(Flag.NOISY), np.uint8), start=x.size)
    step(states, slots, later, weights)
    assert states["lead"]["level"][0, 0] == before["lead"]["level"][0, 0]
    assert states["lead"]["beat_height"][0, 0] == pytest.approx(before["lead"]["beat_height"][0, 0], rel=0.1)


def test_any_runtime_computes_the_same_logits(weights):
    """ONNX Runtime on the shipped file gives the kernel's logits."""
    x = ecg(regular(30), 30) + np.random.default_rng(0).normal(0, 0.05, 30 * FS)
    states = new_states(1)
    slots = np.array([0])
    reset(states, slots, np.array([0]))
    _, rows = walk(states, slots, one(x), weights, rows=True)
    session = onnxruntime.InferenceSession(str(shipped() / qrs_model.FILE), providers=["CPUExecutionProvider"])
    first, second, accepted = session.run(None, {"first": rows.first, "second": rows.second})
    assert rows.tick.size > 50
    np.testing.assert_allclose(first[:, 0], rows.logit[:, 0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(second[:, 0], rows.logit[:, 1], rtol=1e-4, atol=1e-4)
    assert np.all(accepted[:, 0][rows.accepted])


def test_a_model_that_does_not_fit_is_refused(weights, tmp_path):
    """A missing file, a file without contract, and weights of other shapes are told apart."""
    with pytest.raises(FileNotFoundError, match="no QRS model"):
        qrs_model.load(tmp_path / "none.onnx")
    model = onnx.load(str(shipped() / qrs_model.FILE))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    with pytest.raises(ContractError, match="no contract"):
        qrs_model.load(tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match="do not fit"):
        QrsWeights(weights.first[:5], weights.second, 0.0)
    qrs_model.save(tmp_path / "copy.onnx", weights, version="x", training="")
    copy = qrs_model.load(tmp_path / "copy.onnx")
    assert copy.threshold == pytest.approx(weights.threshold)
    assert all(np.array_equal(a, b) for a, b in zip(copy.first, weights.first, strict=True))
    assert KEY in {entry.key for entry in onnx.load(str(tmp_path / "copy.onnx")).metadata_props}


def test_one_candidate_of_each_beat_is_its_own():
    """The highest candidate near a beat is true, others near it weigh half, unsure stretches nothing."""
    piece = qrs_data.Piece(
        "a/b", 250.0, np.zeros(0, np.float32), np.array([1.0, 2.0, 9.0]), np.array([[8.0, 10.0]]), 1.0
    )
    ticks = (np.array([248, 260, 400, 500, 1125]) + qrs_data.LAG) // 2
    truth, weight = qrs_data.label(piece, ticks, np.array([1.0, 2.0, 3.0, 1.0, 1.0], np.float32))
    assert truth.tolist() == [False, True, False, True, False]
    assert weight.tolist() == [0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.data
def test_all_records_of_mitdb(weights, data_dir):
    """All 48 records through the live chain from the first second: at least 99.9 % of each."""
    pieces = [
        qrs_data.whole(record, record.lead(), 1.0)
        for record in (read(data_dir, "mitdb", n) for n in (*DS1, *DS2, *PACED))
    ]
    found = detect(qrs_data.through_frontend(pieces), weights)
    counts = [
        detection(piece.beats, own, excluded=[(a, b) for a, b in piece.unsure])
        for piece, own in zip(pieces, found, strict=True)
    ]
    total = gross(counts)
    assert total.sensitivity >= 0.999
    assert total.precision >= 0.999
