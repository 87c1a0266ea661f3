"""Values of stored nodes: those of a class, and those that are named by a hash."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

import furu.store.catalog as catalog
from furu._common.text import printable
from furu.errors import FuruError, FuruStoreError, FuruUsageError
from furu.node.base import Node, overrides
from furu.node.identity import encoded
from furu.node.load import decode, is_rejected, refuse_other_script
from furu.node.marks import counting_name, marks_of
from furu.node.readable import HIDDEN, readable
from furu.node.rebuild import Rebuilder, living_classes, recorded
from furu.settings import current_settings
from furu.store.artifact import Artifact
from furu.store.record import DoneRecord
from furu.store.references import same_value
from furu.store.table import Table, read_table

__all__ = ["load", "stored", "table"]

T = TypeVar("T")
N = TypeVar("N", bound=Node[Any])

# A warning names at most this many nodes.
_NAMED_PROBLEMS = 5


def stored(cls: type[N], where: Mapping[str, Any]) -> Iterator[tuple[N | dict[str, Any], Any]]:
    """Return an iterator over the stored nodes of a class and their values. See `Furu.stored`."""
    if "_facts" not in vars(cls):
        raise FuruUsageError(f"{cls.__qualname__} has no nodes: call stored() of a subclass")
    return _read_stored(cls, _matcher(cls, where))


def _read_stored(
    cls: type[N], matches: Callable[[Mapping[str, Any], Node[Any] | None], bool]
) -> Iterator[tuple[N | dict[str, Any], Any]]:
    settings, name = current_settings(), cls._facts.name
    rebuilder = Rebuilder(settings)
    problems: list[str] = []
    for artifact in catalog.walk(settings, node_class=name, problems=problems):
        try:
            record = artifact.read()
            if record is None or record.version != cls._version or not matches(record.config, None):
                continue
            node = rebuilder.rebuild(cls, artifact.hash, record.config)
            if node is not None and (is_rejected(node) or not matches(record.config, node)):
                continue
            value = _value(cls, node, artifact, record)
        except FuruError as error:
            problems.append(f"{artifact.hash[:12]} ({error})")
            continue
        yield (record.config if node is None else node), value
    _warn_about(name, problems)


def _value(cls: type[Node[Any]], node: Node[Any] | None, artifact: Artifact, record: DoneRecord) -> Any:
    """Return the value of a stored node. `node` is None if the configuration could not be turned back."""
    if node is None:
        if record.codec == "load" or overrides(cls, "_validate"):
            raise FuruStoreError(
                f"{artifact} cannot be read: a _load() or _validate() needs the node, and the recorded "
                "configuration does not give a node with this hash. Make the node, and call its get()",
                path=artifact.path,
            )
        node = _without_fields(cls, artifact.hash)
    return decode(node, artifact, record)


def _without_fields(cls: type[N], node_hash: str) -> N:
    """Return a node with a hash and no fields, which is enough to decode a result."""
    node = object.__new__(cls)
    vars(node)["_furu_hash"] = node_hash
    return node


def _matcher(
    cls: type[Node[Any]], where: Mapping[str, Any]
) -> Callable[[Mapping[str, Any], Node[Any] | None], bool]:
    """Return a function that compares fields with values. Checks the names of the fields.

    A node is compared by what counts in identity. A recorded configuration, of which no node was made,
    shows less: 1 is like 1.0, and a path like its text.
    """
    facts = cls._facts
    for name in where:
        if name not in facts.field_names:
            raise FuruUsageError(
                f"{cls.__qualname__} has no field {name!r}; its fields are {', '.join(facts.field_names)}"
            )
    _refuse_hidden(cls, where)
    normalised = {name: facts.normalised(name, value) for name, value in where.items()}
    written = {name: readable(value) for name, value in normalised.items()}
    exact = {name: encoded(value) for name, value in normalised.items()}

    def matches(config: Mapping[str, Any], node: Node[Any] | None) -> bool:
        if node is not None:
            return all(encoded(getattr(node, name)) == value for name, value in exact.items())
        found = _present(cls, config)
        return all(same_value(found.get(name, HIDDEN), value) for name, value in written.items())

    return matches


def _refuse_hidden(cls: type[Node[Any]], names: Iterable[str]) -> None:
    for name in names:
        if name in cls._facts.hidden_names:
            raise FuruUsageError(
                f"the field {cls.__qualname__}.{name} is declared with repr=False, so its value is not "
                "recorded, and nodes cannot be chosen by it"
            )


def _present(cls: type[Node[Any]], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration by the present names of the fields, with the defaults of those that
    were added later."""
    found: dict[str, Any] = {}
    used: set[str] = set()
    for field in dataclasses.fields(cls):
        value = recorded(field, config)
        used |= {field.name, counting_name(field)}
        if value == HIDDEN and field.name not in config and marks_of(field).added:
            value = readable(cls._facts.default(field))
        if value != HIDDEN or field.name in config:
            found[field.name] = value
    return {**found, **{name: value for name, value in config.items() if name not in used}}


@overload
def load(prefix: str, node_class: type[Node[T]]) -> T: ...
@overload
def load(prefix: str, node_class: None = None) -> Any: ...
def load(prefix: str, node_class: type[Node[Any]] | None = None) -> Any:
    """Return the value of the stored node whose hash begins with `prefix`.

    The program must have imported the node's class, because nothing that a store names is imported. With
    `node_class`, only nodes of that class are considered, and type checkers know the type of the value.

    Raises `FuruStoreError` if no node matches, if several match, or if the node is not DONE,
    `FuruUsageError` if its class is not imported, and `FuruLoadError` if its artifact cannot be read back.

    >>> from furu import Furu, load
    >>> class Square(Furu[int]):
    ...     of: int
    ...     def _create(self) -> int:
    ...         return self.of ** 2
    >>> Square(of=5).get()
    25
    >>> load(Square(of=5).furu_hash[:12], Square)
    25
    """
    settings = current_settings()
    wanted = None if node_class is None else node_class._facts.name
    artifact = catalog.find(settings, prefix, node_class=wanted)
    record = artifact.read()
    if record is None:
        raise FuruStoreError(
            f"{artifact} is {artifact.status()}, so it has no value: `furu show {artifact.hash[:12]}` "
            "shows its attempts",
            path=artifact.path,
        )
    cls = node_class or living_classes().get(record.node_class)
    if cls is None:
        module = printable(record.node_class.partition(":")[0])
        raise FuruUsageError(
            f"the node {artifact.hash} is of the class {printable(record.node_class)}, which this program "
            f"has not imported: `import {module}` first"
        )
    node = Rebuilder(settings).rebuild(cls, artifact.hash, record.config)
    if node is not None and is_rejected(node):
        raise FuruStoreError(
            f"{artifact} counts as missing, because its _validate() rejects it", path=artifact.path
        )
    return _value(cls, node, artifact, record)


def table(node_class: type[Node[Any]] | str, /, **where: Any) -> Table:
    """Return a table with one row for each stored node of a class.

    A row has the node's hash, its fields, the fields of the nodes in them, and its result: see `Table`.
    With `where`, the table has only nodes whose fields or columns have these values. Of a class, the table
    has the nodes of its present `_version`, under the present names of its fields. The class may be given
    by name, either ``"module:Class"`` or ``"Class"``, and need not be imported: the table is read from the
    records alone. Nodes that cannot be read are left out, and a warning names them.

    Raises `FuruStoreError` if the store cannot be listed, or has no class with a name that is given as a
    str, and `FuruUsageError` if no node has a field or column in `where`.

    >>> from furu import Furu, table
    >>> class Power(Furu[dict[str, int]]):
    ...     base: int
    ...     def _create(self) -> dict[str, int]:
    ...         return {"square": self.base ** 2, "cube": self.base ** 3}
    >>> [Power(base=base).get()["cube"] for base in (2, 3)]
    [8, 27]
    >>> table(Power).columns
    ('hash', 'base', 'result.square', 'result.cube')
    >>> [row["result.cube"] for row in table(Power)]
    [8, 27]
    """
    wanted = {column: readable(value) for column, value in where.items()}
    if isinstance(node_class, str):
        found = read_table(current_settings(), node_class, where=wanted)
    else:
        _refuse_hidden(node_class, where)
        found = read_table(
            current_settings(),
            node_class._facts.name,
            where=wanted,
            may_be_missing=True,
            config_of=functools.partial(_config_now, node_class),
        )
    _warn_about(found.node_class, found.problems)
    return found


def _config_now(cls: type[Node[Any]], artifact: Artifact, record: DoneRecord) -> Mapping[str, Any] | None:
    """Return a recorded configuration as the class declares its fields now; None if the artifact is of
    another version of the class. Raises `FuruLoadError` if another script made it."""
    if record.version != cls._version:
        return None
    if record.source != cls._facts.origin.file:
        refuse_other_script(_without_fields(cls, artifact.hash), artifact, record)
    return _present(cls, record.config)


def _warn_about(name: str, problems: Sequence[str]) -> None:
    """Warn about stored nodes of a class that could not be read."""
    if not problems:
        return
    named = "; ".join(problems[:_NAMED_PROBLEMS])
    more = f"; and {len(problems) - _NAMED_PROBLEMS} more" if len(problems) > _NAMED_PROBLEMS else ""
    warnings.warn(
        f"{len(problems)} stored nodes of {name} were left out, because they cannot be read: {named}{more}",
        stacklevel=3,
    )
