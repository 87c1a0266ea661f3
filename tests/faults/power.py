"""A model of a filesystem after a power cut, when calls that were not synced may be lost.

It records the calls that change the filesystem, and replays what a power cut may leave of them. The model
promises as little as POSIX does. Writes to a file are certain after a sync of the file. Creating, removing
or renaming a name is certain after a sync of its directory. Of all other changes, any subset may have
reached the disk, and a write may have reached it in full, in half, or as zeros.

A rename is atomic, also between two directories, and is certain after a sync of both. Calls on the same
name keep their order. Every filesystem with a journal guarantees that.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

# What a power cut leaves of a change.
LOST, WHOLE, HALF, ZEROS = range(4)


@dataclass(eq=False)
class Change:
    """A call that changes the filesystem: a write to inode `inode`, or changed names, given by their paths.
    `synced` is the number of the call that made it certain. `unsynced` has the directories to be synced."""

    number: int
    names: dict[str, int | None] = field(default_factory=dict)
    inode: int = 0
    content: bytes = b""
    synced: int | None = None
    unsynced: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.unsynced = {os.path.dirname(path) for path in self.names}


class Recorder:
    """Records the calls that `Syscalls` passes on, below one existing directory."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._inodes: dict[str, int] = {}
        self._directories: set[int] = set()
        self._open: dict[int, int] = {}
        self.changes: list[Change] = []
        self.calls = 0

    def __call__(self, name: str, path: str, args: tuple[Any, ...], real: Callable[[], Any]) -> Any:
        answer = (
            None if name == "fsync" else real()
        )  # the disk is a model, so nothing has to reach the real disk
        self.calls += 1
        if name == "open":
            if args[1] & os.O_CREAT:
                self._named(path, self._new())
            self._open[answer] = self._inodes.get(path, 0)
        elif name == "mkdir":
            inode = self._new()
            self._directories.add(inode)
            self._named(path, inode)
        elif name == "link":
            self._named(path, self._inodes[os.fspath(args[0])])
        elif name in ("unlink", "rmdir"):
            self._named(path, None)
        elif name in ("rename", "replace"):
            source = os.fspath(args[0])
            self._named(path, self._inodes[source], gone=source)
        elif name == "write":
            inode, content = self._open[args[0]], bytes(args[1])[:answer]
            self.changes.append(Change(self.calls, inode=inode, content=content))
        elif name == "fsync":
            self._sync(path, self._open[args[0]])
        return answer

    def _new(self) -> int:
        return 1 + max(self._inodes.values(), default=0) + len(self.changes)

    def _named(self, path: str, inode: int | None, gone: str | None = None) -> None:
        names = {path: inode}
        if gone is not None:
            names[gone] = None
            del self._inodes[gone]
        if inode is None:
            del self._inodes[path]
        else:
            self._inodes[path] = inode
        self.changes.append(Change(self.calls, names=names))

    def _sync(self, path: str, inode: int) -> None:
        for change in self.changes:
            if path not in change.unsynced and (change.names or change.inode != inode):
                continue
            change.unsynced.discard(path)
            if change.synced is None and not change.unsynced:
                change.synced = self.calls

    def states(self, calls: int, draw: random.Random, drawn: int) -> Iterator[list[tuple[Change, int]]]:
        """Yield what a power cut after a number of calls may leave: all changes, none, all but one, or one
        alone; and `drawn` more states at random."""
        made = [one for one in self.changes if one.number <= calls]
        certain = [one for one in made if one.synced is not None and one.synced <= calls]
        open_ones = [one for one in made if one not in certain]

        def state(fates: dict[Change, int]) -> list[tuple[Change, int]]:
            return [(one, WHOLE if one in certain else fates[one]) for one in made]

        everything = dict.fromkeys(open_ones, WHOLE)
        nothing = dict.fromkeys(open_ones, LOST)
        yield state(everything)
        yield state(nothing)
        for one in open_ones:
            yield state(nothing | {one: WHOLE})
            for fate in (LOST,) if one.names else (LOST, HALF, ZEROS):
                yield state(everything | {one: fate})
        for _ in range(drawn if len(open_ones) > 1 else 0):
            fates = {
                one: draw.choice((LOST, WHOLE) if one.names else (LOST, WHOLE, HALF, ZEROS))
                for one in open_ones
            }
            yield state(fates)

    def tree(self, state: list[tuple[Change, int]]) -> dict[str, bytes | None]:
        """Return the paths in a state, relative to the base, with their content. Directories have None."""
        contents: dict[int, bytes] = {}
        names: dict[str, dict[str, int]] = {}
        for change, fate in state:
            if fate == LOST:
                continue
            if not change.names:
                written = {
                    WHOLE: change.content,
                    HALF: change.content[: len(change.content) // 2],
                    ZEROS: bytes(len(change.content)),
                }[fate]
                contents[change.inode] = contents.get(change.inode, b"") + written
                continue
            for path, inode in change.names.items():
                directory, name = os.path.split(path)
                inside = names.setdefault(directory, {})
                if inode is None:
                    inside.pop(name, None)
                else:
                    inside[name] = inode
        found: dict[str, bytes | None] = {}
        directories = [self._base]
        for directory in directories:
            for name, inode in names.get(directory, {}).items():
                path = f"{directory}/{name}"
                is_directory = inode in self._directories
                found[path.removeprefix(self._base)] = None if is_directory else contents.get(inode, b"")
                directories += [path] if is_directory else []
        return found


def make_tree(tree: dict[str, bytes | None], target: str) -> None:
    """Create the files of a state in a new directory."""
    os.mkdir(target)
    for path, content in tree.items():
        if content is None:
            os.mkdir(target + path)
        else:
            with open(target + path, "wb") as file:
                file.write(content)
