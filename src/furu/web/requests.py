"""Reads the parts of a request and checks them. An invalid request is answered with a 4xx status."""

from __future__ import annotations

import re
from contextlib import aclosing

from starlette.exceptions import HTTPException
from starlette.requests import Request

from furu.web.reading import STATES

__all__ = ["event_number", "json_body", "listing", "node_hash", "wants_stream"]

_MAX_CLASS_CHARS = 1_000
_HASH = re.compile(r"[0-9a-f]{32}\Z")
_NUMBER = re.compile(r"[0-9]{1,15}\Z")


def node_hash(request: Request) -> str:
    """Return the node's hash from the path."""
    text: str = request.path_params["hash"]
    if not _HASH.match(text):
        raise HTTPException(404, "a node is looked up by its hash of 32 hexadecimal digits")
    return text


def listing(request: Request) -> tuple[str, str | None, str]:
    """Return which nodes to list: their class, their state (None for all), and the hash to start after."""
    node_class = request.query_params.get("class", "")
    state = request.query_params.get("state")
    after = request.query_params.get("after", "")
    if not node_class or len(node_class) > _MAX_CLASS_CHARS:
        raise HTTPException(400, "class must be the name of a class in the store")
    if state is not None and state not in STATES:
        raise HTTPException(400, f"state must be one of {', '.join(STATES)}")
    if after and not _HASH.match(after):
        raise HTTPException(400, "after must be a hash of 32 hexadecimal digits")
    return node_class, state, after


def event_number(request: Request) -> int:
    """Return the id of the last event that the client has seen, or 0."""
    text = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    if not _NUMBER.match(text):
        raise HTTPException(400, "Last-Event-ID and after must be the id of an event")
    return int(text)


def wants_stream(request: Request) -> bool:
    """Return whether the client asks for server-sent events."""
    return "text/event-stream" in request.headers.get("accept", "")


async def json_body(request: Request, max_bytes: int) -> bytes:
    """Read the body, which must be declared as JSON and have at most `max_bytes`."""
    # Browsers let the pages of other sites post forms and plain text to this server, but not JSON.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the body must be application/json")
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > max_bytes:
                raise HTTPException(413, f"the body must not have more than {max_bytes} bytes")
    return bytes(body)
