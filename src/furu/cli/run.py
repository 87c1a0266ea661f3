"""`furu run`: compute nodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from furu._common.checks import check_choice
from furu.cli.output import complain, console, say
from furu.cli.roots import HELP, load_roots
from furu.cli.running import Interruptible
from furu.errors import Failure, FuruComputeError
from furu.execution.options import check_on_code_change
from furu.execution.scheduler import Order
from furu.execution.window import parse_window_size
from furu.execution.workers import DaskWorkers, ProcessWorkers, ThreadWorkers, Workers
from furu.node.base import class_name_of
from furu.node.furu import Furu
from furu.observing.trace import Trace
from furu.report import RunReport
from furu.settings import OnCodeChange

CHANGE_HELP = "What to do with artifacts that other code made: warn, ignore or recompute."
# The least number of digits that name a node by its hash.
_LEAST_DIGITS = 4

AGAIN_HELP = "Compute these again, and what depends on them: a class, or the hash of a node."
ORDER_HELP = "Which ready nodes start first: roots (in their order) or critical-path."


def run(
    roots: Annotated[str, typer.Argument(help=HELP)],
    max_workers: Annotated[int, typer.Option(min=1, help="How many nodes are computed at once.")] = 8,
    max_async: Annotated[int, typer.Option(min=1, help="How many async nodes are computed at once.")] = 100,
    window: Annotated[
        str, typer.Option(help="How many roots are active at once: dfs, bfs or a number.")
    ] = "bfs",
    order: Annotated[str, typer.Option(help=ORDER_HELP)] = "roots",
    on_code_change: Annotated[str | None, typer.Option(help=CHANGE_HELP, show_default="warn")] = None,
    again: Annotated[list[str] | None, typer.Option(metavar="CLASS|HASH", help=AGAIN_HELP)] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="After a failure, compute nodes that do not depend on it.")
    ] = False,
    workers: Annotated[
        str, typer.Option(help="What computes: threads, processes, or dask=ADDRESS.")
    ] = "threads",
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a trace for Perfetto.", dir_okay=False),
    ] = None,
    progress: Annotated[
        bool, typer.Option("--progress/--no-progress", help="Show the progress on stderr.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compute nodes and everything they depend on.

    Computes only what the store does not have. Ctrl-C lets running nodes finish; a second Ctrl-C exits at
    once. Exits with 1 if a node failed.
    """
    nodes = load_roots(roots)
    traced = Trace() if trace is not None else None
    try:
        report = Interruptible(progress=progress).run(
            nodes,
            max_workers=max_workers,
            max_async=max_async,
            window_size=parse_window(window),
            order=parse_order(order),
            on_code_change=parse_on_code_change(on_code_change),
            again=parse_again(again),
            workers=_workers(workers),
            on_event=traced,
            on_failure="continue" if keep_going else "stop",
        )
    except FuruComputeError as error:
        if error.report is None:
            raise
        _show(error.report, as_json)
        complain(_first_of(error.failures))
        raise typer.Exit(1) from error
    finally:
        if trace is not None and traced is not None:
            traced.write(trace)
    _show(report, as_json)


def parse_window(text: str) -> str | int:
    """Return a window for `run_local`. Raises `typer.BadParameter` if the text is not a valid window."""
    window = int(text) if text.isdecimal() else text
    try:
        parse_window_size(window)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--window") from None
    return window


def parse_order(text: str) -> Order:
    """Return an order for `run_local`. Raises `typer.BadParameter` if the text is not a valid order."""
    try:
        check_choice("--order", text, get_args(Order))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--order") from None
    return cast(Order, text)


def parse_on_code_change(text: str | None) -> OnCodeChange | None:
    """Return the option for `run_local`. Raises `typer.BadParameter` if the text is not such an option."""
    try:
        check_on_code_change(cast(OnCodeChange | None, text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--on-code-change") from None
    return cast(OnCodeChange | None, text)


def parse_again(texts: Sequence[str] | None) -> Callable[[Furu[Any]], bool] | None:
    """Return the option for `run_local`: whether a node has one of these classes or hashes."""
    if not texts:
        return None
    return lambda node: any(is_meant(text, class_name_of(node), node.furu_hash) for text in texts)


def is_meant(text: str, node_class: str, node_hash: str) -> bool:
    """Whether a text names a node's class, with or without its module, or begins the node's hash."""
    if text in (node_class, node_class.partition(":")[2]):
        return True
    return len(text) >= _LEAST_DIGITS and node_hash.startswith(text)


def _workers(text: str) -> Workers:
    kind, equals, address = text.partition("=")
    if kind == "dask" and address:
        return DaskWorkers(address)
    kinds: dict[str, type[Workers]] = {"threads": ThreadWorkers, "processes": ProcessWorkers}
    if equals or kind not in kinds:
        raise typer.BadParameter(
            f"{text!r} is not one of threads, processes, dask=ADDRESS", param_hint="--workers"
        )
    return kinds[kind]()


def _first_of(failures: Sequence[Failure]) -> str:
    others = len(failures) - 1
    if not others:
        return failures[0].message
    nodes = "1 other node" if others == 1 else f"{others:,} other nodes"
    return f"{failures[0].message} {nodes} failed too: see the report."


def _show(report: RunReport, as_json: bool) -> None:
    out = console()
    if as_json:
        say(out, json.dumps(_as_json(report)))
    else:
        for line in report.summary().splitlines():
            say(out, line)


def _as_json(report: RunReport) -> dict[str, Any]:
    counts = ("computed", "reused", "failed", "skipped", "abandoned", "retried", "overran", "max_workers")
    times = ("wall_sec", "work_sec", "async_sec", "critical_path_sec", "efficiency")
    return {
        **{name: getattr(report, name) for name in counts},
        **{name: round(getattr(report, name), 6) for name in times},
        "code_changes": [
            {"class": change.node_class, "made_by_other_code": change.made_by_other_code}
            for change in report.code_changes
        ],
        "failures": [
            {
                "node": repr(failure.node),
                "hash": failure.node.furu_hash,
                "message": failure.message,
                "state_path": str(failure.state_path),
            }
            for failure in report.failures
        ],
    }
