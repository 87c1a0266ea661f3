"""`furu gc`: remove nodes from the store."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import typer

import furu.store.catalog as catalog
from furu.cli.output import console, say, show_table, size
from furu.cli.roots import load_roots
from furu.core import dependencies
from furu.dependencies import postorder
from furu.settings import current_settings
from furu.store.artifact import Status
from furu.store.removal import remove, remove_left_over

_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def gc(
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:NAME", help="Keep these nodes and all they depend on. May be repeated."
        ),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Remove only what last changed so long ago: 30d, 12h.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, and stop.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove nodes from the store: all but those to keep, or all that are old, or both.

    Shows what it would remove, and asks. Never touches a node that is being computed.
    """
    if not keep and older_than is None:
        raise typer.BadParameter("say what to remove: --keep MODULE:NAME, --older-than AGE, or both")
    kept = {node_hash for target in keep or () for node_hash in _closure(target)}
    before = time.time() - _age_sec(older_than) if older_than is not None else None
    settings = current_settings()
    chosen, counts, sizes = [], Counter[str](), Counter[str]()
    for entry in catalog.walk(settings):
        if entry.hash not in kept and _is_removable(entry, before):
            chosen.append(entry)
            counts[entry.name] += 1
            sizes[entry.name] += entry.size_bytes()
    out = console()
    say(out, f"{settings.store}: {len(chosen):,} nodes to remove, {size(sizes.total())}")
    show_table(
        out,
        ["class", "nodes", "size"],
        [[name, counts[name], size(sizes[name])] for name in sorted(counts)],
    )
    if dry_run or not chosen:
        return
    _ask(yes)
    remove_left_over(settings)
    removed = sum(map(remove, chosen))
    spared = len(chosen) - removed
    say(
        out,
        f"removed {removed:,} nodes" + (f"; {spared:,} are being computed, or were gone" if spared else ""),
    )


def _ask(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody is there to be asked: say --yes, or --dry-run to look only")
    if not typer.confirm("Remove them?"):
        raise typer.Exit(0)


def _closure(target: str) -> Iterator[str]:
    seen: set[str] = set()
    for root in load_roots(target):

        def below(node):  # type: ignore[no-untyped-def]
            if node.furu_hash in seen:
                return None
            seen.add(node.furu_hash)
            return dependencies(node)

        for _ in postorder(root, below):
            pass
    return iter(seen)


def _is_removable(entry: catalog.Entry, before: float | None) -> bool:
    if before is not None and _changed_at(entry) >= before:
        return False
    try:
        return entry.status() is not Status.IN_PROGRESS
    except OSError:
        return False


def _changed_at(entry: catalog.Entry) -> float:
    """When the node's directory or its `done` last changed."""
    times = []
    for path in (entry.files.directory, entry.files.done):
        try:
            times.append(os.lstat(path).st_mtime)
        except OSError:
            continue
    return max(times, default=time.time())


def _age_sec(text: str) -> float:
    match = _AGE.match(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no age: give a number and s, m, h, d or w, such as 30d")
    return float(match[1]) * _SECONDS[match[2]]
