"""The written device protocol: each test vector means what the page says, and the topics are those of the rules."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ingest.accounts import READS, WRITES
from ingest.codecs import decode
from ingest.frame import FrameError
from ingest.notes import clock_answer, decode_event, decode_meta, decode_status, stored_answer
from ingest.straps import decode_movesense, decode_polar

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "device-protocol.md").read_text(encoding="utf-8")
API: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))
VECTORS = re.findall(
    r"^`(\w+)`: ([^\n]+)\n\n```(hex|text)\n(.+?)\n```\n\n```json\n(.+?)\n```$", PAGE, re.MULTILINE | re.DOTALL
)
REASON = re.compile(r"^\| (`[\w`, ]+`) \| ", re.MULTILINE)


def payload_of(form: str, body: str) -> bytes:
    return bytes.fromhex(body.replace("\n", "")) if form == "hex" else body.encode()


def means(leaf: str, payload: bytes) -> dict[str, Any]:
    """Say what a payload means, by the code that ingest runs."""
    if leaf in ("ecg", "backfill"):
        frame = decode(payload, "bed-7")
        columns = {
            lead: [None if unit == frame.missing else unit for unit in frame.samples[:, number].tolist()]
            for number, lead in enumerate(frame.leads)
        }
        numbers = {
            name: getattr(frame, name) for name in ("device", "epoch", "seq", "sample", "device_ms", "rate", "gain")
        }
        return {**numbers, "samples": columns}
    if leaf in ("polar", "movesense"):
        packet = decode_polar(payload) if leaf == "polar" else decode_movesense(payload)
        return {
            "first_ms": round(packet.clock_ms, 3),
            "rate": packet.rate,
            "gain": packet.gain,
            "samples": packet.samples[:, 0].tolist(),
        }
    if leaf == "meta":
        meta = decode_meta(payload)
        return {"leads": list(meta.leads), "rate": meta.rate, "gain": meta.gain, "firmware": meta.firmware}
    if leaf == "commands":
        answer: dict[str, Any] = json.loads(payload)
        return answer
    note = decode_status(payload) if leaf == "status" else decode_event(payload)
    return {"name": note.name, "value": note.value}


@pytest.mark.parametrize(
    ("leaf", "what", "form", "body", "meaning"), VECTORS, ids=[f"{v[0]}-{v[1][:24]}" for v in VECTORS]
)
def test_each_vector_means_what_the_page_says(leaf: str, what: str, form: str, body: str, meaning: str):
    """The payload of the page, decoded, is the meaning of the page."""
    assert means(leaf, payload_of(form, body)) == json.loads(meaning), what


def test_there_is_a_vector_for_each_message():
    """Every leaf of a topic, and both forms of those that have two."""
    assert {vector[0] for vector in VECTORS} == {*WRITES, *READS}
    for leaf in ("ecg", "movesense"):
        assert {vector[2] for vector in VECTORS if vector[0] == leaf} == {"hex", "text"}


def test_a_vector_with_one_bit_altered_is_refused():
    """The frame of the page, damaged anywhere, is no frame any more."""
    payload = payload_of(*next(vector for vector in VECTORS if vector[0] == "ecg")[2:4])
    for at in range(len(payload)):
        with pytest.raises(FrameError):
            decode(payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :])


def test_the_answers_are_those_of_the_page():
    """What ingest answers are the vectors of ``commands``."""
    clock, stored = (vector[3] for vector in VECTORS if vector[0] == "commands")
    assert clock_answer(1700000000000.0, 1700000000250) == clock.encode()
    assert stored_answer([(1700000000000, 4), (1700000000000, 5)]) == stored.encode()


def test_every_reason_is_written_down():
    """The page lists the reasons that `FrameError` knows."""
    listed = {name for row in REASON.findall(PAGE[PAGE.index("| reason |") :]) for name in re.findall(r"\w+", row)}
    documented = re.findall(r"``(\w+)``", FrameError.__doc__ or "")
    assert set(documented) <= listed


def test_the_topics_are_described_for_machines():
    """The description is AsyncAPI 3, and its channels are the topics that a device may write and read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from asyncapi3 import AsyncAPI3

        AsyncAPI3.model_validate(API)
    channels = {name: channel["address"] for name, channel in API["channels"].items()}
    assert channels == {leaf: f"rw/v1/{{device}}/{leaf}" for leaf in (*WRITES, *READS)}
    actions = {
        operation["channel"]["$ref"].rsplit("/", 1)[1]: operation["action"] for operation in API["operations"].values()
    }
    assert actions == dict.fromkeys(WRITES, "send") | dict.fromkeys(READS, "receive")


def test_the_schemas_take_the_vectors():
    """Each JSON vector fits the schema of one of its channel's messages, and a wrong one does not."""
    for leaf, what, form, body, _ in VECTORS:
        if form == "hex" or not body.startswith("{"):
            continue
        messages = [_found(message["$ref"]) for message in API["channels"][leaf]["messages"].values()]
        schemas = [message["payload"] for message in messages if "type" in message["payload"]]
        assert any(jsonschema.Draft7Validator(schema).is_valid(json.loads(body)) for schema in schemas), what
        assert not any(jsonschema.Draft7Validator(schema).is_valid({"nonsense": 1}) for schema in schemas), what


def _found(reference: str) -> dict[str, Any]:
    """Follow a reference within the description."""
    here: Any = API
    for part in reference.removeprefix("#/").split("/"):
        here = here[part]
    found: dict[str, Any] = here
    return found


def test_every_reference_leads_somewhere():
    """No reference of the description is broken."""
    text = (ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8")
    for reference in re.findall(r'\$ref: "([^"]+)"', text):
        assert _found(reference)
