"""The command `furu`. Imports typer and rich, which belong to the extra `cli`, only when the command runs.

roots.py    finding the nodes that MODULE:NAME names
output.py   printing, and exit codes
running.py  a run that Ctrl-C can end
run.py, plan.py, look.py, tables.py, graph.py, gc.py, demo.py   the commands
app.py      the application with all commands

exit codes  0  success     1  a node failed, or the store cannot be used; stderr has the reason
            2  wrong usage, or the extra is not installed        130  Ctrl-C or SIGTERM
"""

from __future__ import annotations

import io
import sys

from furu.node.furu import Furu

_EXTRA = ("typer", "rich")
_INTERRUPTED = 130  # the exit code that a shell reports for a program ended by SIGINT


def main() -> None:
    """Run the command line of this process, and exit."""
    try:
        from furu.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        needs = " and ".join(_EXTRA)
        print(f'furu: the command line needs {needs}: pip install "furu[cli]"', file=sys.stderr)
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for characters that the terminal cannot show
    Furu._setup_signal_handlers()
    try:
        app(prog_name="furu")
    except KeyboardInterrupt:
        print("furu: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
