"""HL7 v2 ADT messages as plain words: what a hospital's feed says of a patient. No input or output.

References
----------
HL7 Version 2.5.1, chapter 3 (Patient Administration).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import hl7

EVENTS: Final = {
    "A01": "admit",
    "A02": "transfer",
    "A03": "discharge",
    "A04": "register",
    "A08": "update",
    "A11": "cancel admit",
    "A13": "cancel discharge",
}
_SEXES: Final = {"F": "female", "M": "male", "O": "other", "A": "other", "U": "unknown", "N": "other"}
_CHARACTER_SETS: Final = {"UNICODE UTF-8": "utf-8", "UNICODE": "utf-8", "8859/1": "latin-1", "8859/15": "iso8859-15"}
_LONGEST: Final = {"mrn": 128, "name": 255, "bed": 64, "ward": 64, "visit": 128}


class AdtError(ValueError):
    """A message that can't be acted upon; the text names no patient."""


@dataclass(frozen=True, slots=True)
class Place:
    """Ward and bed of PV1-3."""

    ward: str
    bed: str


@dataclass(frozen=True, slots=True)
class Adt:
    """What a message says.

    Attributes
    ----------
    event : str
        One of the values of `EVENTS`.
    control : str
        MSH-10, by which a repetition is known.
    sender : str
        MSH-3.
    mrn, name, born, sex
        The patient; `born` as ``YYYY-MM-DD`` or empty.
    place : Place or None
        Where the patient is, or goes.
    visit : str
        PV1-19.
    """

    event: str
    control: str
    sender: str
    mrn: str
    name: str
    born: str
    sex: str
    place: Place | None
    visit: str


def decode(block: bytes) -> hl7.Message:
    """Parse a block by the character set that its own header names (MSH-18), UTF-8 without one.

    Raises
    ------
    AdtError
        If it is no HL7 v2 message.
    """
    head = block.split(b"\r", 1)[0].decode("latin-1").split("|")
    named = head[17].split("~")[0] if len(head) > 17 else ""
    try:
        text = block.decode(_CHARACTER_SETS.get(named.upper(), "utf-8"))
        message = hl7.parse(text.replace("\r\n", "\r").replace("\n", "\r"))
        message.segment("MSH")
    except Exception as error:  # the parser raises almost any type on what is damaged
        raise AdtError(f"this is no HL7 v2 message: {type(error).__name__}") from error
    return message


def read(message: hl7.Message) -> Adt | None:
    """Read an ADT message.

    Returns
    -------
    Adt or None
        None for a message of another type or event.

    Raises
    ------
    AdtError
        If a field that is needed is missing or not as the standard has it.
    """
    kind, event = _field(message, "MSH", 9, 1), _field(message, "MSH", 9, 2)
    if kind != "ADT" or event not in EVENTS:
        return None
    mrn = _field(message, "PID", 3, 1)
    if not mrn:
        raise AdtError("PID-3 (patient identifier) is missing")
    place = Place(_field(message, "PV1", 3, 1), _field(message, "PV1", 3, 3))
    if not place.bed:
        place = Place(place.ward, _field(message, "PV1", 3, 2))
    if event in ("A01", "A02") and not place.bed:
        raise AdtError("PV1-3 (assigned location) names no bed")
    name = " ".join(part for part in (_field(message, "PID", 5, 2), _field(message, "PID", 5, 1)) if part)
    if event in ("A01", "A04") and not name:
        raise AdtError("PID-5 (patient name) is missing")
    found = Adt(
        EVENTS[event],
        _field(message, "MSH", 10),
        _field(message, "MSH", 3),
        mrn,
        name,
        _date(_field(message, "PID", 7)),
        _SEXES.get(_field(message, "PID", 8), ""),
        place if place.bed else None,
        _field(message, "PV1", 19, 1),
    )
    _check_lengths(found)
    return found


def acknowledge(message: hl7.Message, code: str, text: str = "") -> bytes:
    """Answer a message.

    Parameters
    ----------
    message : hl7.Message
    code : str
        ``AA``, ``AE`` or ``AR``.
    text : str
        Why, for MSA-3; names no patient.

    Raises
    ------
    AdtError
        If its header lacks what an answer repeats.
    """
    try:
        answer = message.create_ack(code)
    except Exception as error:  # as above
        raise AdtError("the header is too short to be answered") from error
    if text:
        answer.segment("MSA").assign_field(message.escape(text), 3)
    return str(answer).encode()


def _field(message: hl7.Message, segment: str, field: int, component: int = 1) -> str:
    try:
        value = message.extract_field(segment, 1, field, 1, component, 1)
    except (KeyError, IndexError, LookupError):
        return ""
    text = str(message.unescape(str(value or ""))).strip()
    return "" if text == '""' else "".join(letter for letter in text if letter.isprintable())


def _date(text: str) -> str:
    if not text:
        return ""
    day = text[:8]
    if len(day) != 8 or not day.isdigit():
        raise AdtError("PID-7 (date of birth) is no date")
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"


def _check_lengths(adt: Adt) -> None:
    place = adt.place or Place("", "")
    values = {"mrn": adt.mrn, "name": adt.name, "bed": place.bed, "ward": place.ward, "visit": adt.visit}
    for name, value in values.items():
        if len(value) > _LONGEST[name]:
            raise AdtError(f"the {name} is longer than {_LONGEST[name]} characters")
