"""The state of the bus in a backup: what devices sent and nobody has stored yet, and the workers' checkpoints.

Limits that staff set, alarms that stand and what a worker has learnt of a patient are in the checkpoints alone, so the
bus is no cache. All keys of a partition are copied at one moment, by a script; they go back as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from bus.connect import Client, open_client
from bus.errors import BusError, ServerError
from bus.messages import DEFAULT_PARTITIONS
from bus.server import embedded
from bus.streams import Bus, key
from rhythmwatch.backup_parts import BackupError, Told

NAMES: Final = ("held", "in", "events", "view", "epoch", "checkpoint", "ages")
"""Keys of a partition."""
READER: Final = "backup"
TIMEOUT_S: Final = 60.0
_COPY: Final = """
-- KEYS: held first. ARGV: field. Our own hold ends with the copy and is not in it.
redis.call('HDEL', KEYS[1], ARGV[1])
local out = {}
for i = 1, #KEYS do out[i] = redis.call('DUMP', KEYS[i]) end
return out
"""


@contextlib.asynccontextmanager
async def bus_of(url: str, state: Path, *, make: bool = False) -> AsyncIterator[str]:
    """Give the address of a bus: the one that is named, that of the station that runs, else the one in its state.

    Parameters
    ----------
    url : str
        Empty: the embedded one.
    state : Path
        Of the station.
    make : bool
        Begin an embedded one where the state has none.

    Yields
    ------
    str
        Empty where there is none.

    Raises
    ------
    BackupError
        If it can't be reached.
    """
    folder = state / "bus"
    if url:
        yield url
    elif runs := await _running(folder):
        yield runs
    elif make or folder.is_dir():
        try:
            async with embedded(folder) as own:
                yield own
        except ServerError as error:
            raise BackupError(f"the bus can't be opened: {error}; or name it with --bus") from error
    else:
        yield ""


async def running_bus(url: str, state: Path) -> str:
    """Address of a bus that others may use now; empty where none runs."""
    return url or await _running(state / "bus")


async def _running(folder: Path) -> str:
    """Address of the embedded bus of a station that runs; empty where none does."""
    url = f"unix://{folder / 'bus.sock'}"
    with contextlib.suppress(BusError):
        async with Bus(url, timeout_s=5.0) as bus:
            await bus.ping()
            return url
    return ""


async def hold_entries(url: str) -> None:
    """Keep the bus from forgetting what the database, about to be copied, does not know yet."""
    try:
        async with Bus(url, timeout_s=TIMEOUT_S) as bus:
            for partition in range(bus.partitions):
                if "in" in (stored := await bus.held(partition)):
                    await bus.hold(READER, {partition: {"in": stored["in"]}})
    except BusError as error:
        raise BackupError(str(error)) from error


async def release_entries(url: str) -> None:
    """Let it forget again."""
    client = open_client(url, TIMEOUT_S)
    with contextlib.suppress(RedisError, RedisClusterException):
        for partition in range(DEFAULT_PARTITIONS):
            await _wait(client.hdel(key(partition, "held"), f"in/{READER}"))
    await client.aclose()


async def save_bus(url: str, folder: Path, told: Told) -> int:
    """Write each partition to a file of the folder, named by its number; returns how many there are."""

    async def save(client: Client, partition: int) -> None:
        keys = [key(partition, name) for name in NAMES]
        copied: list[bytes | None] = await _wait(client.eval(_COPY, len(keys), *keys, f"in/{READER}"))
        content = {name: data for name, data in zip(NAMES, copied, strict=True) if data}
        if content:
            (folder / f"{partition:03d}").write_bytes(msgspec.msgpack.encode(content))

    await _each(url, save, told)
    return DEFAULT_PARTITIONS


async def load_bus(url: str, folder: Path, told: Told) -> None:
    """Put partitions back as `save_bus` wrote them; what is there goes."""

    async def load(client: Client, partition: int) -> None:
        await _wait(client.delete(*(key(partition, name) for name in NAMES)))
        path = folder / f"{partition:03d}"
        if path.exists():
            content = msgspec.msgpack.decode(path.read_bytes(), type=dict[str, bytes])
            for name, data in content.items():
                await _wait(client.restore(key(partition, name), 0, data))

    await _each(url, load, told)


async def is_empty(url: str) -> bool:
    """Whether no partition has any key."""
    found = False

    async def look(client: Client, partition: int) -> None:
        nonlocal found
        found = found or bool(await _wait(client.exists(*(key(partition, name) for name in NAMES))))

    await _each(url, look, lambda what, done, total: None)
    return not found


async def _each(url: str, act: Callable[[Client, int], Awaitable[None]], told: Told) -> None:
    try:
        client = open_client(url, TIMEOUT_S)
    except BusError as error:
        raise BackupError(str(error)) from error
    try:
        for partition in range(DEFAULT_PARTITIONS):
            await act(client, partition)
            told("bus", partition + 1, DEFAULT_PARTITIONS)
    except ResponseError as error:
        older = "DUMP payload" in str(error)
        why = "the server is older than the one that was backed up" if older else str(error)
        raise BackupError(f"the bus refuses: {why}") from error
    except (RedisError, RedisClusterException) as error:
        raise BackupError(f"the bus does not answer: {error}") from error
    finally:
        await client.aclose()


async def _wait(answer: Any) -> Any:
    """Wait for an answer that the library types as one that may be there already."""
    return await answer
