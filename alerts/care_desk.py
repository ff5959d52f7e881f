"""Admission, discharge and transfer: the stay in SQL and the word in the channel's stream, which is never lost.

The stay and the word that is owed to the stream are written in one transaction; the word is sent then, and again until
the bus took it. A stream that is told twice resets twice, which changes nothing for a patient who has just begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from alerts.care import Care
from alerts.care_model import Person, Stay
from bus.clock import now_ms
from bus.errors import BusError
from bus.messages import Action

OTHERS_MS: Final = 5_000
Send: TypeAlias = Callable[[str, Action], Awaitable[None]]
"""Appends an action to a channel's stream; raises `BusError`."""


class Desk:
    """Where persons are put to channels, for the pages, FHIR and the hospital's own feed.

    Parameters
    ----------
    care : Care
        Its stores.
    send : callable
        See `Send`.
    """

    def __init__(self, care: Care, send: Send) -> None:
        self.care = care
        self._send = send
        self._turn = asyncio.Lock()

    async def admit(
        self, person: Person, patient: str, bed: str, ward: str, profile: str, who: str, visit: str = ""
    ) -> Stay:
        """See `Care.admit`."""
        stay = await asyncio.to_thread(self.care.admit, person, patient, bed, ward, profile, who, now_ms(), visit)
        await self.flush(patient)
        return stay

    async def discharge(self, patient: str, who: str) -> Stay:
        """See `Care.discharge`."""
        stay = await asyncio.to_thread(self.care.discharge, patient, who, now_ms())
        await self.flush(patient)
        return stay

    async def transfer(self, patient: str, bed: str, ward: str, device: str | None, who: str) -> Stay:
        """See `Care.transfer`."""
        stay = await asyncio.to_thread(self.care.transfer, patient, bed, ward, device, who, now_ms())
        await self.flush(patient, stay.patient)
        return stay

    async def reopen(self, stay: Stay, who: str) -> Stay:
        """See `Care.reopen`."""
        new = await asyncio.to_thread(self.care.reopen, stay, who, now_ms())
        await self.flush(new.patient)
        return new

    async def flush(self, *channels: str) -> bool:
        """Tell these channels' streams, and all that others left untold; False while the bus can't take it."""
        async with self._turn:
            # What is fresh on other channels is being sent by another process.
            for turnover in await asyncio.to_thread(self.care.turnovers, channels, now_ms() - OTHERS_MS):
                action = Action(turnover.act, turnover.who, values={"profile": turnover.profile})
                try:
                    await self._send(turnover.channel, action)
                except BusError:
                    return False
                await asyncio.to_thread(self.care.told, turnover.id)
        return True
