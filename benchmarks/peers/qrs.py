"""QRS detectors of other libraries beside ours, in one harness: ``python benchmarks/peers/qrs.py --data DIR``.

Every record of mitdb from its first second, lead MLII else the first, episodes of ventricular flutter left out. Peers
get the whole record at once (they look ahead as they please); ours runs causally. Needs the extra ``peers``; a library
that isn't installed is left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp import frontend, qrs
from dsp.layout import FS
from inference import qrs_model
from inference.training.baselines.report import qrs_table
from inference.training.records import Record, names, read
from inference.training.scoring import LEARNING, Counts, detection, gross, interval
from inference.training.splits import DS1, DS2

BATCH: Final = 200
"""Patients in the batch that ours is timed with."""

WARM_S: Final = 10
TIMED_S: Final = 120
TAIL_S: Final = 1

Detector = Callable[[NDArray[np.float64], float], NDArray[np.float64]]


def sleepecg(mv: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Find beats (s) with SleepECG (Brunner 2021), a Pan-Tompkins detector."""
    import sleepecg as library

    return np.asarray(library.detect_heartbeats(mv, rate)) / rate


def neurokit2(mv: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Find beats (s) with NeuroKit2's own method, on its cleaned signal."""
    import neurokit2 as library

    clean = library.ecg_clean(mv, sampling_rate=rate)
    return np.asarray(library.ecg_peaks(clean, sampling_rate=rate)[1]["ECG_R_Peaks"]) / rate


def xqrs(mv: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Find beats (s) with WFDB's XQRS."""
    from wfdb import processing

    return np.asarray(processing.xqrs_detect(mv, rate, verbose=False)) / rate


def gqrs(mv: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Find beats (s) with the Python port of WFDB's GQRS."""
    from wfdb import processing

    return np.asarray(processing.gqrs_detect(mv, rate)) / rate


PEERS: Final[dict[str, tuple[str, Detector]]] = {
    "sleepecg": ("sleepecg", sleepecg),
    "neurokit2": ("neurokit2", neurokit2),
    "wfdb xqrs": ("wfdb", xqrs),
    "wfdb gqrs": ("wfdb", gqrs),
}
"""Library and detector by name."""


def run_peer(detector: Detector, records: Sequence[Record]) -> tuple[list[NDArray[np.float64]], float]:
    """Beats of each record, and CPU seconds in all."""
    found, spent = [], 0.0
    for record in records:
        mv = record.mv[:, record.lead()].astype(np.float64)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            beats = detector(mv, record.rate)
        spent += time.process_time() - began
        found.append(np.unique(beats))
    return found, spent


def run_ours(records: Sequence[Record], weights: qrs.QrsWeights) -> list[NDArray[np.float64]]:
    """Beats of each record through the live front end and detector."""
    raw, offsets = _batch([record.mv[:, record.lead()] for record in records])
    n = len(records)
    slots = np.arange(n)
    front, states = frontend.new_states(n), qrs.new_states(n)
    frontend.reset(front, slots, np.ones(n, np.int64), np.zeros(n, np.int64))
    qrs.reset(states, slots, np.zeros(n, np.int64))
    signal = frontend.step(front, slots, raw, offsets, records[0].rate).signal
    peaks = qrs.step(states, slots, signal, weights)
    return [peaks.r[a:b] / FS for a, b in itertools.pairwise(peaks.offsets)]


def time_ours(records: Sequence[Record], weights: qrs.QrsWeights) -> float:
    """CPU seconds for an hour of one patient's ECG, `BATCH` patients fed a second at a time, after a warm-up."""
    rate = records[0].rate
    front, states, slots = frontend.new_states(BATCH), qrs.new_states(BATCH), np.arange(BATCH)
    frontend.reset(front, slots, np.ones(BATCH, np.int64), np.zeros(BATCH, np.int64))
    qrs.reset(states, slots, np.zeros(BATCH, np.int64))
    spent = 0.0
    for second in range(WARM_S + TIMED_S):
        cut = slice(int(second * rate), int((second + 1) * rate))
        parts = [records[i % len(records)] for i in range(BATCH)]
        raw, offsets = _batch([part.mv[cut, part.lead()] for part in parts], tail=0)
        began = time.process_time()
        signal = frontend.step(front, slots, raw, offsets, rate).signal
        qrs.step(states, slots, signal, weights)
        if second >= WARM_S:
            spent += time.process_time() - began
    return spent / (BATCH * TIMED_S) * 3600


def _batch(parts: Sequence[NDArray[np.float32]], tail: int = TAIL_S * FS * 2) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Lay leads behind one another, each with its last value held for a while, so that its last beats are decided."""
    padded = [np.concatenate([part, np.full(tail, np.nan, np.float32)]) for part in parts]
    offsets = np.concatenate([[0], np.cumsum([part.size for part in padded])]).astype(np.int64)
    return np.concatenate(padded)[:, None], offsets


def figures(records: Sequence[Record], found: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Score all records together and by set, at three settings."""
    result: dict[str, Any] = {}
    for name, window, start in (("150 ms", 0.150, 0.0), ("bxb", 0.150, LEARNING), ("50 ms", 0.050, 0.0)):
        counts = {
            record.name: detection(
                record.beat_times,
                beats[beats < len(record.mv) / record.rate],
                window=window,
                start=start,
                excluded=record.excluded,
            )
            for record, beats in zip(records, found, strict=True)
        }
        result[name] = {"all": _row(list(counts.values()))}
        for title, members in (("DS1", DS1), ("DS2", DS2)):
            some = [own for record, own in counts.items() if record in members]
            if some:
                result[name][title] = _row(some)
        if name == "150 ms":
            result["worst"] = {
                record: own.fn + own.fp
                for record, own in sorted(counts.items(), key=lambda kv: -kv[1].fn - kv[1].fp)[:5]
            }
    return result


def _row(counts: Sequence[Counts]) -> dict[str, Any]:
    total = gross(counts)
    return {
        "se": round(100 * total.sensitivity, 3),
        "se_95": [round(100 * v, 2) for v in interval(counts, lambda c: c.sensitivity)],
        "ppv": round(100 * total.precision, 3),
        "ppv_95": [round(100 * v, 2) for v in interval(counts, lambda c: c.precision)],
        "beats": total.tp + total.fn,
        "missed": total.fn,
        "false": total.fp,
    }


def main() -> None:
    """Run every detector and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RHYTHMWATCH_DATA", "data")))
    parser.add_argument("--records", nargs="*", help="names, as in 100 232; all of mitdb without it")
    parser.add_argument("--detectors", nargs="*", choices=["rhythmwatch", *PEERS], default=["rhythmwatch", *PEERS])
    parser.add_argument("--json", type=Path, help="file whose entry 'qrs' is updated")
    options = parser.parse_args()
    records = [read(options.data, "mitdb", name) for name in options.records or names(options.data, "mitdb")]
    hours = sum(len(record.mv) / record.rate for record in records) / 3600
    results: dict[str, Any] = {}
    for name in options.detectors:
        if name == "rhythmwatch":
            weights = qrs_model.load()
            found = run_ours(records, weights)
            cost = time_ours(records, weights)
        else:
            library, detector = PEERS[name]
            if importlib.util.find_spec(library) is None:
                print(f"{name} left out: {library} is not installed (pip install 'rhythmwatch[peers]')")
                continue
            found, spent = run_peer(detector, records)
            cost = spent / hours
        results[name] = {**figures(records, found), "ms_per_hour": round(1000 * cost, 1)}
        print(f"{name}: done", flush=True)
        if options.json:
            _store(options.json, name, len(records), results[name])
    print("\n".join(qrs_table(results)))


def _store(path: Path, name: str, records: int, result: Mapping[str, Any]) -> None:
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    content.setdefault("qrs", {})[name] = {"records": records, **result}
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
