"""furu runs graphs of cached computations: what is missing, in dependency order, in parallel, once.

The names here are the public ones, with those of `furu.execution`. Start with `Furu` and `run_local`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from furu.context import EXEC_CONTEXT, ExecContext, check_cancelled
from furu.errors import (
    Failure,
    FuruCancelledError,
    FuruComputeError,
    FuruCycleError,
    FuruError,
    FuruIdentityError,
    FuruInProgressError,
    FuruLoadError,
    FuruMissingArtifactError,
    FuruResultError,
    FuruRunningLoopError,
    FuruSettingsError,
    FuruSpecMismatchError,
    FuruStalledError,
    FuruStoreError,
    FuruTimeoutError,
    FuruUsageError,
    FuruWorkerError,
)
from furu.execution.local import run_local, run_local_async
from furu.node.file import File
from furu.node.furu import Furu
from furu.node.identity import register_canonical_form
from furu.report import ClassTime, NodeTime, RunReport
from furu.retry import Retry
from furu.settings import Settings, current_settings, use_settings
from furu.store.artifact import Status

if TYPE_CHECKING:
    from furu.execution.stream import EventsDropped, EventStream, stream_local
    from furu.planning.summary import Forecast, PlannedNode, PlanSummary, plan_local

__version__ = "0.1.0"

__all__ = [
    "ClassTime",
    "EXEC_CONTEXT",
    "EventStream",
    "EventsDropped",
    "ExecContext",
    "Failure",
    "File",
    "Forecast",
    "Furu",
    "FuruCancelledError",
    "FuruComputeError",
    "FuruCycleError",
    "FuruError",
    "FuruIdentityError",
    "FuruInProgressError",
    "FuruLoadError",
    "FuruMissingArtifactError",
    "FuruResultError",
    "FuruRunningLoopError",
    "FuruSettingsError",
    "FuruSpecMismatchError",
    "FuruStalledError",
    "FuruStoreError",
    "FuruTimeoutError",
    "FuruUsageError",
    "FuruWorkerError",
    "NodeTime",
    "PlanSummary",
    "PlannedNode",
    "Retry",
    "RunReport",
    "Settings",
    "Status",
    "check_cancelled",
    "current_settings",
    "plan_local",
    "register_canonical_form",
    "run_local",
    "run_local_async",
    "stream_local",
    "use_settings",
]

# What few programs need is imported when it is asked for: `import furu` does without.
_ON_DEMAND = {
    **dict.fromkeys(("Forecast", "PlanSummary", "PlannedNode", "plan_local"), "furu.planning.summary"),
    **dict.fromkeys(("EventStream", "EventsDropped", "stream_local"), "furu.execution.stream"),
}


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return getattr(import_module(_ON_DEMAND[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
