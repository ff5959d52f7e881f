"""The registry of devices in SQL: who may publish, and the hash of each one's secret. Calls block."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from alerts.database import Rows, StoreError
from alerts.tables import columns_of, table_of
from alerts.tables_devices import DeviceRow
from bus.passwords import hash_secret, new_secret

DEVICE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RESERVED: Final = "rw-"
"""Client ids of our own processes begin so; a device with one of them could push such a process off the broker."""

DEVICES: Final = table_of(DeviceRow)


class Device(msgspec.Struct, frozen=True):
    """A device that was enrolled, without its secret."""

    id: str
    label: str
    made_by: str
    made_ms: int
    rotated_ms: int
    """When its present secret was made."""
    revoked_ms: int | None = None


class Credentials(msgspec.Struct, frozen=True):
    """What a device needs to log in; shown once and kept nowhere."""

    device: str
    secret: str

    def url(self, address: str) -> str:
        """Give account and place in one line, for a QR code and for ``rhythmwatch publish --broker``.

        Parameters
        ----------
        address : str
            Of the broker as devices reach it, ``mqtt://host:port`` or ``mqtts://host:port``.
        """
        scheme, _, place = address.partition("://")
        return f"{scheme}://{quote(self.device, safe='')}:{quote(self.secret, safe='')}@{place.rpartition('@')[2]}"


class Devices(Rows):
    """The registry."""

    def add(self, device: str, label: str, made_by: str, now_ms: int) -> Credentials:
        """Enrol a device.

        Parameters
        ----------
        device : str
            Its id, which is also the name of its account and of its topics.
        label : str
            For people.
        made_by : str
            Who enrols it.
        now_ms : int
            Server clock, ms.

        Raises
        ------
        StoreError
            If the id is none, or is taken; a revoked device comes back by `rotate`.
        """
        if DEVICE_ID.fullmatch(device) is None or device.lower().startswith(RESERVED):
            raise StoreError(
                f"device id {device!r}: 1 to 64 letters, digits, dots, dashes and underscores are taken, the first one "
                f"a letter or digit, and not {RESERVED} at the beginning"
            )
        secret = new_secret()
        row = {
            "id": device,
            "label": label[:255],
            "secret_hash": hash_secret(secret),
            "made_by": made_by,
            "made_ms": now_ms,
            "rotated_ms": now_ms,
            "revoked_ms": None,
        }
        try:
            with self._writer.begin() as connection:
                connection.execute(insert(DEVICES), row)
        except IntegrityError as error:
            raise StoreError(f"device {device!r} is enrolled already; rotate its secret instead") from error
        return Credentials(device, secret)

    def rotate(self, device: str, now_ms: int) -> Credentials:
        """Give a device another secret; the old one ends, and a revoked device is let in again.

        Raises
        ------
        StoreError
            If there is no such device.
        """
        secret = new_secret()
        self._change(device, secret_hash=hash_secret(secret), rotated_ms=now_ms, revoked_ms=None)
        return Credentials(device, secret)

    def revoke(self, device: str, now_ms: int) -> None:
        """Lock a device out.

        Raises
        ------
        StoreError
            If there is no such device.
        """
        self._change(device, revoked_ms=now_ms)

    def device(self, device: str) -> Device | None:
        """Look a device up."""
        with self._engine.connect() as connection:
            row = connection.execute(_SHOWN.where(DEVICES.c.id == device)).mappings().first()
        return Device(**row) if row is not None else None

    def devices(self) -> list[Device]:
        """List the devices by id, revoked ones too."""
        with self._engine.connect() as connection:
            return [Device(**row) for row in connection.execute(_SHOWN.order_by(DEVICES.c.id)).mappings()]

    def accounts(self) -> dict[str, str]:
        """Hash of each device that may log in, by id."""
        chosen = select(DEVICES.c.id, DEVICES.c.secret_hash).where(DEVICES.c.revoked_ms.is_(None))
        with self._engine.connect() as connection:
            return {row.id: row.secret_hash for row in connection.execute(chosen)}

    def _change(self, device: str, **values: str | int | None) -> None:
        with self._writer.begin() as connection:
            if not connection.execute(update(DEVICES).where(DEVICES.c.id == device).values(**values)).rowcount:
                raise StoreError(f"device {device!r} is not enrolled; rhythmwatch devices list shows who is")


_SHOWN: Final = select(*columns_of(DEVICES, Device))
