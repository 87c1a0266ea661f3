"""furu runs graphs of cached computations: it computes each missing node once, in dependency order and in
parallel.

Nodes
    Furu, field, File, Status, Codec, register_codec, register_canonical_form
Runs
    run_local, run_local_async, stream_local, plan_local, Retry, check_cancelled, progress
Stored results
    load, table, Table (and Furu.stored)
Results of runs
    RunReport, events, EventStream, Trace
Workers
    ThreadWorkers, ProcessWorkers, DaskWorkers
Stores
    Settings, current_settings, use_settings, catalog
Errors
    FuruError and its subclasses

>>> from furu import Furu, run_local
>>> class Square(Furu[int]):
...     of: int
...     def _create(self) -> int:
...         return self.of ** 2
>>> run_local([Square(of=2), Square(of=3)]).computed
2
>>> Square(of=3).get()
9
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import furu.errors as errors
import furu.events as events
from furu._common.version import __version__ as __version__
from furu.codecs.protocol import Codec
from furu.codecs.registry import register_codec
from furu.context import EXEC_CONTEXT, ExecContext, check_cancelled, progress
from furu.errors import *  # noqa: F403
from furu.events import Event
from furu.execution.local import run_local, run_local_async
from furu.execution.workers import ThreadWorkers
from furu.node.file import File
from furu.node.furu import Furu
from furu.node.identity import register_canonical_form
from furu.node.marks import field
from furu.report import ClassTime, CodeChange, NodeTime, RunReport
from furu.retry import Retry
from furu.settings import Settings, current_settings, use_settings
from furu.store.artifact import Status

if TYPE_CHECKING:
    from furu.execution.stream import EventsDropped, EventStream, stream_local
    from furu.execution.workers import DaskWorkers, ProcessWorkers
    from furu.node.outcomes import NodeOutcome, outcome, outcomes
    from furu.node.results import load, table
    from furu.observing.trace import Trace
    from furu.planning.summary import Forecast, PlannedNode, PlanSummary, plan_local
    from furu.store import catalog
    from furu.store.table import Table

__all__ = [
    "ClassTime",
    "Codec",
    "CodeChange",
    "DaskWorkers",
    "EXEC_CONTEXT",
    "Event",
    "EventStream",
    "EventsDropped",
    "ExecContext",
    "File",
    "Forecast",
    "Furu",
    "NodeOutcome",
    "NodeTime",
    "PlanSummary",
    "PlannedNode",
    "ProcessWorkers",
    "Retry",
    "RunReport",
    "Settings",
    "Status",
    "Table",
    "ThreadWorkers",
    "Trace",
    "catalog",
    "check_cancelled",
    "current_settings",
    "events",
    "field",
    "load",
    "outcome",
    "outcomes",
    "plan_local",
    "progress",
    "register_canonical_form",
    "register_codec",
    "run_local",
    "run_local_async",
    "stream_local",
    "table",
    "use_settings",
]
__all__ += errors.__all__

# Imported on first use: few programs need these names, and `import furu` should be fast.
_ON_DEMAND = {
    "DaskWorkers": "furu.execution.workers",
    "EventStream": "furu.execution.stream",
    "EventsDropped": "furu.execution.stream",
    "Forecast": "furu.planning.summary",
    "PlanSummary": "furu.planning.summary",
    "PlannedNode": "furu.planning.summary",
    "ProcessWorkers": "furu.execution.workers",
    "Table": "furu.store.table",
    "Trace": "furu.observing.trace",
    "catalog": "furu.store",
    "NodeOutcome": "furu.node.outcomes",
    "load": "furu.node.results",
    "outcome": "furu.node.outcomes",
    "outcomes": "furu.node.outcomes",
    "plan_local": "furu.planning.summary",
    "stream_local": "furu.execution.stream",
    "table": "furu.node.results",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "catalog":
        return import_module("furu.store.catalog")
    return getattr(import_module(_ON_DEMAND[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__all__", "__doc__", "__version__"]
