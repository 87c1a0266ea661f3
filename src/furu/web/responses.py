"""The common parts of all responses: security headers, JSON and HTML, errors and refusals."""

from __future__ import annotations

import importlib.resources
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from furu.service import RunsClosedError, RunsFullError
from furu.web.pages import Pages

__all__ = [
    "STATIC_FILES",
    "SecurityHeaders",
    "base_path",
    "error_response",
    "html_response",
    "http_error_response",
    "json_response",
    "left_response",
    "refusal",
    "static_response",
]

STATIC_FILES = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
# Read at import: an application may be created on a running loop, and reading would block the loop.
_CONTENTS = {
    name: importlib.resources.files("furu.web").joinpath("static", name).read_bytes()
    for name in STATIC_FILES
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class SecurityHeaders:
    """Middleware that adds headers so that browsers run no injected scripts and show no page in a frame."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def base_path(request: Request) -> str:
    """Return the path at which the application is mounted. All its links begin with this path."""
    path = quote(request.scope.get("root_path", "").strip("/"), safe="/~")
    return f"/{path}" if path else ""


def json_response(value: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as JSON that must not be cached."""
    all_headers = {"cache-control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(value), status_code, all_headers, "application/json")


def html_response(page: str, status_code: int = 200) -> Response:
    """Return a page that must not be cached."""
    return HTMLResponse(page, status_code, {"cache-control": "no-store"})


def static_response(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that sends one of `STATIC_FILES`."""
    content, headers = _CONTENTS[name], {"content-type": STATIC_FILES[name], "cache-control": "no-cache"}

    async def answer(request: Request) -> Response:
        return Response(content, headers=headers)

    return answer


def refusal(error: RunsFullError | RunsClosedError) -> Response:
    """Return the answer when no run can start: 429 if too many runs wait, 503 if the service is closed."""
    status_code = 429 if isinstance(error, RunsFullError) else 503
    return json_response({"error": str(error)}, status_code, {"retry-after": "5"})


def error_response(request: Request, status_code: int, message: str, headers: Any = None) -> Response:
    """Return a response for an error: JSON if the path is below ``/api/``, otherwise a page."""
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if path.startswith("/api/"):
        return json_response({"error": message}, status_code, headers)
    response = html_response(Pages(base_path(request)).error(status_code, message), status_code)
    response.headers.update(headers or {})
    return response


async def http_error_response(request: Request, error: Exception) -> Response:
    """Handle an `HTTPException`."""
    assert isinstance(error, HTTPException)  # noqa: S101  # the handler is registered only for these
    return error_response(request, error.status_code, error.detail, error.headers)


async def left_response(request: Request, error: Exception) -> Response:
    """Handle a client that disconnects while it sends its body. This is not an error of the service."""
    return Response(status_code=400)
