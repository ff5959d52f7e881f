"""HL7 v2 ADT over a real socket: who comes, moves and goes, and what is answered when something is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import hl7
import pytest
from hl7.mllp import open_hl7_connection
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from alerts.audit import Audit
from alerts.care import Care
from alerts.care_desk import Desk
from alerts.database import open_engine, upgrade
from alerts.devices import DEVICES
from bus.messages import Action
from rhythmwatch.adt import Feed, serve_feed
from rhythmwatch.adt_message import AdtError, decode, read

DEADLINE_S = 60.0


def message(
    event: str, control: str = "", mrn: str = "123", bed: str = "7", name: str = "Müller^Eva", **more: str
) -> str:
    """Compose an ADT message."""
    parts = {"sex": "F", "born": "19410506", "kind": "ADT", "ward": "West"} | more
    place = f"{parts['ward']}^^{bed}" if bed else ""
    ident = control or event + bed + mrn
    return (
        f"MSH|^~\\&|EPIC|H|RW|W|20251125||{parts['kind']}^{event}|{ident}|P|2.5||||||UNICODE UTF-8\r"
        f"EVN|{event}|20251125\r"
        f"PID|1||{mrn}^^^H^MR||{name}||{parts['born']}|{parts['sex']}\r"
        f"PV1|1|I|{place}||||||||||||||||V99\r"
    )


@dataclass
class Ward:
    """A feed on a socket, a client, and what the streams were told."""

    feed: Feed
    care: Care
    audit: Audit
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    told: list[tuple[str, str]] = field(default_factory=list)

    async def send(self, text: str | bytes) -> tuple[str, str]:
        """Send a message; code and text of the answer."""
        self.writer.writeblock(text if isinstance(text, bytes) else text.encode())
        await self.writer.drain()
        async with asyncio.timeout(DEADLINE_S):
            answer = hl7.parse((await self.reader.readblock()).decode())
        return str(answer.segment("MSA")(1)), str(answer.segment("MSA")(3)) if len(answer.segment("MSA")) > 3 else ""

    def beds(self) -> list[tuple[str, str, str, str]]:
        """Who is where now."""
        return [
            (stay.patient, stay.ward, stay.bed, self.care.person(stay.person).name) for stay in self.care.open_stays()
        ]


@asynccontextmanager
async def ward(folder: Path) -> AsyncIterator[Ward]:
    """Run a feed with two enrolled devices."""
    engine = open_engine(f"sqlite:///{folder}/h.db")
    upgrade(engine)
    with engine.begin() as connection:
        for ident, label in (("dev-1", "West 7"), ("dev-2", "West 8")):
            row = {"id": ident, "label": label, "secret_hash": "x", "made_by": "x", "made_ms": 1, "rotated_ms": 1}
            connection.execute(insert(DEVICES), row)
    told: list[tuple[str, str]] = []

    async def send(channel: str, action: Action) -> None:
        told.append((channel, action.name))

    feed = Feed(Desk(Care(engine), send), Audit(engine))
    server = await serve_feed(feed, "127.0.0.1", 0)
    reader, writer = await open_hl7_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield Ward(feed, Care(engine), Audit(engine), reader, writer, told)
    finally:
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        engine.dispose()


async def test_a_patient_comes_moves_and_goes(tmp_path: Path) -> None:
    """A01, A08, A02, A03 write stays, tell the streams, and leave the trail without a name."""
    async with ward(tmp_path) as site:
        assert await site.send(message("A01")) == ("AA", "")
        assert site.beds() == [("dev-1", "West", "7", "Eva Müller")]
        assert await site.send(message("A08", name="Meier^Eva")) == ("AA", "")
        assert await site.send(message("A02", bed="8", name="Meier^Eva")) == ("AA", "")
        assert site.beds() == [("dev-2", "West", "8", "Eva Meier")]
        assert await site.send(message("A03", bed="8")) == ("AA", "")
        assert site.beds() == []
        assert site.told == [("dev-1", "admit"), ("dev-1", "discharge"), ("dev-2", "admit"), ("dev-2", "discharge")]
        rows = site.audit.rows()
        assert {row.user for row in rows} == {"hl7 EPIC"}
        assert "Eva" not in str(rows)
        person = site.care.by_mrn("123")
        assert (person.born, person.sex) == ("1941-05-06", "female")
        assert {stay.visit for stay in site.care.stays(person=person.person)} == {"V99"}


async def test_cancelled_admission_and_discharge(tmp_path: Path) -> None:
    """A11 takes an admission back, A13 a discharge; a second A13 is refused."""
    async with ward(tmp_path) as site:
        await site.send(message("A04"))
        assert len(site.beds()) == 1
        assert await site.send(message("A11")) == ("AA", "")
        assert site.beds() == []
        assert await site.send(message("A13")) == ("AA", "")
        assert site.beds() == [("dev-1", "West", "7", "Eva Müller")]
        code, text = await site.send(message("A13", control="again"))
        assert code == "AE"
        assert "not discharged" in text


async def test_a_repetition_is_answered_and_not_done_again(tmp_path: Path) -> None:
    """The same control id gets the same answer; the same words under a new one change nothing either."""
    async with ward(tmp_path) as site:
        assert await site.send(message("A01", control="1")) == ("AA", "")
        assert await site.send(message("A01", control="1")) == ("AA", "")
        assert await site.send(message("A01", control="2")) == ("AA", "")
        assert site.told == [("dev-1", "admit")]
        assert site.feed.counters.repeated == 1


async def test_beds_without_a_device_leave_no_trace(tmp_path: Path) -> None:
    """Who lies elsewhere is acknowledged and not stored; who moves there is discharged here, and may come back."""
    async with ward(tmp_path) as site:
        assert await site.send(message("A01", bed="99", mrn="9")) == ("AA", "")
        assert site.care.by_mrn("9") is None
        assert await site.send(message("A03", bed="99", mrn="9")) == ("AA", "")
        await site.send(message("A01"))
        assert await site.send(message("A02", bed="99")) == ("AA", "")
        assert site.beds() == []
        assert await site.send(message("A02", bed="7", control="back")) == ("AA", "")
        assert site.beds() == [("dev-1", "West", "7", "Eva Müller")]
        assert site.feed.counters.elsewhere == 2


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        (message("A01", mrn=""), "AE", "PID-3"),
        (message("A01", bed=""), "AE", "PV1-3"),
        (message("A01", name=""), "AE", "PID-5"),
        (message("A01", born="May"), "AE", "PID-7"),
        (message("A01", name="x" * 300), "AE", "longer than 255"),
        (message("A01", mrn="456"), "AE", "another patient"),
        (message("A31"), "AR", "only ADT"),
        (message("R01", kind="ORU"), "AR", "only ADT"),
    ],
)
async def test_what_can_not_be_done_is_said(tmp_path: Path, text: str, code: str, why: str) -> None:
    """Missing fields, an occupied bed, another type: refused with the reason, and the connection goes on."""
    async with ward(tmp_path) as site:
        await site.send(message("A01"))
        got, said = await site.send(text)
        assert got == code
        assert why in said
        assert site.beds() == [("dev-1", "West", "7", "Eva Müller")]
        assert await site.send(message("A03")) == ("AA", "")


async def test_garbage_closes_its_connection_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no message ends the connection it came on; another one is served, and no log line repeats it."""
    caplog.set_level(logging.DEBUG)
    async with ward(tmp_path) as site:
        port = site.writer.get_extra_info("peername")[1]
        for garbage in (b"no block at all\x1c\r", b"\x0bsecret nonsense\x1c\r"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert await site.send(message("A01")) == ("AA", "")
        assert site.feed.counters.refused == 2
    assert "secret" not in caplog.text


async def test_latin_and_escaped_names(tmp_path: Path) -> None:
    """MSH-18 names the character set; escapes of the standard are undone."""
    async with ward(tmp_path) as site:
        latin = message("A01", name="Mü\\T\\ller^Eva").replace("UNICODE UTF-8", "8859/1").encode("latin-1")
        assert await site.send(latin) == ("AA", "")
        assert site.beds()[0][3] == "Eva Mü&ller"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    """Whatever comes, decoding and reading end with words or with one error of our own."""
    for block in (data, b"MSH|^~\\&|" + data, message("A01").encode() + data):
        with contextlib.suppress(AdtError):
            read(decode(block))
