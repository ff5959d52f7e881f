"""What `fuzz_atheris.py` aims at: every decoder that bytes from outside reach, with valid messages to begin from.

A target takes any bytes and lets nothing but the error types through that its decoder documents; those it takes itself,
so that whatever it raises is a finding. Modules of ours are imported when a target is made, so that they can be
instrumented before.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DEVICE: Final = "bed-7"
NOW_MS: Final = 1_700_000_000_000

Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """A decoder under test.

    Attributes
    ----------
    run : callable
        Gives it bytes; raises for a finding alone.
    seeds : list of bytes
        Valid messages.
    close : callable
        Lets go of what it holds.
    """

    run: Run
    seeds: list[bytes]
    close: Callable[[], None] = lambda: None


def repaired(data: bytes) -> bytes:
    """Make length and checksum of a frame right, so that damage reaches what lies behind them."""
    from crc32c import crc32c

    if len(data) < 72:
        return data
    body = b"RW\1" + data[3:4] + struct.pack("<I", len(data)) + data[8:-4]
    return body + struct.pack("<I", crc32c(body))


def valid_frames() -> list[Any]:
    """Make frames of one to three leads and both widths."""
    import numpy as np

    from ingest.frame import Frame

    rng = np.random.default_rng(1)
    kinds = ((1, 4, np.int16), (2, 25, np.int16), (3, 60, np.int32))
    return [
        Frame(
            DEVICE, 5 + n, n, 250 * n, NOW_MS, 250.0, tuple(f"L{i}" for i in range(leads)), 200.0,
            rng.integers(-2000, 2000, (rows, leads)).astype(kind),
        )
        for n, (leads, rows, kind) in enumerate(kinds)
    ]  # fmt: skip


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
    from ingest.connection import Connection, Received, publish_packet
    from ingest.limits import DeviceLimits
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


def _messages() -> list[Any]:
    from bus.messages import Action, AlarmEvent, BeatEvent, DeviceNote, RhythmEvent, SettingsEvent, StatusEvent, View

    return [
        BeatEvent(DEVICE, DEVICE, 5, 100, NOW_MS, "V", 0.9, "N", 0.1, 800, b"m" * 19),
        RhythmEvent(DEVICE, DEVICE, 5, 100, NOW_MS, "AFIB", 0.9),
        AlarmEvent(f"{DEVICE}/VTACH/5/9", DEVICE, DEVICE, "VTACH", 3, "on", 0, 5, 9, NOW_MS, NOW_MS, NOW_MS),
        StatusEvent(DEVICE, DEVICE, NOW_MS, "MLII", ("MLII",), "good"),
        SettingsEvent(DEVICE, DEVICE, NOW_MS, "limits", "nurse", "adult", {"hr_high": 120.0}, ()),
        View(
            DEVICE, DEVICE, 5, NOW_MS, 0, 250, "MLII", b"\0" * 20, b"\1" * 8, 0, 10, 4, 40.0, 70.0, NOW_MS, "N", 0,
            "good",
        ),
        DeviceNote("battery", 0.5),
        *(Action(name, "nurse", alarm, values) for name, alarm, values in (
            ("ack", f"{DEVICE}/VTACH/5/9", {}), ("pause", None, {"seconds": 60.0}), ("resume", None, {}),
            ("limits", None, {"hr_high": 130.0}), ("profile", None, {"profile": "adult"}),
            ("admit", None, {"profile": "neonate"}), ("discharge", None, {}),
        )),
    ]  # fmt: skip


def messages() -> Target:
    """Aim at events, views, actions and notes of the bus, sequencers kept on it, and frames of the websocket."""
    import msgspec

    from bus.messages import pack, unpack_action, unpack_event, unpack_note, unpack_view
    from ingest.sequencer import Sequencer
    from web import wire

    def sequencer(data: bytes) -> None:
        try:
            Sequencer.from_bytes(data)
        except ValueError as error:
            if type(error) is not ValueError:
                raise

    codecs: tuple[Callable[[bytes], object], ...] = (
        unpack_action, unpack_event, unpack_note, unpack_view, wire.read_frame, sequencer
    )  # fmt: skip

    def run(data: bytes) -> None:
        for codec in codecs:
            try:
                codec(data)
            except (msgspec.DecodeError, msgspec.ValidationError):
                continue

    return Target(run, [*map(pack, _messages()), Sequencer().to_bytes(), wire.frame([wire.wave(_messages()[5])])])


def pages() -> Target:
    """Aim at what a page sends over the websocket."""
    import msgspec

    from web.wire import read_watch

    def run(data: bytes) -> None:
        try:
            # As the websocket hands text on: whole UTF-8, which JSON may still escape into halves of a character.
            read_watch(data.decode("utf-8", "replace"))
        except (msgspec.DecodeError, msgspec.ValidationError):
            return

    return Target(
        run, [b"{}", b'{"beds":["bed-7","bed-8"],"detail":null}', b'{"beds":null,"detail":"bed-\\ud83d\\ude00"}']
    )


def fold() -> Target:
    """Aim at the fold of the worker: entries of a partition as they come, frames repaired."""
    from bus.messages import Action, Entry, Inbound, pack, pack_inbound, unpack_inbound
    from ingest.codecs import encode_frame
    from rhythmwatch.models import load_models
    from rhythmwatch.pipeline import Pipeline

    models = load_models()

    def parted(data: bytes) -> Iterator[bytes]:
        while len(data) >= 2:
            size = 2 + int.from_bytes(data[:2], "big")
            yield data[2:size]
            data = data[size:]

    def run(data: bytes) -> None:
        pipeline = Pipeline(models, 64)
        for part in parted(data):
            try:
                entry = unpack_inbound(part)
            except ValueError:
                continue
            if entry.kind in (Entry.FRAME, Entry.BACKFILL):
                entry = Inbound(entry.kind, entry.server_ms, entry.patient, repaired(entry.payload))
            for event in pipeline.step([(pipeline.partition(entry.patient), entry)]).events:
                pack(event[1])

    def joined(*entries: bytes) -> bytes:
        return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)

    packed = [
        pack_inbound(Inbound(Entry.ACTION if isinstance(item, Action) else Entry.DEVICE, NOW_MS, DEVICE, pack(item)))
        for item in _messages()[6:]
    ]
    signal = [
        pack_inbound(Inbound(kind, NOW_MS, DEVICE, encode_frame(frame)))
        for frame in valid_frames() for kind in (Entry.FRAME, Entry.BACKFILL)
    ]  # fmt: skip
    tick = pack_inbound(Inbound(Entry.TICK, NOW_MS + 20_000, "", b""))
    return Target(
        run, [joined(signal[0], *packed, tick), joined(*signal, tick), *(joined(one, tick) for one in packed)]
    )


def admissions() -> Target:
    """Aim at the hospital's feed: MLLP blocks, HL7 v2 messages, what they say, and the answer."""
    from hl7.mllp import InvalidBlockError
    from hl7.mllp.streams import HL7StreamReader

    from rhythmwatch.adt_message import AdtError, acknowledge, decode, read

    loop = asyncio.new_event_loop()

    def block_of(data: bytes) -> bytes:
        reader = HL7StreamReader(limit=1 << 20, loop=loop)
        reader.feed_data(data)
        reader.feed_eof()
        return bytes(loop.run_until_complete(reader.readblock()))

    def run(data: bytes) -> None:
        try:
            data = block_of(data)
        except (InvalidBlockError, asyncio.IncompleteReadError, ValueError):
            # Not framed: the message itself is to be reached all the same.
            data = data.strip(b"\x0b\x1c")
        try:
            message = decode(data)
        except AdtError:
            return
        said = ""
        try:
            read(message)
        except AdtError as error:
            said = str(error)
        with contextlib.suppress(AdtError):
            acknowledge(message, "AE", said)

    def seed(event: str, charset: str) -> bytes:
        lines = (
            f"MSH|^~\\&|HIS|H|RW|W|20260101000000||ADT^{event}|{event}1|P|2.5.1||||||{charset}",
            "EVN||20260101", "PID|1||4711^^^H^MR||Meier^Anna^Maria||19500102|F", "PV1|1|I|W1^12^3^H|||||||||||||||V99",
        )  # fmt: skip
        return b"\x0b" + "\r".join(lines).encode() + b"\r\x1c\r"

    said = (("A01", ""), ("A02", "UNICODE UTF-8"), ("A03", "8859/1"), ("A08", ""))
    return Target(run, [seed(*item) for item in said], loop.close)


def resources() -> Target:
    """Aim at FHIR resources and parameters of addresses."""
    from alerts import fhir
    from alerts.fhir import FhirError

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        for reading in (fhir.milliseconds_of, fhir.alarm_of_flag):
            try:
                reading(text)  # type: ignore[operator]
            except FhirError:
                continue
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return
        if isinstance(body, dict):
            for kind in (fhir.read_patient, fhir.read_encounter):
                try:
                    kind(body)
                except FhirError:
                    continue

    patient = {
        "resourceType": "Patient", "name": [{"given": ["Anna"], "family": "Meier", "text": ""}], "gender": "female",
        "identifier": [{"value": "4711"}], "birthDate": "1950-01-02",
    }  # fmt: skip
    encounter = {
        "resourceType": "Encounter", "status": "in-progress", "subject": {"reference": "Patient/1"},
        "location": [{"location": {"display": "12"}}], "serviceProvider": {"display": "W1"},
        "extension": [{"url": fhir.DEVICE_EXTENSION, "valueReference": {"reference": "Device/bed-7"}}],
        "identifier": [{"value": "V99"}],
    }  # fmt: skip
    flags = [b"7.VTACH.5.9", b"2026-01-02T03:04:05.678+01:00", b"2026-01"]
    return Target(run, [json.dumps(patient).encode(), json.dumps(encounter).encode(), *flags])


def uploads() -> Target:
    """Aim at recordings that people give, by a first byte: CSV, JSON, EDF; WFDB with its header before a NUL."""
    import edfio
    import numpy as np

    from ingest.codecs import encode_json
    from ingest.files import read_file
    from ingest.recordings import RecordingError, read_record

    place = Path(tempfile.mkdtemp())
    names = ("file.csv", "file.json", "file.edf", "file.hea")

    def run(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else names[0]
        body, signal = data[1:], b""
        if name == "file.hea":
            body, _, signal = body.partition(b"\0\0")
            (place / "file.dat").write_bytes(signal)
        (place / name).write_bytes(body)
        try:
            read_record(place / "file") if name == "file.hea" else read_file(place / name)
        except RecordingError:
            return

    edf = io.BytesIO()
    edfio.Edf([edfio.EdfSignal(np.sin(np.arange(500) / 9), 250, label="ECG", physical_dimension="mV")]).write(edf)
    head = b"file 1 250 4\nfile.dat 16 200(0)/mV 16 0 0 0 0 MLII\n"
    return Target(run, [
        b"\0# rate = 250\nMLII,V5\n0.1,0.2\n0.3,\n", b"\0time;MLII\n0;1\n0.004;2\n",
        b"\1" + encode_json(valid_frames()[0]),
        b'\1[{"rate":250,"samples":[0.1,null],"sample":0},{"rate":250,"samples":[1,2],"sample":9}]',
        b"\2" + edf.getvalue(), b"\3" + head + b"\0\0" + b"\1\0\2\0\3\0\4\0",
    ])  # fmt: skip


def pictures() -> Target:
    """Aim at images that people give, those of our own with numbers in their text, and zips of them."""
    import numpy as np
    from PIL import Image

    from rhythmwatch.pictures import PictureError, is_picture, read_picture, read_window
    from rhythmwatch.unpacking import unpack

    neutral = np.zeros(64, np.float32)
    folder = Path(tempfile.mkdtemp())

    def run(data: bytes) -> None:
        is_picture("file.png", data)
        for reading in (lambda given: read_picture(given, neutral), read_window):
            try:
                reading(data)  # type: ignore[operator]
            except PictureError:
                continue
        if data[:2] == b"PK":
            (folder / "images.zip").write_bytes(data)
            try:
                unpack(folder / "images.zip", folder / "out")
            except ValueError as error:
                if type(error) is not ValueError:
                    raise

    seeds = []
    for kind in ("PNG", "JPEG"):
        drawn = io.BytesIO()
        Image.fromarray((np.arange(256) % 251).astype(np.uint8).reshape(16, 16)).save(drawn, kind)
        seeds.append(drawn.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("normal/1.png", seeds[0])
    return Target(run, [*seeds, packed.getvalue()])


ALL: Final[dict[str, tuple[Callable[[], Target], float, tuple[str, ...]]]] = {
    "frames": (frames, 6, ("ingest",)),
    "straps": (straps, 1.5, ("ingest",)),
    "notes": (notes, 3, ("ingest",)),
    "mqtt": (mqtt, 1, ("ingest", "bus")),
    "journal": (journal, 3, ("ingest",)),
    "messages": (messages, 4, ("bus", "ingest", "web")),
    "pages": (pages, 2, ("web",)),
    "admissions": (admissions, 0.4, ("rhythmwatch.adt_message", "hl7")),
    "resources": (resources, 3, ("alerts.fhir",)),
    "uploads": (uploads, 0.15, ("ingest", "edfio")),
    "pictures": (pictures, 0.1, ("rhythmwatch.pictures", "rhythmwatch.unpacking")),
    "fold": (fold, 0.02, ("bus", "ingest", "alerts", "rhythmwatch")),
}
"""By name: what makes the target, its share of the runs, and the packages whose coverage leads it."""
