"""Persons and their stays: who lies in which bed on which channel, admission to discharge, consents and notes.

A channel is a device's stream and never changes; a *stay* joins a person to it for a time. The times of stays are the
server's, so that everything with a channel and a time belongs to one person or to nobody. Calls block.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, Row, Select, delete, func, insert, select, text, update

from alerts.care_model import Consent, Person, StaffNote, Stay, Turnover
from alerts.database import StoreError, writing
from alerts.limits import PROFILES
from alerts.tables import columns_of, table_of
from alerts.tables_care import ConsentRow, NoteRow, PersonRow, RetentionRow, StayRow, TurnoverRow

PURPOSES: Final = ("monitoring", "training", "research")
RETENTION: Final[Mapping[str, int]] = {
    "recordings_days": 30,
    "events_days": 365,
    "evidence_days": 730,
    "audit_days": 3650,
    "stays_days": 3650,
}
"""Kinds of data and how many days each is kept by default."""
LONGEST_DAYS: Final = 36_500
_LOCK: Final = 0x52574134
"""Number of PostgreSQL's advisory lock round a change of stays."""

PERSONS: Final = table_of(PersonRow)
STAYS: Final = table_of(StayRow)
CONSENTS: Final = table_of(ConsentRow)
NOTES: Final = table_of(NoteRow)
TURNOVERS: Final = table_of(TurnoverRow)
_RETENTION: Final = table_of(RetentionRow)


class Care:
    """Persons, stays, consents and notes.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of `alerts.database.open_engine`, its schema up to date.
    clock : callable
        Monotonic seconds, for how long what `may_keep` knows is used.
    """

    _FRESH_S: Final = 1.0

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine = engine
        self._writer = writing(engine)
        self._clock = clock
        self._kept: dict[str, list[tuple[int, float]]] = {}
        self._kept_at = -1e9
        self._kept_marks: tuple[int, ...] = ()

    # --- persons and stays ---------------------------------------------------------------------------------------

    def person(self, ident: str) -> Person | None:
        """Look a person up by the id made here."""
        with self.engine.connect() as connection:
            return _one(connection, select(PERSONS).where(PERSONS.c.person == ident), Person)

    def by_mrn(self, mrn: str) -> Person | None:
        """Look a person up by the hospital's record number."""
        with self.engine.connect() as connection:
            return _one(connection, select(PERSONS).where(PERSONS.c.mrn == mrn, PERSONS.c.mrn != ""), Person)

    def persons(self, limit: int = 1000) -> list[Person]:
        """List the persons who were admitted last."""
        with self.engine.connect() as connection:
            chosen = select(PERSONS).order_by(PERSONS.c.made_ms.desc(), PERSONS.c.person).limit(limit)
            return [Person(**row) for row in connection.execute(chosen).mappings()]

    def put_person(self, person: Person) -> None:
        """Add a person, or change what is known of one."""
        row = msgspec.structs.asdict(person)
        with self._writer.begin() as connection:
            if not connection.execute(update(PERSONS).where(PERSONS.c.person == person.person).values(row)).rowcount:
                connection.execute(insert(PERSONS), row)

    def stays(self, person: str | None = None, patient: str | None = None) -> list[Stay]:
        """List stays in order of time, of one person or channel where given."""
        chosen = select(STAYS).order_by(STAYS.c.from_ms, STAYS.c.id)
        if person is not None:
            chosen = chosen.where(STAYS.c.person == person)
        if patient is not None:
            chosen = chosen.where(STAYS.c.patient == patient)
        with self.engine.connect() as connection:
            return [Stay(**row) for row in connection.execute(chosen).mappings()]

    def stay(self, ident: int) -> Stay | None:
        """Look a stay up."""
        with self.engine.connect() as connection:
            return _one(connection, select(STAYS).where(STAYS.c.id == ident), Stay)

    def open_stays(self) -> list[Stay]:
        """List who is in a bed now."""
        with self.engine.connect() as connection:
            chosen = select(STAYS).where(STAYS.c.to_ms.is_(None)).order_by(STAYS.c.ward, STAYS.c.bed, STAYS.c.patient)
            return [Stay(**row) for row in connection.execute(chosen).mappings()]

    def stay_at(self, patient: str, ms: int) -> Stay | None:
        """Whose channel it was at a time."""
        ends = STAYS.c.to_ms.is_(None) | (STAYS.c.to_ms > ms)
        with self.engine.connect() as connection:
            return _one(connection, select(STAYS).where(STAYS.c.patient == patient, STAYS.c.from_ms <= ms, ends), Stay)

    def open_stay(self, *, patient: str | None = None, person: str | None = None) -> Stay | None:
        """Stay on a channel, or of a person, that goes on."""
        with self.engine.connect() as connection:
            return _open(connection, patient=patient, person=person)

    def admit(
        self, person: Person, patient: str, bed: str, ward: str, profile: str, who: str, now_ms: int, visit: str = ""
    ) -> Stay:
        """Put a person on a channel.

        Raises
        ------
        StoreError
            If somebody is on the channel, the person is on another, or the profile is unknown; nothing changed.
        """
        _check_profile(profile)
        with self._writer.begin() as connection:
            _lock(connection)
            _vacant(connection, patient)
            other = _open(connection, person=person.person)
            if other is not None:
                raise StoreError(f"this person is in bed {other.bed} of {other.ward}; transfer instead")
            row = msgspec.structs.asdict(person)
            if not connection.execute(update(PERSONS).where(PERSONS.c.person == person.person).values(row)).rowcount:
                connection.execute(insert(PERSONS), row)
            _tell(connection, patient, "admit", profile, who, now_ms)
            return _begin(connection, person.person, patient, bed, ward, profile, visit, now_ms)

    def discharge(self, patient: str, who: str, now_ms: int) -> Stay:
        """End the stay on a channel.

        Raises
        ------
        StoreError
            If nobody is on it.
        """
        with self._writer.begin() as connection:
            _lock(connection)
            stay = _open(connection, patient=patient)
            if stay is None:
                raise StoreError("no patient is admitted to this device")
            _tell(connection, patient, "discharge", stay.profile, who, now_ms)
            return _end(connection, stay, now_ms)

    def transfer(self, patient: str, bed: str, ward: str, device: str | None, who: str, now_ms: int) -> Stay:
        """Move a person to another bed, another device, or both; the stay so far stands as it was.

        Raises
        ------
        StoreError
            If nobody is on the channel, or somebody is on the other one; nothing changed.
        """
        target = device or patient
        with self._writer.begin() as connection:
            _lock(connection)
            stay = _open(connection, patient=patient)
            if stay is None:
                raise StoreError("no patient is admitted to this device")
            if target != patient:
                _vacant(connection, target)
                _tell(connection, patient, "discharge", stay.profile, who, now_ms)
                _tell(connection, target, "admit", stay.profile, who, now_ms)
            ended = _end(connection, stay, now_ms)
            assert ended.to_ms is not None  # noqa: S101
            return _begin(connection, stay.person, target, bed, ward, stay.profile, stay.visit, ended.to_ms)

    def reopen(self, stay: Stay, who: str, now_ms: int) -> Stay:
        """Undo a discharge: the person goes on where it was, as a stay of its own from now.

        Raises
        ------
        StoreError
            If somebody else is on the channel now, or the person on another.
        """
        person = self.person(stay.person)
        if person is None:
            raise StoreError("this person is not known any more")
        return self.admit(person, stay.patient, stay.bed, stay.ward, stay.profile, who, now_ms, stay.visit)

    def turnovers(self, channels: Collection[str], before_ms: int) -> list[Turnover]:
        """List what streams have not been told yet, in order: of these channels, or older than a time."""
        chosen = select(TURNOVERS).where(TURNOVERS.c.channel.in_(channels) | (TURNOVERS.c.ms < before_ms))
        with self.engine.connect() as connection:
            return [Turnover(**row) for row in connection.execute(chosen.order_by(TURNOVERS.c.id)).mappings()]

    def told(self, ident: int) -> None:
        """Note that a stream was told."""
        with self._writer.begin() as connection:
            connection.execute(delete(TURNOVERS).where(TURNOVERS.c.id == ident))

    # --- consents and notes --------------------------------------------------------------------------------------

    def consent(self, consent: Consent) -> None:
        """Write a yes or no down.

        Raises
        ------
        StoreError
            If the purpose is unknown.
        """
        if consent.purpose not in PURPOSES:
            raise StoreError(f"purpose {consent.purpose!r} is none of {', '.join(PURPOSES)}")
        with self._writer.begin() as connection:
            connection.execute(insert(CONSENTS), msgspec.structs.asdict(consent))
        self._kept_at = -1e9

    def consents(self, person: str) -> list[Consent]:
        """List what a person said, oldest first."""
        with self.engine.connect() as connection:
            chosen = select(*columns_of(CONSENTS, Consent))
            rows = connection.execute(chosen.where(CONSENTS.c.person == person).order_by(CONSENTS.c.id))
            return [Consent(**row) for row in rows.mappings()]

    def purposes(self, person: str) -> tuple[str, ...]:
        """Purposes that a person agrees to now."""
        newest = {consent.purpose: consent.given for consent in self.consents(person)}
        return tuple(purpose for purpose in PURPOSES if newest.get(purpose))

    def add_note(self, note: StaffNote) -> None:
        """Write a note."""
        with self._writer.begin() as connection:
            connection.execute(insert(NOTES), msgspec.structs.asdict(note))

    def notes(self, person: str) -> list[StaffNote]:
        """List the notes on a person, newest first."""
        with self.engine.connect() as connection:
            chosen = select(*columns_of(NOTES, StaffNote))
            rows = connection.execute(chosen.where(NOTES.c.person == person).order_by(NOTES.c.id.desc()))
            return [StaffNote(**row) for row in rows.mappings()]

    def count_notes(self) -> dict[str, int]:
        """Count the notes of each person."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(NOTES.c.person, func.count()).group_by(NOTES.c.person)).all()
            return {row[0]: row[1] for row in rows}

    # --- what may be kept ----------------------------------------------------------------------------------------

    def may_keep(self, patient: str, ms: int) -> bool:
        """Whether a recording of a channel at a time may be kept.

        It may where a stay covers the time and the person had agreed to monitoring by then and agrees still. What this
        says is up to a second old.
        """
        if self._clock() - self._kept_at >= self._FRESH_S:
            marks = self._marks()
            if marks != self._kept_marks:
                self._kept, self._kept_marks = self._load_kept(), marks
            self._kept_at = self._clock()
        return any(begin <= ms < end for begin, end in self._kept.get(patient, ()))

    def _marks(self) -> tuple[int, ...]:
        """Give figures that differ after any change of stays or consents."""
        going_on = func.count().filter(STAYS.c.to_ms.is_(None))
        with self.engine.connect() as connection:
            stays = connection.execute(select(func.count(), func.max(STAYS.c.id), going_on).select_from(STAYS)).one()
            said = connection.execute(select(func.count(), func.max(CONSENTS.c.id)).select_from(CONSENTS)).one()
        return tuple(value or 0 for value in (*stays, *said))

    def _load_kept(self) -> dict[str, list[tuple[int, float]]]:
        said: dict[str, list[tuple[int, bool]]] = {}
        kept: dict[str, list[tuple[int, float]]] = {}
        with self.engine.connect() as connection:
            chosen = select(CONSENTS).where(CONSENTS.c.purpose == "monitoring").order_by(CONSENTS.c.ms, CONSENTS.c.id)
            for row in connection.execute(chosen):
                said.setdefault(row.person, []).append((row.ms, row.given))
            stays = connection.execute(select(STAYS.c.person, STAYS.c.patient, STAYS.c.from_ms, STAYS.c.to_ms)).all()
        for stay in stays:
            until = float("inf") if stay.to_ms is None else float(stay.to_ms)
            for begin, end in _agreed(said.get(stay.person, [])):
                low, high = max(begin, stay.from_ms), min(end, until)
                if low < high:
                    kept.setdefault(stay.patient, []).append((low, high))
        return kept

    # --- retention -----------------------------------------------------------------------------------------------

    def retention(self) -> dict[str, int]:
        """Days that each kind of data is kept."""
        with self.engine.connect() as connection:
            own = {row.kind: row.days for row in connection.execute(select(_RETENTION))}
        return {kind: own.get(kind, days) for kind, days in RETENTION.items()}

    def set_retention(self, days: Mapping[str, int]) -> None:
        """Change how long kinds of data are kept.

        Raises
        ------
        StoreError
            If a kind is unknown or a number of days out of range; nothing changed.
        """
        for kind, value in days.items():
            if kind not in RETENTION:
                raise StoreError(f"there is no kind of data {kind!r}; there are {', '.join(RETENTION)}")
            if not 1 <= value <= LONGEST_DAYS:
                raise StoreError(f"{kind} = {value} is outside 1 to {LONGEST_DAYS}")
        with self._writer.begin() as connection:
            for kind, value in days.items():
                connection.execute(delete(_RETENTION).where(_RETENTION.c.kind == kind))
                connection.execute(insert(_RETENTION), {"kind": kind, "days": value})


def new_person(name: str, now_ms: int, *, mrn: str = "", born: str = "", sex: str = "") -> Person:
    """Make a person with a fresh id."""
    return Person("p" + secrets.token_hex(8), name, mrn, born, sex, now_ms)


def _agreed(said: list[tuple[int, bool]]) -> list[tuple[int, float]]:
    """Give the times in which a person agreed; none if the last word is no."""
    if not said or not said[-1][1]:
        return []
    out: list[tuple[int, float]] = []
    since: int | None = None
    for ms, given in said:
        if given and since is None:
            since = ms
        elif not given and since is not None:
            out.append((since, float(ms)))
            since = None
    if since is not None:
        out.append((since, float("inf")))
    return out


_Kind = TypeVar("_Kind")


def _one(connection: Connection, chosen: Select[Any], kind: Callable[..., _Kind]) -> _Kind | None:
    row = connection.execute(chosen).mappings().first()
    return kind(**row) if row is not None else None


def _open(connection: Connection, *, patient: str | None = None, person: str | None = None) -> Stay | None:
    chosen = select(STAYS).where(STAYS.c.to_ms.is_(None))
    if patient is not None:
        chosen = chosen.where(STAYS.c.patient == patient)
    if person is not None:
        chosen = chosen.where(STAYS.c.person == person)
    return _one(connection, chosen, Stay)


def _vacant(connection: Connection, patient: str) -> None:
    if _open(connection, patient=patient) is not None:
        raise StoreError("another patient is admitted to this device; discharge or transfer first")


def _begin(
    connection: Connection, person: str, patient: str, bed: str, ward: str, profile: str, visit: str, now_ms: int
) -> Stay:
    # A clock that stepped back must not let two stays of a channel overlap.
    last = connection.scalar(select(func.max(STAYS.c.to_ms)).where(STAYS.c.patient == patient))
    row = {
        "person": person, "patient": patient, "bed": bed, "ward": ward, "profile": profile, "visit": visit,
        "from_ms": max(now_ms, last or 0), "to_ms": None,
    }  # fmt: skip
    made: Row[Any] = connection.execute(insert(STAYS).returning(STAYS), row).one()
    return Stay(**made._mapping)


def _end(connection: Connection, stay: Stay, now_ms: int) -> Stay:
    to_ms = max(now_ms, stay.from_ms + 1)
    connection.execute(update(STAYS).where(STAYS.c.id == stay.id).values(to_ms=to_ms))
    return msgspec.structs.replace(stay, to_ms=to_ms)


def _tell(connection: Connection, channel: str, act: str, profile: str, who: str, now_ms: int) -> None:
    row = {"channel": channel, "ms": now_ms, "act": act, "profile": profile, "who": who}
    connection.execute(insert(TURNOVERS), row)


def _check_profile(profile: str) -> None:
    if profile not in PROFILES:
        raise StoreError(f"there is no profile {profile!r}; there are {', '.join(PROFILES)}")


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
