"""Furu: a computation as a small frozen class."""

from __future__ import annotations

import dataclasses
import functools
import logging
import signal
import threading
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from furu._common.logs import NodeLogger
from furu.errors import FuruUsageError
from furu.node.base import ClassFacts, Node, artifact_of, seal
from furu.node.class_settings import check_class_settings
from furu.node.fetch import afetch, fetch
from furu.node.load import exists, status
from furu.node.shapes import builtin_base
from furu.store.artifact import Artifact, Status, survey
from furu.store.attempt import Attempt, running_attempt

__all__ = ["Furu"]

T = TypeVar("T")


@dataclass_transform(
    eq_default=False,
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(dataclasses.field,),
)
class Furu(Node[T]):
    """A cached computation of a `T`. Subclass it; the subclass is a frozen, keyword-only dataclass.

    A node is one configuration: a class, its `_version` and its field values. Equal configurations have
    the same `furu_hash` and share one artifact on disk. Nodes inside field values are its dependencies.
    A field made with `dataclasses.field(compare=False)` does not count, and neither does any attribute that
    is not a field: keep only what follows from the fields there, such as a `functools.cached_property`.

    Define `_create`, which computes the value and may write files under `furu_dir`. The value is stored
    as typed JSON unless the class defines `_load` too, or sets `_codec = "pickle"`.

    In a run, `_retry = Retry(...)` has a node that failed tried again, and `_timeout_sec` limits how long
    one attempt may take: an async node is cancelled, a process stopped; of a thread, which cannot be
    stopped, the overrun is reported, and `check_cancelled()` raises in it. Neither is part of identity.

    Raises `FuruIdentityError` at construction for a field value without a canonical form.

    >>> class Square(Furu[int]):
    ...     of: int
    ...     def _create(self) -> int:
    ...         return self.of ** 2
    >>> Square(of=7)
    Square(of=7)
    """

    def __init__(self) -> None:
        raise FuruUsageError("Furu is the base of computations, not one itself: subclass it")

    # ---- what users call ----

    @property
    def furu_dir(self) -> Path:
        """The directory of the node's files.

        Inside `_create`: the running attempt's own, made on first use. Once published: the published
        attempt's. Before that: the last attempt's. Where no attempt has asked for one, it does not exist.

        A process that the node starts by other means than a fork gets the path from the node: ask for it in
        `_create` first, and pass it on.
        """
        artifact = artifact_of(self)
        attempt = _attempt_at(artifact)
        if attempt is not None:
            return Path(attempt.files_directory())
        record = artifact.read()
        if record is not None:
            return Path(artifact.files.directory, record.files or f"a{record.attempt}")
        found = survey(artifact)
        files = artifact.files_directory(found.attempt) if found.attempt else None
        return Path(files or f"{artifact.files.directory}/a{max(found.attempt, 1)}")

    @property
    def logger(self) -> logging.Logger:
        """A logger that writes to the running attempt's log file and passes on to the host's logging.

        The file is `furu.log` in `furu_dir` and gets every level; the host's logger, called
        ``furu.node.<module>.<Class>``, gets what its own level lets through.
        """
        artifact = artifact_of(self)

        def write_line() -> Any:
            attempt = _attempt_at(artifact)
            return attempt.log if attempt is not None else None

        cls = type(self)
        return NodeLogger(f"furu.node.{cls.__module__}.{cls.__qualname__}", write_line)

    def exists(self) -> bool:
        """Whether the artifact is published and, if the class defines `_validate`, valid."""
        return exists(self)

    def status(self) -> Status:
        """Return what the store says of this node: TODO, IN_PROGRESS, DONE or FAILED."""
        return status(self)

    def get(self, force: bool = False) -> T:
        """Return the value: load it, or compute it where that is allowed.

        In a user's own code a missing node is computed on the spot, after its missing declared
        dependencies, one after another in this thread. Inside a worker a missing node is an error,
        except that `force=True` computes the one node that the worker was given.

        Raises `FuruComputeError` if a node fails, `FuruMissingArtifactError` or
        `FuruSpecMismatchError` inside a worker, `FuruLoadError` if the artifact cannot be read back.
        """
        return fetch(self, force).value

    async def aget(self, force: bool = False) -> T:
        """`get()` for async code: computing and reading happen off the event loop, async nodes on it."""
        return (await afetch(self, force)).value

    @staticmethod
    def _setup_signal_handlers() -> None:
        """Let SIGTERM end a run as Ctrl-C does. For a program's own main thread; elsewhere nothing."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_bases(cls)
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)
        # Furu's own do the same. Left here, they would make a needless @dataclass fail without a reason.
        del cls.__setattr__, cls.__delattr__
        cls._facts = ClassFacts(cls)
        for name in cls._facts.field_names:
            if name in _RESERVED:
                raise FuruUsageError(
                    f"the field {cls.__qualname__}.{name} hides Furu's own {name}. Use another name; "
                    f"a setting of the class is written without a type: {name} = ..."
                )
        check_class_settings(cls)
        cls.__init__ = _sealing(cls.__init__)  # type: ignore[method-assign]


def _interrupt(*_: object) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup, where SIGTERM is to work
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _attempt_at(artifact: Artifact) -> Attempt | None:
    """Return the attempt that runs here at a node, also in a fork of it, until the node is published."""
    attempt = running_attempt(artifact)
    if attempt is not None and not attempt.is_of_this_process and artifact.is_done():
        return None
    return attempt


def _sealing(init: Any) -> Any:
    @functools.wraps(init)
    def sealed(self: Furu[Any], *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        # A base's constructor, called by one of the class's own, leaves the node unfinished.
        cls = type(self)
        if cls.__init__ is sealed:
            if cls.__dataclass_fields__ is not cls._facts.fields:
                raise _decorated(cls)
            seal(self)

    return sealed


def _check_bases(cls: type[Furu[Any]]) -> None:
    if vars(cls).get("__slots__"):
        raise FuruUsageError(
            f"{cls.__qualname__} has slots, which a node cannot have. Remove __slots__, or "
            "@dataclass(slots=True)."
        )
    builtin = builtin_base(cls)
    if builtin is not None:
        raise FuruUsageError(
            f"{cls.__qualname__} is a {builtin.__name__} too, and what it holds as one would not count in "
            f"its hash. Give it a field that holds a {builtin.__name__} instead."
        )
    for base in cls.__bases__:
        facts = vars(base).get("_facts")
        if facts is not None and vars(base)["__dataclass_fields__"] is not facts.fields:
            raise _decorated(base)


def _decorated(cls: type[Furu[Any]]) -> FuruUsageError:
    return FuruUsageError(
        f"{cls.__qualname__} is decorated with @dataclass, which is not needed: a subclass of Furu is a "
        "frozen, keyword-only dataclass already. Remove the decorator."
    )


# Annotated or not, these names are Furu's own: a field of that name would hide them.
_RESERVED = frozenset({"_furu_hash", *(name for name in dir(Furu) if not name.startswith("__"))})
