"""Tables of stored nodes, read from their records alone: no class is imported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, overload

import msgspec

import furu.store.catalog as catalog
from furu._common.text import describe_error, printable
from furu.errors import FuruStoreError, FuruUsageError
from furu.settings import Settings
from furu.store.artifact import Artifact
from furu.store.layout import NodeFiles, class_directory
from furu.store.record import DoneRecord
from furu.store.references import is_reference, same_value

__all__ = ["Flattener", "Table", "find_class", "read_table"]

_HASH = "hash"
_RESULT = "result"
_VERSION = "_version"
# Nested deeper, a value is one cell.
_MAX_DEPTH = 12
# Fields that would hide the columns of the hash and the result.
_TAKEN = (_HASH, _RESULT)


class Table(Sequence[dict[str, Any]]):
    """The stored nodes of a class: a sequence with one dict for each node. All rows have all columns.

    The columns are, in this order:

    - ``hash``: the node's hash.
    - ``<field>``: the value of a field. A dataclass or dict becomes ``<field>.<name>``, and so on. A node
      becomes the name of its class, and ``<field>.<name>`` for each of its own fields. A node inside a node
      of the same class, and a node that is not stored, is shown by its class and hash. An input file is
      shown by its path. Lists are lists.
    - ``result``, or ``result.<name>`` for a dict or dataclass. Lists in results and results in files are
      left out: load them with `Furu.stored`.

    A cell without a value is None. A field called ``hash`` or ``result`` is in the column ``<field>_``, and
    so is each other value whose column has that name already. The rows are sorted by the fields. `problems`
    names the nodes that could not be read.
    """

    def __init__(
        self,
        node_class: str,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
        problems: Sequence[str] = (),
    ) -> None:
        self.node_class = node_class
        self.columns = tuple(columns)
        self.problems = tuple(problems)
        self._rows = [{name: row.get(name) for name in self.columns} for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._rows[index]

    def __repr__(self) -> str:
        return f"<Table of {len(self)} nodes of {self.node_class}: {', '.join(self.columns)}>"

    def sorted_by(self, column: str | None, *, descending: bool = False) -> Table:
        """Return the table with its rows sorted by a column, or in their own order if `column` is None.
        Rows without a value come last. Raises `FuruUsageError` if there is no such column."""
        if column is not None and column not in self.columns:
            raise _no_column(column, self.columns)
        rows = list(self._rows)
        if column is None:
            return Table(self.node_class, self.columns, rows[::-1] if descending else rows, self.problems)
        rows.sort(key=lambda row: _order(row[column]), reverse=descending)
        rows.sort(key=lambda row: row[column] is None)
        return Table(self.node_class, self.columns, rows, self.problems)

    def to_pandas(self) -> Any:
        """Return the table as a `pandas.DataFrame`. Needs pandas."""
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError as error:
            raise FuruUsageError(
                "to_pandas() needs pandas: pip install pandas. Without it, a table is a list of dicts"
            ) from error
        return pandas.DataFrame(self._rows, columns=list(self.columns))

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """Return the table as CSV with a header, and write it to a file if `path` is given. Lists are
        JSON, and None is empty."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self._rows:
            writer.writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()])
        content = file.getvalue()
        if path is not None:
            Path(path).write_text(content, encoding="utf-8")
        return content


def read_table(
    settings: Settings,
    name: str,
    *,
    where: Mapping[str, Any] | None = None,
    may_be_missing: bool = False,
    config_of: Callable[[Artifact, DoneRecord], Mapping[str, Any] | None] = lambda _, record: record.config,
) -> Table:
    """Return the table of the stored nodes of a class, which are those of `where` by column.

    `config_of` returns the configuration of a node as the class declares its fields now, or None to leave
    the node out; it may raise `FuruStoreError`. If the nodes have several versions of their class, there is
    a column ``_version``.

    Raises `FuruStoreError` if the store has no such class, unless it `may_be_missing`, and `FuruUsageError`
    if the table has no column in `where`.
    """
    node_class = name if may_be_missing else find_class(settings, name)
    flattener = Flattener(settings)
    problems: list[str] = []
    named: dict[str, None] = {}
    results: dict[str, None] = {}
    rows: list[_Row] = []
    for artifact in catalog.walk(settings, node_class=node_class, problems=problems):
        try:
            record = artifact.read()
            config = None if record is None else config_of(artifact, record)
            if record is None or config is None:
                continue
            own = {_HASH: artifact.hash, **flattener.fields(record.node_class, config)}
            result = list(_result(record))
        except (
            FuruStoreError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ) as error:
            problems.append(f"{artifact.hash[:12]} ({describe_error(error)})")
            continue
        cells = dict(own)
        for column, value in result:
            cells[_free(column, cells)] = value
        named.update(dict.fromkeys(own))
        results.update(dict.fromkeys(name for name in cells if name not in own))
        rows.append(_Row(dict(config), {**cells, _VERSION: record.version}))
    if len({repr(row.cells[_VERSION]) for row in rows}) > 1:
        named[_VERSION] = None
    columns = [*named, *results] or [_HASH]
    chosen = _chosen(rows, columns, where or {})
    sorted_columns = [*list(named)[1:], _HASH]
    chosen.sort(key=lambda row: [_order(row.get(column)) for column in sorted_columns])
    return Table(node_class, columns, chosen, problems)


class _Row(msgspec.Struct, frozen=True):
    config: dict[str, Any]
    cells: dict[str, Any]

    def value_of(self, name: str) -> Any:
        """Return the recorded value of a field, or else the cell of a column."""
        return self.config[name] if name in self.config else self.cells.get(name)


def find_class(settings: Settings, name: str) -> str:
    """Return the full name of a class in the store. `name` may be the class's name without its module.

    Raises `FuruStoreError` if the store has no such class, or several.
    """
    names = [known for known, _ in catalog.class_directories(settings.store)]
    found = [known for known in names if name in (known, known.rpartition(":")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        raise FuruStoreError(
            f"several classes in {settings.store} are called {printable(name)}: {', '.join(found)}",
            path=settings.store,
        )
    known = f"it has {', '.join(names[:20])}" if names else "it is empty"
    raise FuruStoreError(
        f"the store {settings.store} has no nodes of a class {printable(name)!r}; {known}",
        path=settings.store,
    )


class Flattener:
    """Turns configurations into columns. Reads the configurations of nodes inside them from the store, each
    once."""

    def __init__(self, settings: Settings, *, reads_nodes: bool = True) -> None:
        self._settings = settings
        self._reads_nodes = reads_nodes
        self._configs: dict[str, dict[str, Any] | None] = {}

    def fields(self, node_class: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of a configuration."""
        columns: dict[str, Any] = {}
        for name, value in config.items():
            column = f"{name}_" if name in _TAKEN else name
            for flat, cell in self._flat(column, value, (node_class,)):
                columns[_free(flat, columns)] = cell
        return columns

    def _flat(self, column: str, value: Any, above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        """Yield the columns of a value. `above` are the classes of the nodes that contain it."""
        if len(above) > _MAX_DEPTH:
            yield column, _cell(value)
        elif is_reference(value):
            name = str(value["node"])
            config = self._config(value) if self._reads_nodes and name not in above else None
            if config is None or "path" in value:
                yield column, _cell(value)
                return
            yield column, _short(name)
            for field, item in config.items():
                yield from self._flat(f"{column}.{field}", item, (*above, name))
        elif isinstance(value, dict) and value:
            for field, item in value.items():
                yield from self._flat(f"{column}.{field}", item, (*above, ""))
        else:
            yield column, _cell(value)

    def _config(self, reference: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the configuration of a node that is referred to; None if it is not stored."""
        node_hash = reference["hash"]
        if node_hash not in self._configs:
            node_class = str(reference["node"])
            module, _, qualname = node_class.partition(":")
            directory = class_directory(self._settings.store, module, qualname)
            files = NodeFiles(f"{directory}/{node_hash}")
            try:
                record = Artifact(self._settings, files, node_class, node_hash).read()
            except FuruStoreError:
                record = None
            self._configs[node_hash] = None if record is None else record.config
        return self._configs[node_hash]


def _free(column: str, taken: Container[str]) -> str:
    """Return the name of a column, with an underscore for each column of that name that is taken."""
    while column in taken:
        column = f"{column}_"
    return column


def _result(record: DoneRecord) -> Iterator[tuple[str, Any]]:
    """Yield the columns of a result: its scalars, but neither its lists nor its parts in files."""
    if record.codec not in ("json", "parts"):
        return
    value, key = msgspec.json.decode(record.result), None
    if record.codec == "parts":
        value, key = value["value"], value["key"]
    pending: list[tuple[str, Any]] = [(_RESULT, value)]
    while pending:
        column, value = pending.pop()
        if isinstance(value, dict) and value.keys() == {key}:  # a placeholder; see furu.codecs.parts
            if "float" in value[key]:
                yield column, float(value[key]["float"])
        elif isinstance(value, dict):
            pending += reversed([(f"{column}.{name}", item) for name, item in value.items()])
        elif not isinstance(value, list):
            yield column, value


def _chosen(rows: Sequence[_Row], columns: Sequence[str], where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cells of the rows with the wanted values. A name in `where` is a field or a column."""
    columns = [*columns, *(name for row in rows for name in row.config)]
    for column in where:
        if rows and column not in columns:
            raise _no_column(column, columns)
    return [
        row.cells
        for row in rows
        if all(same_value(row.value_of(column), value) for column, value in where.items())
    ]


def _no_column(column: str, columns: Sequence[str]) -> FuruUsageError:
    there = ", ".join(dict.fromkeys(map(printable, columns)))
    return FuruUsageError(f"the table has no column {printable(column)!r}; it has {there}")


def _cell(value: Any) -> Any:
    """Return a value as one cell. Nodes in it are shown by class and hash, input files by their paths."""
    if is_reference(value):
        return value.get("path") or f"{_short(str(value['node']))} {value['hash'][:12]}"
    if isinstance(value, list):
        return [_cell(item) for item in value]
    return json.dumps(value) if isinstance(value, dict) and value else value


def _short(node_class: str) -> str:
    return node_class.rpartition(":")[2]


def _order(cell: Any) -> tuple[int, Any]:
    """Return a sort key. Numbers come first, then NaN, texts, other cells, and None last."""
    if isinstance(cell, (int, float)):
        return (0, cell) if cell == cell else (1, 0)
    if isinstance(cell, str):
        return (2, cell)
    return (4, "") if cell is None else (3, json.dumps(cell))
