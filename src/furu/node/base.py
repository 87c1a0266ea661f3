"""Node, the base class of `Furu`: fields, identity, equality and repr, and facts about each node class."""

from __future__ import annotations

import contextvars
import dataclasses
import inspect
import itertools
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, ClassVar, Generic, Literal, TypeVar

from furu._common.origin import origin
from furu._common.text import shown
from furu.codecs.declared import result_type
from furu.codecs.storable import check_storable
from furu.errors import FuruUsageError
from furu.node.identity import encoded, node_hash
from furu.node.marks import CountingField, counting_name, marks_of
from furu.node.names import Identified, stored_name
from furu.node.readable import readable_fields
from furu.provenance.fingerprint import Provenance, provenance
from furu.retry import Retry
from furu.settings import Settings, current_settings
from furu.store.artifact import Artifact
from furu.store.layout import NodeFiles, class_directory

T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F")

# Whether the repr of a node is being computed in this context.
SHOWING: ContextVar[bool] = ContextVar("furu_showing", default=False)


class Node(Identified, Generic[T_co]):
    """A configuration: a class, its `_version` and its field values. `Furu` adds `get()` and `status()`."""

    _version: ClassVar[int | str] = 0
    _partial: ClassVar[bool] = False
    _name: ClassVar[str | None] = None
    _codec: ClassVar[Literal["json", "pickle"]] = "json"
    _retry: ClassVar[Retry | None] = None
    _timeout_sec: ClassVar[float | None] = None
    _facts: ClassVar[ClassFacts]
    _furu_is_fixed: bool = True  # whether all values in the fields are immutable
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # every subclass is a dataclass

    # ---- what a subclass defines ----

    def _create(self) -> T_co | Awaitable[T_co]:
        """Compute the value. May be an `async def`, which runs on the event loop."""
        raise FuruUsageError(f"{type(self).__qualname__} defines no _create()")

    def _load(self) -> T_co:
        """Read the value from the files that `_create` wrote to `furu_dir`."""
        raise FuruUsageError(f"{type(self).__qualname__} defines no _load()")

    def _validate(self) -> bool:
        """Return whether the published artifact is valid. An invalid artifact counts as missing."""
        return True

    def _dependencies(
        self,
    ) -> Iterable[Node[Any]] | AsyncIterable[Node[Any]] | Awaitable[Iterable[Node[Any]]]:
        """Return nodes that `_create` needs and that are not in fields. Nodes in fields need no mention.

        May be a generator, an `async def`, or an async generator. May call `get()` or `aget()`: if that
        node is not done, this call ends there, and is repeated once the node is done. So it should have no
        side effects, and return the same nodes whenever it sees the same values.
        """
        return ()

    def _executor_spec_key(self) -> str:
        """Return the kind of worker that the node needs. The kind does not count in identity."""
        return "default"

    def _read_input(self) -> T_co:
        """Return the value of an input. An input is never computed or stored, and is always DONE."""
        raise NotImplementedError

    # ---- values ----

    @property
    def furu_hash(self) -> str:
        """The hash of this configuration: 32 hexadecimal digits, the same in every process."""
        return self._furu_hash

    def _artifact(self) -> Artifact:
        """Return the node's place in the current store, for code that inspects a store."""
        return artifact_of(self)

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        return self._furu_hash == other._furu_hash

    def __hash__(self) -> int:
        return int(self._furu_hash[:15], 16)

    def __repr__(self) -> str:
        # Nodes inside a node show only class and hash: in full, a chain of diamonds takes exponential time.
        if SHOWING.get():
            return f"<{type(self).__qualname__} {self._furu_hash[:8]}>"
        return contextvars.copy_context().run(_show, self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _SEALED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        seal(self)  # compute the hash again, because `_version` may differ in this process


def artifact_of(node: Node[Any]) -> Artifact:
    """Return the node's place in the current store."""
    settings, facts = current_settings(), type(node)._facts
    files = NodeFiles(f"{facts.directory(settings)}/{node._furu_hash}")
    return Artifact(settings, files, facts.name, node._furu_hash)


def class_name_of(node: Node[Any]) -> str:
    """Return the full name of the node's class, ``module:Class``."""
    return type(node)._facts.name


def is_input(node: Node[Any]) -> bool:
    """Whether the node is an input, such as a file, which has no artifact."""
    return type(node)._facts.is_input


def is_async(node: Node[Any]) -> bool:
    """Whether `_create` is an `async def`."""
    return type(node)._facts.is_async


def refuse_unstorable(node: Node[Any]) -> None:
    """Raise `FuruUsageError` if nothing can store the results that the node's class declares."""
    type(node)._facts.check_storable()


def retry_of(node: Node[Any]) -> Retry | None:
    """Return the retry policy of the node's class."""
    return node._retry


def may_be_partial(node: Node[Any]) -> bool:
    """Whether the class says that values may be made without nodes that have failed."""
    return type(node)._partial


def timeout_sec_of(node: Node[Any]) -> float | None:
    """Return the time limit for one attempt at the node, in seconds."""
    return node._timeout_sec


def describe(node: Node[Any]) -> str:
    """Return a node's class and fields for messages, in at most 300 characters. Does not raise."""
    try:
        text = repr(node)
    except Exception as error:  # from a `__repr__` of the user's class
        name = f"{type(node).__qualname__} {node._furu_hash[:8]}"
        return f"<{name}, whose __repr__() raised {type(error).__name__}>"
    return text if len(text) <= 300 else f"{text[:297]}..."


def _show(node: Node[Any]) -> str:
    """Return the repr of a node. Must be called in a copy of the context."""
    SHOWING.set(True)
    fields = dataclasses.fields(node)
    parts = [f"{field.name}={shown(getattr(node, field.name, None))}" for field in fields if field.repr]
    return f"{type(node).__qualname__}({', '.join(parts)})"


def configuration(node: Node[Any]) -> dict[str, Any]:
    """Return a node's fields as plain JSON for records. Values of fields with `repr=False` are hidden,
    except for the nodes in them. The path of an input file is relative to its project."""
    facts = type(node)._facts
    config = readable_fields(node, facts.field_names, facts.hidden_names)
    return {**config, "path": node._furu_path} if node._furu_path else config


# The attributes that `seal` sets.
_SEALED = ("_furu_hash", "_furu_is_fixed")


def seal(node: Node[Any]) -> None:
    """Compute and set the hash of a new node. Raises `FuruIdentityError`."""
    own = vars(node)
    own["_furu_hash"], is_fixed = hash_of(node)
    if not is_fixed:
        own["_furu_is_fixed"] = False


def is_changed(node: Node[Any]) -> bool:
    """Whether a list, dict or other value in a node was modified after the node was created."""
    return not node._furu_is_fixed and hash_of(node)[0] != node._furu_hash


def hash_of(node: Node[Any]) -> tuple[str, bool]:
    """Return the hash of a node's current values, and whether all these values are immutable."""
    cls = type(node)
    return node_hash(node, cls._version, cls._facts.identity_fields)


def overrides(cls: type[Node[Any]], name: str) -> bool:
    """Whether a class overrides the hook `name`."""
    return getattr(cls, name) is not getattr(Node, name)


class _once(Generic[F]):  # noqa: N801  # used like a property
    """A property that is computed once. `functools.cached_property` is not used, because in Python 3.11 it
    takes a lock, and a fork while another thread holds the lock leaves it locked in the child."""

    def __init__(self, work: Callable[[Any], F]) -> None:
        self._work = work

    def __get__(self, facts: Any, owner: type) -> F:
        value = vars(facts)[self._work.__name__] = self._work(facts)
        return value


_numbers = itertools.count()


class ClassFacts:
    """Facts about a class that are computed once."""

    def __init__(
        self,
        cls: type[Node[Any]],
        local_names: Mapping[str, Any],
        normalised: Callable[[str, Any], Any],
    ) -> None:
        fields = dataclasses.fields(cls)
        self.field_names = tuple(field.name for field in fields)
        self.hidden_names = tuple(field.name for field in fields if not field.repr)
        self.secret_names = frozenset(field.name for field in fields if marks_of(field).secret)
        # Names for the annotations of a class in a function, and how a field's value is normalised.
        self.local_names = local_names
        self.normalised = normalised
        self.fields = cls.__dataclass_fields__  # a second @dataclass would replace the class's fields
        self.origin = origin(cls)
        self.made_at = time.time()
        self.number = next(_numbers)  # a class that is defined later has a greater one
        # The settings whose store was checked for artifacts of another script, and the source file, other
        # than the class's own, whose artifacts were accepted last.
        self.checked: Settings | None = None
        self.accepted: str | None = None
        # Whether loaded values are worth keeping in memory; None if that is not known yet. See `cache.py`.
        self.is_cached: bool | None = None
        self.small_values = 0
        # Whether interactive code was told that other code made an artifact of the class.
        self.is_compared = False
        self._cls = cls
        self._directory: tuple[Settings, str] | None = None
        self._is_storable = False
        self._provenance: Provenance | None = None

    def directory(self, settings: Settings) -> str:
        """Return the directory of the class's nodes in a store. The directory for the last settings is
        cached, because each node needs it several times."""
        known = self._directory
        if known is None or known[0] is not settings:
            module, _, qualname = self.name.partition(":")
            known = self._directory = settings, class_directory(settings.store, module, qualname)
        return known[1]

    @property
    def is_used(self) -> bool:
        """Whether any code has looked for nodes of the class in a store."""
        return self._directory is not None

    @_once
    def identity_fields(self) -> tuple[CountingField, ...]:
        """The fields that count in the hash, sorted by the names that count."""
        fields = [field for field in dataclasses.fields(self._cls) if field.compare]
        return tuple(sorted((self._counting(field) for field in fields), key=lambda field: field.counts_as))

    def _counting(self, field: dataclasses.Field[Any]) -> CountingField:
        left_out = encoded(self.default(field)) if marks_of(field).added else None
        return CountingField(counting_name(field), field.name, left_out)

    def default(self, field: dataclasses.Field[Any]) -> Any:
        """Return the normalised default of a field that has one."""
        made: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            made = field.default_factory()
        return self.normalised(field.name, made)

    @_once
    def name(self) -> str:
        """The full name of the class, as it is stored in records."""
        return stored_name(self._cls)

    @property
    def provenance(self) -> Provenance:
        """What makes the class's artifacts. The first use reads source files, and takes milliseconds. In a
        notebook, it may change with each cell."""
        known = self._provenance
        if known is None or not self.origin.file:
            made_by = provenance(self._cls, self.origin, self.made_at)
            known = self._provenance = dataclasses.replace(made_by, version=self._cls._version)
        return known

    @_once
    def is_input(self) -> bool:
        """Whether nodes of the class are inputs, such as files."""
        return overrides(self._cls, "_read_input")

    @_once
    def is_async(self) -> bool:
        """Whether `_create` is an `async def`."""
        return inspect.iscoroutinefunction(self._cls._create)

    def check_storable(self) -> None:
        """Raise `FuruUsageError` if results of the declared type cannot be stored."""
        if not self._is_storable:
            if self._cls._codec == "json" and not overrides(self._cls, "_load"):
                check_storable(self._cls.__qualname__, self.result_type)
            self._is_storable = True

    @_once
    def result_type(self) -> Any:
        """The `T` of `Node[T]`. Evaluated late, because it may name a class that is defined later."""
        return result_type(self._cls, Node, self.local_names)
