"""A Polar H10 over Bluetooth LE, by bleak (extra ``ble``): the PMD service, whose ECG stream we start and read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from bleak import BleakClient, BleakScanner
from bleak.exc import BleakError

from rhythmwatch.gateway import PeerError

PMD_CONTROL: Final = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
PMD_DATA: Final = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"
BATTERY: Final = "00002a19-0000-1000-8000-00805f9b34fb"
START_ECG: Final = bytes((2, 0, 0, 1, 130, 0, 1, 1, 14, 0))
"""Start measurement 0 with the settings 130 Hz and 14 bits."""
SCAN_S: Final = 20.0
ANSWER_S: Final = 15.0


class PolarPeer:
    """One strap.

    Parameters
    ----------
    name : str
        Its name or address, as ``Polar H10 12345678``; the first Polar found where it is empty.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._client: BleakClient | None = None

    async def open(self, on_packet: Callable[[bytes], None]) -> None:
        """Find the strap, connect and start its ECG."""
        wanted = self._name or "Polar H10"
        try:
            found = await BleakScanner.find_device_by_filter(
                lambda device, seen: (
                    wanted in (device.address, seen.local_name or "")
                    or (not self._name and (seen.local_name or "").startswith(wanted))
                ),
                timeout=SCAN_S,
            )
            if found is None:
                raise PeerError(f"{wanted!r} is not in sight: is it worn, and its electrodes wet?")
            client = self._client = BleakClient(found)
            async with asyncio.timeout(ANSWER_S):
                await client.connect()
                await client.start_notify(PMD_DATA, lambda _, data: on_packet(bytes(data)))
                await client.write_gatt_char(PMD_CONTROL, START_ECG, response=True)
        except (BleakError, OSError, TimeoutError) as error:
            raise PeerError(str(error) or type(error).__name__) from error

    async def battery(self) -> float:
        """Charge, 0 to 1."""
        if self._client is None:
            raise PeerError("not connected")
        try:
            async with asyncio.timeout(ANSWER_S):
                return (await self._client.read_gatt_char(BATTERY))[0] / 100
        except (BleakError, OSError, TimeoutError, IndexError) as error:
            raise PeerError(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Let go of it, however it stands."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(BleakError, OSError, TimeoutError, EOFError):
                async with asyncio.timeout(ANSWER_S):
                    await client.disconnect()
