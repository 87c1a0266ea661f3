"""furu runs graphs of cached computations: what is missing, in dependency order, in parallel, once.

The names here are the public ones, with those of `furu.execution`. Start with `Furu` and `run_local`.
"""

from furu.context import EXEC_CONTEXT, ExecContext, check_cancelled
from furu.core import Furu
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
from furu.execution.local import plan_local, run_local, run_local_async
from furu.execution.plan_summary import Forecast, PlannedNode, PlanSummary
from furu.execution.report import ClassTime, NodeTime, RunReport
from furu.execution.stream import EventsDropped, EventStream, stream_local
from furu.file import File
from furu.identity import register_canonical_form
from furu.retry import Retry
from furu.settings import Settings, current_settings, use_settings
from furu.store.artifact import Status

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
