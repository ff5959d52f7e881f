"""All that is kept of one person, packed for the person: JSON of every row, recordings as WFDB. Calls block."""

from __future__ import annotations

import base64
import zipfile
from pathlib import Path
from typing import Any, Final

import msgspec

from alerts.archive import Archive
from alerts.care import Care
from alerts.care_erasure import Erasures
from alerts.care_rows import rows_of
from alerts.database import StoreError
from alerts.stretches import records

README: Final = """\
person.json: who you are here, where and when you were monitored, what you agreed to, what staff noted.
events.json: alarms, rhythms, states of the signal and all else that was stored about your times here, table by table.
recordings/: your ECG hour by hour, in the WFDB format (.hea text, .dat samples, .atr beats; PhysioNet's tools open it).
Times are milliseconds since 1970-01-01 00:00 UTC.
"""


class Access:
    """Packs what is kept of a person.

    Parameters
    ----------
    care : Care
    archive : Archive or None
        Recordings; None where none are kept.
    """

    def __init__(self, care: Care, archive: Archive | None = None) -> None:
        self._care = care
        self._archive = archive

    def pack(self, person: str, now_ms: int, path: Path) -> None:
        """Write a zip.

        Raises
        ------
        StoreError
            If there is no such person.
        """
        care = self._care
        known = care.person(person)
        if known is None:
            raise StoreError("there is no such person")
        stays = care.stays(person=person)
        spans = Erasures(care.engine).spans(person)
        tables: dict[str, list[dict[str, Any]]] = {}
        with care.engine.connect() as connection:
            for table, row in rows_of(connection, spans):
                tables.setdefault(table, []).append({name: _plain(value) for name, value in row.items()})
        about = {
            "made_ms": now_ms,
            "person": known,
            "stays": stays,
            "consents": care.consents(person),
            "notes": care.notes(person),
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("README.txt", README)
            packed.writestr("person.json", _json(about))
            packed.writestr("events.json", _json(tables))
            if self._archive is None:
                return
            for number, span in enumerate(spans):
                for record in records(
                    self._archive, span.patient, span.from_ms, min(span.to_ms, now_ms), f"stay{number}_"
                ):
                    for name, data in record.files.items():
                        packed.writestr(f"recordings/{name}", data)


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1)
