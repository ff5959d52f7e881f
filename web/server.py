"""uvicorn with the settings that the pages need."""

from __future__ import annotations

from fastapi import FastAPI
from uvicorn import Config, Server


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
            ws="websockets-sansio",
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
