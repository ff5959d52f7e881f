"""The child process that runs amqtt where there is no mosquitto: ``python -m ingest.broker_amqtt SETTINGS``."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

from bus.passwords import secret_matches
from ingest.accounts import FLEET, GATE, LIMITS, READS, SERVICE, WRITES
from ingest.amqtt_guarded import GuardedBroker

LOOK_S: Final = 0.2
"""How often the file of devices is looked at, at most."""


class _Enrolled:
    """The file of devices, read again whenever it was replaced."""

    def __init__(self) -> None:
        self._path = ""
        self._stamp = (0, 0)
        self._look_at = 0.0
        self._hashes: dict[str, str] = {}
        self.entered: dict[str, str] = {}
        """Hash of the secret that a device came in with."""

    def hashes(self, path: str) -> dict[str, str]:
        """Hash of each device that may log in now."""
        now = time.monotonic()
        if path != self._path or now >= self._look_at:
            self._look_at = now + LOOK_S
            with contextlib.suppress(OSError, ValueError):
                stat = Path(path).stat()
                stamp = (stat.st_mtime_ns, stat.st_ino)
                if (path, stamp) != (self._path, self._stamp):
                    self._hashes = json.loads(Path(path).read_text())
                    self._path, self._stamp = path, stamp
        return self._hashes


_enrolled = _Enrolled()


class PasswordPlugin(BaseAuthPlugin):  # type: ignore[misc]
    """Lets in only who knows the password of an account; a device under its own client id alone."""

    @dataclass
    class Config:
        """Name to password of our own accounts; path of the file of devices."""

        accounts: dict[str, str]
        devices: str

    async def authenticate(self, *, session: Any) -> bool:
        """Compare name and password, in constant time."""
        name, password = session.username or "", session.password or ""
        known = self.config.accounts.get(name)
        if known is not None:
            return hmac.compare_digest(known.encode(), password.encode())
        hashed = _enrolled.hashes(self.config.devices).get(name)
        if hashed is None or session.client_id != name or not secret_matches(password, hashed):
            return False
        _enrolled.entered[name] = hashed
        return True


class TopicPlugin(BaseTopicPlugin):  # type: ignore[misc]
    """The rules of `ingest.accounts`."""

    @dataclass
    class Config:
        """Path of the file of devices."""

        devices: str

    async def topic_filtering(
        self, *, session: Any = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        """Whether the session may publish to, subscribe to or receive from the topic."""
        if session is None or not topic:
            return False
        name, parts = session.username, topic.split("/")
        writes = action == Action.PUBLISH
        if topic.startswith(f"{LIMITS}/"):
            return bool(name == (SERVICE if writes else GATE))
        if parts[:2] != ["rw", "v1"]:
            return False
        if name == SERVICE:
            return not writes or (len(parts) == 4 and parts[3] == "commands")
        if name != FLEET:
            hashed = _enrolled.hashes(self.config.devices).get(name)
            if parts[2:3] != [name] or hashed is None or hashed != _enrolled.entered.get(name):
                return False
        return len(parts) == 4 and parts[3] in (WRITES if writes else READS)


async def main(settings: dict[str, Any]) -> None:
    """Run the broker until this process is told to end."""
    door: dict[str, Any] = {"type": "tcp", "bind": ":".join(map(str, settings["door"]))}
    certificates = settings["certificates"]
    if certificates:
        door |= {"ssl": True, "certfile": certificates["certificate"], "keyfile": certificates["key"]}
        if certificates["clients"]:
            door["cafile"] = certificates["authority"]
    broker = GuardedBroker(
        {
            "listeners": {
                "default": {"type": "tcp", "bind": f"{settings['host']}:{settings['port']}"},
                "door": door,
            },
            "session_expiry_interval": 86_400,
            "plugins": {
                f"{__spec__.name}.PasswordPlugin": {
                    "accounts": dict([settings["service"], settings["fleet"], settings["gate"]]),
                    "devices": settings["devices"],
                },
                f"{__spec__.name}.TopicPlugin": {"devices": settings["devices"]},
            },
        }
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    await broker.start()
    await ended.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
