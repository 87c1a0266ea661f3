"""A function that makes an event for tests."""

from __future__ import annotations

from furu.events import NodeDone, Timing


def done(name: str, duration_sec: float) -> NodeDone:
    """Make the event of a computed node."""
    return NodeDone(name, "m:Node", "default", Timing("thread-1", 0.0, duration_sec))
