"""`furu graph`: draw nodes and what they depend on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from furu.cli.output import complain
from furu.cli.roots import HELP, load_roots
from furu.drawing import DrawnNode, to_dot, to_html, to_mermaid
from furu.errors import FuruError
from furu.node.base import Node, describe
from furu.node.dependencies import dependencies, postorder
from furu.node.load import status


class Format(StrEnum):
    """What a graph is written as."""

    MERMAID = "mermaid"
    DOT = "dot"
    HTML = "html"


_WRITERS = {Format.MERMAID: to_mermaid, Format.DOT: to_dot, Format.HTML: to_html}


def graph(
    roots: Annotated[str, typer.Argument(help=HELP)],
    as_: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.MERMAID,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write, in place of stdout.", dir_okay=False),
    ] = None,
) -> None:
    """Draw nodes and all they depend on, with their states, as Mermaid, DOT, or a page of its own."""
    text = _WRITERS[as_](_drawn(load_roots(roots)))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FuruError(f"cannot write {output}: {error.strerror or error}") from error
    complain(f"wrote {output}")


def _drawn(roots: Sequence[Node[Any]]) -> list[DrawnNode]:
    seen: set[str] = set()
    drawn = []
    below: dict[str, list[str]] = {}

    def visit(node: Node[Any]) -> list[Node[Any]] | None:
        if node.furu_hash in seen:
            return None
        seen.add(node.furu_hash)
        found = dependencies(node)
        below[node.furu_hash] = [one.furu_hash for one in found]
        return found

    for root in roots:
        for node in postorder(root, visit):
            key = node.furu_hash
            name = type(node).__qualname__
            drawn.append(DrawnNode(key, name, describe(node), status(node), tuple(below.pop(key))))
    return drawn
