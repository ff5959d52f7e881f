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


HEAPS = """
import ctypes, os, threading
from rhythmwatch import process

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main(stop):
    # glibc takes what it gave back last as the measure of what to keep.
    bytearray(b"1" * (24 << 20))
    before = resident()
    blocks = [bytearray(b"1" * (1 << 20)) for _ in range(30)]
    del blocks
    print("kept" if resident() - before > 15 << 20 else "given back", flush=True)

    together = threading.Barrier(3)

    def take():
        together.wait()
        blocks = [bytearray(2000) for _ in range(1000)]
        together.wait()
        del blocks

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ctypes.CDLL(None).malloc_stats()

process.run_until_stopped("test", main, behind=BEHIND)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="an allocator that has no such limits")
@pytest.mark.parametrize(("behind", "told", "one_heap"), [(True, "given back", True), (False, "kept", False)])
def test_a_process_behind_keeps_no_more_free_the_more_it_once_had(behind: bool, told: str, one_heap: bool) -> None:
    """Else the recorder grows for hours: what is kept free follows the largest block, and each thread has a heap."""
    done = subprocess.run(
        [sys.executable, "-c", HEAPS.replace("BEHIND", str(behind))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == told, done.stderr
    assert (done.stderr.count("Arena ") == 1) is one_heap, done.stderr
