"""Simulated patients: the same however they are asked for, and what the script says is in the signal."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from ingest.frame import DEVICE_ID
from ingest.simulator import MISSING, RAIL, SimulatedSource, Simulator, simulate
from ingest.simulator_cast import CAST, cast_sources
from ingest.simulator_rhythms import TACHOGRAM_HZ, tachogram
from ingest.simulator_script import COMMON, RHYTHMS, ScriptError, Segment, parse_script

TOUR = "; ".join(f"{rhythm}:3" for rhythm in RHYTHMS)


def rr_s(beats: list[int], rate: float = 250.0) -> np.ndarray:
    return np.diff(beats) / rate


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12), st.sampled_from([125.0, 130.0, 250.0, 360.0]))
def test_chunks_of_any_length_give_the_same_bits(sizes: list[int], rate: float):
    """A tour of every rhythm is bit-equal however it is cut, and so are its beats."""
    whole, cut = Simulator(TOUR, rate, seed=5), Simulator(TOUR, rate, seed=5)
    expected = whole.samples(sum(sizes))
    beats = []
    parts = []
    for size in sizes:
        parts.append(cut.samples(size))
        beats.extend(cut.take_truth().beats)
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert tuple(beats) == whole.take_truth().beats


def test_one_sample_at_a_time_gives_the_same_bits():
    """Chunks of a single sample join across the edge of a rendered block."""
    whole, single = Simulator("af:20", seed=2), Simulator("af:20", seed=2)
    single.samples(1900)
    whole.samples(1900)
    np.testing.assert_array_equal(np.concatenate([single.samples(1) for _ in range(300)]), whole.samples(300))


def test_a_seed_is_a_patient():
    """The same seed gives the same signal, another seed another one."""
    first, again, other = (simulate("sinus:20", seed=seed).samples for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize("rhythm", sorted(RHYTHMS))
@pytest.mark.parametrize("rate", [128.0, 500.0])
def test_every_rhythm_plays_at_every_rate(rhythm: str, rate: float):
    """Each rhythm has its length, stays inside the converter's range, and its beats lie inside it in order."""
    result = simulate(f"{rhythm}:20", rate, seed=3, leads=("MLII", "V1", "V5"))
    assert result.samples.shape == (20 * rate, 3)
    assert result.samples.dtype == np.int16
    valid = result.samples[result.samples != MISSING]
    assert np.abs(valid).max(initial=0) <= RAIL
    at = [beat.sample for beat in result.truth.beats]
    assert all(0 <= sample < 20 * rate for sample in at)
    assert min(np.diff(at), default=1e9) >= 0.19 * rate
    assert {beat.code for beat in result.truth.beats} <= set("NLRAVFE/")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rhythm", ["sinus", "lbbb", "rbbb", "pvc", "af", "paced", "svt", "aivr", "bigeminy"])
def test_a_beat_is_where_the_truth_says(rhythm: str, seed: int):
    """Within 50 ms of each true R mark lies the largest departure of its neighbourhood."""
    result = simulate(f"{rhythm}:30", seed=seed, leads=("MLII", "V1"))
    x = result.samples[:, 0].astype(float)
    for beat in result.truth.beats[1:-1]:
        near = np.abs(x[beat.sample - 12 : beat.sample + 13]).max()
        around = np.abs(x[max(beat.sample - 30, 0) : beat.sample + 31]).max()
        assert near > 0.9 * around
        assert near > 60


def test_rates_are_those_asked_for():
    """Mean heart rates of the regular rhythms agree with ``hr`` within 3 %."""
    for rhythm, hr in (("sinus", 70), ("brady", 40), ("tachy", 140), ("svt", 190), ("vt", 170), ("paced", 65)):
        beats = [beat.sample for beat in simulate(f"{rhythm}:120,hr={hr}", seed=4).truth.beats]
        assert 60 / rr_s(beats).mean() == pytest.approx(hr, rel=0.03)


def test_a_premature_ventricular_beat_is_wide_early_and_compensated():
    """It comes early, the two intervals make two sinus ones, and its complex has more energy at low frequency."""
    result = simulate("bigeminy:60,hrv=0", seed=6)
    at = np.array([beat.sample for beat in result.truth.beats]) / 250
    codes = [beat.code for beat in result.truth.beats]
    assert codes[1:9] == ["N", "V"] * 4 or codes[1:9] == ["V", "N"] * 4
    v = [i for i, code in enumerate(codes) if code == "V" and 1 < i < len(codes) - 1]
    sinus = 60 / RHYTHMS["bigeminy"]["hr"]
    assert np.all(at[v] - at[np.array(v) - 1] < 0.75 * sinus)
    np.testing.assert_allclose(at[np.array(v) + 1] - at[np.array(v) - 1], 2 * sinus, atol=0.01)
    x = result.samples[:, 0]

    def half_width(sample: int) -> int:
        part = np.abs(x[sample - 40 : sample + 40].astype(float))
        return int((part > 0.5 * part[35:46].max()).sum())

    normal = np.median([half_width(b.sample) for b in result.truth.beats[2:-2] if b.code == "N"])
    wide = np.median([half_width(b.sample) for b in result.truth.beats[2:-2] if b.code == "V"])
    assert wide >= 1.6 * normal


def test_fibrillation_is_irregular_and_has_no_p_but_waves():
    """RR intervals of AF vary six times as much as those of sinus rhythm; between beats there is power at 4 to 9 Hz."""
    af, sinus = simulate("af:120,hr=80", seed=1), simulate("sinus:120,hr=80,hrv=0.02", seed=1)
    spread = [rr_s([b.sample for b in r.truth.beats]).std() for r in (af, sinus)]
    assert spread[0] > 6 * spread[1]
    between = []
    for result in (af, sinus):
        power = []
        for beat, after in zip(result.truth.beats[1:-2], result.truth.beats[2:-1], strict=True):
            if after.sample - beat.sample > 175:
                part = result.samples[beat.sample + 105 : beat.sample + 145, 1]
                power.append(part.std())
        between.append(np.median(power))
    assert between[0] > 2 * between[1]


def test_fibrillating_ventricles_have_a_narrow_band_and_fade():
    """VF has no beat, its power lies at 2.5 to 9 Hz, and it goes from coarse to fine."""
    result = simulate("vf:60", seed=9)
    assert result.truth.beats == ()
    f, p = welch(result.samples[:, 0].astype(float), 250, nperseg=1024)
    assert p[(f > 2.0) & (f < 9)].sum() > 0.9 * p.sum()
    assert result.samples[:2500, 0].std() > 1.8 * result.samples[-2500:, 0].std()


def test_asystole_is_quiet_but_no_dead_lead():
    """After the last T wave there is noise of a live electrode and nothing else."""
    result = simulate("sinus:5; asystole:10", seed=1)
    quiet = result.samples[7 * 250 :, 0]
    assert not [beat for beat in result.truth.beats if beat.sample >= 5 * 250]
    assert 0.5 < np.diff(quiet.astype(float)).std() < 10
    assert np.ptp(quiet) < 60


def test_a_lead_that_is_off_sits_at_the_rail_and_the_other_goes_on():
    """`lead=1` takes the first lead only; without it all are off and no beat is true; a gap is marked as missing."""
    result = simulate("leadoff:10,lead=1; leadoff:10; gap:10", seed=1)
    x = result.samples
    assert np.all(x[:2500, 0] == RAIL)
    assert np.ptp(x[:2500, 1]) > 80
    assert np.all(x[2500:5000] == RAIL)
    assert np.all(x[5000:] == MISSING)
    assert max(beat.sample for beat in result.truth.beats) < 2500


def test_rhythm_changes_are_told_in_order():
    """Each change has its sample and MIT code; neighbours of one code are one stretch."""
    rhythms = simulate("sinus:10; pac:10; vt:5; vf:5; sinus:5").truth.rhythms
    assert [(r.sample, r.code) for r in rhythms] == [(0, "(N"), (5000, "(VT"), (6250, "(VF"), (7500, "(N")]


def test_the_tachogram_has_its_two_peaks():
    """Power lies at 0.1 and 0.25 Hz, the first with half of the second (McSharry 2003)."""
    series = tachogram(np.random.default_rng(1))
    power = np.abs(np.fft.rfft(series)) ** 2
    f = np.fft.rfftfreq(series.size, 1 / TACHOGRAM_HZ)
    low, high = power[(f > 0.05) & (f < 0.15)].sum(), power[(f > 0.2) & (f < 0.3)].sum()
    assert low / high == pytest.approx(0.5, rel=0.05)
    assert low + high > 0.99 * power.sum()
    assert series.std() == pytest.approx(1.0)


def test_a_script_ends_or_goes_round():
    """Past the end there is nothing; a looped one goes on with other chances and its truth stays in order."""
    once = Simulator("sinus:10")
    assert len(once.samples(10_000)) == 2500
    assert len(once.samples(10)) == 0
    round_ = Simulator("sinus:10,pvc=0.3", loop=True)
    x = round_.samples(7500)
    assert len(x) == 7500
    assert (x[:2500] != x[2500:5000]).any()
    at = [beat.sample for beat in round_.take_truth().beats]
    assert at == sorted(at)


def test_a_patient_who_goes_on_for_hours_keeps_nothing():
    """Without truth nothing that grows is kept: the planned pieces are as many after an hour as after a minute."""
    simulator = Simulator("sinus:20; vt:5; noise:10", loop=True, truth=False)
    simulator.samples(60 * 250)
    early = len(simulator._pieces)
    simulator.samples(3600 * 250)
    assert len(simulator._pieces) <= early + 2
    assert not simulator._beats
    assert not simulator._rhythms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty script"),
        ("sinus", "lacks its length: write sinus:30"),
        ("sinus:abc", "'abc' is no number"),
        ("sinus:-3", "no positive number"),
        ("sinus:nan", "no positive number"),
        ("waltz:3", "unknown rhythm 'waltz': there are af"),
        ("sinus:3,hr", "'hr' is no option: write name=number"),
        ("sinus:3,tempo=4", "unknown option 'tempo': there are"),
        ("sinus:3,hr=0", "hr=0 is outside 15 to 400"),
        ("vf:3,hz=nan", "hz=nan is outside"),
    ],
)
def test_a_script_that_cannot_be_played_says_why(text: str, message: str):
    """Each fault is one line that names the part and what would do."""
    with pytest.raises(ScriptError) as caught:
        parse_script(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_script_is_read_with_units_and_defaults():
    """White space is free, lengths may be minutes or hours, options not named have their defaults."""
    first, second = parse_script(" sinus : 2m , hr = 60 ;; vf:1h ;")
    assert (first.rhythm, first.seconds, first["hr"], first["hrv"]) == ("sinus", 120.0, 60.0, 0.04)
    assert (second.rhythm, second.seconds) == ("vf", 3600.0)
    assert Segment("sinus", 2)["hr"] == 70.0


def test_leads_without_shapes_are_refused():
    """A lead that the simulator lacks, or one named twice, is an error in words."""
    for leads in (("V9",), ("MLII", "MLII"), ()):
        with pytest.raises(ScriptError, match="the simulator has MLII, V1, V5"):
            Simulator("sinus:3", leads=leads)


def test_the_cast_has_names_that_are_devices_and_shows_its_rhythms_early():
    """Each member's script parses; what it promises begins within two minutes; ids stay apart past the cast's end."""
    assert len(CAST) >= 12
    assert len({member.name for member in CAST}) == len(CAST)
    needs = {"VTACH": {"vt", "torsades"}, "VFIB": {"vf", "vfl"}, "AFIB": {"af"}, "ASYSTOLE": {"asystole"}}
    for member in CAST:
        starts, now = {}, 0.0
        for segment in parse_script(member.script):
            starts.setdefault(segment.rhythm, now)
            now += segment.seconds
        for alarm in member.alarms:
            if alarm in needs:
                assert min(starts.get(rhythm, 1e9) for rhythm in needs[alarm]) < 120
    sources = cast_sources(45)
    assert len({source.device for source in sources}) == 45
    assert all(DEVICE_ID.fullmatch(source.device) for source in sources)


def test_the_page_on_the_simulator_names_every_rhythm_option_and_member():
    """What can be written in a script, and who is in the cast, stands in the documentation."""
    page = (Path(__file__).parent.parent / "docs" / "simulator.md").read_text()
    names = {*RHYTHMS, *COMMON, *(option for own in RHYTHMS.values() for option in own), *(m.name for m in CAST)}
    assert not [name for name in names if f"`{name}`" not in page]


def test_a_simulated_device_gives_contiguous_frames():
    """Sequence numbers, sample indices and device clock go on by the frame; the signal is the simulator's."""
    frames = list(SimulatedSource("bed", "sinus:5", seed=3, loop=False).frames(epoch=7, start_ms=1000))
    assert [(f.seq, f.sample, f.device_ms, f.epoch) for f in frames] == [
        (i, 250 * i, 1000 + 1000 * i, 7) for i in range(5)
    ]
    np.testing.assert_array_equal(np.concatenate([f.samples for f in frames]), simulate("sinus:5", seed=3).samples)


def test_a_patient_is_simulated_a_thousand_times_faster_than_life():
    """An hour of two leads takes less than 3.6 s (measured: about 0.4 s)."""
    simulator = Simulator("sinus:1h,pvc=0.1")
    begin = time.process_time()
    simulator.samples(3600 * 250)
    assert time.process_time() - begin < 3.6
