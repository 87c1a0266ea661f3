"""The command `furu`: commands and their options, and how each one ends. Computes nothing itself.

Each command is one `_add_...` function, listed in `_COMMANDS`. typer and rich are an extra, so they are
imported where they are used, and furu without them says what to install.

    exit   0  done        1  a FuruError, its message on stderr
           2  misuse, or the extra is missing        130  Ctrl-C or SIGTERM
"""

# Without `from __future__ import annotations`: typer evaluates the annotations of the commands, which
# name what only the functions around them import.

import functools
import io
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from furu import Furu, FuruError, __version__, run_local
from furu.execution.events import Event, NodeDone

if TYPE_CHECKING:
    import rich.console
    import typer

    from furu.demo import Facts

_EXTRA = ("typer", "rich")
_INTERRUPTED = 130  # as a shell reports a program that SIGINT ended
# Piped output is for programs and files, which wrap lines themselves or not at all.
_PIPED_WIDTH = 10_000
# Rows of each table on the terminal; the Markdown report holds all.
_ROWS = 5


def main() -> None:
    """Run the command line of this process, and exit."""
    try:
        app = build_app()
        Furu._setup_signal_handlers()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show is no error
        app(prog_name="furu")
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        _complain(f'the command line needs {" and ".join(_EXTRA)}: pip install "furu[cli]"')
        sys.exit(2)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(_INTERRUPTED)


def build_app() -> "typer.Typer":
    """Return the commands as a typer app. Raises `ModuleNotFoundError` without the extra `cli`."""
    import rich  # noqa: F401  # missing, it is to be missed here
    import typer

    app = typer.Typer(
        name="furu",
        help="Graphs of cached computations.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            typer.echo(f"furu {__version__}")
            raise typer.Exit

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True)
        ] = False,
    ) -> None:
        pass

    for add in _COMMANDS:
        add(app)
    return app


# ---- the commands ----


def _add_demo(app: "typer.Typer") -> None:
    import typer

    @app.command()
    @_ending_well
    def demo(
        source: Annotated[
            Path | None,
            typer.Option(
                help="The tree to analyse: a package, or a directory that imports start at. "
                "By default the standard library.",
                exists=True,
                file_okay=False,
            ),
        ] = None,
        max_workers: Annotated[int, typer.Option(min=1, help="How many nodes are computed at once.")] = 8,
    ) -> None:
        """Analyse a Python source tree: its largest modules, most branching functions, import cycles.

        A second run computes nothing; after a change, only what depends on it.
        """
        _demo((source or Path(_standard_library())).resolve(), max_workers)


_COMMANDS: tuple[Callable[["typer.Typer"], None], ...] = (_add_demo,)


def _standard_library() -> str:
    import sysconfig

    return sysconfig.get_path("stdlib")


def _demo(source: Path, max_workers: int) -> None:
    from furu.demo import analyse

    console = _console()
    begun = time.monotonic()
    report = analyse(source)
    if not report.packages:
        raise FuruError(f"{source} holds no Python files to analyse")
    files = sum(len(package.modules) for package in report.packages)
    read_sec = time.monotonic() - begun
    computed: Counter[str] = Counter()

    def on_event(event: Event) -> None:
        if isinstance(event, NodeDone):
            computed[event.name] += 1
            status.update(f"computed {computed.total():,} nodes")

    status = _console(stderr=True).status("looking for what is to be computed")
    with status, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's sources
        ran = run_local([report], max_workers=max_workers, on_event=on_event)
    facts = report.get()

    _show_facts(console, source, facts)
    _say(console, f"Report  {report.furu_dir / 'report.md'}")
    _say(console, f"Files   {files:,} read in {read_sec:.2f} s")
    if ran.computed:
        kinds = ", ".join(f"{count:,} {name}" for name, count in computed.items())
        _say(console, f"Run     {ran}: {kinds}")
    else:
        _say(console, f"Run     nothing to compute: the report on these files is there ({ran})")


def _show_facts(console: "rich.console.Console", source: Path, facts: "Facts") -> None:
    modules = facts.modules
    lines, functions = sum(m.lines for m in modules), sum(m.functions for m in modules)
    _say(console, f"{source}: {len(modules):,} modules, {lines:,} lines, {functions:,} functions")
    _show_table(
        console,
        "Largest modules",
        ("module", "lines", "functions", "classes", "branches"),
        [(m.name, m.lines, m.functions, m.classes, m.branches) for m in modules[:_ROWS]],
    )
    _show_table(
        console,
        "Most branching functions",
        ("function", "line", "lines", "branches"),
        [(f.name, f.line, f.lines, f.branches) for f in facts.most_branching[:_ROWS]],
    )
    _show_table(
        console,
        f"Import cycles among imports at module level: {len(facts.cycles) or 'none'}",
        ("modules that import each other", "modules"),
        [(_shortened(group), len(group)) for group in facts.cycles[:_ROWS]],
    )
    unparsed = [module.name for module in modules if module.error]
    if unparsed:
        files = "file does" if len(unparsed) == 1 else "files do"
        _say(console, f"\n{len(unparsed)} {files} not parse: {_shortened(unparsed)}")
    _say(console, "")


# ---- output and ending ----


def _ending_well(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command's errors and interruption their exit codes, without a traceback."""
    import typer

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except FuruError as error:
            _complain(str(error))
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            _complain("interrupted; what was computed is kept")
            raise typer.Exit(_INTERRUPTED) from interrupt

    return run


def _complain(message: str) -> None:
    print(f"furu: {message}", file=sys.stderr)


def _console(*, stderr: bool = False) -> "rich.console.Console":
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def _say(console: "rich.console.Console", line: str) -> None:
    console.print(line, soft_wrap=True)  # a path that is broken in two cannot be copied


def _show_table(
    console: "rich.console.Console", title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    _say(console, "")
    console.print(title, style="bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        if number:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")  # cut off, a name is of no use
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row))
    if table.row_count:
        console.print(table)


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_ROWS])
    return f"{shown} and {len(names) - _ROWS} more" if len(names) > _ROWS else shown


if __name__ == "__main__":
    main()
