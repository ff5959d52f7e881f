"""Which device a bed has, for feeds that know beds alone. Calls block."""

from __future__ import annotations

from sqlalchemy import Engine, or_, select

from alerts.care import STAYS
from alerts.devices import DEVICES


def channel_of(engine: Engine, ward: str, bed: str) -> str | None:
    """Find the device of a bed.

    Returns
    -------
    str or None
        The one device that is enrolled under the bed's name (``ward bed``, ``ward-bed`` or ``bed``, as label or id),
        else that of the bed's last patient, if it has not been elsewhere since.
    """
    names = (f"{ward} {bed}".strip(), f"{ward}-{bed}", bed)
    with engine.connect() as connection:
        enrolled = select(DEVICES.c.id).where(
            or_(DEVICES.c.label.in_(names), DEVICES.c.id.in_(names)), DEVICES.c.revoked_ms.is_(None)
        )
        found = sorted(connection.scalars(enrolled))
        if len(found) == 1:
            return str(found[0])
        here = select(STAYS.c.patient).where(STAYS.c.ward == ward, STAYS.c.bed == bed)
        last = connection.scalar(here.order_by(STAYS.c.from_ms.desc(), STAYS.c.id.desc()).limit(1))
        if last is None:
            return None
        newest = select(STAYS.c.ward, STAYS.c.bed).where(STAYS.c.patient == last)
        row = connection.execute(newest.order_by(STAYS.c.from_ms.desc(), STAYS.c.id.desc()).limit(1)).one()
        return str(last) if (row.ward, row.bed) == (ward, bed) else None
