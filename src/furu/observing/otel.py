"""OpenTelemetry spans for a run. Needs the extra `otel`, and does not configure OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from furu._common.text import printable
from furu.errors import FuruUsageError
from furu.events import Event, NodeDone, NodeFailed, NodeRetried, RunFinished, RunStarted, Timing

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = ["Spans"]


class Spans:
    """Creates a span for a run, and a child span for each attempt at a node. Pass it to one run as
    `on_event`.

    The run's span is a child of the span that is current when the run begins. An attempt's span is
    created when the attempt ends. Without a `provider`, the global provider is used, which does nothing
    until the host configures it. Raises `FuruUsageError` if the extra is not installed.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import trace
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "opentelemetry":
                raise
            raise FuruUsageError(
                'Spans needs opentelemetry-api: pip install "furu[otel]", or leave Spans() out'
            ) from None
        self._trace = trace
        self._tracer: Tracer = trace.get_tracer("furu", tracer_provider=provider)
        self._run: Span | None = None

    def __call__(self, event: Event) -> None:
        """Process an event."""
        if isinstance(event, RunStarted):
            self._run = self._tracer.start_span("furu.run", start_time=_ns(event.at))
            self._run.set_attribute("furu.max_workers", event.max_workers)
            self._run.set_attribute("furu.max_async", event.max_async)
            self._run.set_attribute("furu.window_size", str(event.window_size))
        elif isinstance(event, NodeDone):
            self._node(event, event.timing, None)
        elif isinstance(event, (NodeRetried, NodeFailed)) and event.timing is not None:
            self._node(event, event.timing, printable(event.error))
        elif isinstance(event, RunFinished) and self._run is not None:
            for name in ("computed", "reused", "failed", "skipped"):
                self._run.set_attribute(f"furu.{name}", getattr(event.report, name))
            if event.end != "finished":
                self._run.set_status(self._trace.StatusCode.ERROR, event.end)
            self._run.end(end_time=_ns(event.at))

    def _node(self, event: NodeDone | NodeFailed | NodeRetried, timing: Timing, error: str | None) -> None:
        if self._run is None:
            return
        span = self._tracer.start_span(
            f"furu.node {event.name}",
            context=self._trace.set_span_in_context(self._run),
            attributes={
                "furu.hash": event.hash,
                "furu.class": event.name,
                "furu.spec_key": event.spec_key,
                "furu.worker": timing.worker,
            },
            start_time=_ns(timing.started_at),
        )
        if error is not None:
            span.set_status(self._trace.StatusCode.ERROR, error)
        span.end(end_time=_ns(timing.started_at + timing.duration_sec))


def _ns(at: float) -> int:
    return int(at * 1e9)
