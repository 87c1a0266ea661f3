"""Models of pydantic in results: their fields as plain data, and models made from such data.

A model is stored as the values of its fields under their own names. To make it again, each value is decoded
as its field declares, and then the model validates them all. pydantic is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from furu._common.shapes import is_pydantic_model

__all__ = ["fits_model", "model_annotations", "model_from"]


def model_annotations(cls: Any) -> Mapping[str, Any]:
    """Return the declared type of each field of a model. Raises `TypeError` for a field that a model can
    only be given by a path into other data."""
    for name, field in cls.__pydantic_fields__.items():
        if _input_name(cls, name, field) is None:
            raise TypeError(f"the field {cls.__qualname__}.{name} has no alias that is one name")
    return {name: field.annotation for name, field in cls.__pydantic_fields__.items()}


def fits_model(cls: Any, data: Any) -> bool:
    """Whether plain data has exactly the fields of a model."""
    return (
        is_pydantic_model(cls) and isinstance(data, dict) and data.keys() == cls.__pydantic_fields__.keys()
    )


def model_from(cls: Any, data: Any, convert: Callable[[Any, Any], Any]) -> Any:
    """Make a model from the values of its fields. `convert` decodes a value as a declared type.

    Raises `ValueError` or `TypeError` if the data does not fit.
    """
    if not isinstance(data, dict):
        raise TypeError(f"Expected `{cls.__qualname__}`, got `{type(data).__qualname__}`")
    given: dict[str, Any] = {}
    for name, value in data.items():
        field = cls.__pydantic_fields__.get(name)
        if field is None:  # one that the model allows without declaring it
            given[name] = value
        else:
            given[_input_name(cls, name, field) or name] = convert(field.annotation, value)
    if cls.__pydantic_root_model__:
        return cls.model_validate(given["root"], strict=False)
    # Lax, because an exact value of a strict field may have been plain JSON, such as the text of a date.
    return cls.model_validate(given, strict=False)


def _input_name(cls: Any, name: str, field: Any) -> str | None:
    """Return the name under which a model takes the value of a field; None if there is none."""
    config = cls.model_config
    if config.get("populate_by_name") or config.get("validate_by_name"):
        return name
    alias = field.validation_alias
    if alias is None:
        return name
    choices = getattr(alias, "choices", [alias])  # of an AliasChoices
    return next((choice for choice in choices if isinstance(choice, str)), None)
