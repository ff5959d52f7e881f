"""Fuzz targets on what other systems of a hospital send: HL7 v2 admissions and FHIR resources."""

from __future__ import annotations

import asyncio
import contextlib
import json

from fuzzing import Target


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
