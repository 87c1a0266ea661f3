"""`furu graph`: draw nodes and their dependencies."""

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
from furu.graph import make_graph
from furu.node.base import Node, describe
from furu.node.load import status


class Format(StrEnum):
    """The formats of a drawing."""

    MERMAID = "mermaid"
    DOT = "dot"
    HTML = "html"


_WRITERS = {Format.MERMAID: to_mermaid, Format.DOT: to_dot, Format.HTML: to_html}


def graph(
    roots: Annotated[str, typer.Argument(help=HELP)],
    as_: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.MERMAID,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write instead of stdout.", dir_okay=False),
    ] = None,
) -> None:
    """Draw nodes and everything they depend on, with states.

    Writes a Mermaid flowchart, DOT, or an HTML page.
    """
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
    graph = make_graph(roots)
    labels = graph.labels()
    drawn = []
    for node in graph.nodes:
        source, name = graph.sources[node.hash], labels[node.node_class]
        drawn.append(
            DrawnNode(node.hash, name, describe(source), status(source), node.level, node.depends_on)
        )
    return drawn
