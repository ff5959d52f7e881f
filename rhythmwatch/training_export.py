"""Recordings for training: of persons who agreed to it, under numbers that mean nothing, with shifted dates. Blocks."""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, select

from alerts.archive import Archive
from alerts.care import Care
from alerts.care_erasure import Erasures
from alerts.care_rows import Span, reached
from alerts.stretches import records

BEGIN_MS: Final = 946_684_800_000
"""2000-01-01: every subject's first stay begins then."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    subjects: int
    records: int
    without_consent: int
    """Persons who were left out."""


def export_training(care: Care, archive: Archive, out: Path, now_ms: int) -> Exported:
    """Write the recordings of consenting persons and what staff judged of their alarms.

    Parameters
    ----------
    care : Care
    archive : Archive
    out : Path
        Folder; each subject gets one below it, which is noted so that an erasure finds it.
    now_ms : int
        Server time.

    Returns
    -------
    Exported

    Raises
    ------
    OSError
        If a file can't be written.
    """
    erasures = Erasures(care.engine)
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    subjects = written = refused = 0
    for person in care.persons(limit=2**31 - 1):
        if "training" not in care.purposes(person.person):
            refused += 1
            continue
        name = f"s{secrets.token_hex(4)}"
        folder = out / name
        erasures.add_export(person.person, str(folder), now_ms)
        folder.mkdir()
        spans = erasures.spans(person.person)
        shift = BEGIN_MS - min(span.from_ms for span in spans) if spans else 0
        count = 0
        for number, span in enumerate(spans):
            for record in records(
                archive, span.patient, span.from_ms, min(span.to_ms, now_ms), f"{name}_{number}_", shift
            ):
                for file, data in record.files.items():
                    (folder / file).write_bytes(data)
                count += 1
        if count == 0:
            shutil.rmtree(folder)
            continue
        with care.engine.connect() as connection:
            judged = [row for span in spans for row in _judged(connection, span, shift)]
        (folder / "judgements.json").write_text(json.dumps(judged, indent=1), encoding="utf-8")
        subjects += 1
        written += count
    return Exported(subjects, written, refused)


def _judged(connection: Connection, span: Span, shift_ms: int) -> list[dict[str, Any]]:
    """Kind, shifted time and verdict of the alarms that staff judged; free text stays behind."""
    tables = reached()
    alarms, judgements = tables["alarms"][0], tables["judgements"][0]
    chosen = (
        select(alarms.c.kind, alarms.c.onset_ms, judgements.c.verdict)
        .join(judgements, judgements.c.alarm == alarms.c.id)
        .where(alarms.c.patient == span.patient, alarms.c.onset_ms >= span.from_ms, alarms.c.onset_ms < span.to_ms)
        .order_by(judgements.c.seq)
    )
    return [
        {"kind": row.kind, "ms": row.onset_ms + shift_ms, "verdict": row.verdict} for row in connection.execute(chosen)
    ]
