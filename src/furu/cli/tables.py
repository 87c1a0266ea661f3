"""`furu ls` and `furu table`: the nodes of one class. They read records, and import no user code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import furu.store.catalog as catalog
from furu._common.text import seconds
from furu.cli.output import complain, console, say, show_table
from furu.settings import current_settings
from furu.store.references import same_value
from furu.store.table import Flattener, Table, find_class, read_table

_SHOWN_DIGITS = 12
# A cell is cut after this many characters; CSV and JSON have all of it.
_SHOWN_CHARS = 60
_STATES = ("DONE", "FAILED", "IN_PROGRESS", "TODO")
_STATE_HELP = f"Only nodes in this state: {', '.join(_STATES)}."

Class = Annotated[str, typer.Argument(metavar="CLASS", help="MODULE:CLASS, or CLASS if it is unique.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="NAME=VALUE", help="Only nodes with this value. May be repeated."),
]


def ls(
    node_class: Class,
    where: Where = None,
    state: Annotated[str | None, typer.Option(metavar="STATE", help=_STATE_HELP)] = None,
    as_json: AsJson = False,
) -> None:
    """List the nodes of a class: state, duration and fields."""
    if state is not None and state.upper() not in _STATES:
        raise typer.BadParameter(f"a state is {', '.join(_STATES)}, not {state!r}", param_hint="--state")
    settings = current_settings()
    name = find_class(settings, node_class)
    wanted = _parsed(where)
    flattener = Flattener(settings, reads_nodes=False)
    problems: list[str] = []
    nodes: list[dict[str, Any]] = []
    for artifact in catalog.walk(settings, node_class=name, problems=problems):
        info = catalog.inspect(artifact)
        problems += [info.problem] if info.problem else []
        fields = flattener.fields(name, info.config or {})
        if (state is None or state.upper() == info.status) and _has(fields, wanted):
            nodes.append(
                {
                    "hash": artifact.hash,
                    "state": str(info.status),
                    "duration_sec": info.duration_sec,
                    "fields": fields,
                }
            )
    if as_json:
        say(console(), json.dumps({"class": name, "nodes": nodes, "problems": problems}))
    else:
        _show_nodes(name, nodes)
    for problem in problems:
        complain(problem)


def _show_nodes(name: str, nodes: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for node in nodes for column in node["fields"]))
    rows = [
        [
            node["hash"][:_SHOWN_DIGITS],
            node["state"],
            "" if node["duration_sec"] is None else seconds(node["duration_sec"]),
            *(_shown(node["fields"].get(column)) for column in columns),
        ]
        for node in nodes
    ]
    out = console()
    say(out, f"{name}: {_counted(nodes)}")
    show_table(out, ["hash", "state", "duration", *columns], rows)


def table(
    node_class: Class,
    where: Where = None,
    sort: Annotated[str | None, typer.Option(metavar="COLUMN", help="Sort the rows by a column.")] = None,
    descending: Annotated[bool, typer.Option("--descending", help="Sort in descending order.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the fields and results of the stored nodes of a class.

    Columns with the same value in every row are shown once, above the table; CSV and JSON have all columns.
    """
    if as_csv and as_json:
        raise typer.BadParameter("give --csv or --json, not both")
    found = read_table(current_settings(), node_class, where=_parsed(where)).sorted_by(
        sort, descending=descending
    )
    out = console()
    if as_csv:
        typer.echo(found.to_csv(), nl=False)
    elif as_json:
        say(out, json.dumps(list(found)))
    else:
        _show(found)
    for problem in found.problems:
        complain(f"left out: {problem}")


def _show(found: Table) -> None:
    out = console()
    same = [] if len(found) < 2 else [name for name in found.columns if _is_same(found, name)]
    say(out, f"{found.node_class}: {_counted(found)}")
    if same:
        say(out, f"in every row: {', '.join(f'{name}={_shown(found[0][name])}' for name in same)}")
    columns = [name for name in found.columns if name not in same]
    rows = [
        [row["hash"][:_SHOWN_DIGITS], *(_shown(row[name]) for name in columns if name != "hash")]
        for row in found
    ]
    show_table(out, columns, rows)


def _is_same(found: Table, name: str) -> bool:
    return all(same_value(row[name], found[0][name]) for row in found)


def _counted(nodes: Sequence[Any]) -> str:
    return "1 node" if len(nodes) == 1 else f"{len(nodes):,} nodes"


def _shown(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.6g}"
    text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."


def _parsed(where: Sequence[str] | None) -> dict[str, Any]:
    """Parse NAME=VALUE. The value is JSON, or else a text."""
    parsed: dict[str, Any] = {}
    for text in where or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE, such as rate=0.1", param_hint="--where")
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed


def _has(fields: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(name in fields and same_value(fields[name], value) for name, value in wanted.items())
