"""Parts of a result: values inside it that a codec stores in files of their own.

Where a part stands in a result, the stored JSON has a placeholder: an object with one key, which is drawn
at random for each result, so that no data of the user can be taken for a placeholder. It names the codec,
the number of the part, and its files with their sizes and digests.

    <files of the attempt>/furu.parts/0/    the files of the first part
                                      1/    of the second
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any

from furu._common.shapes import field_values, is_pydantic_model
from furu._common.text import a_type, describe_error
from furu.codecs.custom import is_numpy_scalar
from furu.codecs.protocol import BuiltIn, Codec, Saved
from furu.codecs.registry import codec_for, codec_named
from furu.errors import FuruResultError, FuruStoreError

__all__ = ["PARTS", "PartReader", "PartWriter", "descriptions"]

# The directory of the parts among the files of an attempt.
PARTS = "furu.parts"
# Larger `bytes` are parts.
LARGE_BYTES = 2**20

# Size, mtime, ctime, inode and device of a file, and its sha256.
_Stamp = list[Any]
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class PartWriter:
    """Converts a result to plain JSON data, and stores the parts of it. `directory` returns the directory
    of the attempt's files, which it creates when it is first called."""

    def __init__(self, directory: Callable[[], str]) -> None:
        self.key = f"furu:{os.urandom(8).hex()}"
        # Whether the data has placeholders, and whether anything in it was converted.
        self.has_placeholders = False
        self.has_changed = False
        self._directory = directory
        self._count = 0

    def convert(self, value: Any) -> Any:
        """Return plain data for a value that msgspec cannot encode. Raises `NotImplementedError` if no
        codec stores it, and `FuruResultError` if its codec refuses it."""
        self.has_changed = True
        cls = type(value)
        if is_numpy_scalar(cls):
            return value.item()
        if isinstance(value, PurePath):
            return self._placeholder({"path": self._relative(value)})
        if cls is complex:
            return self._placeholder({"complex": [repr(value.real), repr(value.imag)]})
        if is_pydantic_model(cls):
            return field_values(value)
        codec = codec_for(cls)
        if codec is None:
            raise NotImplementedError
        return self._part(codec, value)

    def mark(self, tree: Any) -> Any:
        """Replace what JSON cannot hold in plain data: NaN, infinity, and `bytes`."""
        if type(tree) is float:
            return tree if math.isfinite(tree) else self._placeholder({"float": repr(tree)})
        if type(tree) is dict:
            return {key: self.mark(item) for key, item in tree.items()}
        if type(tree) in (list, tuple, set, frozenset):
            return [self.mark(item) for item in tree]
        if type(tree) is bytes and len(tree) > LARGE_BYTES:
            codec = codec_named("bytes")
            assert codec is not None  # noqa: S101  # it is built in
            return self._part(codec, tree)
        return tree

    def _placeholder(self, content: dict[str, Any]) -> dict[str, Any]:
        self.has_placeholders = self.has_changed = True
        return {self.key: content}

    def _relative(self, path: PurePath) -> list[str]:
        """Return how a path is stored: relative to the attempt's files if it is among them."""
        files = self._directory() if path.is_absolute() else ""
        if files and not path.is_relative_to(files):  # the store may be reached through a link
            files = os.path.realpath(files)
        if not files or not path.is_relative_to(files):
            if files and path.is_relative_to(os.path.dirname(files)):
                raise FuruResultError(
                    f"the returned path {path} is not in furu_dir, but in another directory of the node, "
                    "which is removed: move the file to self.furu_dir"
                )
            return ["", str(path)]
        if not os.path.lexists(path):
            raise FuruResultError(f"the returned path {path} does not exist")
        return ["files", str(path.relative_to(files))]

    def _part(self, codec: Codec[Any], value: Any) -> dict[str, Any]:
        number, self._count = self._count, self._count + 1
        directory = Path(self._directory(), PARTS, str(number))
        try:
            directory.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise FuruResultError(
                f"_create() wrote a file called {PARTS}, where furu stores the parts of the result: give "
                "it another name"
            ) from error
        try:
            metadata = codec.save(value, directory)
        except FuruResultError:
            raise
        except Exception as error:
            raise FuruResultError(
                f"the codec {codec.name!r} cannot store {a_type(value)}: {describe_error(error)}"
            ) from error
        digests = metadata.digests if isinstance(metadata, Saved) else {}
        files = {name: _stamp(directory / name, digests.get(name)) for name in _files_in(directory)}
        return self._placeholder(
            {"codec": codec.name, "part": number, "metadata": dict(metadata), "files": files}
        )


class PartReader:
    """Replaces placeholders in stored data by the values that they stand for. `directory` returns the
    directory of the artifact's files."""

    def __init__(self, key: str, directory: Callable[[], str]) -> None:
        self._key = key
        self._directory = directory

    def resolve(self, tree: Any) -> Any:
        """Return data with the values of its placeholders. Raises `FuruStoreError` if a part is damaged."""
        if type(tree) is list:
            return [self.resolve(item) for item in tree]
        if type(tree) is not dict:
            return tree
        if tree.keys() == {self._key}:
            try:
                return self._value(tree[self._key])
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise FuruStoreError(f"a placeholder is damaged: {describe_error(error)}") from error
        return {key: self.resolve(item) for key, item in tree.items()}

    def _value(self, content: dict[str, Any]) -> Any:
        if "float" in content:
            return float(content["float"])
        if "complex" in content:
            return complex(*map(float, content["complex"]))
        if "path" in content:
            return self._path(*content["path"])
        return self._load(content["codec"], content["part"], content["metadata"], content["files"])

    def _path(self, base: str, text: str) -> Path:
        if base == "":
            return Path(text)
        files = self._directory()
        path = Path(files) if text == os.curdir else Path(files, _inside(text))
        if not os.path.lexists(path):
            raise FuruStoreError(f"the file {path} of the artifact is gone", path=path)
        return path

    def _load(self, name: str, number: int, metadata: dict[str, Any], files: dict[str, _Stamp]) -> Any:
        codec = codec_named(name)
        if codec is None:
            raise FuruStoreError(f"this process has no codec called {name!r}: register it first")
        if isinstance(codec, BuiltIn) and codec.library not in sys.modules:
            raise FuruStoreError(f"a part of the result is a value of {codec.library}: import it first")
        parts = Path(self._directory(), PARTS)
        directory = parts / str(int(number))
        for path in (parts, directory):
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise FuruStoreError(f"{path} is not a directory", path=path)
        for file, stamp in files.items():
            _check(os.fspath(directory / _inside(file)), stamp)
        for file in _files_in(directory):
            if file not in files:
                raise FuruStoreError(
                    f"the part {directory} is damaged: it also has {file}", path=directory / file
                )
        try:
            return codec.load(directory, metadata)
        except Exception as error:
            raise FuruStoreError(
                f"the codec {name!r} cannot read {directory}: {describe_error(error)}", path=directory
            ) from error


def descriptions(key: str, tree: Any) -> Any:
    """Replace the placeholders in stored data by texts that describe the parts. Nothing is loaded."""
    if type(tree) is list:
        return [descriptions(key, item) for item in tree]
    if type(tree) is not dict:
        return tree
    content = tree.get(key) if tree.keys() == {key} else None
    if not isinstance(content, dict):
        return {name: descriptions(key, item) for name, item in tree.items()}
    if "float" in content:
        return content["float"]
    if "complex" in content:
        return str(complex(*map(float, content["complex"])))
    if "path" in content:
        base, text = content["path"]
        return str(PurePath("furu_dir", text)) if base else text
    return _description(content)


def _description(content: dict[str, Any]) -> str:
    """Describe a part, for example ``<numpy: shape 3 x 4, dtype float64; 224 bytes>``."""
    facts = content.get("metadata")
    told = [f"{name} {_fact(value)}" for name, value in facts.items()] if isinstance(facts, dict) else []
    files = content.get("files")
    sizes = [stamp[0] for stamp in files.values()] if isinstance(files, dict) else []
    return f"<{content.get('codec')}: {', '.join(told)}{'; ' if told else ''}{sum(sizes):,} bytes>"


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value)) or "of a scalar"
    if isinstance(value, dict):
        return ", ".join(f"{name} {kind}" for name, kind in value.items())
    return str(value)


# ---- files of parts ----


def _files_in(directory: Path) -> Iterator[str]:
    """Yield the relative path of everything in a directory that is not a directory. Follows no links."""
    for parent, directories, names in os.walk(directory):
        links = [name for name in directories if os.path.islink(os.path.join(parent, name))]
        for name in sorted(names + links):
            yield os.path.relpath(os.path.join(parent, name), directory)


def _stamp(path: Path, digest: str | None) -> _Stamp:
    with open(path, "rb") as file:
        info = os.fstat(file.fileno())
        return [*_facts(info), digest or hashlib.file_digest(file, "sha256").hexdigest()]


def _facts(info: os.stat_result) -> tuple[int, ...]:
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev


def _check(path: str, stamp: _Stamp) -> None:
    """Check that a file is the one that was stored.

    Every change of a file sets its ctime, which no program can set back. So a file with the recorded stat
    is intact. Otherwise, for example in a copied store, the digest decides.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        raise FuruStoreError(
            f"the part {path} cannot be opened: {error.strerror}", path=Path(path)
        ) from error
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_size != stamp[0]:
            raise FuruStoreError(f"the part {path} is damaged: it has another size", path=Path(path))
        facts = _facts(info)
        if list(facts) != stamp[:5] and _digest(path, facts) != stamp[5]:
            raise FuruStoreError(f"the part {path} is damaged: its content has changed", path=Path(path))
    finally:
        os.close(descriptor)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, facts: tuple[int, ...]) -> str:
    """Return the sha256 of a file. `facts` are those of its stat, so that a changed file is read again."""
    with open(os.open(path, _READ), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inside(name: str) -> str:
    """Return a relative path that stays inside its directory. Raises `ValueError` for any other."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{name!r} leads out of the artifact")
    return name
