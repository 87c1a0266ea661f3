"""How a command prints and ends: plainly where nobody looks, and with an exit code. Knows no command."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from furu._common.text import describe_error, printable, traceback_text
from furu.errors import FuruError, FuruUsageError

INTERRUPTED = 130  # as a shell reports a program that SIGINT ended
# Piped output is for programs and files, which wrap lines themselves or not at all.
_PIPED_WIDTH = 10_000

# Frames of these are between a command and the user's code.
_LOADING = ("<frozen importlib", os.path.join(os.path.dirname(__file__), ""))


class Interrupted(Exception):
    """The command was interrupted, and has said so."""


class UserCodeError(Exception):
    """The user's own code, which a command called, raised `__cause__`."""


@contextlib.contextmanager
def showing_user_errors(called: str) -> Iterator[None]:
    """Have what the user's code raises shown as that code's traceback; `called` says what was called."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"{called} raised {describe_error(error)}") from error


def ending_well(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command's errors and interruption their exit codes, without a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UserCodeError as error:
            _show_traceback(error.__cause__)
            complain(str(error))
            raise typer.Exit(1) from error
        except FuruUsageError as error:
            complain(str(error))
            raise typer.Exit(2) from error
        except FuruError as error:
            complain(str(error))
            raise typer.Exit(1) from error
        except Interrupted as interrupt:
            raise typer.Exit(INTERRUPTED) from interrupt
        except KeyboardInterrupt as interrupt:
            complain("interrupted; what was computed is kept")
            raise typer.Exit(INTERRUPTED) from interrupt

    return run


def _show_traceback(error: BaseException | None) -> None:
    """Show an error of the user's code, without the frames that led there."""
    if error is None:
        return
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_LOADING):
        frames = frames.tb_next
    lines = traceback_text(error.with_traceback(frames)).splitlines()
    print("\n".join(map(printable, lines)), file=sys.stderr)


def complain(message: str) -> None:
    """Say something on stderr, where it is not taken for output."""
    lines = [printable(line) for line in message.splitlines()]
    print("furu: " + "\n".join(lines), file=sys.stderr)


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes text as it is. rich honours NO_COLOR, and colours no pipe."""
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = _PIPED_WIDTH
    return made


def say(to: Console, line: str = "", style: str | None = None) -> None:
    """Print a line, whole: a path that is broken in two cannot be copied."""
    to.print(Text(printable(line), style=style or ""), soft_wrap=True)


def show_table(
    to: Console, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> None:
    """Print a table whose columns of numbers are on the right; nothing where there are no rows."""
    cells = [
        [f"{cell:,}" if isinstance(cell, int) else printable(str(cell)) for cell in row] for row in rows
    ]
    if title:
        say(to)
        say(to, title, "bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        if number:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")  # cut off, a name is of no use
    for row in cells:
        table.add_row(*map(Text, row))
    if table.row_count:
        to.print(table)


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
