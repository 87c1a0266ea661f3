"""Converts what the store knows about a node to JSON, for the command line and the web pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from furu.errors import FuruStoreError
from furu.store.catalog import AttemptInfo, LogText, NodeInfo, read_log

__all__ = ["node_json", "read_logs"]


def node_json(info: NodeInfo, logs: Mapping[int, LogText]) -> dict[str, Any]:
    """Return a node's description as JSON data, with its attempts and logs, but without its result."""
    return {
        "class": info.node_class,
        "hash": info.artifact.hash,
        "status": info.status,
        "config": info.config,
        "depends_on": info.depends_on,
        "codec": info.codec,
        "started_at": info.started_at,
        "duration_sec": info.duration_sec,
        "attempts": [_attempt_json(attempt, logs.get(attempt.number)) for attempt in info.attempts],
        "problem": info.problem,
        "made_by": dataclasses.asdict(info.made_by) if info.made_by is not None else None,
    }


def read_logs(info: NodeInfo) -> dict[int, LogText]:
    """Return the end of each attempt's log, by attempt number. If a log cannot be read, its text is the
    error message."""
    logs = {}
    for attempt in info.attempts:
        try:
            log = read_log(info.artifact, attempt.number)
        except FuruStoreError as error:
            log = LogText(str(error), 0)
        if log is not None:
            logs[attempt.number] = log
    return logs


def _attempt_json(attempt: AttemptInfo, log: LogText | None) -> dict[str, Any]:
    fields = {name: getattr(attempt, name) for name in attempt.__slots__}
    return {**fields, "log": log.text if log is not None else None}
