"""Evidence as a detector would tell it, and what the rules make of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from alerts.limits import ADULT, Limits
from alerts.model import Beat, Condition, Evidence, Horizon, Kind, Peak, Rhythm
from alerts.rules import RuleState, fold, new_state

FS, BLOCK, DELAY = 250, 50, 150


def block_after(index: int) -> int:
    """End of the first block that ends after `index`."""
    return (index // BLOCK + 1) * BLOCK


def beat(r: int, code: str = "N", p: float = 0.95, shape: int = 0) -> Beat:
    """Make a beat decided as the detector does it, DELAY after R at the latest."""
    return Beat(r, block_after(r + 100), code, p, shape)


def beats(codes: str, rr: float | Sequence[float] = 0.8, start: float = 0.4, p: float = 0.95) -> list[Beat]:
    """Beats with these codes, `rr` s apart, the first at `start` s."""
    steps = [rr] * len(codes) if isinstance(rr, int | float) else list(rr)
    out, at = [], start
    for code, interval in zip(codes, steps, strict=True):
        out.append(beat(round(at * FS), code, p))
        at += interval
    return out


def verdicts(code: str, first: int, last: int, p: float = 0.7) -> list[Rhythm]:
    """Give a verdict at each full second from `first` to `last`."""
    return [Rhythm(second * FS, code, p) for second in range(first, last + 1)]


def until(seconds: float) -> Horizon:
    """Everything up to a time is seen."""
    return Horizon(round(seconds * FS) - DELAY, round(seconds * FS))


def run(
    evidence: Iterable[Evidence], limits: Limits = ADULT, state: RuleState | None = None
) -> tuple[list[Condition], RuleState]:
    """Take in evidence, sorted."""
    if state is None:
        state = new_state(DELAY, limits)
    return fold(state, evidence, limits), state


def starts(conditions: Iterable[Condition], kind: Kind | None = None) -> list[Condition]:
    """Pick beginnings (and new values) of a kind."""
    return [c for c in conditions if c.on and (kind is None or c.kind is kind)]


def ends(conditions: Iterable[Condition], kind: Kind) -> list[Condition]:
    """Pick the ends of a kind."""
    return [c for c in conditions if not c.on and c.kind is kind]


SLOW = 400
"""Delay of classified beats where R peaks come earlier, with `DELAY`."""


def peaks(evidence: Iterable[Evidence]) -> list[Evidence]:
    """Tell R peaks when the detector knows them, and their beats `SLOW` less `DELAY` samples later."""
    out: list[Evidence] = []
    for item in evidence:
        if isinstance(item, Beat):
            out += [Peak(item.r, item.decided), structs.replace(item, decided=item.decided + SLOW - DELAY)]
        else:
            out.append(item)
    return out


def early() -> RuleState:
    """Make rules that get R peaks before their beats."""
    return new_state(SLOW, ADULT, peak_delay=DELAY)
