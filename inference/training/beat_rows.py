"""Gather the rows that train the beat model: passes over each recording, synthetic patients, fibrillation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.layout import BLOCK, FS
from dsp.qrs import QrsWeights
from inference.training import beat_conduction, beat_synthetic
from inference.training.beat_data import Strip, Table, annotated, detected, load, looped, piece, rows
from inference.training.beat_fit import Rows, groups
from inference.training.records import challenge_labels, read_challenge
from inference.training.splits import challenge_test

CONDUCTED_SEED: Final = 999
"""Apart from the seed of a patient's other rows, so that synthetic conduction changes none of them."""

Name = tuple[str, str]
"""Database and record."""


def patient_tables(
    source: Strip, weights: QrsWeights, settings: dict[str, Any], seed: int
) -> Iterator[tuple[Table, float]]:
    """Run all passes over one patient.

    The live detector's peaks over the whole record and over pieces that start cold, annotated peaks made unsure,
    and synthetic records where the patient has the beats for them.

    Parameters
    ----------
    source : Strip
    weights : QrsWeights
    settings : dict
        Section ``rows`` of the configuration.
    seed : int

    Yields
    ------
    (Table, float)
        Rows and their weight.
    """
    rng = np.random.default_rng(seed)
    svdb = source.name.startswith("svdb")
    image = settings["image"]
    share = settings["normal_svdb" if svdb else "normal_mitdb"]
    weight = settings["weight_svdb"] if svdb else 1.0
    for peaks in (detected(source, weights), annotated(source.beats, source.x.size, rng)):
        keep = (groups(source.allowed) != 0) | (rng.random(source.allowed.size) < share)
        yield rows(source, peaks, keep, image), weight
    for _ in range(settings["cold_pieces"]):
        blocks = int(rng.uniform(10, 45) * FS) // BLOCK
        first = int(rng.integers(0, max(1, source.flags.size - blocks)))
        cold = piece(source, first, min(source.flags.size, first + blocks))
        keep = (groups(cold.allowed) != 0) | (rng.random(cold.allowed.size) < 2 * share)
        if keep.any():
            yield rows(cold, detected(cold, weights), keep, image), weight
    for made in (
        beat_synthetic.thinned(source, rng),
        beat_synthetic.runs(source, rng, 4),
        beat_synthetic.runs(source, rng, 8),
    ):
        if made is not None:
            peaks = annotated(made.beats, made.x.size, rng)
            yield rows(made, peaks, None, image), weight * settings["weight_synthetic"]


def conducted_tables(
    source: Strip, weights: QrsWeights, settings: dict[str, Any], seed: int
) -> Iterator[tuple[Table, float]]:
    """Make rows of stretches with synthetic bundle branch blocks and paced beats.

    Parameters
    ----------
    source : Strip
    weights : QrsWeights
    settings : dict
        Section ``rows`` of the configuration.
    seed : int

    Yields
    ------
    (Table, float)
        Rows and their weight.
    """
    rng = np.random.default_rng(CONDUCTED_SEED + seed)
    weight = settings["weight_conducted"] * (settings["weight_svdb"] if source.name.startswith("svdb") else 1.0)
    for kind in beat_conduction.KINDS * settings["conducted"]:
        changed = beat_conduction.conducted(source, rng, kind, rng.uniform(0.4, 1.3))
        if changed is not None:
            # R marks are the detector's: in a notched QRS they move.
            yield rows(changed, detected(changed, weights), None, settings["image"]), weight


def fibrillation_names(archive: Path, count: int) -> list[str]:
    """Name the recordings of atrial fibrillation that train: the first `count`, test recordings left out.

    Parameters
    ----------
    archive : Path
        ``cinc2017.tar``; without it none train.
    count : int

    Returns
    -------
    list of str
    """
    if not count or not archive.exists():
        return []
    names = [name for name, label in sorted(challenge_labels(archive).items()) if label == "A"]
    return [name for name in names if not challenge_test(name)][:count]


def fibrillation_tables(archive: Path, weights: QrsWeights, settings: dict[str, Any], seed: int) -> Iterator[Table]:
    """Make rows of atrial fibrillation that train as normal beats: no beat of it is premature.

    Parameters
    ----------
    archive : Path
        ``cinc2017.tar``.
    weights : QrsWeights
    settings : dict
        Section ``rows`` of the configuration.
    seed : int

    Yields
    ------
    Table
        Of one recording; none of the test recordings.
    """
    rng = np.random.default_rng(seed)
    for record in read_challenge(archive, fibrillation_names(archive, settings["fibrillation"])):
        made = looped(record, weights, settings["fibrillation_beats"])
        if made is not None:
            source, peaks = made
            keep = rng.random(source.beats.size) < settings["fibrillation_share"]
            yield rows(source, peaks, keep, settings["image"])


def joined(tables: Sequence[tuple[Table, float]], share_normal: float, share_other: float = 1.0) -> Rows:
    """Join tables into training rows, rows near no true beat left out.

    Parameters
    ----------
    tables : sequence of (Table, float)
    share_normal, share_other : float
        Shares of normal and other beats that were kept; the weights make up for them.

    Returns
    -------
    Rows
    """
    kept = [(table, weight, table.allowed > 0) for table, weight in tables]
    return Rows(
        np.concatenate([table.features[mask] for table, _, mask in kept]),
        np.concatenate([table.images[mask] for table, _, mask in kept]),
        np.concatenate([table.allowed[mask] for table, _, mask in kept]),
        np.concatenate([_weights(t.allowed[mask], weight, share_normal, share_other) for t, weight, mask in kept]),
    )


def _weights(allowed: NDArray[np.uint8], weight: float, share_normal: float, share_other: float) -> NDArray[np.float32]:
    return (weight / np.where(groups(allowed) == 0, share_normal, share_other)).astype(np.float32)


def gather(
    data_dir: Path,
    names: Sequence[Name],
    weights: QrsWeights,
    settings: dict[str, Any],
    seed: int,
    progress: Callable[[str], None],
) -> dict[Name, Rows]:
    """Gather the rows of all patients, and of the fibrillation recordings under ``("cinc2017", "A")``.

    Parameters
    ----------
    data_dir : Path
    names : sequence of (str, str)
    weights : QrsWeights
    settings : dict
        Section ``rows`` of the configuration.
    seed : int
    progress : callable
        Told a line now and then.

    Returns
    -------
    dict of (str, str) to Rows
    """
    result: dict[Name, Rows] = {}
    for done, (database, name) in enumerate(names):
        source = load(data_dir, database, name)
        share = settings["normal_svdb" if database == "svdb" else "normal_mitdb"]
        tables = list(patient_tables(source, weights, settings, seed + done))
        result[database, name] = joined(tables, share)
        conducted = list(conducted_tables(source, weights, settings, seed + done))
        if conducted:
            result[database, name] = merged([result[database, name], joined(conducted, 1.0)])
        if done % 10 == 9:
            progress(f"rows of {done + 1} of {len(names)} patients")
    archive = data_dir / "cinc2017.tar"
    if fibrillation_names(archive, settings["fibrillation"]):
        few = settings["fibrillation_share"]
        made = [(t, settings["weight_fibrillation"]) for t in fibrillation_tables(archive, weights, settings, seed)]
        result["cinc2017", "A"] = joined(made, few, few)
        progress(f"rows of {len(made)} recordings of atrial fibrillation")
    return result


def merged(parts: Sequence[Rows], *, images: bool = True) -> Rows:
    """Join rows of several patients, with their images or (for trees, which see none) without."""
    return Rows(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.images if images else part.images[:0] for part in parts]),
        np.concatenate([part.allowed for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )
