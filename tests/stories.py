"""Simulated patients as entries of the bus, for tests of the pipeline and the processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from bus.messages import BeatEvent, Entry, Inbound, pack
from ingest.codecs import encode_frame
from ingest.frame import Frame
from ingest.recordings import Recording
from ingest.replay import frames_of
from ingest.simulator import GAIN, Simulator
from ingest.simulator_script import parse_script
from rhythmwatch.models import Models, load_models
from rhythmwatch.pipeline import Output, Pipeline

VT_STORY = "sinus:14,hr=75; vt:9,hr=180; sinus:12,hr=80"


@cache
def models() -> Models:
    """Load the shipped models, once a test run."""
    return load_models()


@cache
def recording(script: str, seconds: int, seed: int = 3, rate: float = 250.0) -> Recording:
    """Simulate a recording of two leads."""
    leads = ("MLII", "V1")
    samples = Simulator(parse_script(script), rate, seed, leads).samples(round(seconds * rate))
    return Recording("story", rate, leads, GAIN, samples)


def frames(record: Recording, device: str, seconds: float = 1.0, epoch: int = 1) -> list[Frame]:
    """Cut a recording into frames."""
    return list(frames_of(record, device, epoch, seconds))


def frame_entry(frame: Frame, ms: int | None = None) -> Inbound:
    """Make the entry of a frame that arrives when its last sample was taken."""
    if ms is None:
        ms = round((frame.sample + len(frame.samples)) * 1000 / frame.rate)
    return Inbound(Entry.FRAME, ms, frame.device, encode_frame(frame))


def run(entries: Sequence[Inbound], sizes: Sequence[int] = (1,), pipeline: Pipeline | None = None) -> Output:
    """Fold entries in batches of the given sizes, over and over."""
    pipeline = pipeline or Pipeline(models(), 1)
    whole = Output()
    begin, turn = 0, 0
    while begin < len(entries):
        size = sizes[turn % len(sizes)]
        part = pipeline.step([(0, entry) for entry in entries[begin : begin + size]])
        whole.events += part.events
        whole.views += part.views
        whole.conditions += part.conditions
        for reason, count in part.refused.items():
            whole.refused[reason] = whole.refused.get(reason, 0) + count
        begin, turn = begin + size, turn + 1
    return whole


def by_patient(output: Output) -> dict[str, list[bytes]]:
    """Packed events of each patient, in order."""
    found: dict[str, list[bytes]] = {}
    for patient, event in output.events:
        found.setdefault(patient, []).append(pack(event))
    return found


def beats(output: Output) -> list[tuple[int, str]]:
    """Sample and class of each beat."""
    return [(event.sample, event.code) for _, event in output.events if isinstance(event, BeatEvent)]


def conditions(output: Output) -> list[tuple[str, bool, int, int]]:
    """Kind, on or off, onset and last sample needed of each condition."""
    return [(str(item.kind), item.on, item.onset, item.at) for _, item in output.conditions]


def constant(value: float, seconds: int, rate: float = 250.0) -> Recording:
    """Make a recording that holds one value (mV; NaN is "no valid sample") on both leads."""
    units = np.iinfo(np.int16).min if np.isnan(value) else round(value * 200)
    samples = np.full((round(seconds * rate), 2), units, np.int16)
    return Recording("constant", rate, ("MLII", "V1"), 200.0, samples)
