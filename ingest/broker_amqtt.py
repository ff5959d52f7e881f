"""The child process that runs amqtt where there is no mosquitto: ``python -m ingest.broker_amqtt SETTINGS``."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

_DEVICE_WRITES = ("ecg", "meta", "status", "events", "backfill")


class PasswordPlugin(BaseAuthPlugin):  # type: ignore[misc]
    """Lets in only who knows the password of an account."""

    @dataclass
    class Config:
        """Name to password."""

        accounts: dict[str, str]

    async def authenticate(self, *, session: Any) -> bool:
        """Compare name and password, in constant time."""
        known = self.config.accounts.get(session.username or "")
        return known is not None and hmac.compare_digest(known.encode(), (session.password or "").encode())


class TopicPlugin(BaseTopicPlugin):  # type: ignore[misc]
    """Devices write what devices say and read their commands; the service reads all and writes commands."""

    @dataclass
    class Config:
        """Name of the service's account."""

        service: str

    async def topic_filtering(
        self, *, session: Any = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        """Whether the session may publish or subscribe to the topic."""
        parts = (topic or "").split("/")
        if parts[:2] != ["rw", "v1"] or session is None:
            return False
        writes = action == Action.PUBLISH
        if session.username == self.config.service:
            return not writes or (len(parts) == 4 and parts[3] == "commands")
        return len(parts) == 4 and parts[3] in (_DEVICE_WRITES if writes else ("commands",))


async def main(settings: dict[str, Any]) -> None:
    """Run the broker until this process is told to end."""
    service, devices = settings["service"], settings["devices"]
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{settings['host']}:{settings['port']}"}},
            "session_expiry_interval": 86_400,
            "plugins": {
                f"{__spec__.name}.PasswordPlugin": {"accounts": dict([service, devices])},
                f"{__spec__.name}.TopicPlugin": {"service": service[0]},
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
