"""Furu: a cached computation as a frozen dataclass."""

from __future__ import annotations

import dataclasses
import functools
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TypeVar, dataclass_transform

from furu._common.annotations import local_names
from furu._common.logs import NodeLogger
from furu._common.shapes import builtin_base
from furu.errors import FuruUsageError
from furu.node.base import ClassFacts, Node, artifact_of, seal
from furu.node.changes import warn_if_redefined
from furu.node.class_settings import check_class_settings
from furu.node.fetch import afetch, fetch
from furu.node.fields import FieldChecks
from furu.node.load import exists, status
from furu.node.marks import counting_name, field
from furu.node.removal import forget
from furu.store.artifact import Artifact, Status, survey
from furu.store.attempt import Attempt, running_attempt

__all__ = ["Furu"]

T_co = TypeVar("T_co", covariant=True)


@dataclass_transform(
    eq_default=False,
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(dataclasses.field, field),
)
class Furu(Node[T_co]):
    """A cached computation of a value of type `T`. A subclass is a frozen, keyword-only dataclass.

    A node is one configuration: a class, its `_version` and its field values. Equal configurations have the
    same `furu_hash` and share one artifact on disk. Nodes inside field values are dependencies. Fields made
    with `dataclasses.field(compare=False)` do not count in the hash. Attributes that are not fields do not
    count either, so compute them from the fields, for example with `functools.cached_property`.

    Define `_create`, which computes the value and may write files to `furu_dir`. The value is stored as
    typed JSON unless the class defines `_load`, or sets `_codec = "pickle"`.

    In a run, `_retry = Retry(...)` retries failed nodes, and `_timeout_sec` limits the duration of one
    attempt: an async node is cancelled, and a worker process is killed. A thread cannot be stopped; the
    overrun is reported, and `check_cancelled()` raises an error. Neither setting counts in the hash.

    Creating a node raises `FuruIdentityError` if a field value has no canonical form.

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

        Inside `_create` this is the directory of the running attempt, which is created on first use.
        Elsewhere it is the directory of the published attempt, or else of the last attempt. The directory
        does not exist if the attempt did not use it.

        In a process that the node starts without a fork, this property does not find the running attempt:
        read the property in `_create`, and pass the path to the process.
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
    def checkpoint_dir(self) -> Path:
        """A directory for what a long `_create` keeps, so that the next attempt goes on from there.

        Inside `_create` it is created on first use. It outlives attempts that fail, are cancelled or are
        killed, and is removed when the node is published, so nothing in it can be part of the result.
        furu does not look into it: write each file whole, under another name, and rename it, because an
        attempt may be killed at any moment. Elsewhere this is the path that the next attempt will use,
        whether or not it exists.

        >>> class Train(Furu[int]):
        ...     epochs: int
        ...     def _create(self) -> int:
        ...         saved = self.checkpoint_dir / "epoch"
        ...         first = int(saved.read_text()) if saved.exists() else 0
        ...         for epoch in range(first, self.epochs):
        ...             new = saved.with_suffix(".new")
        ...             new.write_text(str(epoch + 1))
        ...             new.replace(saved)
        ...         return self.epochs
        >>> Train(epochs=3).get()
        3
        """
        artifact = artifact_of(self)
        attempt = _attempt_at(artifact)
        return Path(attempt.checkpoint_directory() if attempt else artifact.files.checkpoint(None))

    @property
    def logger(self) -> logging.Logger:
        """A logger that writes to the running attempt's log, and to the logging of the host program.

        The attempt's log is `furu.log` in `furu_dir`. It receives records of every level. The host's logger
        ``furu.node.<module>.<Class>`` receives the records that its own level allows.
        """
        artifact = artifact_of(self)

        def write_line() -> Any:
            attempt = _attempt_at(artifact)
            return attempt.log if attempt is not None else None

        cls = type(self)
        return NodeLogger(f"furu.node.{cls.__module__}.{cls.__qualname__}", write_line)

    def exists(self) -> bool:
        """Whether the artifact is published, and accepted by `_validate` if the class defines it."""
        return exists(self)

    def status(self) -> Status:
        """Return the status of this node in the store: TODO, IN_PROGRESS, DONE or FAILED."""
        return status(self)

    def forget(self) -> bool:
        """Remove this node's artifact, its attempts and their files from the store, so that it counts as
        never computed. Artifacts of other nodes stay, also of nodes that depend on it.

        Returns False if there was nothing to remove. Raises `FuruInProgressError` if the node is being
        computed, and `FuruStoreError` if the store cannot be written. To compute a node again, and keep the
        old value until there is a new one, pass `again` to `run_local`.
        """
        return forget(self)

    def get(self, force: bool = False) -> T_co:
        """Return the value: load it, or compute it if the context allows that.

        In interactive code a missing node is computed at once in this thread, after its missing
        dependencies. Inside a node that a run computes, a missing node is an error. `force=True` computes
        the node that a worker was given; only runs use it.

        Raises `FuruComputeError` if a node fails, `FuruMissingArtifactError` or `FuruSpecMismatchError`
        inside a worker, `FuruLoadError` if the artifact cannot be read back.
        """
        return fetch(self, force).value

    async def aget(self, force: bool = False) -> T_co:
        """Like `get()`, for async code. Async nodes run on the event loop, all other code in threads."""
        return (await afetch(self, force)).value

    @classmethod
    def stored(cls, **where: Any) -> Iterator[tuple[Self | dict[str, Any], T_co]]:
        """Yield each stored node of this class and its value, in the order of the hashes.

        With `where`, yields only nodes whose fields have these values: ``Train.stored(rate=0.1)``. Values
        are loaded one at a time, and nothing is computed. A node is made from its recorded configuration.
        If that does not give a node with the recorded hash, as after a change of the class's fields, the
        configuration itself is yielded: a dict, with nodes as ``{"node": class, "hash": hash}``.

        Artifacts that cannot be read are left out, and a warning at the end names them.

        Raises `FuruUsageError` if the class has no field in `where`, and `FuruStoreError` if the store
        cannot be listed.

        >>> class Square(Furu[int]):
        ...     of: int
        ...     def _create(self) -> int:
        ...         return self.of ** 2
        >>> Square(of=4).get()
        16
        >>> list(Square.stored(of=4))
        [(Square(of=4), 16)]
        """
        from furu.node.results import stored  # few programs need it, and `import furu` should be fast

        return stored(cls, where)

    @staticmethod
    def _setup_signal_handlers() -> None:
        """Make SIGTERM stop a run like Ctrl-C. Does nothing outside the main thread."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_bases(cls)
        has_own_init = "__init__" in vars(cls)
        annotations = vars(cls).get("__annotations__", {}).values()
        declared = [*annotations, *vars(cls).get("__orig_bases__", ())]
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)
        # `Node` has equivalent methods. If these stayed, an unneeded @dataclass on the class would fail
        # with an unclear message.
        del cls.__setattr__, cls.__delattr__
        local = local_names(cls, declared)
        checks = FieldChecks(cls, local, has_own_init=has_own_init)
        cls._facts = ClassFacts(cls, local, checks.normalised)
        _check_fields(cls)
        check_class_settings(cls)
        warn_if_redefined(cls)
        cls.__init__ = _sealing(cls.__init__, checks)  # type: ignore[method-assign]


def _interrupt(*_: object) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup; SIGTERM must still work
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _attempt_at(artifact: Artifact) -> Attempt | None:
    """Return the running attempt at a node. A child that the node forked sees the attempt too, until the
    node is published."""
    attempt = running_attempt(artifact)
    if attempt is not None and not attempt.is_of_this_process and artifact.is_done():
        return None
    return attempt


def _sealing(init: Any, checks: FieldChecks) -> Any:
    @functools.wraps(init)
    def sealed(self: Furu[Any], *args: Any, **kwargs: Any) -> None:
        cls = type(self)
        if cls.__init__ is not sealed:  # the constructor of a base class: the class's own seals the node
            init(self, *args, **kwargs)
            return
        if cls.__dataclass_fields__ is not cls._facts.fields:
            raise _decorated(cls)
        checks.before(kwargs)
        init(self, *args, **kwargs)
        checks.after(vars(self), kwargs)
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
            f"{cls.__qualname__} is also a {builtin.__name__}, whose content would not count in its hash. "
            f"Give it a field that holds a {builtin.__name__} instead."
        )
    for base in cls.__bases__:
        facts = vars(base).get("_facts")
        if facts is not None and vars(base)["__dataclass_fields__"] is not facts.fields:
            raise _decorated(base)


def _check_fields(cls: type[Furu[Any]]) -> None:
    counting: dict[str, str] = {}
    for declared in dataclasses.fields(cls):
        name = declared.name
        if name in _RESERVED:
            raise FuruUsageError(
                f"the field {cls.__qualname__}.{name} hides Furu's own {name}. Use another name; "
                f"a setting of the class is written without a type: {name} = ..."
            )
        if declared.compare:
            other = counting.setdefault(counting_name(declared), name)
            if other != name:
                raise FuruUsageError(
                    f"the fields {other} and {name} of {cls.__qualname__} both count in the hash as "
                    f"{counting_name(declared)}. Give one of them another known_as."
                )


def _decorated(cls: type[Furu[Any]]) -> FuruUsageError:
    return FuruUsageError(
        f"{cls.__qualname__} is decorated with @dataclass, which is not needed: a subclass of Furu is a "
        "frozen, keyword-only dataclass already. Remove the decorator."
    )


# A field with one of these names would hide an attribute of Furu.
_RESERVED = frozenset({"_furu_hash", *(name for name in dir(Furu) if not name.startswith("__"))})
