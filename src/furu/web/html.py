"""HTML in which text is always escaped: only `el` creates markup. Pure."""

from __future__ import annotations

import html

from furu._common.text import printable

__all__ = ["Child", "Html", "document", "el", "join", "text_block"]

_VOID = frozenset({"link", "meta", "br"})


class Html(str):
    """Markup: a string that is not escaped again."""

    __slots__ = ()


Child = Html | str | int | float | None


def el(tag: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return an element. All its text and attribute values are escaped.

    An underscore in an attribute name becomes a dash, and a trailing underscore is dropped (`class_`). An
    attribute that is None or False is left out; if it is True, only its name is written. Children that are
    None are left out.

    >>> el("a", "<b>", href="/?a=1&b=2")
    '<a href="/?a=1&amp;b=2">&lt;b&gt;</a>'
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """Join pieces of markup and text. The text is escaped."""
    return Html("".join(_child(child) for child in children if child is not None))


def text_block(text: str) -> Html:
    """Return a block of preformatted lines. Unprintable characters are escaped."""
    lines = [printable(line.expandtabs(4)) for line in text.split("\n")]
    return el("pre", "\n".join(lines))


def document(title: str, head: Html, body: Html) -> str:
    """Return a complete page."""
    inside = join(
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        head,
    )
    return "<!doctype html>" + el("html", el("head", inside), body, lang="en")


def _child(child: Html | str | float) -> str:
    return child if isinstance(child, Html) else _escaped(str(child))


def _escaped(text: str) -> str:
    # A lone surrogate cannot be encoded as UTF-8, so it becomes a backslash escape.
    return html.escape(text.encode("utf-8", "backslashreplace").decode(), quote=True)
