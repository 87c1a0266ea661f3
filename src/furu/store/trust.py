"""Whether a store may be believed: not if everybody on the machine may write into its root.

Looks at the root's permission bits, once per store and process. Knows nothing of groups, access control
lists and the directories above, and does not look into the store.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from furu.errors import FuruStoreError
from furu.settings import Settings
from furu.store.record import store_failed

# A process that uses store after store looks at one again now and then.
_MAX_TRUSTED = 64


def refuse_shared(settings: Settings, trusted: set[Path]) -> None:
    """Raise `FuruStoreError` if others may write into the store's root, unless `allow_shared` is set: what
    they put there would be loaded as a result.

    `trusted` holds the roots that this process has looked at. A store that does not exist is looked at
    again.
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
            f"the store {store} is refused: everybody on this machine may write to it, and so may decide "
            f"what is loaded from it. Run `chmod o-w {store}`; or, if everybody is trusted, set "
            "FURU_ALLOW_SHARED=1 or use_settings(allow_shared=True).",
            path=store,
        )
    if len(trusted) >= _MAX_TRUSTED:
        trusted.clear()
    trusted.add(store)
