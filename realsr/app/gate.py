"""What of Gradio's server answers: what the page itself asks for. The rest is for programs and for development."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/gradio_api"
PATHS = "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"
CALLS = "upload", "upload_progress", "queue/data", "startup-events", "cancel", "reset"
FUNCTIONS = "queue/join", "run/predict"
LARGEST = 1_000_000  # bytes of a function's call, which names files and holds none
FILE = f"{API}/file="
FOLDERS = "/assets/", "/static/", "/svelte/", f"{API}/heartbeat/"


class Gate:
    """Answers 404 to all but the page's own requests, 403 to those that name files which are not ours.

    Args:
        app: the server.
        root: the one folder of which files are sent and taken, resolved; Gradio would also fetch them from addresses.
    """

    def __init__(self, app: ASGIApp, root: Path) -> None:
        self._app, self._root = app, root
        self._exact = {*PATHS, *(f"{API}/{call}" for call in (*CALLS, *FUNCTIONS))}
        self._functions = {f"{API}/{call}" for call in FUNCTIONS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        path = scope.get("path", "")
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http" or not (path in self._exact or path.startswith(FOLDERS) or self._is_file(path)):
            await PlainTextResponse("not found", status_code=404)(scope, receive, send)
        elif path in self._functions:
            await self._check(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a function's call on if all files in it are ours."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or len(body) > LARGEST:
                return await PlainTextResponse("too large", status_code=413)(scope, receive, send)
            if not message.get("more_body"):
                break
        try:
            ours = all(self._is_ours(path) for path in _paths(json.loads(body)))
        except (ValueError, RecursionError):
            ours = False
        if not ours:
            return await PlainTextResponse("no file of this page", status_code=403)(scope, receive, send)
        whole = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(whole, None) or await receive()

        await self._app(scope, again, send)

    def _is_file(self, path: str) -> bool:
        return path.startswith(FILE) and self._is_ours(path.removeprefix(FILE))

    def _is_ours(self, path: object) -> bool:
        """Whether it is a file in our folder, by its name alone: only to look for others may do harm."""
        name = os.path.normpath(str(path))
        return "\0" not in name and Path(name).is_relative_to(self._root)


def _paths(value: object) -> Iterator[object]:
    """What stands under ``path`` anywhere in decoded JSON."""
    if isinstance(value, dict):
        yield from (value["path"],) if "path" in value else ()
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _paths(item)


def only_the_page(root: Path, host: str) -> list[Middleware]:
    """For a server on ``host``. On this machine alone, it is asked for by this machine's names alone.

    (A website could have its own name lead here, and its visitors' browsers would take our page for part of it.)
    """
    names = [host, "localhost"] if host in ("127.0.0.1", "localhost") else ["*"]
    return [Middleware(TrustedHostMiddleware, allowed_hosts=names), Middleware(Gate, root=root)]
