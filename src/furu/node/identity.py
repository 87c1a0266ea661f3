"""Identity: encodes values as canonical bytes, and hashes the bytes. Does not touch the disk.

The encoding is prefix-free: a value begins with a tag for its type, and its encoding shows where the value
ends. Two values have the same encoding only if they are the same configuration. A value has the same
encoding in every process: it does not depend on the hash seed, the order of a set or the Python version. A
node inside a value is encoded by the node's hash (a Merkle tree), so the time to hash a graph is linear in
the number of nodes.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import functools
import hashlib
import pathlib
import struct
import uuid
import zoneinfo
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from furu._common.origin import once_a_class
from furu._common.shapes import Shape, shape_of
from furu.errors import FuruIdentityError, FuruUsageError
from furu.node.forms import NoCanonicalForm, foreign_form
from furu.node.marks import CountingField
from furu.node.names import Identified, stored_name

T = TypeVar("T")

DIGEST_BYTES = 16
# Stops the encoding of a container that contains itself. No real configuration is nested this deep.
MAX_DEPTH = 100
# Raise this number when the encoding changes. Older artifacts are then no longer found.
_ENCODING_VERSION = b"furu-1"


class _Parts(list[bytes]):
    """The encoding of a value, in parts. `is_fixed` is False if something in the value can be modified."""

    is_fixed = True


_Encoder = Callable[[Any, _Parts, int], None]


class _NoForm(Exception):
    """Raised for a value without a canonical form. Each container around the value adds a step to the
    path."""

    def __init__(self, reason: str, joint: str = ": ") -> None:
        super().__init__(reason)
        self.reason = joint + reason  # follows the path in the message
        self.steps: list[str] = []

    def passes(self, template: str, key: object) -> None:
        """Add the step for a dict key or a set item. If its `__repr__` raises, the step shows only its
        type."""
        try:
            shown = repr(key)
        except Exception:
            shown = f"<{type(key).__qualname__}>"
        self.steps.append(template.format(shown))


def node_hash(node: object, version: object, fields: Iterable[CountingField]) -> tuple[str, bool]:
    """Return the hash of a node's class, its `_version` and `fields`, which must be sorted; and whether all
    values in these fields are immutable, so that the hash cannot change.

    The hash is 128 bits of blake2b as 32 hexadecimal digits. Raises `FuruIdentityError`, with the path to
    the value, if a value has no canonical form.
    """
    parts = _Parts()
    cls = type(node)
    name = "_version"
    try:
        parts.append(_class_bytes(cls))
        _encode(version, parts, 0)
        for counts_as, name, left_out in fields:  # the error below names the field
            begin = len(parts)
            parts.append(_name_bytes(counts_as))
            _encode(_field_value(node, name), parts, 0)
            if left_out is not None and left_out == b"".join(parts[begin + 1 :]):
                del parts[begin:]
    except _NoForm as error:
        path = f"{cls.__qualname__}.{name}{''.join(reversed(error.steps))}"
        raise FuruIdentityError(f"{path}{error.reason}", field_path=path) from None
    digest = hashlib.blake2b(b"".join(parts), digest_size=DIGEST_BYTES, person=_ENCODING_VERSION)
    return digest.hexdigest(), parts.is_fixed


def encoded(value: Any) -> bytes:
    """Return the canonical bytes of a value. Raises `FuruIdentityError` if it has no canonical form."""
    parts = _Parts()
    try:
        _encode(value, parts, 0)
    except _NoForm as error:
        path = f"the value{''.join(reversed(error.steps))}"
        raise FuruIdentityError(f"{path}{error.reason}", field_path=path) from None
    return b"".join(parts)


def register_canonical_form(cls: type[T], form: Callable[[T], Any]) -> None:
    """Define the canonical form of a type, so that its values may be fields of nodes.

    `form` receives a value of exactly this type, and returns a value that has a canonical form. The type's
    name counts too, so values of two types never have the same hash. Register the type in every process,
    before a node with such a value is created.

    Raises `FuruUsageError` if `cls` is not a type, or has a canonical form already.

    >>> import furu
    >>> class Point:
    ...     def __init__(self, x, y): self.x, self.y = x, y
    >>> furu.register_canonical_form(Point, lambda point: (point.x, point.y))
    """
    if not isinstance(cls, type):
        raise FuruUsageError(f"register_canonical_form takes a type first, not {cls!r}")
    if cls in _ENCODERS or issubclass(cls, Identified):
        raise FuruUsageError(f"{cls.__qualname__} has a canonical form already")
    _FORMS[cls] = form

    def encode(value: Any, parts: _Parts, depth: int) -> None:
        parts.append(b"R")
        parts.is_fixed = False
        parts.append(_class_bytes(cls))
        _encode(form(value), parts, depth + 1)

    _ENCODERS[cls] = encode


def canonical_form(value: Any) -> Any:
    """Return the canonical form of a value of a registered type. Returns other values unchanged."""
    for _ in range(MAX_DEPTH):
        form = _FORMS.get(type(value))
        if form is None:
            return value
        value = form(value)
    raise FuruUsageError(f"the canonical form of a {type(value).__qualname__} has no end")


# ---- the encoders, one for each exact type ----


def _encode(value: Any, parts: _Parts, depth: int) -> None:
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        encoder = _encoder_of_kind(value)
    if depth > MAX_DEPTH:
        raise _NoForm(f"nested deeper than {MAX_DEPTH} levels; does a container hold itself?")
    encoder(value, parts, depth)


def _encoder_of_kind(value: Any) -> _Encoder:
    """Choose an encoder for a value whose exact type has none."""
    if isinstance(value, Identified):
        return _encode_node
    if isinstance(value, enum.Enum):
        return _encode_enum
    if isinstance(value, type):
        return _encode_type
    shape = shape_of(type(value))
    if shape is not None:
        return lambda value, parts, depth: _encode_fields(shape, value, parts, depth)
    foreign = foreign_form(type(value))
    if foreign is None:
        raise _without_form(value)
    name, form = foreign
    return lambda value, parts, depth: _encode_foreign(name, form, value, parts, depth)


def _encode_foreign(name: str, form: Callable[[Any], Any], value: Any, parts: _Parts, depth: int) -> None:
    try:
        plain = form(value)
    except NoCanonicalForm as error:
        raise _NoForm(str(error), joint=" ") from None
    parts.append(b"R")
    parts.is_fixed = False
    parts.append(_class_name_bytes(name))
    _encode(plain, parts, depth + 1)


def _without_form(value: Any) -> _NoForm:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.partition(".")[0] in _LIBRARIES_OF_TABLES:
        return _NoForm(
            f"is a {name}: pass the node that makes it, or save it and pass a furu.File", joint=" "
        )
    return _NoForm(
        f"a value of type {name} has no canonical form. Use plain "
        "values (numbers, strings, paths, dates, enums, dataclasses, lists, tuples, dicts, sets, arrays, "
        "nodes), exclude the field with furu.field(counts=False), or give the type a form with "
        "furu.register_canonical_form(type, to_plain_value)"
    )


# Their values are large, and belong to results rather than to configurations.
_LIBRARIES_OF_TABLES = frozenset({"numpy", "pandas", "polars", "pyarrow", "torch", "PIL", "scipy"})


def _field_value(value: Any, name: str) -> Any:
    """Return the value of a field. Raises `_NoForm` if it is not set."""
    try:
        return getattr(value, name)
    except AttributeError:
        raise _NoForm("it has no value; what the constructor does not set, __post_init__ must") from None


def _sized(tag: bytes, content: bytes, parts: _Parts) -> None:
    parts.append(b"%b%d:" % (tag, len(content)))
    parts.append(content)


def _encode_str(value: str, parts: _Parts, depth: int) -> None:
    _sized(b"s", value.encode("utf-8", "surrogatepass"), parts)


def _encode_int(value: int, parts: _Parts, depth: int) -> None:
    # Hexadecimal, because decimal digits of a huge int take quadratic time, and Python allows only 4,300.
    parts.append(b"i%x;" % value if value >= 0 else b"i-%x;" % -value)


def _encode_float(value: float, parts: _Parts, depth: int) -> None:
    # All NaNs are the same configuration; 0.0 and -0.0 are different ones.
    parts.append(b"f" + struct.pack(">d", value) if value == value else b"j")


def _encode_complex(value: complex, parts: _Parts, depth: int) -> None:
    parts.append(b"c")
    _encode_float(value.real, parts, depth)
    _encode_float(value.imag, parts, depth)


def _encode_items(tag: bytes, value: Any, parts: _Parts, depth: int) -> None:
    parts.append(b"%b%d:" % (tag, len(value)))
    index = 0
    try:
        for index, item in enumerate(value):  # noqa: B007  # the error below names the index
            _encode(item, parts, depth + 1)
    except _NoForm as error:
        error.steps.append(f"[{index}]")
        raise


def _encode_set(tag: bytes, value: Any, parts: _Parts, depth: int) -> None:
    encoded: list[bytes] = []
    for item in value:
        own = _Parts()
        try:
            _encode(item, own, depth + 1)
        except _NoForm as error:
            error.passes("{{{}}}", item)
            raise
        parts.is_fixed &= own.is_fixed
        encoded.append(b"".join(own))
    parts.append(b"%b%d:" % (tag, len(encoded)))
    parts.extend(sorted(encoded))


def _encode_dict(value: Any, parts: _Parts, depth: int) -> None:
    parts.is_fixed = False
    encoded: list[tuple[bytes, bytes]] = []
    for key, item in value.items():
        key_parts, item_parts = _Parts(), _Parts()
        try:
            _encode(key, key_parts, depth + 1)
            _encode(item, item_parts, depth + 1)
        except _NoForm as error:
            error.passes("[{}]", key)
            raise
        encoded.append((b"".join(key_parts), b"".join(item_parts)))
    encoded.sort()
    parts.append(b"d%d:" % len(encoded))
    for pair in encoded:
        parts.extend(pair)


def _encode_fields(shape: Shape, value: Any, parts: _Parts, depth: int) -> None:
    held = getattr(value, "__dict__", None)
    if (shape.is_open or (held and not held.keys() <= shape.known)) and (
        others := shape.other_state(value)
    ):
        raise _NoForm(
            f"a {type(value).__qualname__} keeps state outside its fields, which would not count: "
            f"{', '.join(others)}. Declare it as a field (with compare=False if it must not count), or "
            "give the type a form with furu.register_canonical_form(type, to_plain_value)"
        )
    parts.append(b"M" if shape.is_tuple else b"O")
    parts.is_fixed &= shape.is_frozen
    parts.append(_class_bytes(type(value)))
    name = ""
    try:
        for name in shape.names:
            parts.append(_name_bytes(name))
            _encode(_field_value(value, name), parts, depth + 1)
    except _NoForm as error:
        error.steps.append(f".{name}")
        raise
    parts.append(b".")


def _encode_node(value: Identified, parts: _Parts, depth: int) -> None:
    parts.append(b"N")
    parts.append(bytes.fromhex(value._furu_hash))


def _encode_enum(value: enum.Enum, parts: _Parts, depth: int) -> None:
    cls = type(value)
    parts.append(b"E")
    parts.append(_class_bytes(cls))
    if isinstance(value, enum.Flag):  # names of combined flags differ between Python versions
        _encode_int(int(value._value_), parts, depth)
    elif cls.__members__.get(value._name_) is value:
        _encode_str(value._name_, parts, depth)
    else:
        raise _NoForm(
            f"a value that is not among the members of the enum {cls.__qualname__} has no canonical form"
        )


def _encode_type(value: type, parts: _Parts, depth: int) -> None:
    parts.append(b"C" + _class_bytes(value))


@once_a_class
def _class_bytes(cls: type) -> bytes:
    return _class_name_bytes(stored_name(cls))


def _class_name_bytes(name: str) -> bytes:
    module, _, qualname = name.partition(":")
    return _name_bytes(_MOVED.get(module, module)) + _name_bytes(qualname)


@functools.lru_cache(maxsize=4096)
def _name_bytes(name: str) -> bytes:
    parts = _Parts()
    _encode_str(name, parts, 0)
    return b"".join(parts)


def _encode_path(value: pathlib.PurePath, parts: _Parts, depth: int) -> None:
    flavour = b"w" if isinstance(value, pathlib.PureWindowsPath) else b"p"
    _sized(b"P" + flavour, str(value).encode("utf-8", "surrogatepass"), parts)


def _encode_time(value: dt.datetime | dt.time, parts: _Parts, depth: int) -> None:
    parts.append(b"t" if isinstance(value, dt.time) else b"D")
    zone = value.tzinfo
    is_named = type(zone) is zoneinfo.ZoneInfo
    # The offset of a named zone is left out, because it depends on this machine's time zone data.
    _encode_str((value.replace(tzinfo=None) if is_named else value).isoformat(), parts, depth)
    parts.append(b"%d" % value.fold)
    if type(zone) is zoneinfo.ZoneInfo:
        _encode_zone(zone, parts, depth)
    elif zone is None or type(zone) is dt.timezone:
        parts.append(b"-")  # the text contains the offset
    else:
        raise _NoForm(f"a time zone of type {type(zone).__qualname__} has no canonical form")


def _encode_zone(value: zoneinfo.ZoneInfo, parts: _Parts, depth: int) -> None:
    if value.key is None:
        raise _NoForm("a time zone without a name, read from a file, has no canonical form")
    _sized(b"Z", value.key.encode(), parts)


def _encode_decimal(value: decimal.Decimal, parts: _Parts, depth: int) -> None:
    # Encode the parts, because the text of a Decimal depends on the decimal context.
    sign, digits, exponent = value.as_tuple()
    _sized(b"m", f"{sign},{''.join(map(str, digits))},{exponent}".encode(), parts)


def _encode_fraction(value: fractions.Fraction, parts: _Parts, depth: int) -> None:
    parts.append(b"q")
    _encode_int(value.numerator, parts, depth)
    _encode_int(value.denominator, parts, depth)


def _by_text(tag: bytes, text: Callable[[Any], str]) -> _Encoder:
    def encode(value: Any, parts: _Parts, depth: int) -> None:
        _sized(tag, text(value).encode(), parts)

    return encode


def _constant(content: bytes) -> _Encoder:
    return lambda value, parts, depth: parts.append(content)


def _container(encode: Callable[[bytes, Any, _Parts, int], None], tag: bytes) -> _Encoder:
    return lambda value, parts, depth: encode(tag, value, parts, depth)


def _modifiable(encode: _Encoder) -> _Encoder:
    def encode_modifiable(value: Any, parts: _Parts, depth: int) -> None:
        parts.is_fixed = False
        encode(value, parts, depth)

    return encode_modifiable


def _encode_timedelta(value: dt.timedelta, parts: _Parts, depth: int) -> None:
    parts.append(b"l%d,%d,%d;" % (value.days, value.seconds, value.microseconds))


def _encode_range(value: range, parts: _Parts, depth: int) -> None:
    _encode_items(b"r", (value.start, value.stop, value.step), parts, depth)


# Modules of Python that have other names in some versions.
_MOVED = {"pathlib._local": "pathlib"}

_FORMS: dict[type, Callable[[Any], Any]] = {}

_ENCODERS: dict[type, _Encoder] = {
    type(None): _constant(b"n"),
    type(...): _constant(b"e"),
    bool: lambda value, parts, depth: parts.append(b"T" if value else b"F"),
    int: _encode_int,
    float: _encode_float,
    complex: _encode_complex,
    str: _encode_str,
    bytes: lambda value, parts, depth: _sized(b"b", value, parts),
    bytearray: _modifiable(lambda value, parts, depth: _sized(b"a", bytes(value), parts)),
    tuple: _container(_encode_items, b"("),
    list: _modifiable(_container(_encode_items, b"[")),
    set: _modifiable(_container(_encode_set, b"{")),
    frozenset: _container(_encode_set, b"<"),
    dict: _encode_dict,
    range: _encode_range,
    dt.datetime: _encode_time,
    dt.time: _encode_time,
    dt.date: _by_text(b"y", dt.date.isoformat),
    dt.timedelta: _encode_timedelta,
    dt.timezone: _by_text(b"z", repr),
    zoneinfo.ZoneInfo: _encode_zone,
    decimal.Decimal: _encode_decimal,
    fractions.Fraction: _encode_fraction,
    uuid.UUID: _by_text(b"u", str),
    pathlib.PurePosixPath: _encode_path,
    pathlib.PosixPath: _encode_path,
    pathlib.PureWindowsPath: _encode_path,
    pathlib.WindowsPath: _encode_path,
}
