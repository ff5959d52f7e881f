"""What people compose today for this work, beside our own, on the same recordings in the same run.

A peer looks at the last 10 s of one patient each second: a detector of another library, `scipy.signal.spectrogram` of
each new beat, the source study's CNN through onnxruntime on one thread (the new beats of all patients of a second in
batches, which is kind to the peer). No alarms, no rhythm. Ours does its whole work: order of frames, signal quality,
detector, spectrogram, beats, rhythm, rules, alarm life. The detectors need the extra ``peers``, the CNN the extra
``train``.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from scipy.ndimage import zoom
from scipy.signal import spectrogram

from bus.messages import DEFAULT_PARTITIONS, Entry, Inbound, partition_of
from ingest.codecs import encode_frame
from ingest.frame import Frame
from rhythmwatch.load import RATE, load_sources
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline

Detector: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.int64]]
WINDOW_S: Final = 10
WARM_S: Final = 15
TAIL: Final = RATE // 2
"""Samples after an R peak that its picture needs; later beats wait for the next second."""
BATCH: Final = 64
OURS: Final = "ours"


def _sleepecg(mv: NDArray[np.float64]) -> NDArray[np.int64]:
    from sleepecg.heartbeats import detect_heartbeats

    return np.asarray(detect_heartbeats(mv, RATE), np.int64)


def _neurokit2(mv: NDArray[np.float64]) -> NDArray[np.int64]:
    import neurokit2

    clean = neurokit2.ecg_clean(mv, sampling_rate=RATE)
    return np.asarray(neurokit2.ecg_peaks(clean, sampling_rate=RATE)[1]["ECG_R_Peaks"], np.int64)


def _xqrs(mv: NDArray[np.float64]) -> NDArray[np.int64]:
    from wfdb import processing

    return np.asarray(processing.xqrs_detect(mv, RATE, verbose=False), np.int64)


DETECTORS: Final[dict[str, tuple[str, Detector]]] = {
    "sleepecg": ("sleepecg", _sleepecg),
    "neurokit2": ("neurokit2", _neurokit2),
    "wfdb xqrs": ("wfdb", _xqrs),
}
"""Library and detector by name of the peer."""


class _Peer:
    """One composed chain over many patients."""

    def __init__(self, detector: Detector, network: Any, patients: int) -> None:
        self._detector, self._network = detector, network
        self._name = network.get_inputs()[0].name
        self._last = [0] * patients

    def second(self, signals: Sequence[NDArray[np.float64]], end: int) -> None:
        """Work on the second that ends at sample `end`."""
        pictures: list[NDArray[np.float32]] = []
        for number, signal in enumerate(signals):
            first = max(0, end - WINDOW_S * RATE)
            window = signal[first:end]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                beats = self._detector(window) + first
            new = beats[(beats > self._last[number] + RATE // 5) & (beats <= end - TAIL)]
            for beat in new:
                pictures.append(_picture(signal, int(beat)))
                self._last[number] = int(beat)
        for start in range(0, len(pictures), BATCH):
            self._network.run(None, {self._name: np.stack(pictures[start : start + BATCH])})


def _picture(signal: NDArray[np.float64], beat: int) -> NDArray[np.float32]:
    """Draw the study's picture of a beat: spectrogram in dB as 64 x 64 x 3."""
    piece = signal[max(0, beat - RATE) : beat + TAIL]
    power = spectrogram(piece, RATE, nperseg=64, noverlap=56)[2]
    levels = 10 * np.log10(power + 1e-12)
    square = zoom(levels, (64 / levels.shape[0], 64 / levels.shape[1]), order=1)
    return np.repeat(square[None].astype(np.float32), 3, axis=0)


def measure_peers(data: Path | None, patients: int, seconds: int) -> dict[str, float]:
    """Measure microseconds of one core a patient-second, ours and each peer that is installed.

    Parameters
    ----------
    data : Path, optional
        Folder of recordings; without any the patients are simulated.
    patients : int
        Each a recording at 250 Hz, one lead, a frame a second.
    seconds : int
        Measured, after 15 s that warm the windows.

    Returns
    -------
    dict of str to float
        By name; ``ours`` among them.
    """
    from inference.training.baselines.study_cnn import StudyCnn, to_onnx

    streams = [source.frames(1, 0) for source in load_sources(data, 0, patients)]
    rounds = [[next(stream) for stream in streams] for _ in range(WARM_S + seconds)]
    signals = [
        np.concatenate([frames[number].millivolts()[:, 0] for frames in rounds]).astype(np.float64)
        for number in range(patients)
    ]
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    network = ort.InferenceSession(to_onnx(StudyCnn()).SerializeToString(), options, ["CPUExecutionProvider"])
    chains = {
        name: _Peer(detector, network, patients)
        for name, (library, detector) in DETECTORS.items()
        if importlib.util.find_spec(library)
    }
    pipeline = Pipeline(load_models(), DEFAULT_PARTITIONS, views=False)
    spent = dict.fromkeys((OURS, *chains), 0.0)
    # In turns, second by second, so that a machine that is busy for a while slows all alike.
    for second, entries in enumerate(_entries(rounds)):
        warm = second < WARM_S
        began = time.process_time()
        pipeline.step(entries)
        spent[OURS] += 0.0 if warm else time.process_time() - began
        for name, chain in chains.items():
            if second < WARM_S - 1:
                continue
            began = time.process_time()
            chain.second(signals, (second + 1) * RATE)
            spent[name] += 0.0 if warm else time.process_time() - began
    return {name: round(value * 1e6 / (patients * seconds), 1) for name, value in spent.items()}


def _entries(rounds: Sequence[Sequence[Frame]]) -> Iterator[list[tuple[int, Inbound]]]:
    for second, frames in enumerate(rounds):
        yield [
            (partition_of(frame.device), Inbound(Entry.FRAME, second * 1000, frame.device, encode_frame(frame)))
            for frame in frames
        ]
