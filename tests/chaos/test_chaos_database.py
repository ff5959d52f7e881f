"""A database that is slow or locked: the pages notice nothing, and the history catches up."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from clients import Cost, Scene, expected, live, until
from conftest import recordings
from slow import SlowLine
from sqlalchemy import Engine, text

from alerts.alarm_log import AlarmLog
from alerts.database import open_engine

pytest_plugins = ["storm_table"]
pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
SLOW_S = 30.0
LOCKED_S = 20.0


async def slow_database(
    tmp_path: Path, engine: Engine, history: str, slowly: Callable[[], Awaitable[None]]
) -> tuple[Cost, str]:
    """Play while `slowly` holds the database up; gives also what to say of the history."""
    alarms = expected(recordings()).alarms.keys()
    log, behind = AlarmLog(engine), [0.0]

    def kept() -> set[str]:
        return {item.alarm.id for item in log.find(limit=100_000) if not item.alarm.technical}

    async def trouble(scene: Scene) -> None:
        await asyncio.sleep(6.0)
        scene.begins()
        await slowly()
        scene.ends()
        await scene.played.wait()
        began = time.monotonic()
        await until(lambda: alarms <= kept())
        behind.append(time.monotonic() - began)

    scene, cost = await live(tmp_path, recordings(), trouble, history=history)
    assert not any(scene.running.supervisor.restarts.values())
    lost = len(alarms - kept())
    return cost, f"history: {lost} alarms lost, {behind[-1]:.1f} s behind at the end"


@pytest.mark.postgres
async def test_a_slow_database(tmp_path: Path, rows: list[str], postgres: str) -> None:
    """Half a minute of 300 ms for each piece on the line: the pages notice nothing, and the history catches up."""
    engine = open_engine(postgres)
    async with SlowLine(Path(postgres.partition("host=")[2]) / ".s.PGSQL.5432").open() as line:

        async def slowly() -> None:
            line.delay_s = 0.3
            await asyncio.sleep(SLOW_S)
            line.delay_s = 0.0

        address = f"postgresql://rw@127.0.0.1:{line.port}/postgres"
        try:
            cost, history = await slow_database(tmp_path, engine, address, slowly)
        finally:
            with engine.begin() as connection:
                connection.execute(text("DROP SCHEMA public CASCADE"))
                connection.execute(text("CREATE SCHEMA public"))
            engine.dispose()
    rows.append(cost.line(f"PostgreSQL slow for {SLOW_S:.0f} s", history))
    assert " 0 alarms lost" in history
    cost.check()


async def test_a_locked_database(tmp_path: Path, rows: list[str]) -> None:
    """Another writer holds SQLite's lock for 20 s: as with a slow one."""
    file = tmp_path / "history.db"

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(file, timeout=30.0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(LOCKED_S)
            other.execute("ROLLBACK")

    async def slowly() -> None:
        await asyncio.to_thread(hold)

    engine = open_engine(f"sqlite:///{file}")
    try:
        cost, history = await slow_database(tmp_path, engine, "", slowly)
    finally:
        engine.dispose()
    rows.append(cost.line(f"SQLite locked for {LOCKED_S:.0f} s", history))
    assert " 0 alarms lost" in history
    cost.check()
