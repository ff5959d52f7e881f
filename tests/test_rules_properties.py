"""Properties of the rules over arbitrary evidence: chunks, legal stories, asystole never missed or invented."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_evidence import BLOCK, DELAY, FS, SLOW, beat, block_after, early, peaks, run, starts, until

from alerts.limits import ADULT, HIGHER
from alerts.model import Beat, Evidence, Horizon, Kind, Peak, Quality, Rhythm
from alerts.rules import RuleState, fold, in_order, known_at, new_state, step


@st.composite
def streams(draw: st.DrawFn) -> list[Evidence]:
    """Draw a minute or two of arbitrary evidence, as a detector with DELAY would tell it."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    seconds = draw(st.integers(20, 120))
    wild = draw(st.floats(0, 1))
    evidence: list[Evidence] = []
    blind: list[tuple[int, int]] = []
    at, flags = 0, (False, False, False)
    while (at := at + BLOCK * rng.randint(1, 200)) < seconds * FS:
        new = (rng.random() < 0.3 * wild, rng.random() < 0.2 * wild, rng.random() < 0.5)
        if (new[0] or new[1]) and not (flags[0] or flags[1]):
            blind.append((at - BLOCK, seconds * FS))
        elif blind and (flags[0] or flags[1]) and not (new[0] or new[1]):
            blind[-1] = (blind[-1][0], at - BLOCK)
        flags = new
        evidence.append(Quality(at, "II", *flags))
    r, code = 50, "N"
    mean = rng.uniform(0.3, 2.0)
    while (r := r + max(50, round(rng.choice([mean, mean, mean, 0.35, 0.5, 3.0, 5.0 * wild]) * FS))) < seconds * FS:
        if rng.random() < 0.5:
            code = rng.choice("NNVVVAQFL")
        if not any(a <= r < b for a, b in blind):
            evidence.append(beat(r, code, rng.uniform(0.4, 1.0), rng.randint(0, 2)))
    verdict = "N"
    for second in range(1, seconds + 1):
        if rng.random() < 0.15:
            verdict = rng.choice(["N", "N", "AFIB", "VT", "VFL", "ASYS", "NOISE"])
        evidence.append(Rhythm(second * FS, verdict, 0.9))
    return evidence


def cut(evidence: list[Evidence], at: Sequence[int], seed: int, delay: int = DELAY) -> list[list[Evidence]]:
    """Chunks as a pipeline would give them: unsorted between the kinds, one horizon at the end of each."""
    rng = random.Random(seed)
    rest, chunks = in_order(evidence), []
    for end in at:
        mine = [item for item in rest if known_at(item) <= end]
        rest = rest[len(mine) :]
        groups = [[item for item in mine if type(item) is kind] for kind in (Beat, Peak, Rhythm, Quality)]
        groups.append([Horizon(end - delay, end)])
        rng.shuffle(groups)
        chunks.append([item for group in groups for item in group])
    assert not rest
    return chunks


@settings(max_examples=150, deadline=None)
@given(streams(), st.lists(st.integers(1, 1500), max_size=30), st.integers(0, 99), st.booleans())
def test_conditions_do_not_depend_on_chunks(evidence: list[Evidence], cuts: list[int], seed: int, ahead: bool):
    """Horizon at each block, at random places, or only once at the end: the same conditions, to the sample."""
    if ahead:
        rng = random.Random(seed)
        others = [item.r + rng.randint(-9, 9) for item in evidence if isinstance(item, Beat) and rng.random() < 0.7]
        evidence = peaks(evidence) + [Peak(r, block_after(r + 100), beside=True) for r in others]
    delay = SLOW if ahead else DELAY
    fresh = early if ahead else lambda: new_state(DELAY, ADULT)
    end = block_after(max(known_at(item) for item in evidence) + 20 * FS)
    whole, state = [], fresh()
    for chunk in cut(evidence, range(BLOCK, end + 1, BLOCK), seed, delay):
        for item in in_order(chunk):
            whole += step(state, item, ADULT)
    for places in ([end], sorted({min(place * BLOCK, end) for place in cuts} | {end})):
        other, restored = [], fresh()
        for chunk in cut(evidence, places, seed, delay):
            other += fold(restored, chunk, ADULT)
            restored = msgspec.msgpack.decode(msgspec.msgpack.encode(restored), type=RuleState)
        assert other == whole
        assert restored.standing == state.standing


@settings(max_examples=150, deadline=None)
@given(streams())
def test_conditions_form_a_legal_story(evidence: list[Evidence]):
    """Begin before end, identities used once, no evidence from the future, chains kept."""
    standing: dict[Kind, int] = {}
    seen: set[tuple[Kind, int]] = set()
    state = new_state(DELAY, ADULT)
    for chunk in cut(evidence, range(BLOCK, 140 * FS, BLOCK), 0):
        for condition in fold(state, chunk, ADULT):
            assert condition.onset <= condition.at <= max(map(known_at, chunk))
            assert condition.detail or not condition.on
            if not condition.on:
                assert standing.pop(condition.kind) == condition.onset
            elif condition.kind in standing:
                assert standing[condition.kind] == condition.onset
            else:
                assert (condition.kind, condition.onset) not in seen
                seen.add((condition.kind, condition.onset))
                standing[condition.kind] = condition.onset
        assert standing == state.standing
        for low, highs in HIGHER.items():
            assert low not in standing or not any(high in standing for high in highs)


@settings(max_examples=100, deadline=None)
@given(streams())
def test_asystole_is_never_missed_and_never_invented(evidence: list[Evidence]):
    """In a good signal without VF, ASYSTOLE begins in RR intervals of 4 s and more and nowhere else."""
    good = [item for item in evidence if isinstance(item, Beat)]
    conditions, _ = run([*good, until(150)])
    times = [item.r for item in good]
    long = [a for a, b in zip(times, [*times[1:], 150 * FS - DELAY], strict=False) if b - a >= 4 * FS]
    found = {c.onset for c in starts(conditions, Kind.ASYSTOLE)}
    assert found <= {0, *long}
    if times and long:
        assert long[0] in found or (times[0] >= 8 * FS)
