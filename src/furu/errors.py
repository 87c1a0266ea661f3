"""The errors that furu raises.

    FuruError
    ├── FuruUsageError (TypeError)        a call or a class definition is wrong
    │   ├── FuruFieldError                a field value does not fit its declared type
    │   └── FuruIdentityError             a field value has no canonical form
    ├── FuruSettingsError (ValueError)    a setting has a wrong value
    ├── FuruRunningLoopError (RuntimeError)   a blocking call while an event loop is running
    ├── FuruCycleError                    nodes depend on each other in a cycle
    ├── FuruMissingArtifactError          a node has no artifact and may not be computed here
    ├── FuruSpecMismatchError             a node needs another kind of worker
    ├── FuruInProgressError               another owner is computing the node
    ├── FuruResultError                   the value that `_create` returned cannot be stored
    ├── FuruStoreError                    the store, or a file in it, cannot be used
    │   └── FuruLoadError                 an artifact exists but cannot be read back
    ├── FuruTimeoutError (TimeoutError)   a node exceeded the time limit of its class
    ├── FuruWorkerError                   the process that computed a node died
    ├── FuruCancelledError                a node stops early because its run was cancelled
    ├── FuruComputeError                  a node failed
    └── FuruStalledError                  the scheduler cannot continue: a bug in furu

Errors carry data as attributes and can be pickled: the message is the only positional argument, and all
other arguments have defaults and are stored in the instance's `__dict__`.
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
    "FuruFieldError",
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
    """Base class of all furu errors."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class FuruUsageError(FuruError, TypeError):
    """A call or a class definition is wrong. The message says how to correct it."""


class FuruFieldError(FuruUsageError):
    """A field was given a value that does not fit its declared type.

    `field_path` is the path to the value, such as ``TrainModel.sizes[1]``, and `declared` the declared type
    of the field as text.
    """

    def __init__(self, message: str, *, field_path: str = "", declared: str = "") -> None:
        super().__init__(message)
        self.field_path = field_path
        self.declared = declared


class FuruIdentityError(FuruUsageError):
    """A field value has no canonical form, so the node cannot have a hash.

    `field_path` is the path to the value, such as ``TrainModel.optimizer.schedule[2]``.
    """

    def __init__(self, message: str, *, field_path: str = "") -> None:
        super().__init__(message)
        self.field_path = field_path


class FuruSettingsError(FuruError, ValueError):
    """A setting has a wrong value. The message says which values are allowed."""


class FuruRunningLoopError(FuruError, RuntimeError):
    """A blocking call was made in a thread whose event loop is running."""


class FuruCycleError(FuruError):
    """Nodes depend on each other in a cycle. `cycle` lists the nodes, then the first one again."""

    def __init__(self, message: str, *, cycle: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.cycle = tuple(cycle)


class FuruMissingArtifactError(FuruError):
    """A node has no artifact and may not be computed here.

    `node` is the node without an artifact. `asked_by` is the node whose `_create` called `get()` for it.
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
    """Another live owner is computing the node. `owner` describes that owner for people."""

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
    """A node's artifact exists but cannot be read back. The node is not computed again automatically."""

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

    `exit_code` is the process's exit code: negative if a signal killed the process, None if unknown.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class FuruCancelledError(FuruError):
    """Raised by `check_cancelled()` in a node whose run was cancelled. Do not catch it in `_create`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed node.

    `error` is the exception that the node raised, or None if the node failed in an earlier run and only its
    record is left. `state_path` is the file in the store that contains the traceback, or the path of the
    artifact if no attempt was recorded.
    """

    node: Any
    error: BaseException | None
    state_path: Path | None
    message: str


class FuruComputeError(FuruError):
    """A node failed, so the run or the `get()` that needed the node failed too.

    `__cause__` is the original exception. `node` is the node that failed, and `state_path` is the file in
    the store that contains the traceback, or the path of the artifact if no attempt was recorded.
    `failures` lists all failures of the run, this one first. `report` is the report of the run, or None
    outside a run.
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
    """The scheduler has work left but cannot continue. This is a bug in furu: please report `state`."""

    def __init__(self, message: str, *, state: str = "") -> None:
        super().__init__(message)
        self.state = state
