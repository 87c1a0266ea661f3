"""The command `furu`. typer and rich are an extra, so nothing here imports them before it is asked to.

roots.py    MODULE:NAME to nodes
output.py   how a command prints and ends
running.py  a run that Ctrl-C drains
run.py, plan.py, look.py, graph.py, gc.py, demo.py   the commands
app.py      all of them together

exit   0  done        1  a node failed, or the store cannot be used: its message on stderr
       2  misuse, or the extra is missing        130  Ctrl-C or SIGTERM
"""

from __future__ import annotations

import io
import sys

from furu.node.furu import Furu

_EXTRA = ("typer", "rich")
_INTERRUPTED = 130  # as a shell reports a program that SIGINT ended


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
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show is no error
    Furu._setup_signal_handlers()
    try:
        app(prog_name="furu")
    except KeyboardInterrupt:
        print("furu: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
