"""What every process of the service does beside its work."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

CYCLES = """
import asyncio, weakref
from rhythmwatch import process

process.TIDY_S = 0.01

class Node:
    pass

async def main(stop):
    node = Node()
    node.itself, known = node, weakref.ref(node)
    del node
    async with asyncio.timeout(20):
        while known() is not None:
            await asyncio.sleep(0.01)
    print("freed")

process.run_until_stopped("test", main)
"""


def test_cycles_of_a_process_with_little_to_do_are_freed() -> None:
    """The collector waits for 25,000 containers, and such a process makes them in hours: it must not grow till then."""
    done = subprocess.run([sys.executable, "-c", CYCLES], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["freed"], done.stderr


BURST = """
import asyncio, os
from rhythmwatch import process

process.TIDY_S = float(os.environ["TIDY_S"])

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main(stop):
    before = resident()
    blocks = [bytes(4096) for _ in range(20_000)]
    most = resident() - before
    # One block in use at the end keeps the allocator from giving back those before it.
    last = blocks[-1]
    del blocks
    kept = resident() - before
    try:
        async with asyncio.timeout(2):
            while resident() - before > most / 4:
                await asyncio.sleep(0.01)
    except TimeoutError:
        print("kept", kept > most / 2)
    else:
        print("given back", kept > most / 2)

process.run_until_stopped("test", main)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="an allocator that needs not be asked")
@pytest.mark.parametrize(("tidy_s", "told"), [("0.01", "given back True"), ("1000", "kept True")])
def test_memory_of_a_busy_moment_is_given_back(tidy_s: str, told: str) -> None:
    """What is free between blocks in use goes back to the system, which without asking it does not."""
    done = subprocess.run(
        [sys.executable, "-c", BURST],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "TIDY_S": tidy_s},
    )  # fmt: skip
    assert done.stdout.strip() == told, done.stderr
