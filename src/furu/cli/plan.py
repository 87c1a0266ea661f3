"""`furu plan`: what a run would do, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from furu.cli.output import console, say
from furu.cli.roots import HELP, load_roots
from furu.cli.run import (
    AGAIN_HELP,
    CHANGE_HELP,
    ORDER_HELP,
    parse_again,
    parse_on_code_change,
    parse_order,
    parse_window,
)
from furu.planning.summary import plan_local
from furu.settings import current_settings

# The number of nodes that are listed without --all.
_NAMED = 20


def plan(
    roots: Annotated[str, typer.Argument(help=HELP)],
    max_workers: Annotated[int, typer.Option(min=1, help="How many nodes would be computed at once.")] = 8,
    max_async: Annotated[int, typer.Option(min=1, help="How many async nodes would be computed.")] = 100,
    window: Annotated[str, typer.Option(help="How many roots at once: dfs, bfs or a number.")] = "bfs",
    order: Annotated[str, typer.Option(help=ORDER_HELP)] = "roots",
    on_code_change: Annotated[str | None, typer.Option(help=CHANGE_HELP, show_default="warn")] = None,
    again: Annotated[list[str] | None, typer.Option(metavar="CLASS|HASH", help=AGAIN_HELP)] = None,
    every: Annotated[bool, typer.Option("--all", help="Name a thousand nodes, not twenty.")] = False,
) -> None:
    """Show what `furu run` would compute, why, and how long it takes.

    Computes and writes nothing.
    """
    summary = plan_local(
        load_roots(roots),
        max_workers=max_workers,
        max_async=max_async,
        window_size=parse_window(window),
        order=parse_order(order),
        on_code_change=parse_on_code_change(on_code_change),
        again=parse_again(again),
    )
    out = console()
    say(out, f"{current_settings().store}:")
    for line in str(summary).splitlines():
        say(out, line)
    nodes = summary.nodes if every else summary.nodes[:_NAMED]
    for node in nodes:
        say(out, f"- {node}")
    if summary.to_compute > len(nodes):
        say(out, f"- and {summary.to_compute - len(nodes):,} more")
