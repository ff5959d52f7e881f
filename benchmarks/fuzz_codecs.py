"""Malformed payloads against everything that ingest reads: ``python benchmarks/fuzz_codecs.py --count 1000000``.

Payloads are valid ones of each kind, altered (bits, bytes, lengths, cuts, splices, repaired checksums), and noise; a
share is drawn by hypothesis. Each goes through its codec, and through the whole stage as a message on its topic
(`Subscriber`, quotas, straps, the entry for the bus, read back as the worker does). A payload stops a stage when
anything but a counted `FrameError` comes out of a codec, when the stage raises, or when a frame is let through that the
worker could not read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import struct
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from crc32c import crc32c
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bus.messages import Entry, unpack_inbound
from ingest.codecs import check_frame, decode, decode_frame, encode_frame, encode_json
from ingest.connection import Received
from ingest.frame import Frame, FrameError
from ingest.journal import parse
from ingest.limits import DeviceLimits
from ingest.notes import decode_event, decode_meta, decode_status
from ingest.routes import STRAPS
from ingest.sequencer import Sequencer
from ingest.strap_session import _Made
from ingest.straps import StrapStream, decode_movesense, decode_polar, encode_polar
from ingest.subscriber import Subscriber, SubscriberOptions

DEVICE = "bed-7"
TOPICS = ("ecg", "backfill", "meta", "status", "events", "polar", "movesense")


class Bus:
    """A bus that keeps nothing."""

    partitions = 64


def valid(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Give one valid payload of each kind."""
    leads = tuple(f"L{n}" for n in range(rng.randint(1, 3)))
    wide = rng.random() < 0.3
    samples = np.array(
        [[rng.randint(-2000, 2000) for _ in leads] for _ in range(rng.randint(1, 60))], np.int32 if wide else np.int16
    )
    frame = Frame(
        DEVICE, rng.randint(0, 2**40), rng.randint(0, 9), rng.randint(0, 9999), 1, 250.0, leads, 200.0, samples
    )
    yield "ecg", encode_frame(frame)
    yield "ecg", encode_json(frame)
    yield "backfill", encode_frame(frame)
    yield "polar", encode_polar(rng.randint(0, 2**62), samples[:, 0])
    yield "movesense", rng.randbytes(4) + samples[:, 0].astype("<i2").tobytes()
    body = {"Timestamp": rng.randint(0, 2**31), "Samples": samples[:, 0].tolist()}
    yield "movesense", json.dumps({"Uri": f"x/Meas/ECG/{rng.choice([125, 250, 512, 9])}", "Body": body}).encode()
    yield "meta", json.dumps({"leads": leads, "rate": 250, "gain": 200}).encode()
    yield "status", rng.choice([b"online", b"offline", b'{"name":"online"}'])
    yield "events", json.dumps({"name": rng.choice(["button", "battery", "clock"]), "value": rng.random()}).encode()


def altered(rng: random.Random, payload: bytes, other: bytes) -> bytes:
    """Alter a payload in one to four ways."""
    data = bytearray(payload)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(9)
        at = rng.randrange(len(data)) if data else 0
        if not data or kind == 0:
            data[at:at] = rng.randbytes(rng.randint(1, 9))
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at] = rng.randrange(256)
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + rng.randint(1, 9)]
        elif kind == 5:
            data[at:] = other[rng.randrange(len(other) + 1) :]
        elif kind == 6 and len(data) >= 68:
            # A field of the head, with a value at an edge.
            where, form = rng.choice([(4, "<I"), (8, "<Q"), (16, "<Q"), (24, "<Q"), (32, "<Q"), (40, "<d"), (48, "<d")])
            value: Any = rng.choice([0, 1, 2**31, 2**32 - 1] if form == "<I" else [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
            if form == "<d":
                value = rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e308, 5e-324, 49.9, 2000.1])
            struct.pack_into(form, data, where, value)
        elif kind == 7 and len(data) >= 64:
            data[rng.choice([3, 56, 57, 60, 61, 62, 63])] = rng.choice([0, 1, 2, 4, 12, 13, 255])
        else:
            data += data[:at]
    if len(data) >= 8 and data[:2] == b"RW" and rng.random() < 0.7:
        # Let damage through to what lies behind the checksum.
        if rng.random() < 0.5:
            struct.pack_into("<I", data, 4, len(data))
        struct.pack_into("<I", data, len(data) - 4, crc32c(bytes(data[:-4])))
    return bytes(data[:8192])


CODECS: dict[str, tuple[Callable[[bytes], object], ...]] = {
    "ecg": (lambda data: decode(data, DEVICE), decode_frame),
    "backfill": (lambda data: check_frame(data, DEVICE),),
    "meta": (decode_meta,),
    "status": (decode_status,),
    "events": (decode_event,),
    "polar": (decode_polar,),
    "movesense": (decode_movesense,),
}


def entries_of(subscriber: Subscriber, message: Received) -> list[tuple[int, bytes]]:
    """Give what the bus would get of a message, by the session that takes it."""
    items: list[tuple[int, bytes]] = []
    device, kind = message.topic.split("/")[2:]
    if kind not in STRAPS:
        subscriber._entries(message, 0.0, items)
        return items
    straps = subscriber.straps
    straps._streams.setdefault(device, StrapStream(device))
    made: dict[str, _Made] = {}
    straps._entries(message, 0.0, made)
    return [(each.route.partition, data) for each in made.values() for data in each.entries]


class Stage:
    """The stage under test, and what came of the payloads.

    Attributes
    ----------
    tried : Counter
        Payloads by topic.
    said : Counter
        Outcomes: ``taken``, or the reason of refusal.
    stops : list of (topic, payload, error)
        What stopped a stage.
    """

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.stops: list[tuple[str, str, str]] = []
        options = SubscriberOptions("127.0.0.1", 1)
        self._subscriber = Subscriber(
            options,
            Bus(),  # type: ignore[arg-type]
            clock=lambda: 1_700_000_000_000,
            limits=DeviceLimits(messages=0.0),
        )
        self._sequencer = Sequencer()
        self._connection = _Connection()

    def feed(self, topic: str, payload: bytes) -> None:
        """Try one payload."""
        self.tried[topic] += 1
        try:
            for codec in CODECS[topic]:
                try:
                    codec(payload)
                except FrameError as error:
                    self.said[error.reason] += 1
                else:
                    self.said["taken"] += 1
            self._through(topic, payload)
            for _ in parse(payload):
                pass
        except Exception as error:
            self.stops.append((topic, payload.hex(), repr(error)))

    def _through(self, topic: str, payload: bytes) -> None:
        message = Received(self._connection, f"rw/v1/{DEVICE}/{topic}", payload, 1, 1)  # type: ignore[arg-type]
        message.server_ms = 1_700_000_000_000
        items = entries_of(self._subscriber, message)
        if self._subscriber.counts.pop("drop_fault", 0):
            raise RuntimeError("the stage met an error that it does not know")
        for _, data in items:
            entry = unpack_inbound(data)
            if entry.kind is Entry.FRAME:
                # What ingest lets through the worker must be able to read and to order.
                frame = decode_frame(entry.payload)
                self._sequencer.push(frame, entry.server_ms)
                Sequencer.from_bytes(self._sequencer.to_bytes())
        if self._sequencer.epoch > 2**62:
            self._sequencer = Sequencer()


class _Connection:
    """A connection that says nothing."""

    live = True

    def say(self, topic: str, payload: bytes) -> None:
        """Say nothing."""

    def acknowledge(self, mid: int, qos: int) -> None:
        """Say nothing."""


async def run(count: int, start: int, share: float) -> dict[str, Any]:
    """Try `count` payloads, a `share` of them drawn by hypothesis."""
    stage, rng, began = Stage(), random.Random(start), time.monotonic()
    drawn = round(count * share)
    by_hypothesis(stage, drawn, start)
    left = count - sum(stage.tried.values())
    while left > 0:
        pool = list(valid(rng))
        for topic, payload in pool:
            for _ in range(min(left, 25)):
                where = topic if rng.random() < 0.9 else rng.choice(TOPICS)
                noise = rng.random() < 0.03
                data = rng.randbytes(rng.randint(0, 200)) if noise else altered(rng, payload, rng.choice(pool)[1])
                stage.feed(where, data)
                left -= 1
    return {
        "tried": sum(stage.tried.values()),
        "by_hypothesis": drawn,
        "stopped": len(stage.stops),
        "by_topic": dict(sorted(stage.tried.items())),
        "outcomes": dict(stage.said.most_common()),
        "seconds": round(time.monotonic() - began, 1),
        "first_stops": stage.stops[:5],
    }


def by_hypothesis(stage: Stage, count: int, start: int) -> None:
    """Let hypothesis draw payloads: bytes, JSON of any shape, and frames with any numbers in their head."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=8,
    )
    names = st.sampled_from(
        ["device", "epoch", "seq", "sample", "device_ms", "rate", "gain", "samples", "name", "value"]
    )
    texts = st.dictionaries(names, values, max_size=9).map(lambda shape: json.dumps(shape).encode())
    heads = st.builds(
        _frame_bytes, st.integers(0, 255), st.integers(0, 2**64 - 1), st.floats(), st.floats(),
        st.integers(0, 2**32 - 1) | st.integers(0, 9), st.integers(0, 255) | st.integers(0, 3), st.binary(max_size=90),
    )  # fmt: skip
    payloads = st.binary(max_size=300) | texts | heads

    @seed(start)
    @settings(
        max_examples=max(1, count), database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.sampled_from(TOPICS), payloads)
    def draw(topic: str, payload: bytes) -> None:
        stage.feed(topic, payload)

    if count:
        draw()


def _frame_bytes(width: int, number: int, rate: float, gain: float, rows: int, columns: int, rest: bytes) -> bytes:
    """Lay out something like a frame, with a right length and checksum, whatever it says."""
    size = 64 + len(rest) + 4
    head = struct.pack(
        "<2sBBIQQQQddIBBH", b"RW", 1, width, size, number, number >> 3, number >> 1, number >> 2, rate, gain, rows,
        columns, min(255, len(rest) // 2), len(rest) // 3,
    )  # fmt: skip
    data = head + rest
    return data + struct.pack("<I", crc32c(data))


def main() -> None:
    """Parse options, run, print or write the figures; exit status 1 if a stage was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hypothesis", type=float, default=0.02, help="share drawn by hypothesis")
    parser.add_argument("--out", type=Path, help="write the figures as JSON here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    figures = asyncio.run(run(options.count, options.seed, options.hypothesis))
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if figures["stopped"] else 0)


if __name__ == "__main__":
    main()
