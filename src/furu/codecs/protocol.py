"""What a codec is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = ["BuiltIn", "Codec", "Metadata", "Saved"]

T = TypeVar("T")

# Plain JSON that describes a stored value, such as the shape of an array.
Metadata = dict[str, Any]


@runtime_checkable
class Codec(Protocol[T]):
    """Stores values of some types in files. Register an instance with `furu.register_codec`.

    `name` is recorded with each value, so it must not change while artifacts of the codec are in use.
    """

    name: str

    def handles(self, declared: type) -> bool:
        """Whether the codec stores values of this class."""
        ...

    def save(self, value: T, directory: Path) -> Metadata:
        """Write a value to files in an empty directory.

        Returns plain JSON that describes the value for people, and that `load` gets again. Loading must
        give an equal value: raise an exception if it would not.
        """
        ...

    def load(self, directory: Path, metadata: Metadata) -> T:
        """Read a value from the files that `save` wrote. Must not modify them, and must execute nothing
        that they contain."""
        ...


class Saved(Metadata):
    """Metadata of a built-in codec that has also worked out the sha256 of files."""

    def __init__(self, metadata: Metadata, digests: dict[str, str]) -> None:
        super().__init__(metadata)
        self.digests = digests


class BuiltIn:
    """Base class of furu's own codecs. `library` is the module whose classes a codec handles, and `needs`
    the packages that it uses besides. None of them is imported before such a class is used."""

    name: str
    library: str
    needs: Sequence[str] = ()

    def is_of_library(self, cls: type) -> bool:
        """Whether a class comes from the library."""
        return cls.__module__.partition(".")[0] == self.library
