"""A store is refused if every user may write to its root, unless `allow_shared` is set."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from furu import FuruStoreError, Status, run_local, use_settings
from furu.store.local import this_process
from furu.store.trust import Trusted
from tests.store.processes import Square


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget which roots were checked, as in a new process. Returns a function that does it again."""

    def forget() -> None:
        monkeypatch.setattr(this_process(), "trusted", Trusted())

    forget()
    return forget


def open_to_all(store: Path) -> None:
    """Let every user write to the root of a store, whatever the umask is."""
    store.mkdir(exist_ok=True)
    store.chmod(0o777)


USES: dict[str, Callable[[], object]] = {
    "get": lambda: Square(of=3).get(),
    "exists": lambda: Square(of=3).exists(),
    "status": lambda: Square(of=3).status(),
    "furu_dir": lambda: Square(of=3).furu_dir,
    "run_local": lambda: run_local([Square(of=3)]),
}


@pytest.mark.parametrize("use", USES)
def test_result_in_a_store_that_others_may_write_is_not_read(
    use: str, store: Path, forget: Callable[[], None]
) -> None:
    """The error names the store and both solutions."""
    assert 9 == Square(of=3).get()
    open_to_all(store)
    forget()
    with pytest.raises(FuruStoreError) as caught:
        USES[use]()
    assert store == caught.value.path
    assert f"chmod o-w {store}" in str(caught.value)
    assert "FURU_ALLOW_SHARED=1" in str(caught.value)


def test_nothing_is_computed_in_a_store_that_others_may_write(store: Path) -> None:
    open_to_all(store)
    with pytest.raises(FuruStoreError, match="is refused"):
        Square(of=3).get()
    with pytest.raises(FuruStoreError, match="is refused"):
        run_local([Square(of=3)])
    assert [] == os.listdir(store)


def test_store_that_others_may_write_can_be_allowed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be allowed for a block, or by the environment."""
    open_to_all(store)
    with use_settings(allow_shared=True):
        assert 9 == Square(of=3).get()
    with pytest.raises(FuruStoreError, match="is refused"):
        Square(of=3).get()
    monkeypatch.setenv("FURU_ALLOW_SHARED", "1")
    assert 9 == Square(of=3).get()


def test_store_is_used_after_its_permissions_were_corrected(store: Path) -> None:
    open_to_all(store)
    with pytest.raises(FuruStoreError):
        Square(of=3).get()
    store.chmod(0o775)
    assert 9 == Square(of=3).get()


def test_link_to_a_store_is_judged_by_its_target(store: Path, tmp_path: Path) -> None:
    open_to_all(store)
    (tmp_path / "link").symlink_to(store)
    with use_settings(store=tmp_path / "link"), pytest.raises(FuruStoreError, match="is refused"):
        Square(of=3).get()


def test_store_made_by_furu_is_never_refused(store: Path) -> None:
    """Other users cannot write to the store, even with a umask of zero, as in some containers."""
    before = os.umask(0)
    try:
        assert 9 == Square(of=3).get()
    finally:
        os.umask(before)
    assert not store.stat().st_mode & 0o002
    assert Status.DONE is Square(of=3).status()


def test_root_is_checked_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 9 == Square(of=3).get()
    looked: list[object] = []
    real = os.stat

    def stat(path: object, *args: object, **kwargs: object) -> object:
        looked.append(path)
        return real(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "stat", stat)
    assert 9 == Square(of=3).get()
    assert store not in looked
