"""The application `furu` with all its commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from furu import __version__
from furu.cli.demo import demo
from furu.cli.gc import closure, gc
from furu.cli.graph import graph
from furu.cli.look import explain, show, status
from furu.cli.output import ending_well
from furu.cli.plan import plan
from furu.cli.rm import rm
from furu.cli.run import run
from furu.cli.tables import ls, table

app = typer.Typer(
    name="furu",
    help="Graphs of cached computations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich takes a quarter of a second to import
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"furu {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


_COMMANDS: tuple[Callable[..., None], ...] = (
    *(run, plan, explain, status, ls, table, show, graph),
    *(rm, gc, demo),
)
for _command in _COMMANDS:
    app.command()(ending_well(_command))
app.command(hidden=True)(ending_well(closure))
