"""`furu gc`: remove nodes from the store."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from typing import Annotated

import typer

import furu.store.catalog as catalog
from furu.cli.output import complain
from furu.cli.removing import Removal
from furu.cli.roots import load_roots
from furu.graph import walk
from furu.node.base import describe
from furu.settings import Settings, current_settings
from furu.store.layout import is_identifier

_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
# Two --keep options may need different modules of the same name, so each is imported in a separate process.
_CLOSURE = (
    "import sys; sys.path[:], sys.argv[:] = sys.argv[2:], ['furu', 'closure', sys.argv[1]]; "
    "from furu.cli import main; main()"
)


def gc(
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="Keep these nodes and everything they depend on. May be repeated.",
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Remove only nodes that have not changed for this long: 30d, 12h."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove nodes from the store.

    With --keep, removes all nodes that are not kept. With --older-than, removes old nodes. With both,
    removes nodes that are old and not kept.

    Shows what would be removed, and asks for confirmation. Never removes a node that is being computed, or
    that has changed since it was shown. Also removes kept digests of files that are gone or have changed.
    If nodes cannot be read or removed, names them and exits with 1.
    """
    if not keep and older_than is None:
        raise typer.BadParameter("say what to remove: --keep MODULE:NAME, --older-than AGE, or both")
    kept = {node_hash for target in keep or () for node_hash in _hashes_below(target)}
    before = time.time() - _age_sec(older_than) if older_than is not None else None
    settings = current_settings()
    problems: list[str] = []
    _choose(settings, kept, before, problems).remove(yes=yes, dry_run=dry_run)


def closure(roots: str) -> None:
    """Print the hashes of the given nodes and everything they depend on, for `furu gc --keep`."""
    with contextlib.redirect_stdout(sys.stderr):  # importing and walking run user code, which may print
        hashes: list[str] = []
        for node, below in walk(load_roots(roots)):
            hashes.append(node.furu_hash)
            if below.awaited:
                complain(
                    f"{describe(node)} may have more dependencies, which are known once "
                    f"{describe(below.awaited[0])} is computed"
                )
                raise typer.Exit(1)
    print("\n".join(hashes))


def _hashes_below(target: str) -> list[str]:
    """Return the hashes that `closure` prints. If `closure` fails, exit; stderr has the reason."""
    done = subprocess.run(  # noqa: S603  # this Python
        [sys.executable, "-c", _CLOSURE, target, *sys.path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        complain(f"nothing was removed, because the nodes of --keep {target} are not known")
        raise typer.Exit(2 if done.returncode == 2 else 1)
    return [line for line in done.stdout.split() if is_identifier(line)]


def _choose(settings: Settings, kept: set[str], before: float | None, problems: list[str]) -> Removal:
    chosen = Removal(settings, problems)
    for artifact in catalog.walk(settings, problems=problems):
        if artifact.hash not in kept and (before is None or catalog.changed_at(artifact) < before):
            chosen.add(artifact)
    return chosen


def _age_sec(text: str) -> float:
    match = _AGE.match(text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is not an age: give a number and s, m, h, d or w, such as 30d",
            param_hint="--older-than",
        )
    return float(match[1]) * _SECONDS[match[2]]
