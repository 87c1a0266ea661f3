"""Helpers for the tests of nodes."""

from __future__ import annotations

from typing import Any, TypeVar

from furu import (
    Furu,
)

T = TypeVar("T")


class Holder(Furu[int]):
    value: Any = None

    def _create(self) -> int:
        return 1


def fail() -> None:
    raise ValueError("bad split")
