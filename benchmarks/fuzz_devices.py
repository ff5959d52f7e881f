"""Fuzz targets on what devices and the broker send, and on the log that a device keeps."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable

from fuzzing import DEVICE, NOW_MS, Target, repaired, valid_frames


def frames() -> Target:
    """Aim at both codecs of a frame; the quick check of ingest must agree with the full reading."""
    from ingest.codecs import check_frame, decode, encode_frame, encode_json
    from ingest.frame import FrameError

    def reason(codec: Callable[[bytes, str], object], data: bytes) -> str:
        try:
            codec(data, DEVICE)
        except FrameError as error:
            return error.reason
        return ""

    def run(data: bytes) -> None:
        for payload in (data, repaired(data)):
            full, quick = reason(decode, payload), reason(check_frame, payload)
            # The quick check knows the binary codec; for all else it reads in full.
            assert full == quick, (full, quick)

    return Target(run, [codec(frame) for frame in valid_frames() for codec in (encode_frame, encode_json)])


def straps() -> Target:
    """Aim at packets of both straps, three in a row to a stream that counts them."""
    import numpy as np

    from ingest.frame import FrameError
    from ingest.straps import StrapStream, decode_strap, encode_polar

    def run(data: bytes) -> None:
        for kind in ("polar", "movesense"):
            stream = StrapStream(DEVICE)
            for number, part in enumerate((data, data[:-6], data)):
                try:
                    stream.push(decode_strap(kind, part), NOW_MS + number)  # type: ignore[arg-type]
                except FrameError:
                    continue

    wave = np.arange(-20, 20)
    said = {"Uri": "x/Meas/ECG/125", "Body": {"Timestamp": 5000, "Samples": wave.tolist()}}
    binary = struct.pack("<I", 5000) + wave.astype("<i2").tobytes()
    return Target(run, [encode_polar(10**18, wave), binary, json.dumps(said).encode()])


def notes() -> Target:
    """Aim at what a device says beside frames: status, events, meta."""
    from ingest.frame import FrameError
    from ingest.notes import decode_event, decode_meta, decode_status

    def run(data: bytes) -> None:
        for codec in (decode_event, decode_meta, decode_status):
            try:
                codec(data)  # type: ignore[operator]
            except FrameError:
                continue

    return Target(run, [
        b"online", b'{"name":"offline"}', b'{"name":"battery","value":0.5}', b'{"name":"clock","value":1700000000000}',
        b'{"name":"button"}', b'{"leads":["MLII","V5"],"rate":250,"gain":200,"firmware":"1"}',
    ])  # fmt: skip


def mqtt() -> Target:
    """Aim at what a broker sends, in two pieces, through the whole stage to entries for the bus."""
    from bus.messages import Entry, unpack_inbound
    from ingest.codecs import decode_frame, encode_frame
    from ingest.connection import Connection, Received
    from ingest.limits import DeviceLimits
    from ingest.packets import publish_packet
    from ingest.sequencer import Sequencer
    from ingest.subscriber import Subscriber, SubscriberOptions

    class Bus:
        partitions = 64

    options = SubscriberOptions("127.0.0.1", 1)
    loop = asyncio.new_event_loop()

    def take(subscriber: Subscriber, message: Received) -> None:
        message.server_ms = NOW_MS
        items: list[tuple[int, bytes]] = []
        subscriber._entries(message, 0.0, items)
        if subscriber.counts.pop("drop_fault", 0):
            raise AssertionError("the stage met an error that it does not know")
        sequencer = Sequencer()
        for _, data in items:
            entry = unpack_inbound(data)
            if entry.kind in (Entry.FRAME, Entry.BACKFILL):
                # What ingest lets through the worker must be able to read and to order.
                sequencer.push(decode_frame(entry.payload), entry.server_ms)
                Sequencer.from_bytes(sequencer.to_bytes())

    async def feed(data: bytes) -> None:
        subscriber = Subscriber(options, Bus(), clock=lambda: NOW_MS, limits=DeviceLimits(messages=0.0))  # type: ignore[arg-type]
        for mqtt5 in (True, False):
            connection = Connection(
                options, mqtt5=mqtt5, receive_maximum=100, take=lambda message: take(subscriber, message)
            )
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                connection.data_received(part)

    def run(data: bytes) -> None:
        loop.run_until_complete(feed(data))

    payloads = {
        "ecg": encode_frame(valid_frames()[0]), "backfill": encode_frame(valid_frames()[1]), "status": b"online",
        "events": b'{"name":"button"}', "meta": b'{"leads":["V5"],"rate":250,"gain":200}', "polar": straps().seeds[0],
        "movesense": straps().seeds[1],
    }  # fmt: skip
    said = [publish_packet(f"rw/v1/{DEVICE}/{kind}", data, mid=7, mqtt5=True) for kind, data in payloads.items()]
    odd = [b"".join(said), b"\x20\x03\0\0\0", b"\x90\x04\0\1\0\1", b"\xe0\x01\x8e"]
    return Target(run, [*said, *odd], loop.close)


def journal() -> Target:
    """Aim at the log of a device, as a power cut or a bad disk leaves it."""
    from ingest.journal import Kept, _lay_out, parse

    def run(data: bytes) -> None:
        at = 0
        for item in parse(data):
            at += 16 + len(item.payload) + 4 if isinstance(item, Kept) else item.size
        assert at == len(data), "bytes are neither kept nor told as damaged"

    one, two = _lay_out(1, b"first"), _lay_out(2, b"second record")
    return Target(run, [one, one + two, one[:-3] + two, one + b"noise" + two])
