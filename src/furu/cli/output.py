"""The output and the exit codes of the commands. If stdout is not a terminal, the output is plain text."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from furu._common.text import describe_error, printable, traceback_text
from furu.errors import FuruError, FuruUsageError

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130  # the exit code that a shell reports for a program ended by SIGINT
# Piped output goes to programs and files, so lines are not wrapped.
_PIPED_WIDTH = 10_000

# File name prefixes of the frames that a traceback has between a command and the user's code.
_LOADING = ("<frozen importlib", os.path.join(os.path.dirname(__file__), ""))


class Interrupted(Exception):
    """The command was interrupted, and a message about it has been printed."""


class UserCodeError(Exception):
    """The user's code raised an exception, `__cause__`, when a command called it."""


@contextlib.contextmanager
def showing_user_errors(called: str) -> Iterator[None]:
    """Turn exceptions of the user's code into `UserCodeError`. `called` names the code in the message."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"{called} raised {describe_error(error)}") from error


def ending_well(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that its errors and interrupts become messages and exit codes."""

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
            complain("interrupted; the nodes that were computed are kept")
            raise typer.Exit(INTERRUPTED) from interrupt

    return run


def _show_traceback(error: BaseException | None) -> None:
    """Print the traceback of an error in the user's code, without the frames of the command."""
    if error is None:
        return
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_LOADING):
        frames = frames.tb_next
    lines = traceback_text(error.with_traceback(frames)).splitlines()
    print("\n".join(map(printable, lines)), file=sys.stderr)


def complain(message: str) -> None:
    """Write a message to stderr."""
    lines = [printable(line) for line in message.splitlines()]
    print("furu: " + "\n".join(lines), file=sys.stderr)


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text unchanged. rich obeys NO_COLOR and does not colour piped output."""
    from rich.console import Console  # importing rich takes 60 ms, and `--help` does not need it

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = _PIPED_WIDTH
    return made


def say(to: Console, line: str = "", style: str | None = None) -> None:
    """Print a line without wrapping it, because a wrapped path cannot be copied."""
    from rich.text import Text

    to.print(Text(printable(line), style=style or ""), soft_wrap=True)


def show_table(
    to: Console, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> None:
    """Print a table with right-aligned numbers. Prints nothing if there are no rows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

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
            table.add_column(column, overflow="fold")  # a name that is cut off is useless
    for row in cells:
        table.add_row(*map(Text, row))
    if table.row_count:
        to.print(table)


def size(count: float) -> str:
    """Format a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
