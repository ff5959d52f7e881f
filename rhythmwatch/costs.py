"""Cost of the pipeline's stages: microseconds of one core for a second of one patient."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bus.messages import DEFAULT_PARTITIONS, Entry, Inbound, pack, pack_inbound, partition_of, unpack_inbound
from ingest.codecs import decode_frame, encode_frame
from ingest.frame import Frame
from ingest.recordings import data_folder, list_records
from ingest.replay import Source
from ingest.simulator_cast import cast_sources
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline
from rhythmwatch.playing import recording_sources
from rhythmwatch.stages import Stages

WARM_S: Final = 15


def bench_sources(data: Path | None, patients: int) -> list[Source]:
    """Give patients to measure with: records of mitdb from different places on, else the simulated cast."""
    folder = data_folder(data)
    records = list_records(folder / "mitdb") if folder else []
    if not records:
        return list(cast_sources(patients))
    names = [str(records[number % len(records)]) for number in range(patients)]
    return list(recording_sources(names, folder, loop=True))


def measure_stages(data: Path | None, patients: int, seconds: float) -> dict[str, float]:
    """Run patients through the pipeline, a frame a second each, all in one batch.

    Parameters
    ----------
    data : Path, optional
        Folder of recordings; without any the patients are simulated.
    patients : int
        In the batch.
    seconds : float
        Measured, after a warm-up.

    Returns
    -------
    dict of str to float
        Microseconds a patient-second by stage, and their ``total``.
    """
    models = load_models()
    pipeline = Pipeline(models, DEFAULT_PARTITIONS)
    pipeline.stages = Stages(models, capacity=patients, clock=time.perf_counter)
    streams: list[Iterator[Frame]] = [source.frames(1, 0) for source in bench_sources(data, patients)]
    rest: dict[str, float] = {"unpack and decode": 0.0, "pipeline around the stages": 0.0, "pack": 0.0}
    for second in range(WARM_S + round(seconds)):
        if second == WARM_S:
            pipeline.stages.spent.clear()
            rest = dict.fromkeys(rest, 0.0)
        frames = [next(stream) for stream in streams]
        raw = [pack_inbound(Inbound(Entry.FRAME, second * 1000, frame.device, encode_frame(frame))) for frame in frames]
        began = time.perf_counter()
        for item in raw:
            decode_frame(unpack_inbound(item).payload)
        decoded = time.perf_counter()
        entries = [(partition_of(frame.device), unpack_inbound(item)) for frame, item in zip(frames, raw, strict=True)]
        start, inside = time.perf_counter(), sum(pipeline.stages.spent.values())
        output = pipeline.step(entries)
        end, within = time.perf_counter(), sum(pipeline.stages.spent.values())
        for _, event in output.events:
            pack(event)
        for _, view in output.views:
            pack(view)
        rest["unpack and decode"] += decoded - began
        rest["pipeline around the stages"] += end - start - (within - inside) - (decoded - began)
        rest["pack"] += time.perf_counter() - end
    figures = {
        name: value * 1e6 / (patients * round(seconds)) for name, value in {**pipeline.stages.spent, **rest}.items()
    }
    figures["total"] = sum(figures.values())
    return {name: round(value, 1) for name, value in figures.items()}
