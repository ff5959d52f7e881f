"""Staff of a simulated day: someone looks at the wall, goes round, and acknowledges what stands at each bed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import httpx2
from rich.console import Console
from websockets.exceptions import WebSocketException

from rhythmwatch.measuring import hear, log_in
from rhythmwatch.station import Running
from web.wire import Alarm

ROUND_S: Final = 1800
"""Signal of one round of all beds."""
POLL_S: Final = 0.2

console = Console(stderr=True)


class Staff:
    """Whoever is on duty.

    Parameters
    ----------
    running : Running
        The station.
    beds : sequence of str
        The patients, who all get the same time of a round.
    """

    def __init__(self, running: Running, beds: Sequence[str]) -> None:
        self._running = running
        self._standing: dict[str, set[str]] = {bed: set() for bed in beds}

    async def be_on_duty(self, done_s: Callable[[], float]) -> None:
        """Follow the wall and go round until cancelled.

        Parameters
        ----------
        done_s : callable
            Seconds of the signal that are worked off.

        Raises
        ------
        RuntimeError
            If the pages let nobody in, or close the wall.
        """
        try:
            await asyncio.gather(hear(self._running, self._take), self._go_round(done_s))
        except (OSError, WebSocketException, httpx2.HTTPError) as error:
            raise RuntimeError(f"the pages can't be followed: {error}") from error

    def _take(self, alarm: Alarm, at_ms: float) -> None:
        del at_ms
        standing = self._standing[alarm.patient]
        if alarm.presence in ("on", "latched"):
            standing.add(alarm.id)
        else:
            standing.discard(alarm.id)

    async def _go_round(self, done_s: Callable[[], float]) -> None:
        url, beds = self._running.url, list(self._standing)
        headers = {"Origin": url, "Cookie": await asyncio.to_thread(log_in, self._running)}
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30.0) as client:
            client.headers["X-CSRF-Token"] = (await client.get("/api/session")).raise_for_status().json()["csrf"]
            been = 0
            while True:
                due = int(done_s() / ROUND_S * len(beds))
                for number in range(been, due):
                    bed = beds[number % len(beds)]
                    if self._standing[bed]:
                        await _acknowledge(client, bed)
                been = due
                await asyncio.sleep(POLL_S)


async def _acknowledge(client: httpx2.AsyncClient, bed: str) -> None:
    try:
        (await client.post(f"/api/patients/{bed}/ack")).raise_for_status()
    except httpx2.HTTPError as error:
        console.print(f"{bed} was not acknowledged: {str(error).splitlines()[0]}", style="yellow")
