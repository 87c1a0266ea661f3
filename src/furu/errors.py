"""The errors that furu raises.

    FuruError
    ├── FuruUsageError (TypeError)        wrong use of a call or a class
    │   └── FuruIdentityError             a field value has no canonical form
    ├── FuruSettingsError (ValueError)    a setting has a wrong value
    ├── FuruRunningLoopError (RuntimeError)   a blocking call while an event loop is running
    ├── FuruCycleError                    nodes depend on each other in a cycle
    ├── FuruMissingArtifactError          `.get()` of a node that has not been computed
    ├── FuruSpecMismatchError             `.get(force=True)` on the wrong kind of worker
    ├── FuruInProgressError               another owner is computing the node
    ├── FuruResultError                   the value that `_create` returned cannot be stored
    ├── FuruStoreError                    the store, or a file in it, cannot be used
    │   └── FuruLoadError                 an artifact exists but cannot be read back
    ├── FuruTimeoutError (TimeoutError)   a node exceeded the time limit of its class
    ├── FuruWorkerError                   the process that computed a node died
    ├── FuruCancelledError                a node ends early because its run was cancelled
    ├── FuruComputeError                  a node failed
    └── FuruStalledError                  the scheduler cannot go on; a bug in furu

Errors carry data as attributes and survive pickling: the message is the only positional argument, all other
arguments have defaults and are stored in the instance's `__dict__`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Failure",
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
]


class FuruError(Exception):
    """Base class of all errors of furu."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class FuruUsageError(FuruError, TypeError):
    """A call or a class definition is wrong; the message says what is right."""


class FuruIdentityError(FuruUsageError):
    """A field value has no canonical form, so the node cannot have a hash.

    `field_path` is the place of the value, such as ``TrainModel.optimizer.schedule[2]``.
    """

    def __init__(self, message: str, *, field_path: str = "") -> None:
        super().__init__(message)
        self.field_path = field_path


class FuruSettingsError(FuruError, ValueError):
    """A setting has a wrong value; the message says what is allowed."""


class FuruRunningLoopError(FuruError, RuntimeError):
    """A blocking call was made in a thread whose event loop is running."""


class FuruCycleError(FuruError):
    """Nodes depend on each other in a cycle. `cycle` lists them, and repeats the first one at the end."""

    def __init__(self, message: str, *, cycle: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.cycle = tuple(cycle)


class FuruMissingArtifactError(FuruError):
    """A node has no artifact, and may not be computed here.

    `node` is the node without an artifact, `asked_by` the node whose `_create` asked for it.
    """

    def __init__(self, message: str, *, node: Any = None, asked_by: Any = None) -> None:
        super().__init__(message)
        self.node = node
        self.asked_by = asked_by


class FuruSpecMismatchError(FuruError):
    """A node cannot be computed by this worker, because it needs another kind of worker."""

    def __init__(
        self, message: str, *, node: Any = None, spec_key: str = "", worker_spec_key: str = ""
    ) -> None:
        super().__init__(message)
        self.node = node
        self.spec_key = spec_key
        self.worker_spec_key = worker_spec_key


class FuruInProgressError(FuruError):
    """Another live owner is computing the node. `owner` describes it for people."""

    def __init__(
        self, message: str, *, state_path: Path | None = None, attempt: int = 0, owner: str = ""
    ) -> None:
        super().__init__(message)
        self.state_path = state_path
        self.attempt = attempt
        self.owner = owner


class FuruResultError(FuruError):
    """The value returned by `_create` cannot be stored as the type that the class declares."""

    def __init__(self, message: str, *, node: Any = None) -> None:
        super().__init__(message)
        self.node = node


class FuruStoreError(FuruError):
    """The store, or a file in it, cannot be used. `path` is the file or directory."""

    def __init__(self, message: str, *, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class FuruLoadError(FuruStoreError):
    """A node's artifact exists but cannot be read back. It is not computed again automatically."""

    def __init__(self, message: str, *, path: Path | None = None, node: Any = None) -> None:
        super().__init__(message, path=path)
        self.node = node


class FuruTimeoutError(FuruError, TimeoutError):
    """A node exceeded the `_timeout_sec` of its class."""

    def __init__(self, message: str, *, node: Any = None, timeout_sec: float = 0.0) -> None:
        super().__init__(message)
        self.node = node
        self.timeout_sec = timeout_sec


class FuruWorkerError(FuruError):
    """The process that computed a node died: it was killed, ran out of memory, or called `os._exit`.

    `exit_code` is its exit code, negative for a signal; None if it is unknown.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class FuruCancelledError(FuruError):
    """Raised by `check_cancelled()` in a node whose run was cancelled. Do not catch it in the node."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One node that failed.

    `error` is the exception that the node raised (None if only the record of an earlier run is left),
    `state_path` the file in the store that holds the traceback.
    """

    node: Any
    error: BaseException | None
    state_path: Path | None
    message: str


class FuruComputeError(FuruError):
    """A node failed, and so did the run or the `get()` that needed it.

    The original exception is `__cause__`. `node` is the node that failed, `state_path` the file in the
    store that holds its traceback, `failures` all failures of the run (this one first), `report` the report
    of the run (None outside a run).
    """

    def __init__(
        self,
        message: str,
        *,
        node: Any = None,
        state_path: Path | None = None,
        failures: Sequence[Failure] = (),
        report: Any = None,
    ) -> None:
        super().__init__(message)
        self.node = node
        self.state_path = state_path
        self.failures = tuple(failures)
        self.report = report


class FuruStalledError(FuruError):
    """The scheduler cannot go on, but is not done. This is a bug in furu: please report `state`."""

    def __init__(self, message: str, *, state: str = "") -> None:
        super().__init__(message)
        self.state = state
