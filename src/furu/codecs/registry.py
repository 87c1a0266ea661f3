"""Which codec stores a value: one of furu's own, or one that the user has registered."""

from __future__ import annotations

import importlib.util
import typing
from typing import Any

from furu._common.annotations import type_text
from furu._common.text import describe_error
from furu.codecs.libraries import BUILT_IN
from furu.codecs.protocol import BuiltIn, Codec
from furu.errors import FuruUsageError

__all__ = ["codec_for", "codec_named", "missing_packages", "register_codec"]

_registered: dict[str, Codec[Any]] = {}
_built_in: dict[str, Codec[Any]] = {codec.name: codec for codec in BUILT_IN}


def register_codec(codec: Codec[Any]) -> None:
    """Make furu store values with a codec, on their own or inside containers and objects with fields.

    Register the codec in every process, before a node whose result it handles is used.

    Raises `FuruUsageError` if `codec` is not a codec, or if its name is taken. A type that two codecs
    handle is an error when a class that declares it is first used.

    >>> import furu, json
    >>> class Words:
    ...     def __init__(self, words): self.words = words
    >>> class WordsCodec:
    ...     name = "words"
    ...     def handles(self, declared): return declared is Words
    ...     def save(self, value, directory):
    ...         (directory / "words.json").write_text(json.dumps(value.words))
    ...         return {"words": len(value.words)}
    ...     def load(self, directory, metadata):
    ...         return Words(json.loads((directory / "words.json").read_text()))
    >>> furu.register_codec(WordsCodec())
    """
    if not isinstance(codec, Codec) or not isinstance(codec.name, str) or not codec.name:
        raise FuruUsageError(
            f"register_codec takes an object with name, handles(), save() and load(), not {codec!r}"
        )
    if codec.name in _registered or codec.name in _built_in:
        raise FuruUsageError(f"a codec called {codec.name!r} exists already")
    _registered[codec.name] = codec


def codec_for(cls: Any) -> Codec[Any] | None:
    """Return the codec that stores values of a class; None if there is none. Raises `FuruUsageError` if two
    codecs do."""
    cls = typing.get_origin(cls) or cls
    if not isinstance(cls, type):
        return None
    codecs = [codec for codec in (*_registered.values(), *_built_in.values()) if _handles(codec, cls)]
    if len(codecs) > 1:
        raise FuruUsageError(
            f"{' and '.join(repr(codec.name) for codec in codecs)} are both codecs for {type_text(cls)}. "
            "A value must have one codec only: register one of them."
        )
    return codecs[0] if codecs else None


def codec_named(name: str) -> Codec[Any] | None:
    """Return the codec with a name; None if this process has none."""
    return _registered.get(name) or _built_in.get(name)


def missing_packages(codec: Codec[Any]) -> list[str]:
    """Return the packages that a codec needs and that are not installed."""
    needs = codec.needs if isinstance(codec, BuiltIn) else ()
    return [package for package in needs if importlib.util.find_spec(package) is None]


def _handles(codec: Codec[Any], cls: type) -> bool:
    try:
        return bool(codec.handles(cls))
    except Exception as error:
        raise FuruUsageError(
            f"the codec {codec.name!r} raised in handles({type_text(cls)}): {describe_error(error)}"
        ) from error
