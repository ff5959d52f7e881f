"""What every process of the service does beside its work."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
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
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["freed"], done.stderr
