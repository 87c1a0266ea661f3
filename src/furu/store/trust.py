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

# A process that uses very many stores checks some of them again.
_MAX_TRUSTED = 64


def refuse_shared(settings: Settings, trusted: set[Path]) -> None:
    """Raise `FuruStoreError` if others may write to the store's root, unless `allow_shared` is set: what
    they write there would be loaded as a result.

    `trusted` holds the roots that have been checked. A store that does not exist is checked again later.
    """
    if settings.allow_shared or settings.store in trusted:
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
    if len(trusted) >= _MAX_TRUSTED:
        trusted.clear()
    trusted.add(store)
