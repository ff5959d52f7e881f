"""One page's websocket: a reader task, a writer task, and a state that can be asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from web.hub import Hub
from web.outbox import OutboxFullError
from web.settings import WebSettings
from web.wire import read_watch

log = logging.getLogger("web.client")

CLOSE_GOING_AWAY = 1001
CLOSE_BAD_MESSAGE = 1007
CLOSE_RESYNC = 4408
CLOSE_LOGGED_OUT = 4401
CLOSE_FOREIGN = 4403


class ClientState(Enum):
    """Where a client's connection stands."""

    CONNECTING = auto()
    LIVE = auto()
    CLOSING = auto()
    CLOSED = auto()


class Client:
    """A connected page.

    Parameters
    ----------
    socket : WebSocket
        Not accepted yet; origin and session were checked.
    hub : Hub
        Where messages come from.
    settings : WebSettings
        Pulse and session check.
    alive : callable
        Whether the session behind this socket is still good.
    """

    def __init__(
        self, socket: WebSocket, hub: Hub, settings: WebSettings, alive: Callable[[], Awaitable[bool]]
    ) -> None:
        self._socket = socket
        self._hub = hub
        self._settings = settings
        self._alive = alive
        self.state = ClientState.CONNECTING

    async def run(self, user: str) -> None:
        """Serve the page until it goes, its session ends, or it is too slow for states."""
        await self._socket.accept()
        subscription = self._hub.subscribe(user)
        self.state = ClientState.LIVE
        code, reason = CLOSE_GOING_AWAY, "server stops"

        async def read() -> None:
            while True:
                self._hub.watch(subscription, read_watch(await self._socket.receive_text()))

        async def write() -> None:
            loop = asyncio.get_running_loop()
            pulse = checked = loop.time()
            while True:
                if loop.time() >= checked:
                    if not await self._alive():
                        raise PermissionError("session ended")
                    checked = loop.time() + self._settings.session_check_s
                if loop.time() >= pulse:
                    await self._socket.send_bytes(self._hub.clock(subscription))
                    pulse = loop.time() + self._settings.clock_s
                if await subscription.outbox.wait(max(0.0, min(pulse, checked) - loop.time())):
                    await self._socket.send_bytes(subscription.outbox.take())

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(read(), name=f"read {user}")
                group.create_task(write(), name=f"write {user}")
        except* (WebSocketDisconnect, RuntimeError) as gone:
            overrun = gone.subgroup(OutboxFullError)
            if overrun is not None:
                self._hub.counters.overruns += 1
                code, reason = CLOSE_RESYNC, "too slow, start again"
                log.warning("page of %s was cut off: it reads too slowly", user)
            elif gone.subgroup(WebSocketDisconnect) is None:
                log.info("page of %s went away while it was written to", user)
        except* PermissionError:
            code, reason = CLOSE_LOGGED_OUT, "session ended"
        except* (msgspec.MsgspecError, KeyError):
            code, reason = CLOSE_BAD_MESSAGE, "not understood"
        finally:
            self.state = ClientState.CLOSING
            self._hub.unsubscribe(subscription)
            if self._socket.application_state is WebSocketState.CONNECTED:
                try:
                    await self._socket.close(code, reason)
                except (RuntimeError, WebSocketDisconnect):
                    log.info("page of %s was gone before it could be told", user)
            self.state = ClientState.CLOSED
