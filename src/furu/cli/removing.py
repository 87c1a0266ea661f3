"""What `furu gc` and `furu rm` share: they show the nodes to remove, ask, and remove them."""

from __future__ import annotations

import sys
from collections import Counter

import typer

from furu.cli.output import complain, console, say, show_table, size
from furu.errors import FuruError
from furu.settings import Settings
from furu.store.artifact import Artifact, Status
from furu.store.catalog import changed_at, size_bytes
from furu.store.digests import remove_stale_digests
from furu.store.removal import remove, remove_left_over

__all__ = ["Removal"]


class Removal:
    """The nodes of a store that a command is to remove. `problems` describes what cannot be read or
    removed."""

    def __init__(self, settings: Settings, problems: list[str]) -> None:
        self._settings = settings
        self._problems = problems
        # With the time of each node's last change, so that a node that changes meanwhile is spared.
        self._nodes: list[tuple[Artifact, float]] = []

    def add(self, artifact: Artifact) -> None:
        """Choose a node, unless it is being computed or cannot be read."""
        at = changed_at(artifact)
        try:
            is_idle = artifact.status() is not Status.IN_PROGRESS
        except (FuruError, OSError) as error:
            self._problems.append(f"{artifact} is kept, because it cannot be read: {error}")
            return
        if is_idle:
            self._nodes.append((artifact, at))

    def remove(self, *, yes: bool, dry_run: bool) -> None:
        """Show the chosen nodes, ask for confirmation unless `yes`, and remove them unless `dry_run`. Exits
        with 1 if there are problems, which are named."""
        self._show()
        if self._nodes and not dry_run:
            _ask(yes)
            self._remove()
        for problem in self._problems:
            complain(problem)
        if self._problems:
            raise typer.Exit(1)

    def _show(self) -> None:
        counts, sizes = Counter[str](), Counter[str]()
        for artifact, _ in self._nodes:
            counts[artifact.node_class] += 1
            sizes[artifact.node_class] += size_bytes(artifact)
        out = console()
        say(out, f"{self._settings.store}: {len(self._nodes):,} nodes to remove, {size(sizes.total())}")
        rows = [[name, counts[name], size(sizes[name])] for name in sorted(counts)]
        show_table(out, ["class", "nodes", "size"], rows)

    def _remove(self) -> None:
        try:
            remove_left_over(self._settings)
            remove_stale_digests(self._settings)
        except (FuruError, OSError) as error:
            self._problems.append(f"the rest of earlier removals could not be removed: {error}")
        removed = spared = 0
        for artifact, at in self._nodes:
            try:
                if changed_at(artifact) == at and remove(artifact):
                    removed += 1
                else:
                    spared += 1
            except (FuruError, OSError) as error:
                self._problems.append(f"{artifact} was not removed: {error}")
        more = f"; {spared:,} are being computed, have changed, or were gone" if spared else ""
        say(console(), f"removed {removed:,} nodes{more}")


def _ask(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "stdin is not a terminal: pass --yes to confirm or --dry-run to preview", param_hint="--yes"
        )
    if not typer.confirm("Remove them?"):
        raise typer.Exit(0)
