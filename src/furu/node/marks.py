"""`field()`: says how a field of a node counts in identity, and whether it may be shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, overload

from furu.errors import FuruUsageError

__all__ = ["field"]

T = TypeVar("T")

_KEY = "furu"


@dataclasses.dataclass(frozen=True, slots=True)
class Marks:
    """What `field()` says about a field, besides what `dataclasses.field` knows."""

    added: bool = False
    known_as: str | None = None
    secret: bool = False


_NO_MARKS = Marks()


@overload
def field(
    *,
    default: T,
    init: bool = True,
    repr: bool = True,  # as in dataclasses
    counts: bool = True,
    added: bool = False,
    known_as: str | None = None,
    secret: bool = False,
    metadata: Mapping[Any, Any] | None = None,
) -> T: ...


@overload
def field(
    *,
    default_factory: Callable[[], T],
    init: bool = True,
    repr: bool = True,
    counts: bool = True,
    added: bool = False,
    known_as: str | None = None,
    secret: bool = False,
    metadata: Mapping[Any, Any] | None = None,
) -> T: ...


@overload
def field(
    *,
    init: bool = True,
    repr: bool = True,
    counts: bool = True,
    known_as: str | None = None,
    secret: bool = False,
    metadata: Mapping[Any, Any] | None = None,
) -> Any: ...


def field(
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    init: bool = True,
    repr: bool = True,  # noqa: A002
    counts: bool = True,
    added: bool = False,
    known_as: str | None = None,
    secret: bool = False,
    metadata: Mapping[Any, Any] | None = None,
) -> Any:
    """Describe a field of a `Furu` class. Like `dataclasses.field`, with four more options.

    Args:
        default: The value of the field if none is given.
        default_factory: Makes the value of the field if none is given.
        init: Whether the constructor takes the field. If not, `__post_init__` sets it.
        repr: Whether the field is shown in messages and records. Otherwise it is recorded as ``<hidden>``.
        counts: Whether the field counts in the hash. Nodes that differ only in a field that does not count
            are equal, and share one artifact: use it for what does not change the result.
        added: The field was added to a class that has artifacts. It does not count in the hash while it
            has its default value, so that these artifacts stay valid. Needs a default.
        known_as: The name of the field that counts in the hash. Give the old name when you rename a field,
            so that its artifacts stay valid.
        secret: The field does not count in the hash, and its value is never recorded, logged or shown.
        metadata: As in `dataclasses.field`.

    Raises:
        FuruUsageError: `added` is set without a default, or on a field that does not count; or `known_as`
            is not a name.

    >>> import furu
    >>> class Train(furu.Furu[float]):
    ...     rate: float = furu.field(known_as="lr")
    ...     stratify: bool = furu.field(default=False, added=True)
    ...     token: str = furu.field(default="", secret=True)
    >>> Train(rate=0.1, token="a1b2")
    Train(rate=0.1, stratify=False)
    """
    has_default = default is not dataclasses.MISSING or default_factory is not dataclasses.MISSING
    counts = counts and not secret
    if added and not has_default:
        raise FuruUsageError(
            "field(added=True) needs a default: the value with which the older artifacts were computed"
        )
    if (added or known_as is not None) and not counts:
        raise FuruUsageError(
            "added and known_as have no meaning for a field that does not count in the hash"
        )
    if known_as is not None and not (isinstance(known_as, str) and known_as.isidentifier()):
        raise FuruUsageError(f"known_as must be the former name of the field, not {known_as!r}")
    marks = Marks(added=added, known_as=known_as, secret=secret)
    return dataclasses.field(
        default=default,
        default_factory=default_factory,
        init=init,
        repr=repr and not secret,
        compare=counts,
        metadata={**(metadata or {}), _KEY: marks},
        kw_only=True,
    )


def marks_of(declared: dataclasses.Field[Any]) -> Marks:
    """Return what `field()` said about a field. A field without `field()` has the defaults."""
    marks = declared.metadata.get(_KEY, _NO_MARKS)
    return marks if isinstance(marks, Marks) else _NO_MARKS


def counting_name(declared: dataclasses.Field[Any]) -> str:
    """Return the name of a field that counts in the hash."""
    return marks_of(declared).known_as or declared.name


class CountingField(NamedTuple):
    """A field that counts in a node's hash: the name that counts, and the name of the attribute.

    If `left_out` is not None, the field does not count while the encoding of its value is `left_out`.
    """

    counts_as: str
    name: str
    left_out: bytes | None = None
