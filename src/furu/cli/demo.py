"""`furu demo`: analyse a Python source tree."""

from __future__ import annotations

import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from furu.cli.output import console, say, show_table
from furu.cli.running import Interruptible
from furu.demo import Facts, analyse
from furu.errors import FuruError
from furu.events import Event, NodeDone

if TYPE_CHECKING:
    from rich.console import Console

# Each table on the terminal shows at most this many rows; the Markdown report has all rows.
_ROWS = 5


def demo(
    source: Annotated[
        Path | None,
        typer.Option(
            help="The tree to analyse: a package, or a directory on the import path. "
            "By default the standard library.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    max_workers: Annotated[int, typer.Option(min=1, help="How many nodes are computed at once.")] = 8,
) -> None:
    """Analyse a Python source tree.

    Shows the largest modules, the functions with the most branches, and the import cycles.

    A second run computes nothing. After a change, a run computes only what depends on the change.
    """
    tree = (source or Path(sysconfig.get_path("stdlib"))).resolve()
    out = console()
    begun = time.monotonic()
    report = analyse(tree)
    if not report.packages:
        raise FuruError(f"{tree} holds no Python files to analyse")
    files = sum(len(package.modules) for package in report.packages)
    read_sec = time.monotonic() - begun
    computed: Counter[str] = Counter()

    def on_event(event: Event) -> None:
        if isinstance(event, NodeDone):
            computed[event.name] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about the analysed sources
        ran = Interruptible().run([report], max_workers=max_workers, on_event=on_event)
    _show_facts(out, tree, report.get())
    say(out, f"Report  {report.furu_dir / 'report.md'}")
    say(out, f"Files   {files:,} read in {read_sec:.2f} s")
    if ran.computed:
        kinds = ", ".join(f"{count:,} {name}" for name, count in computed.items())
        say(out, f"Run     {ran}: {kinds}")
    else:
        say(out, f"Run     nothing to compute: the report exists ({ran})")


def _show_facts(out: Console, source: Path, facts: Facts) -> None:
    modules = facts.modules
    lines, functions = sum(m.lines for m in modules), sum(m.functions for m in modules)
    say(out, f"{source}: {len(modules):,} modules, {lines:,} lines, {functions:,} functions")
    show_table(
        out,
        ("module", "lines", "functions", "classes", "branches"),
        [(m.name, m.lines, m.functions, m.classes, m.branches) for m in modules[:_ROWS]],
        title="Largest modules",
    )
    show_table(
        out,
        ("function", "line", "lines", "branches"),
        [(f.name, f.line, f.lines, f.branches) for f in facts.most_branching[:_ROWS]],
        title="Most branching functions",
    )
    show_table(
        out,
        ("modules that import each other", "modules"),
        [(_shortened(group), len(group)) for group in facts.cycles[:_ROWS]],
        title=f"Import cycles among imports at module level: {len(facts.cycles) or 'none'}",
    )
    unparsed = [module.name for module in modules if module.error]
    if unparsed:
        does = "file does" if len(unparsed) == 1 else "files do"
        say(out)
        say(out, f"{len(unparsed)} {does} not parse: {_shortened(unparsed)}")
    say(out)


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_ROWS])
    return f"{shown} and {len(names) - _ROWS} more" if len(names) > _ROWS else shown
