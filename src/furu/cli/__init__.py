"""The command `furu`. typer and rich are an extra, so this module imports them only when they are needed.

roots.py    from MODULE:NAME to nodes
output.py   printing, and exit codes
running.py  a run that Ctrl-C ends
run.py, plan.py, look.py, graph.py, gc.py, demo.py   the commands
app.py      the application with all commands

exit code   0  success     1  a node failed, or the store cannot be used; stderr says why
            2  wrong use, or the extra is not installed        130  Ctrl-C or SIGTERM
"""

from __future__ import annotations

import io
import sys

from furu.node.furu import Furu

_EXTRA = ("typer", "rich")
_INTERRUPTED = 130  # a shell's exit code for a program that SIGINT has ended


def main() -> None:
    """Run this process's command line, and exit."""
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
            stream.reconfigure(errors="replace")  # for names that the terminal cannot show
    Furu._setup_signal_handlers()
    try:
        app(prog_name="furu")
    except KeyboardInterrupt:
        print("furu: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
