"""The errors that furu raises. Holds data and words; decides nothing.

    FuruError
    ├── FuruUsageError (TypeError)        a call or a class that cannot work as written
    │   └── FuruIdentityError             a field value without a canonical form
    ├── FuruSettingsError (ValueError)    a setting that it cannot have
    ├── FuruRunningLoopError (RuntimeError)   a blocking call on a running event loop
    ├── FuruCycleError                    nodes that depend on each other in a circle
    ├── FuruMissingArtifactError          `.get()` of a node that has not been computed
    ├── FuruSpecMismatchError             `.get(force=True)` on a worker of another kind
    ├── FuruInProgressError               another owner is computing the node
    ├── FuruResultError                   `_create` returned what cannot be stored
    ├── FuruStoreError                    the store, or a file in it, cannot be used
    │   └── FuruLoadError                 an artifact exists but cannot be read back
    ├── FuruTimeoutError (TimeoutError)   a node took longer than its class allows
    ├── FuruWorkerError                   the process that computed a node died
    ├── FuruCancelledError                a node ends early, because its run was cancelled
    ├── FuruComputeError                  a node failed
    └── FuruStalledError                  the scheduler has nothing left to do and is not done

Every error carries its data as attributes and survives pickling: the message is the only positional
argument, everything else has a default and travels in the instance's `__dict__`.
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
    """Base of every error that furu raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class FuruUsageError(FuruError, TypeError):
    """A call or a class definition that cannot work as written; the message names the right one."""


class FuruIdentityError(FuruUsageError):
    """A field value has no canonical form, so the node cannot have a hash.

    `field_path` is where the value stands, such as ``TrainModel.optimizer.schedule[2]``.
    """

    def __init__(self, message: str, *, field_path: str = "") -> None:
        super().__init__(message)
        self.field_path = field_path


class FuruSettingsError(FuruError, ValueError):
    """A setting has a value that it cannot have; the message says what is allowed."""


class FuruRunningLoopError(FuruError, RuntimeError):
    """A blocking call was made on a thread whose event loop is running."""


class FuruCycleError(FuruError):
    """Nodes depend on each other in a circle; `cycle` lists them, the first one again at the end."""

    def __init__(self, message: str, *, cycle: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.cycle = tuple(cycle)


class FuruMissingArtifactError(FuruError):
    """A node's artifact was asked for where it may only be loaded, and there is none.

    `node` is the node without an artifact, `asked_by` the node whose `_create` asked for it.
    """

    def __init__(self, message: str, *, node: Any = None, asked_by: Any = None) -> None:
        super().__init__(message)
        self.node = node
        self.asked_by = asked_by


class FuruSpecMismatchError(FuruError):
    """A worker was asked to compute a node that needs another kind of worker."""

    def __init__(
        self, message: str, *, node: Any = None, spec_key: str = "", worker_spec_key: str = ""
    ) -> None:
        super().__init__(message)
        self.node = node
        self.spec_key = spec_key
        self.worker_spec_key = worker_spec_key


class FuruInProgressError(FuruError):
    """Another owner, alive, is computing the node; `owner` says which, for people to read."""

    def __init__(
        self, message: str, *, node_dir: Path | None = None, attempt: int = 0, owner: str = ""
    ) -> None:
        super().__init__(message)
        self.node_dir = node_dir
        self.attempt = attempt
        self.owner = owner


class FuruResultError(FuruError):
    """`_create` returned a value that cannot be stored as the class declares it."""

    def __init__(self, message: str, *, node: Any = None) -> None:
        super().__init__(message)
        self.node = node


class FuruStoreError(FuruError):
    """The store, or a file in it, cannot be used; `path` is the file or directory."""

    def __init__(self, message: str, *, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class FuruLoadError(FuruStoreError):
    """A node's artifact exists but cannot be read back; it is never recomputed behind your back."""

    def __init__(self, message: str, *, path: Path | None = None, node: Any = None) -> None:
        super().__init__(message, path=path)
        self.node = node


class FuruTimeoutError(FuruError, TimeoutError):
    """A node took longer than the `_timeout_sec` of its class."""

    def __init__(self, message: str, *, node: Any = None, timeout_sec: float = 0.0) -> None:
        super().__init__(message)
        self.node = node
        self.timeout_sec = timeout_sec


class FuruWorkerError(FuruError):
    """The process that computed a node died: killed, out of memory, or by `os._exit`.

    `exit_code` is its exit code, negative for a signal; None where it is not known.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class FuruCancelledError(FuruError):
    """Raised by `check_cancelled()` in a node whose run was cancelled: let it pass."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One node that failed.

    `error` is what the node raised (None where only a record of an earlier run is left), `state_path`
    the file in the store that holds the traceback.
    """

    node: Any
    error: BaseException | None
    state_path: Path | None
    message: str


class FuruComputeError(FuruError):
    """A node failed, and with it the run or the `get()` that needed it.

    The original is `__cause__`. `node` is the node that failed, `state_path` the file in the store
    that holds its traceback, `failures` every failure of the run (this one first), `report` the run's
    counts (None outside a run).
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
    """The scheduler cannot go on and is not done. This is a bug in furu: report `state`."""

    def __init__(self, message: str, *, state: str = "") -> None:
        super().__init__(message)
        self.state = state
