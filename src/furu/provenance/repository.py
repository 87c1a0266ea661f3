"""The commit that is checked out in the repository of a file, read from `.git` without running git."""

from __future__ import annotations

import functools
import os
import re

__all__ = ["commit_of"]

# The number of digits that git itself shows in large repositories.
_DIGITS = 12
_MAX_BYTES = 64 * 2**20
_COMMIT = re.compile(r"[0-9a-f]{40,64}\Z")


def commit_of(file: str) -> str:
    """Return the first 12 digits of the commit that is checked out where a file lies; empty if there is no
    repository, or if it cannot be read. Read once for each directory."""
    return _commit_of_directory(os.path.dirname(file))[:_DIGITS]


@functools.lru_cache(maxsize=512)
def _commit_of_directory(directory: str) -> str:
    while not os.path.lexists(f"{directory}/.git"):
        parent = os.path.dirname(directory)
        if parent == directory:
            return ""
        directory = parent
    try:
        return _head(f"{directory}/.git")
    except (OSError, UnicodeDecodeError):
        return ""


def _head(git: str) -> str:
    """Return the commit that HEAD names. In a worktree or a submodule, `.git` is a file that names the
    directory, and the branches of a worktree lie in the directory of the repository."""
    if os.path.isfile(git):
        git = os.path.join(os.path.dirname(git), _read(git).removeprefix("gitdir:").strip())
    head = _read(f"{git}/HEAD").strip()
    if not head.startswith("ref: refs/"):
        return head if _COMMIT.match(head) else ""
    ref = head.removeprefix("ref: ")
    common = git
    if os.path.isfile(f"{git}/commondir"):
        common = os.path.join(git, _read(f"{git}/commondir").strip())
    for place in dict.fromkeys((git, common)):
        if os.path.isfile(f"{place}/{ref}"):
            commit = _read(f"{place}/{ref}").strip()
            return commit if _COMMIT.match(commit) else ""
    for line in _read(f"{common}/packed-refs").splitlines():
        commit, _, name = line.partition(" ")
        if name == ref and _COMMIT.match(commit):
            return commit
    return ""


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read(_MAX_BYTES)
