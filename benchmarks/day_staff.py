"""Staff of a simulated day: someone goes round and acknowledges what stands at each bed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import httpx2
from rich.console import Console

from rhythmwatch.measuring import log_in
from rhythmwatch.station import Running

ROUND_S: Final = 1800
"""Signal of one round of all beds."""
POLL_S: Final = 0.2

console = Console(stderr=True)


async def go_round(running: Running, beds: Sequence[str], done_s: Callable[[], float]) -> None:
    """Acknowledge all alarms of one patient after the other, until cancelled.

    Parameters
    ----------
    running : Running
        The station.
    beds : sequence of str
        The patients, who all get the same time of a round.
    done_s : callable
        Seconds of the signal that are worked off.
    """
    headers = {"Origin": running.url, "Cookie": await asyncio.to_thread(log_in, running)}
    async with httpx2.AsyncClient(base_url=running.url, headers=headers, timeout=30.0) as client:
        been = 0
        while True:
            due = int(done_s() / ROUND_S * len(beds))
            for number in range(been, due):
                bed = beds[number % len(beds)]
                try:
                    (await client.post(f"/api/patients/{bed}/ack")).raise_for_status()
                except httpx2.HTTPError as error:
                    console.print(f"{bed} was not acknowledged: {error}", style="yellow")
            been = due
            await asyncio.sleep(POLL_S)
