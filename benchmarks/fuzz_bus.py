"""Fuzz targets on what lies on the bus, what the worker makes of it, and what goes over the websocket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fuzzing import DEVICE, NOW_MS, Target, repaired, valid_frames


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
