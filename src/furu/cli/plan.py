"""`furu plan`: what a run would do, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from furu.cli.output import console, say
from furu.cli.roots import HELP, load_roots
from furu.execution.local import plan_local


def plan(roots: Annotated[str, typer.Argument(help=HELP)]) -> None:
    """Say what `furu run` would compute, by class, and why. Computes and writes nothing."""
    out = console()
    for line in str(plan_local(load_roots(roots))).splitlines():
        say(out, line)
