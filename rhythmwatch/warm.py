"""Compile every kernel once, into its cache beside the source."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import numpy as np

from bus.messages import Entry, Inbound
from dsp.kernel import cache_folder
from ingest.codecs import encode_frame
from ingest.frame import Frame
from rhythmwatch.checkpoint import dump, restore
from rhythmwatch.models import load_models
from rhythmwatch.pipeline import Pipeline

SECONDS: Final = 20
RATES: Final = (250, 360)
"""Samples a second: the pipeline's own, and one that is changed into it."""
_GAIN: Final = 200.0
MARK: Final = "complete"
"""File in the folder of compiled kernels that says that none is missing."""


def ensure_kernels() -> None:
    """Compile what is not compiled yet, so that a service that runs never waits for the compiler."""
    if not (cache_folder() / MARK).exists():
        compile_kernels()


def compile_kernels() -> float:
    """Pass patients of two rates through a pipeline and their state into another; what is compiled stays on disk.

    Returns
    -------
    float
        Seconds that it took.
    """
    began = time.perf_counter()
    pipeline = Pipeline(load_models(), 1)
    for frames in zip(*map(_frames, RATES), strict=True):
        pipeline.step(
            [(0, Inbound(Entry.FRAME, frame.device_ms, frame.device, encode_frame(frame))) for frame in frames]
        )
    restore(Pipeline(load_models(), 1), dump(pipeline, 0))
    with contextlib.suppress(OSError):  # a folder that can't be written only costs time at the next start
        (cache_folder() / MARK).touch()
    return time.perf_counter() - began


def _frames(rate: int) -> Iterator[Frame]:
    """Give two leads of a heart that beats early, and wide, at times; the simulator would have to be loaded first."""
    t = np.arange(SECONDS * rate) / rate
    mv = np.zeros(len(t))
    for number, at in enumerate(np.arange(0.5, SECONDS, 0.67)):
        early = number % 5 == 4
        at, width = (at - 0.25, 0.03) if early else (at, 0.01)
        mv += np.exp(-(((t - at) / width) ** 2)) + 0.2 * np.exp(-(((t - at - 0.25) / 0.06) ** 2))
    units = np.rint(_GAIN * np.stack([mv, 0.6 * mv], axis=1)).astype(np.int16)
    for second in range(SECONDS):
        at = second * rate
        yield Frame(
            f"warm-{rate}", 1, second, at, second * 1000, float(rate), ("I", "II"), _GAIN, units[at : at + rate]
        )
