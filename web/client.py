"""One page's websocket: a reader task, a writer task, and a state that can be asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from functools import partial

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from bus.tasks import end
from web.hub import Hub, Subscription
from web.outbox import OutboxFullError
from web.settings import WebSettings
from web.wire import frame, read_watch

log = logging.getLogger("web.client")

CLOSE_GOING_AWAY = 1001
CLOSE_BAD_MESSAGE = 1007
CLOSE_FAILED = 1011
CLOSE_RESYNC = 4408
CLOSE_LOGGED_OUT = 4401
CLOSE_FOREIGN = 4403


class SessionEndedError(Exception):
    """The session behind a socket is over."""


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
    seen : callable
        Takes note of a patient whose page was opened.
    """

    def __init__(
        self,
        socket: WebSocket,
        hub: Hub,
        settings: WebSettings,
        alive: Callable[[], Awaitable[bool]],
        seen: Callable[[str], Awaitable[None]],
    ) -> None:
        self._socket = socket
        self._hub = hub
        self._settings = settings
        self._alive = alive
        self._seen = seen
        self.state = ClientState.CONNECTING

    async def run(self, user: str) -> None:
        """Serve the page until it goes, its session ends, or it is too slow for states."""
        await self._socket.accept()
        subscription = self._hub.subscribe(user)
        self.state = ClientState.LIVE
        tasks = [
            asyncio.create_task(self._read(subscription), name=f"read {user}"),
            asyncio.create_task(self._write(subscription), name=f"write {user}"),
        ]
        for task in tasks:
            task.add_done_callback(partial(self._late, user))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.state = ClientState.CLOSING
            await self._close(*self._why(user, [task.exception() for task in done]))
        finally:
            self.state = ClientState.CLOSING
            self._hub.unsubscribe(subscription)
            await end(tasks)
            self.state = ClientState.CLOSED

    async def _read(self, subscription: Subscription) -> None:
        while True:
            watch = read_watch(await self._socket.receive_text())
            opened = watch.detail if watch.detail != subscription.watch.detail else None
            self._hub.watch(subscription, watch)
            if opened:
                await self._seen(opened)

    async def _write(self, subscription: Subscription) -> None:
        loop = asyncio.get_running_loop()
        pulse = check = loop.time()
        while True:
            if loop.time() >= check:
                if not await self._alive():
                    raise SessionEndedError("the session behind the page ended")
                check = loop.time() + self._settings.session_check_s
            if loop.time() >= pulse:
                await self._socket.send_bytes(frame([self._hub.clock(subscription)]))
                pulse = loop.time() + self._settings.clock_s
            if await subscription.outbox.wait(max(0.0, min(pulse, check) - loop.time())):
                await self._socket.send_bytes(frame(subscription.outbox.take()))

    def _late(self, user: str, task: asyncio.Task[None]) -> None:
        """Take the error of the task that ends second, for instance in the middle of a message to a page that left."""
        error = None if task.cancelled() else task.exception()
        if error is not None and self.state is ClientState.CLOSING:
            self._why(user, [error])

    def _why(self, user: str, causes: list[BaseException | None]) -> tuple[int, str]:
        """Give close code and reason for what ended a task."""
        for cause in causes:
            match cause:
                case OutboxFullError():
                    self._hub.counters.overruns += 1
                    log.warning("page of %s was cut off: it reads too slowly", user)
                    return CLOSE_RESYNC, "too slow, start again"
                case SessionEndedError():
                    return CLOSE_LOGGED_OUT, "session ended"
                case msgspec.MsgspecError() | KeyError():
                    return CLOSE_BAD_MESSAGE, "not understood"
                case WebSocketDisconnect():
                    return CLOSE_GOING_AWAY, "gone"
                case RuntimeError() if self._socket.application_state is WebSocketState.DISCONNECTED:
                    # A message was to be read or sent just after the other task had found the page gone.
                    return CLOSE_GOING_AWAY, "gone"
                case _:
                    log.error("page of %s ended by an error", user, exc_info=cause)
        return CLOSE_FAILED, "server error, start again"

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            try:
                await self._socket.close(code, reason)
            except (RuntimeError, WebSocketDisconnect):
                log.info("a page was gone before it could be told why")
