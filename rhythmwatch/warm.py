"""Compile every kernel once, into its cache beside the source."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from bus.messages import Entry, Inbound
from dsp.kernel import cache_folder
from ingest.codecs import encode_frame
from ingest.simulator import SimulatedSource
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline

SECONDS: Final = 20
MARK: Final = "complete"
"""File in the folder of compiled kernels that says that none is missing."""


def ensure_kernels() -> None:
    """Compile what is not compiled yet, so that a service that runs never waits for the compiler."""
    if not (cache_folder() / MARK).exists():
        compile_kernels()


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
    with contextlib.suppress(OSError):  # a folder that can't be written only costs time at the next start
        (cache_folder() / MARK).touch()
    return time.perf_counter() - began
