"""The names of files and directories in a store. No function here accesses the filesystem.

<store>/owners/<id>                     one file for each process that computes
<store>/owners/<id>.<n>                 a document that this process is writing for its claim number n
<store>/files/<device>-<inode>          the digest of a large input file; see `digests.py`
<store>/partial                         exists if artifacts may be partial; see `partial.py`
<store>/<module>/<Class>/<hash>         `done`: the published record: the result, or its directory
                        <hash>.try-1    attempt 1: a link to its owner's file, later a record of its outcome
                        <hash>.d/       created only when needed:
                            try-<n>            attempt n, if n > 1
                            a<n>-<nonce>/      the files of attempt n; the nonce is unique
                            tmp-<n>-<nonce>    the record that attempt n is publishing, if it has files
                            checkpoint[-<id>]/ what unfinished attempts keep for the next one; with an
                                               id, attempts to replace the artifact with that id
                            rejected-<n>       a `done` that `_validate` rejected, so attempt n replaces it
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from pathlib import Path

import msgspec

OWNERS = "owners"
DIGESTS = "files"
PARTIAL = "partial"
# Directories in a store that contain no nodes.
INTERNAL = frozenset({OWNERS, DIGESTS})
TRY = "try-"
LOG = "furu.log"
CHECKPOINT = "checkpoint"
# Names in a class's directory that begin like this are being removed.
REMOVED = "removed-"
PICKLE = "furu.pickle"

# ext4 allows 255 bytes for a name; shorter names keep paths readable.
_MAX_COMPONENT_BYTES = 120
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-<>")
_NUMBERED = re.compile(r"(try-|rejected-)([1-9][0-9]{0,8})\Z|(a|tmp-)([1-9][0-9]{0,8})-[0-9a-f]+\Z")
_HASH = re.compile(r"[0-9a-f]{32}\Z")
_FIRST = ".try-1"
_DIRECTORY = ".d"


class NodeFiles(msgspec.Struct, frozen=True):
    """The names of one node's files. `done` is an absolute path: a str, which is faster than a `Path`."""

    done: str

    @property
    def class_directory(self) -> str:
        return os.path.dirname(self.done)

    @property
    def directory(self) -> str:
        """The directory of all the node's files except `done` and `try-1`."""
        return f"{self.done}{_DIRECTORY}"

    @property
    def all(self) -> tuple[str, str, str]:
        """The node's three paths in its class's directory."""
        return self.done, self.attempt(1), self.directory

    def attempt(self, number: int) -> str:
        return f"{self.done}{_FIRST}" if number == 1 else f"{self.directory}/try-{number}"

    def files(self, number: int, nonce: str) -> str:
        return f"{self.directory}/a{number}-{nonce}"

    def checkpoint(self, replaced: tuple[int, ...] | None) -> str:
        """The directory that attempts keep for the next one. `replaced` identifies the artifact that they
        are to replace, so that they do not go on from what an earlier, published attempt has left."""
        suffix = "".join(f"-{number:x}" for number in replaced or ())
        return f"{self.directory}/{CHECKPOINT}{suffix}"

    def temporary(self, number: int, nonce: str) -> str:
        return f"{self.directory}/tmp-{number}-{nonce}"  # noqa: S108  # not the system's /tmp

    def rejected(self, number: int) -> str:
        return f"{self.directory}/rejected-{number}"


def owners_directory(store: Path) -> str:
    return f"{os.fspath(store)}/{OWNERS}"


def parse_numbered(name: str) -> tuple[str, int] | None:
    """Split a numbered name, such as ``try-3``, into kind and number: ``("try-", 3)``."""
    match = _NUMBERED.match(name)
    if match is None:
        return None
    return (match[1] or match[3], int(match[2] or match[4]))


def parse_hash(name: str) -> str | None:
    """Return the hash of the node that a name in a class's directory belongs to; None for other names."""
    node_hash, dot, rest = name.partition(".")
    return node_hash if f"{dot}{rest}" in ("", _FIRST, _DIRECTORY) and is_identifier(node_hash) else None


def is_identifier(text: str) -> bool:
    """Whether text has the form of a hash or an owner id. Such text is safe in a path."""
    return _HASH.match(text) is not None


def class_directory(store: Path, module: str, qualname: str) -> str:
    """Return the directory of a class's nodes."""
    return f"{os.fspath(store)}/{_class_components(module, qualname)}"


@functools.lru_cache(maxsize=512)
def _class_components(module: str, qualname: str) -> str:
    return f"{encode_component(module)}/{encode_component(qualname)}"


def is_directory_of_class(directory: str, node_class: str) -> bool:
    """Whether nodes of a class (``module:Class``) are stored in this directory."""
    module, _, qualname = node_class.partition(":")
    return directory.endswith(f"/{_class_components(module, qualname)}")


def encode_component(name: str) -> str:
    """Encode a name as one path component. Special characters are percent-encoded. A long name is cut, and
    a digest of the whole name is appended.

    On a case-sensitive filesystem, different names give different directories. On other filesystems two
    classes may share a directory, but their nodes still have different hashes.
    """
    raw = name.encode("utf-8", "surrogatepass")
    encoded = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw)
    if encoded.startswith(".") or not encoded or encoded in INTERNAL:
        encoded = f"%{raw[0]:02X}{encoded[1:]}" if raw else "%"
    if len(encoded) > _MAX_COMPONENT_BYTES:
        encoded = f"{encoded[:80]}~{hashlib.blake2b(raw, digest_size=16).hexdigest()}"
    return encoded
