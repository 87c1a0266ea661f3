"""Traces of runs: a file for Perfetto, and OpenTelemetry spans."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from furu import FuruComputeError, FuruError, FuruUsageError, Retry, run_local
from furu.events import NodeDone, NodePlanned, RunStarted, Timing
from furu.observing.otel import Spans
from furu.observing.trace import Trace
from tests.graphs import Computed, Node, actions, diamond, flat, recording


@pytest.fixture(autouse=True)
def record() -> Iterator[Computed]:
    """Record what this test's nodes compute."""
    with recording() as record:
        yield record


def events_of(traced: Trace, kind: str) -> list[dict[str, Any]]:
    """Return the events of one kind in a trace."""
    return [event for event in traced.document()["traceEvents"] if event["ph"] == kind]


def test_trace_has_a_row_for_each_worker_and_a_slice_for_each_node() -> None:
    """Times are in microseconds since the start of the run."""
    traced = Trace()
    run_local(flat(3), max_workers=1, on_event=traced)
    rows = {event["tid"]: event["args"]["name"] for event in events_of(traced, "M")[1:]}
    slices = [event for event in events_of(traced, "X") if event["tid"] != 0]
    assert {0: "critical path", 1: "thread-1"} == rows
    assert ["Node"] * 3 == [event["name"] for event in slices]
    ends = [event["ts"] + event["dur"] for event in slices]
    assert all(end <= after["ts"] + 0.01 for end, after in zip(ends, slices[1:], strict=False))
    assert all(0 <= event["ts"] < 20e6 for event in slices)


def test_arrows_lead_from_dependencies_to_dependents() -> None:
    """Each arrow starts within one slice and ends at the start of another."""
    traced = Trace()
    run_local([diamond()], on_event=traced)
    starts, ends = events_of(traced, "s"), events_of(traced, "f")
    slices = [event for event in events_of(traced, "X") if event["tid"] != 0]
    assert 4 == len(starts) == len(ends) == len({event["id"] for event in starts})
    for event in starts:
        assert 1 == sum(
            one["tid"] == event["tid"] and one["ts"] <= event["ts"] <= one["ts"] + one["dur"]
            for one in slices
        )
    assert {event["ts"] for event in ends} <= {one["ts"] for one in slices}


def test_critical_path_is_marked_and_has_its_own_row() -> None:
    """a(1) <- c(1), b(5)"""
    traced = Trace()
    traced(RunStarted(2, 100, "bfs", 100.0))
    for key, below in [("a", ()), ("b", ()), ("c", ("a",))]:
        traced(NodePlanned(key, key, "default", below))
    traced(NodeDone("b", "b", "default", Timing("thread-2", 100.0, 5.0)))
    traced(NodeDone("a", "a", "default", Timing("thread-1", 100.0, 1.0)))
    traced(NodeDone("c", "c", "default", Timing("thread-1", 101.0, 1.0)))
    slices = events_of(traced, "X")
    assert ["b"] == [event["name"] for event in slices if event["tid"] == 0]
    assert ["b"] == [event["name"] for event in slices if event["tid"] and "critical" in event["cat"]]
    assert [0.0, 1e6, 0.0] == [event["ts"] for event in slices if event["tid"]]


class Flaky(Node):
    """A node that may be retried once."""

    _retry = Retry(attempts=2, delay_sec=0, on=(ValueError,))


def test_failed_and_retried_attempts_are_slices_too() -> None:
    """Their slices have the error message."""
    tries: list[int] = []

    def fail_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")

    traced = Trace()
    actions["flaky"] = fail_once
    actions["bad"] = lambda: 1 / 0
    with pytest.raises(FuruComputeError):
        run_local([Flaky(name="flaky"), Node(name="bad")], on_event=traced, on_failure="continue")
    slices = {event["name"]: event for event in events_of(traced, "X") if event["tid"]}
    assert {"Flaky", "Flaky (retried)", "Node (failed)"} == set(slices)
    assert "not yet" in slices["Flaky (retried)"]["args"]["error"]
    assert "ZeroDivisionError" in slices["Node (failed)"]["args"]["error"]


def test_trace_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """If the directory is missing, the write fails and leaves no file behind."""
    traced = Trace()
    run_local([diamond()], on_event=traced)
    traced.write(tmp_path / "run.json")
    assert "traceEvents" in json.loads((tmp_path / "run.json").read_text())
    with pytest.raises(FuruError, match="cannot write the trace to"):
        traced.write(tmp_path / "nosuch" / "run.json")
    assert ["run.json", "store"] == sorted(path.name for path in tmp_path.iterdir())


# ---- OpenTelemetry ----


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """An exporter that keeps finished spans in memory."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    """A tracer provider for this test only."""
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


def test_run_is_a_child_span_of_the_current_span_and_parent_of_its_nodes(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """The span of each node starts after the span of its run."""
    tracer = provider.get_tracer("host")
    with tracer.start_as_current_span("request"):
        run_local([diamond()], on_event=Spans(provider))
    spans = exporter.get_finished_spans()
    by_name = {span.name: span for span in spans}
    run, request = by_name["furu.run"], by_name["request"]
    nodes = [span for span in spans if span.name == "furu.node Node"]
    assert 4 == len(nodes)
    assert run.parent is not None
    assert request.context is not None
    assert request.context.span_id == run.parent.span_id
    for node in nodes:
        assert node.parent is not None
        assert run.context is not None
        assert run.context.span_id == node.parent.span_id
        assert str((node.attributes or {})["furu.worker"]).startswith("thread-")
        assert (run.start_time or 0) <= (node.start_time or 0) <= (node.end_time or 0)
    assert 4 == (run.attributes or {})["furu.computed"]


def test_failed_node_is_a_span_with_an_error(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """The span of its run has an error too."""
    actions["bad"] = lambda: 1 / 0
    with pytest.raises(FuruComputeError):
        run_local([Node(name="bad")], on_event=Spans(provider))
    statuses = {span.name: span.status for span in exporter.get_finished_spans()}
    assert trace.StatusCode.ERROR is statuses["furu.node Node"].status_code
    assert "ZeroDivisionError" in (statuses["furu.node Node"].description or "")
    assert trace.StatusCode.ERROR is statuses["furu.run"].status_code


def test_error_without_opentelemetry_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(FuruUsageError, match=r"furu\[otel\]"):
        Spans()
