"""Refuses a store if every user of the machine may write to its root.

Checks only the permission bits of the root, once per store and process. Groups, access control lists,
parent directories and the content of the store are not checked.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from furu.errors import FuruStoreError
from furu.settings import Settings
from furu.store.record import store_failed

# The number of checked roots to remember. If there are more, all are forgotten and checked again.
_MAX_TRUSTED = 64


class Trusted:
    """The roots of stores that passed the check, and the settings object of the last check: most calls pass
    the same settings object, and comparing object identities is faster than hashing a path."""

    __slots__ = ("last", "roots")

    def __init__(self) -> None:
        self.last: Settings | None = None
        self.roots: set[Path] = set()


def refuse_shared(settings: Settings, trusted: Trusted) -> None:
    """Raise `FuruStoreError` if every user may write to the store's root, unless `allow_shared` is set. In
    such a store, any user could plant a file that furu loads as a result.

    A store that does not exist yet is checked again by the next call.
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
