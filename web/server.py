"""uvicorn with the settings that the pages need."""

from __future__ import annotations

import asyncio
import socket
from typing import Final, cast

from fastapi import FastAPI
from uvicorn import Config, Server
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

UNDERWAY: Final = 16 * 1024
"""Bytes that wait in the kernel and in the process for a slow page, each; what has left the outbox can't be overtaken
by an alarm any more."""


class NearWebSocket(WebSocketsSansIOProtocol):
    """A websocket that tells its writer early that the line is slow, so that waiting is done in the outbox."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the buffers behind the outbox small."""
        transport.set_write_buffer_limits(high=UNDERWAY)
        line = cast("socket.socket | None", transport.get_extra_info("socket"))
        lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if line is not None and lowat is not None and line.family in (socket.AF_INET, socket.AF_INET6):
            line.setsockopt(socket.IPPROTO_TCP, lowat, UNDERWAY)
        super().connection_made(transport)


def make_server(
    app: FastAPI, host: str = "127.0.0.1", port: int = 0, *, certificate: str = "", key: str = ""
) -> Server:
    """Make a server for `app`.

    Parameters
    ----------
    app : FastAPI
        From `web.app.create_app`.
    host, port
        Where to listen; pass sockets to ``serve`` instead to know a free port beforehand.
    certificate, key : str
        PEM files; with them the pages are served over HTTPS alone.

    Returns
    -------
    uvicorn.Server
        Run it with ``await server.serve()``; ``should_exit`` ends it.
    """
    return Server(
        Config(
            app,
            host=host,
            port=port,
            ws=NearWebSocket,
            # Compressing noise-like samples costs more than it saves, for each client anew.
            ws_per_message_deflate=False,
            ws_max_size=64 * 1024,
            server_header=False,
            proxy_headers=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=3,
            ssl_certfile=certificate or None,
            ssl_keyfile=key or None,
        )
    )
