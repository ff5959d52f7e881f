"""The pages: server, websocket hub, user interface."""
