"""Compile every kernel once, into its cache beside the source."""

from __future__ import annotations

import time
from typing import Final

from bus.messages import Entry, Inbound
from ingest.codecs import encode_frame
from ingest.simulator import SimulatedSource
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline

SECONDS: Final = 20


def compile_kernels() -> float:
    """Pass simulated patients of two rates through the pipeline; what is compiled stays on disk.

    Returns
    -------
    float
        Seconds that it took.
    """
    began = time.perf_counter()
    pipeline = Pipeline(load_models(), 1)
    sources = [SimulatedSource(f"warm-{rate}", "sinus:20,hr=90,pvc=0.2", 1, float(rate)) for rate in (250, 360)]
    streams = [source.frames(1, 0) for source in sources]
    for second in range(SECONDS):
        entries = [
            (0, Inbound(Entry.FRAME, second * 1000, source.device, encode_frame(next(stream))))
            for source, stream in zip(sources, streams, strict=True)
        ]
        pipeline.step(entries)
    return time.perf_counter() - began
