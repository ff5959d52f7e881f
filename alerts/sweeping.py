"""Deleting what is older than a time, in strokes that nobody has to wait for long. Calls block."""

from __future__ import annotations

import time
from typing import Any, Final

from sqlalchemy import Column, Engine, delete, select

from alerts.database import writing

AT_ONCE: Final = 2_000
"""Rows that go in one transaction: alarms are neither kept nor told while it has the write lock."""


def delete_old(engine: Engine, age: Column[int], before_ms: int, *wanted: Any, at_once: int = AT_ONCE) -> int:
    """Delete rows that are older than a time.

    Parameters
    ----------
    engine : sqlalchemy.Engine
    age : sqlalchemy.Column
        Time of a row, ms, first in an index of its table: else each stroke would read the whole table.
    before_ms : int
        What is older goes.
    *wanted
        Further conditions; rows that don't fulfil them stay.
    at_once : int
        Rows that are looked at in one transaction, but for more of one and the same time.

    Returns
    -------
    int
        Rows that went.
    """
    count = 0
    reached = None
    while reached is None or reached < before_ms:
        older = [age < before_ms] if reached is None else [age >= reached, age < before_ms]
        with engine.connect() as connection:
            last = connection.scalar(select(age).where(*older).order_by(age).offset(at_once - 1).limit(1))
        reached = before_ms if last is None else last + 1
        began = time.monotonic()
        with writing(engine).begin() as connection:
            count += connection.execute(delete(age.table).where(*older, age < reached, *wanted)).rowcount
        if reached < before_ms:
            # Who waits for the lock looks for it now and then; half of the time it is free.
            time.sleep(time.monotonic() - began)
    return count
