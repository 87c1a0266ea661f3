"""`furu rm`: remove nodes by class or hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

import furu.store.catalog as catalog
from furu.cli.removing import Removal
from furu.cli.run import is_meant
from furu.errors import FuruError
from furu.settings import Settings, current_settings
from furu.store.artifact import Artifact, Status

# Nodes that are IN_PROGRESS are never removed.
_STATES = {"done": Status.DONE, "failed": Status.FAILED, "todo": Status.TODO}


def rm(
    nodes: Annotated[
        list[str],
        typer.Argument(metavar="CLASS|HASH...", help="Classes, with or without their module, or hashes."),
    ],
    state: Annotated[
        str | None, typer.Option(help="Remove only nodes in this state: done, failed or todo.")
    ] = None,
    below: Annotated[
        bool, typer.Option("--below", help="Also remove the nodes that are recorded in their fields.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove nodes with these classes or hashes from the store.

    A hash may be shortened to its first four digits or more. A todo node is one whose attempts were
    interrupted or cancelled. With --below, also removes the nodes in the fields of these nodes, and so on.
    Nodes that depend on a removed node stay.

    Shows what would be removed, and asks for confirmation. Never removes a node that is being computed.
    Exits with 1 if nothing in the store has one of the classes or hashes.
    """
    if state is not None and state not in _STATES:
        raise typer.BadParameter(f"{state!r} is not one of {', '.join(_STATES)}", param_hint="--state")
    settings = current_settings()
    problems: list[str] = []
    meant = _meant(settings, nodes, problems)
    if below:
        meant += _below(settings, meant, problems)
    chosen = Removal(settings, problems)
    for artifact in meant:
        if state is None or _is_in(artifact, _STATES[state], problems):
            chosen.add(artifact)
    chosen.remove(yes=yes, dry_run=dry_run)


def _meant(settings: Settings, texts: list[str], problems: list[str]) -> list[Artifact]:
    """Return the nodes that have one of the classes or hashes."""
    found: list[Artifact] = []
    used: set[str] = set()
    for artifact in catalog.walk(settings, problems=problems):
        meant = [text for text in texts if is_meant(text, artifact.node_class, artifact.hash)]
        if meant:
            used.update(meant)
            found.append(artifact)
    unused = [text for text in texts if text not in used]
    if unused:
        raise FuruError(f"nothing in {settings.store} has the class or the hash {' or '.join(unused)}")
    return found


def _below(settings: Settings, above: Iterable[Artifact], problems: list[str]) -> list[Artifact]:
    """Return the nodes that are recorded in the configurations of other nodes, at any depth."""
    known = {artifact.hash for artifact in above}
    found: list[Artifact] = []
    pending = list(above)
    while pending:
        info = catalog.inspect(pending.pop())
        if info.problem:
            problems.append(f"what {info.artifact} depends on is not known: {info.problem}")
        for node_hash in info.depends_on:
            if node_hash in known:
                continue
            known.add(node_hash)
            for artifact in catalog.walk(settings, prefix=node_hash):  # none for an input file
                found.append(artifact)
                pending.append(artifact)
    return found


def _is_in(artifact: Artifact, status: Status, problems: list[str]) -> bool:
    try:
        return artifact.status() is status
    except FuruError as error:
        problems.append(f"{artifact} is kept, because it cannot be read: {error}")
        return False
