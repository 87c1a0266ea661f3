"""A run as an answer to a request: live, as server-sent events, or once at its end.

An event `progress` has the nodes that changed, the counts of their classes, the first nodes that run, and
the counts of the run. Its id is the number of the last change in it, so a client that comes back with
`Last-Event-ID` gets what changed since. The last event is `end`, with the run as JSON.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from furu.node.furu import Furu
from furu.service import Run, Runs, RunsClosedError, RunsFullError
from furu.service.progress import NodeProgress
from furu.service.run import OnDisconnect
from furu.web.reading import run_facts, shown_progress

# One message carries all that changed in this time: a browser has enough with ten a second.
_PACE_SEC = 0.1
# A proxy drops a connection on which nothing comes for a minute.
_KEEP_ALIVE_SEC = 15.0
_MAX_NODES_A_MESSAGE = 500
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would hold the events back
}


def json_response(value: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as JSON that must not be cached."""
    answer = {"cache-control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(value), status_code, answer, "application/json")


def refusal(error: RunsFullError | RunsClosedError) -> Response:
    """Answer that no run starts now: 429 if too many wait, 503 if the service has not started or ends."""
    status_code = 429 if isinstance(error, RunsFullError) else 503
    return json_response({"error": str(error)}, status_code, {"retry-after": "5"})


class RunEvents(Response):
    """Watches a run to its end as server-sent events, from after the change `after`. A watcher is not a
    follower: when it leaves, the run does not change. `show_details` is as for `app`."""

    def __init__(self, run: Run, *, after: int = 0, show_details: bool = False) -> None:
        super().__init__(headers=_STREAM_HEADERS)
        self._run, self._after, self._show_details = run, after, show_details

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(send: Send) -> None:
            await _send_events(self._run, self._after, self._show_details, send)

        await _unless_disconnected(receive, send, watch)


class FollowRun(Response):
    """Follows the run of `roots` as `Runs.follow` does, for as long as the client stays.

    With `stream` the answer is the run's progress as server-sent events; else one JSON object at its end.
    It is 429 if too many runs wait, and 503 if the service ends. `show_details` is as for `app`.
    """

    def __init__(
        self,
        runs: Runs,
        roots: Iterable[Furu[Any]],
        *,
        title: str = "",
        on_disconnect: OnDisconnect = "cancel",
        stream: bool = False,
        show_details: bool = False,
    ) -> None:
        super().__init__(headers=_STREAM_HEADERS if stream else None)
        self._runs, self._roots, self._title = runs, roots, title
        self._on_disconnect: OnDisconnect = on_disconnect
        self._stream, self._show_details = stream, show_details

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def follow(send: Send) -> None:
            try:
                async with self._runs.follow(
                    self._roots, title=self._title, on_disconnect=self._on_disconnect
                ) as run:
                    if self._stream:
                        await _send_events(run, 0, self._show_details, send)
                        return
                    await run.wait_ended()
                    answer = json_response(run_facts(run, show_details=self._show_details))
            except (RunsFullError, RunsClosedError) as error:
                answer = refusal(error)
            await answer(scope, receive, send)

        await _unless_disconnected(receive, send, follow)


async def run_messages(run: Run, after: int, *, show_details: bool) -> AsyncGenerator[bytes, None]:
    """Yield the messages of a run from after a change on, to its end, and comments that keep a quiet
    connection open. After a number that the run has not reached, everything is sent."""
    if after > run.progress.last_change:
        after = 0
    while True:
        changed = run.progress.since(after)
        is_whole = len(changed) <= _MAX_NODES_A_MESSAGE
        after = run.progress.last_change if is_whole else changed[_MAX_NODES_A_MESSAGE - 1].change
        yield _message(
            "progress", after, _progress_values(run, changed[:_MAX_NODES_A_MESSAGE], show_details)
        )
        if is_whole and run.has_ended:
            yield _message("end", after, run_facts(run, show_details=show_details))
            return
        await anyio.sleep(_PACE_SEC)
        while run.progress.last_change <= after:
            with anyio.move_on_after(_KEEP_ALIVE_SEC) as waiting:
                await run.progress.wait_changed(after)
            if waiting.cancelled_caught:
                yield b": nothing new\n\n"


def _progress_values(run: Run, changed: list[NodeProgress], show_details: bool) -> dict[str, Any]:
    progress = run.progress
    return {
        "state": run.state,
        "counts": +progress.counts,
        "classes": {name: +progress.class_counts[name] for name in {node.node_class for node in changed}},
        "running": [{"hash": node.hash, "name": node.name} for node in progress.running()],
        "nodes": [
            {
                "hash": node.hash,
                "name": node.name,
                "state": node.state,
                "duration_sec": node.duration_sec,
                "error": node.error,
            }
            for node in shown_progress(changed, show_details=show_details)
        ],
    }


def _message(name: str, number: int, value: Any) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), msgspec.json.encode(value))


async def _send_events(run: Run, after: int, show_details: bool, send: Send) -> None:
    headers = [(name.encode(), value.encode()) for name, value in _STREAM_HEADERS.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with aclosing(run_messages(run, after, show_details=show_details)) as messages:
        async for message in messages:
            await send({"type": "http.response.body", "body": message, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _unless_disconnected(
    receive: Receive, send: Send, answer: Callable[[Send], Awaitable[None]]
) -> None:
    """Answer, and stop when the client has left. Raises what goes wrong without a group around it."""
    errors: list[Exception] = []

    async def send_or_leave(message: Message) -> None:
        try:
            await send(message)
        except OSError as error:  # so servers say that the client has left
            raise _ClientLeft from error

    async def wait_left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def first(work: Callable[..., Awaitable[None]], *args: Send) -> None:
        try:
            await work(*args)
        except _ClientLeft:
            pass
        except Exception as error:
            errors.append(error)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first, answer, send_or_leave)
        await first(wait_left)
    if errors:
        raise errors[0]


class _ClientLeft(Exception):
    """The client has closed its connection."""
