"""Refuses a store if every user of the machine may write to its root.

Checks only the permission bits of the root, once per store and process: not groups, access control lists,
parent directories, or what is in the store.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from furu.errors import FuruStoreError
from furu.settings import Settings
from furu.store.record import store_failed

# How many checked roots are remembered. If there are more, all are forgotten and checked again.
_MAX_TRUSTED = 64


class Trusted:
    """The roots of the stores that were checked. `last` holds the settings of the last check, because the
    same settings are used for many nodes, and hashing a path takes longer than comparing them."""

    __slots__ = ("last", "roots")

    def __init__(self) -> None:
        self.last: Settings | None = None
        self.roots: set[Path] = set()


def refuse_shared(settings: Settings, trusted: Trusted) -> None:
    """Raise `FuruStoreError` if others may write to the store's root, unless `allow_shared` is set: what
    they write there would be loaded as a result.

    A store that does not exist is checked again later.
    """
    if settings is trusted.last or settings.allow_shared:
        return
    if settings.store in trusted.roots:
        trusted.last = settings
        return
    store = settings.store
    try:
        mode = os.stat(store).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise store_failed("look at", os.fspath(store), error) from error
    if mode & stat.S_IWOTH:
        raise FuruStoreError(
            f"the store {store} is refused: every user of this machine may write to it, and so may decide "
            f"what is loaded from it. Run `chmod o-w {store}`; or, if you trust all of them, set "
            "FURU_ALLOW_SHARED=1 or use_settings(allow_shared=True).",
            path=store,
        )
    if len(trusted.roots) >= _MAX_TRUSTED:
        trusted.roots.clear()
    trusted.roots.add(store)
    trusted.last = settings
