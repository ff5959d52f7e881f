"""Lets devices in and shuts them out while the broker runs.

The registry is the truth; `Gatekeeper.apply` makes the broker agree with it. Passwords go by the file that the broker
reads again when it is told to, rules by the dynamic-security plug-in where mosquitto has it. Whoever is shut out loses
its connection too. Of whom ingest complains (`ingest.accounts.LIMITS`) is at once shut out for a while, or held: what
it had stored it keeps, the broker refuses it, and what it measures now comes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import aiomqtt
import structlog

from bus.errors import ServerError
from ingest.accounts import CONTROL, GATE, LIMITS, STORED, device_client, device_role
from ingest.broker import Broker, write_accounts

ANSWER_S: Final = 5.0
POLL_S: Final = 0.5
AGAIN_S: Final = 2.0
SHUT_S: Final = 60.0

_log = structlog.get_logger(__name__)


class Gatekeeper:
    """Keeps the accounts of devices on one broker.

    Parameters
    ----------
    broker : Broker
        It need not run yet. Where it is another machine's, its files are written and whoever runs it has to make it
        read them (`pid` 0).
    devices : mapping of str to str
        Hashes that it was started with, by device.
    held : iterable of str
        Devices that are held by one who kept the accounts before.

    Attributes
    ----------
    shut : dict of str to float
        Until when (monotonic clock, s) a device is shut out.
    held : dict of str to float
        Until when a device may send nothing that it had stored.
    """

    def __init__(self, broker: Broker, devices: Mapping[str, str] | None = None, held: Iterable[str] = ()) -> None:
        self.shut: dict[str, float] = {}
        self.held: dict[str, float] = {}
        self._broker = broker
        self._applied = dict(devices or {})
        self._holding = frozenset(held)
        self._complaint = asyncio.Event()
        self._client: aiomqtt.Client | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def apply(self, devices: Mapping[str, str]) -> bool:
        """Make the broker agree with the registry; True if anything had to change.

        Parameters
        ----------
        devices : mapping of str to str
            Hash of the secret of each device that may log in.

        Raises
        ------
        ServerError
            If the broker can't be told; call again.
        """
        now = time.monotonic()
        self.shut = {device: until for device, until in self.shut.items() if until > now}
        self.held = {device: until for device, until in self.held.items() if until > now}
        wanted = {device: hashed for device, hashed in devices.items() if device not in self.shut}
        holding = frozenset(self.held.keys() & wanted.keys())
        if wanted == self._applied and holding == self._holding:
            return False
        write_accounts(self._broker, wanted, holding)
        if self._broker.mqtt5 and self._broker.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._broker.pid, signal.SIGHUP)
        if self._broker.plugin:
            await self._change_rules(wanted, holding)
        _log.info(
            "devices_changed",
            let_in=len(wanted.keys() - self._applied.keys()),
            shut_out=len(self._applied.keys() - wanted.keys()),
            held=len(holding),
        )
        self._applied, self._holding = wanted, holding
        return True

    def shut_out(self, device: str, seconds: float = SHUT_S) -> None:
        """Shut a device out for a while, from the next `apply` on."""
        self.shut[device] = time.monotonic() + seconds
        self._complaint.set()

    def hold(self, device: str, seconds: float = SHUT_S) -> None:
        """Take nothing more that a device had stored for a while, from the next `apply` on."""
        self.held[device] = time.monotonic() + seconds
        self._complaint.set()

    async def run(self, registry: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Follow the registry and the complaints of ingest until cancelled."""
        while True:
            try:
                async with self._connected():
                    while True:
                        self._complaint.clear()
                        try:
                            await self.apply(await registry())
                        except OSError as error:
                            _log.warning("registry_unread", why=str(error))
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._complaint.wait(), POLL_S)
            except (aiomqtt.MqttError, ServerError) as error:
                _log.warning("gate_lost", why=str(error))
                await asyncio.sleep(AGAIN_S)

    @contextlib.asynccontextmanager
    async def _connected(self) -> Any:
        broker = self._broker
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=GATE,
            password=broker.gate_password,
            identifier="rw-gate",
            protocol=aiomqtt.ProtocolVersion.V5 if broker.mqtt5 else aiomqtt.ProtocolVersion.V311,
            timeout=ANSWER_S,
        )
        async with client:
            await client.subscribe(f"{LIMITS}/+", qos=1)
            if broker.plugin:
                await client.subscribe(f"{CONTROL}/response", qos=1)
            listener = asyncio.create_task(self._listen(client), name="gate")
            self._client = client
            try:
                yield
            finally:
                self._client = None
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            topic = str(message.topic)
            if topic.startswith(f"{LIMITS}/"):
                device = topic.removeprefix(f"{LIMITS}/")
                if message.payload == STORED.encode():
                    self.hold(device)
                elif device not in self.shut:
                    _log.warning("device_shut_out", seconds=SHUT_S)
                    self.shut_out(device)
            else:
                with contextlib.suppress(ValueError, TypeError):
                    self._answers.put_nowait(json.loads(bytes(message.payload)))

    async def _change_rules(self, wanted: Mapping[str, str], holding: frozenset[str]) -> None:
        commands: list[dict[str, Any]] = []
        for device in self._applied.keys() - wanted.keys():
            commands.append({"command": "deleteClient", "username": device})
            commands.append({"command": "deleteRole", "rolename": device})
        for device in sorted(wanted.keys() - self._applied.keys()):
            commands.append({"command": "createRole", **device_role(device, held=device in holding)})
            commands.append({"command": "createClient", **device_client(device)})
        commands += [
            {"command": "modifyRole", **device_role(device, held=device in holding)}
            for device in sorted((holding ^ self._holding) & wanted.keys() & self._applied.keys())
        ]
        if not commands:
            return
        if self._client is None:
            async with self._connected():
                await self._control(commands)
        else:
            await self._control(commands)

    async def _control(self, commands: list[dict[str, Any]]) -> None:
        """Have the plug-in do commands; one that is done already is no error, so that all may be sent again."""
        client = self._client
        if client is None:
            raise ServerError("the gate has no connection to the broker")
        while not self._answers.empty():
            self._answers.get_nowait()
        for first in range(0, len(commands), 200):
            part = commands[first : first + 200]
            await client.publish(CONTROL, json.dumps({"commands": part}), qos=1)
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await self._answers.get()
            except TimeoutError:
                raise ServerError("the broker's plug-in for rules does not answer") from None
            for said in answer.get("responses", []):
                why = said.get("error")
                if why and "already exists" not in why and "not found" not in why:
                    raise ServerError(f"the broker refuses {said.get('command')}: {why}")
