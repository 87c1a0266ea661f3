"""`stream_local` starts a run whose events are read while it runs. The run never waits for the reader."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypedDict, Unpack

import anyio
import msgspec

from furu._common.checks import check_int
from furu._common.loops import is_being_cancelled
from furu.errors import FuruUsageError
from furu.events import Event
from furu.execution.again import Chosen
from furu.execution.local import run_local_async
from furu.execution.scheduler import OnFailure, Order
from furu.execution.workers import Workers
from furu.node.furu import Furu
from furu.observing.report import Sink, Sinks
from furu.report import RunReport
from furu.settings import OnCodeChange

__all__ = ["DEFAULT_BUFFER_EVENTS", "EventStream", "EventsDropped", "RunOptions", "stream_local"]

# A reader that falls behind for a moment loses no events. A reader that has stopped cannot fill the memory.
DEFAULT_BUFFER_EVENTS = 10_000


class RunOptions(TypedDict, total=False):
    """The keyword arguments of `run_local_async`, as a type for functions that pass them on."""

    max_workers: int
    max_async: int
    window_size: str | int
    poll_interval_sec: float
    workers: Workers | None
    order: Order
    on_failure: OnFailure
    retry_failed: bool
    spec_limits: Mapping[str, int] | None
    on_code_change: OnCodeChange | None
    again: Chosen | None
    grace_sec: float | None
    on_event: Sink | None
    progress: bool | None


class EventsDropped(msgspec.Struct, frozen=True):
    """The reader of a stream was too slow: `count` events that came before the next event were dropped."""

    count: int


class EventStream:
    """The events of a run, in order. Read them with `async for event in stream`, which ends after
    `RunFinished`.

    The stream buffers at most `buffer_events` events. When the buffer is full, the oldest events are
    dropped, and the reader receives an `EventsDropped` with their number instead. Several tasks may read
    the same stream: each event goes to one of them, and the end of the stream ends the loops of all.
    """

    def __init__(self, buffer_events: int) -> None:
        self._events: deque[Event] = deque()
        self._buffer_events = buffer_events
        self._dropped = 0
        self._ended = False
        self._awake = anyio.Event()
        self._report: RunReport | None = None

    @property
    def report(self) -> RunReport:
        """The run's report. Raises `FuruUsageError` unless the run has finished without an error."""
        if self._report is None:
            raise FuruUsageError("the run has no report yet: read the stream to its end first")
        return self._report

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event | EventsDropped:
        while not self._events and not self._dropped:
            if self._ended:
                raise StopAsyncIteration
            if self._awake.is_set():
                self._awake = anyio.Event()
            await self._awake.wait()  # all readers wake, and check again
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return EventsDropped(dropped)
        return self._events.popleft()

    def _put(self, event: Event) -> None:
        if len(self._events) >= self._buffer_events:
            self._events.popleft()
            self._dropped += 1
        self._events.append(event)
        self._awake.set()

    def _end(self) -> None:
        self._ended = True
        self._awake.set()


@asynccontextmanager
async def stream_local(
    roots: Iterable[Furu[Any]],
    *,
    buffer_events: int = DEFAULT_BUFFER_EVENTS,
    **options: Unpack[RunOptions],
) -> AsyncIterator[EventStream]:
    """Run like `run_local_async`, with the same options, and provide the run's events as a stream.

    Use it as ``async with stream_local(roots) as events:`` and then ``async for event in events:``.

    Guarantees: the events arrive in order, and `RunFinished` is the last. The run never waits for the
    reader (see `EventStream`). If the block is left before the run has finished, the run is cancelled:
    its running nodes finish and publish.

    Raises the run's exception at the end of the block, unless the block itself has raised one. Raises
    `TypeError` or `ValueError` if `buffer_events` is not an int of 1 or more.
    """
    check_int("buffer_events", buffer_events, least=1)
    stream = EventStream(buffer_events)
    errors: list[BaseException] = []  # only the first is raised; an error of the block goes to the front
    options["on_event"] = Sinks(stream._put, options.get("on_event"))
    run = functools.partial(run_local_async, roots, **options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_run, run, stream, errors)
        try:
            yield stream
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # raised below, so that the task group does not wrap it
            errors.insert(0, error)
        if not stream._ended:
            tasks.cancel_scope.cancel()
    if errors:
        raise errors[0]


async def _run(run: Callable[[], Any], stream: EventStream, errors: list[BaseException]) -> None:
    try:
        stream._report = await run()
    except BaseException as error:
        if isinstance(error, anyio.get_cancelled_exc_class()) and is_being_cancelled():
            raise
        errors.append(error)
    finally:
        stream._end()
