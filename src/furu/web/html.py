"""HTML whose text is always escaped: only `el` makes markup. Pure."""

from __future__ import annotations

import html

from furu._common.text import printable

__all__ = ["Child", "Html", "document", "el", "join", "text_block"]

_VOID = frozenset({"link", "meta", "br"})


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


Child = Html | str | int | float | None


def el(tag: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return an element. All text in it and all values of attributes are escaped.

    An underscore in the name of an attribute becomes a dash, and one at its end is dropped (`class_`).
    Attributes that are None or False are left out, and of those that are True only the name is written.
    Children that are None are left out.

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
    """Return markup and text one after another, the text escaped."""
    return Html("".join(_child(child) for child in children if child is not None))


def text_block(text: str) -> Html:
    """Return a text of several lines, with unprintable characters as escapes."""
    lines = [printable(line.expandtabs(4)) for line in text.split("\n")]
    return el("pre", "\n".join(lines))


def document(title: str, head: Html, body: Html) -> str:
    """Return a whole page."""
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
    # A lone surrogate cannot be sent as UTF-8 at all.
    return html.escape(text.encode("utf-8", "backslashreplace").decode(), quote=True)
