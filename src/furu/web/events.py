"""Responses that report a run: live, as server-sent events, or as JSON when the run has ended.

A `progress` event contains the nodes that have changed, the counts of their classes and of the run, and the
nodes that have been running longest. The event's id is the number of the last change in it, so a client
that reconnects with `Last-Event-ID` receives the later changes. The last event, `end`, has the run as JSON.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from furu._common.checks import check_seconds
from furu.node.furu import Furu
from furu.service import Run, Runs, RunsClosedError, RunsFullError
from furu.service.progress import NodeProgress
from furu.service.run import OnDisconnect
from furu.web.reading import advance_text, run_facts, shown_progress
from furu.web.responses import json_response, refusal

__all__ = ["FollowRun", "RunEvents"]

# Ten messages a second are enough for a browser.
_PACE_SEC = 0.1
# Many proxies close a connection that has been quiet for a minute.
_KEEP_ALIVE_SEC = 15.0
_MAX_NODES_A_MESSAGE = 500
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # otherwise nginx buffers the events
}


class RunEvents(Response):
    """Streams the changes of a run after change number `after`, until its end, as server-sent events.

    The client is not a follower: when it disconnects, the run continues. `show_details` is as for `app`.
    Messages are sent at least `pace_sec` apart. When nothing has changed for `keep_alive_sec`, a comment is
    sent.
    """

    def __init__(
        self,
        run: Run,
        *,
        after: int = 0,
        show_details: bool = False,
        pace_sec: float = _PACE_SEC,
        keep_alive_sec: float = _KEEP_ALIVE_SEC,
    ) -> None:
        super().__init__(headers=_STREAM_HEADERS)
        self._messages = _messages_with(show_details, pace_sec, keep_alive_sec)
        self._run, self._after = run, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(send: Send) -> None:
            await _send_events(self._messages(self._run, self._after), send)

        await _unless_disconnected(receive, send, watch)


class FollowRun(Response):
    """Follows a run of `roots`, as `Runs.follow` does, for as long as the client stays connected.

    With `stream`, the response is the run's progress as server-sent events. Without `stream`, it is one
    JSON object, sent when the run has ended. The status is 429 if too many runs wait, and 503 if the
    service has not started or has ended. The other options are as for `RunEvents`.
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
        pace_sec: float = _PACE_SEC,
        keep_alive_sec: float = _KEEP_ALIVE_SEC,
    ) -> None:
        super().__init__(headers=_STREAM_HEADERS if stream else None)
        self._messages = _messages_with(show_details, pace_sec, keep_alive_sec)
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
                        await _send_events(self._messages(run, 0), send)
                        return
                    await run.wait_ended()
                    answer = json_response(run_facts(run, show_details=self._show_details))
            except (RunsFullError, RunsClosedError) as error:
                answer = refusal(error)
            await answer(scope, receive, send)

        await _unless_disconnected(receive, send, follow)


_Messages = AsyncGenerator[bytes, None]


def _messages_with(
    show_details: bool, pace_sec: float, keep_alive_sec: float
) -> Callable[[Run, int], _Messages]:
    check_seconds("pace_sec", pace_sec, may_be_zero=True)
    check_seconds("keep_alive_sec", keep_alive_sec)
    return functools.partial(
        _run_messages, show_details=show_details, pace_sec=pace_sec, keep_alive_sec=keep_alive_sec
    )


async def _run_messages(
    run: Run, after: int, *, show_details: bool, pace_sec: float, keep_alive_sec: float
) -> _Messages:
    """Yield the messages of a run after change number `after`, and comments while nothing changes.

    If the run has not reached change `after`, the number is not from this run, and everything is sent.
    """
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
        await anyio.sleep(pace_sec)
        while run.progress.last_change <= after:
            with anyio.move_on_after(keep_alive_sec) as waiting:
                await run.progress.wait_changed(after)
            if waiting.cancelled_caught:
                yield b": nothing new\n\n"


def _progress_values(run: Run, changed: list[NodeProgress], show_details: bool) -> dict[str, Any]:
    progress = run.progress
    return {
        "state": run.state,
        "counts": +progress.counts,
        "classes": {name: +progress.class_counts[name] for name in {node.node_class for node in changed}},
        "running": [
            {"hash": node.hash, "name": node.name, "advance": advance_text(node)}
            for node in progress.running()
        ],
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


async def _send_events(messages: _Messages, send: Send) -> None:
    headers = [(name.encode(), value.encode()) for name, value in _STREAM_HEADERS.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with aclosing(messages):
        async for message in messages:
            await send({"type": "http.response.body", "body": message, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _unless_disconnected(
    receive: Receive, send: Send, answer: Callable[[Send], Awaitable[None]]
) -> None:
    """Run `answer` until it returns or the client disconnects. Raises an error of `answer` as it is, not in
    an exception group."""
    errors: list[Exception] = []

    async def send_or_leave(message: Message) -> None:
        try:
            await send(message)
        except OSError as error:  # some servers raise this when the client has left
            raise _ClientLeft from error

    async def wait_left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def race(work: Callable[..., Awaitable[None]], *args: Send) -> None:
        try:
            await work(*args)
        except _ClientLeft:
            pass
        except Exception as error:
            errors.append(error)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(race, answer, send_or_leave)
        await race(wait_left)
    if errors:
        raise errors[0]


class _ClientLeft(Exception):
    """The client has closed its connection."""
