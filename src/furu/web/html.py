"""HTML whose text is always escaped: markup can only be made by `el`. Pure."""

from __future__ import annotations

import html

from furu._common.text import printable

_VOID = frozenset({"link", "meta", "br"})


class Html(str):
    """Markup that `el` made: it is not escaped again."""

    __slots__ = ()


Child = Html | str | int | float | None


def el(tag: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return an element. Text among its children and all values of attributes are escaped.

    An underscore in an attribute's name stands for a dash, one at its end for nothing (`class_`); None
    and False leave the attribute out, True writes its name only. A child that is None is left out.

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
    """Return markup and text in a row, the text escaped."""
    return Html("".join(_child(child) for child in children if child is not None))


def text_block(text: str) -> Html:
    """Return text of many lines, with characters that are not printable written as escapes."""
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
