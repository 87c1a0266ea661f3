"""Whether a result was read back as it was returned.

`==` alone does not answer this: classes may define it themselves, and the `==` of dataclasses leaves out
fields with `compare=False` and attributes that are not fields. So values with fields are compared field by
field, with all other state that they keep.
"""

from __future__ import annotations

import functools
import marshal
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any

from furu._common.shapes import field_values, state_outside_fields
from furu.codecs.custom import is_numpy_scalar
from furu.codecs.registry import codec_for

__all__ = ["first_difference", "is_same"]

# Values of exactly these types have no other state than what `==` compares.
_SCALARS = frozenset({int, str, bool, bytes, type(None)})
_CONTAINERS = (list, tuple, dict, set, frozenset)


def is_same(value: Any, loaded: Any, *, any_sequence: bool = False) -> bool:
    """Whether a result was read back as it was returned.

    NaN is the same as NaN, an int as an equal float, and a value of a subclass of a built-in type as the
    plain value, if the subclass keeps no attributes. With `any_sequence`, a tuple is the same as an equal
    list. For values that a codec stored, the codec has made sure.
    """
    return _is_plain_copy(value, loaded) or _is_same(value, loaded, any_sequence)


def first_difference(value: Any, loaded: Any, *, any_sequence: bool = False) -> str:
    """Return the place at which two values differ, and what stands there, for messages."""
    where = ""
    same = functools.partial(_is_same, any_sequence=any_sequence)
    while type(value) is type(loaded):
        lost = _lost_state(value, loaded, same)
        if lost:
            return f"value{where} keeps state outside its fields, which is lost: {', '.join(lost)}"
        steps = _steps(value, loaded)
        step = next((step for step in steps if not same(step[1], step[2])), None)
        if step is None:
            break
        where += step[0]
        value, loaded = step[1:]
    return f"value{where} is {_short(value)} and would come back as {_short(loaded)}"


def _is_plain_copy(value: Any, loaded: Any) -> bool:
    """Whether two values are equal and consist of plain built-in types only.

    `marshal` answers this at the speed of C: it refuses every other type, and in format 2 the bytes do not
    depend on how the objects are shared.
    """
    try:
        return marshal.dumps(value, 2) == marshal.dumps(loaded, 2)
    except ValueError:
        return False


def _is_same(value: Any, loaded: Any, any_sequence: bool) -> bool:
    cls, other = type(value), type(loaded)
    if cls is other and cls in _SCALARS:
        return bool(value == loaded)
    if is_numpy_scalar(cls) and not is_numpy_scalar(other):
        return _is_same(value.item(), loaded, any_sequence)
    same = functools.partial(_is_same, any_sequence=any_sequence)
    if isinstance(value, (float, complex)) and isinstance(loaded, (float, complex)):
        return _is_same_number(value, loaded)
    fields = field_values(value)
    if fields is not None:
        return cls is other and _is_same_record(value, fields, loaded, same)
    if isinstance(value, _CONTAINERS):
        return _is_same_container(value, loaded, same, any_sequence)
    if isinstance(value, PurePath):
        return isinstance(loaded, Path) and _is_same_path(value, loaded)
    codec = codec_for(cls)
    if codec is not None:
        return codec is codec_for(other)
    try:
        return bool(value == loaded)
    except Exception:  # if a user's __eq__ raises, the values do not count as equal
        return False


def _is_same_number(value: complex, loaded: complex) -> bool:
    return all(
        one == other or (math.isnan(one) and math.isnan(other))
        for one, other in ((value.real, loaded.real), (value.imag, loaded.imag))
    )


def _is_same_path(value: PurePath, loaded: Path) -> bool:
    if str(value) == str(loaded):
        return True
    # One of the two may lead through a symbolic link to the store.
    return value.is_absolute() and os.path.realpath(value) == os.path.realpath(loaded)


def _is_same_record(
    value: Any, fields: dict[str, Any], loaded: Any, same: Callable[[Any, Any], bool]
) -> bool:
    others = field_values(loaded) or {}
    return (
        fields.keys() == others.keys()
        and all(same(item, others[name]) for name, item in fields.items())
        and not _lost_state(value, loaded, same)
    )


def _lost_state(value: Any, loaded: Any, same: Callable[[Any, Any], bool]) -> list[str]:
    """Return the names of state that a value keeps outside its fields, and that reading it back loses."""
    state, other = state_outside_fields(value), state_outside_fields(loaded)
    return [name for name, item in state.items() if name not in other or not same(item, other[name])]


def _is_same_container(
    value: Any, loaded: Any, same: Callable[[Any, Any], bool], any_sequence: bool
) -> bool:
    kind = next(base for base in _CONTAINERS if isinstance(value, base))
    kinds: Any = (list, tuple) if any_sequence and kind in (list, tuple) else kind
    if not isinstance(loaded, kinds) or len(value) != len(loaded) or _lost_state(value, loaded, same):
        return False
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        pairs = ((item, loaded[key]) for key, item in value.items() if key in loaded)
    elif isinstance(value, (set, frozenset)):
        members = {_set_key(item): item for item in loaded}
        pairs = ((item, members[_set_key(item)]) for item in value if _set_key(item) in members)
    else:
        pairs = zip(value, loaded, strict=True)
    results = [same(item, other) for item, other in pairs]
    return len(results) == len(value) and all(results)


def _set_key(item: Any) -> Any:
    return "NaN" if item != item else item  # NaN equals nothing, not even itself


def _steps(value: Any, loaded: Any) -> list[tuple[str, Any, Any]]:
    """Return the values inside two values of one type, with the text that leads to each."""
    fields = field_values(value)
    if fields is not None:
        others = field_values(loaded) or {}
        return [(f".{name}", fields[name], others[name]) for name in fields if name in others]
    if isinstance(value, dict) and value.keys() == loaded.keys():
        return [(f"[{key!r}]", value[key], loaded[key]) for key in value]
    if isinstance(value, (list, tuple)) and len(value) == len(loaded):
        return [(f"[{i}]", old, loaded[i]) for i, old in enumerate(value)]
    return []


def _short(value: Any) -> str:
    text = repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return f"{text} ({type(value).__qualname__})"
