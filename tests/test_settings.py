"""Settings: a block overrides the environment, which overrides the defaults. Errors name allowed values."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from furu import Furu, FuruError, FuruSettingsError, Settings, current_settings, run_local, use_settings
from furu.settings import DEFAULT_LEASE_SEC, DEFAULT_MAX_RESULT_BYTES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with no FURU_* variable set."""
    for name in ("PATH", "LEASE_SEC", "DURABILITY", "MAX_RESULT_BYTES", "ALLOW_SHARED", "CACHE_BYTES"):
        monkeypatch.delenv(f"FURU_{name}", raising=False)
    folder = tmp_path / "work" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


# ---- the defaults ----


def test_default_store_is_in_the_working_directory(folder: Path) -> None:
    """This default applies if the working directory and its parents contain no pyproject.toml."""
    assert (
        Settings(
            store=folder / "furu-data",
            lease_sec=DEFAULT_LEASE_SEC,
            durability="process",
            max_result_bytes=DEFAULT_MAX_RESULT_BYTES,
        )
        == current_settings()
    )


def test_default_store_is_next_to_the_nearest_pyproject(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Therefore programs use the same store in all directories of a project."""
    (tmp_path / "pyproject.toml").touch()
    (folder.parent / "pyproject.toml").touch()
    assert folder.parent / "furu-data" == current_settings().store
    monkeypatch.chdir(tmp_path)
    assert tmp_path / "furu-data" == current_settings().store


def test_directory_named_pyproject_does_not_count(folder: Path) -> None:
    (folder.parent / "pyproject.toml").mkdir()
    assert folder / "furu-data" == current_settings().store


def test_finding_the_default_store_creates_nothing(folder: Path) -> None:
    assert not current_settings().store.exists()
    assert [] == list(folder.iterdir())


# ---- the environment ----


def test_environment_sets_each_field(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is read at each call, not at import."""
    monkeypatch.setenv("FURU_PATH", "/tmp/other/../store")
    monkeypatch.setenv("FURU_LEASE_SEC", "1.5")
    monkeypatch.setenv("FURU_DURABILITY", "power")
    monkeypatch.setenv("FURU_MAX_RESULT_BYTES", "1000")
    monkeypatch.setenv("FURU_ALLOW_SHARED", "1")
    monkeypatch.setenv("FURU_CACHE_BYTES", "1e6")
    assert (
        Settings(
            store=Path("/tmp/store"),
            lease_sec=1.5,
            durability="power",
            max_result_bytes=1000,
            allow_shared=True,
            cache_bytes=1_000_000,
        )
        == current_settings()
    )
    monkeypatch.setenv("FURU_ALLOW_SHARED", "0")
    assert not current_settings().allow_shared
    monkeypatch.setenv("FURU_LEASE_SEC", "2")
    assert 2.0 == current_settings().lease_sec


def test_relative_path_in_the_environment_is_below_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the working directory changes, the store changes too, but not in existing `Settings` objects."""
    monkeypatch.setenv("FURU_PATH", "here")
    first = current_settings()
    assert folder / "here" == first.store
    monkeypatch.chdir(folder.parent)
    assert folder.parent / "here" == current_settings().store
    assert folder / "here" == first.store


@pytest.mark.parametrize(
    "name", ["PATH", "LEASE_SEC", "DURABILITY", "MAX_RESULT_BYTES", "ALLOW_SHARED", "CACHE_BYTES"]
)
def test_empty_variable_counts_as_unset(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = current_settings()
    monkeypatch.setenv(f"FURU_{name}", "")
    assert expected == current_settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LEASE_SEC", "soon", "FURU_LEASE_SEC must be a number, not 'soon'"),
        ("LEASE_SEC", "0", "lease_sec must be a positive number of seconds"),
        ("LEASE_SEC", "-1", "lease_sec must be a positive number of seconds"),
        ("LEASE_SEC", "nan", "lease_sec must be a positive number of seconds"),
        ("LEASE_SEC", "inf", "lease_sec must be a positive number of seconds"),
        ("DURABILITY", "disk", "durability must be 'process' or 'power', not 'disk'"),
        ("ALLOW_SHARED", "yes", "FURU_ALLOW_SHARED must be 1 or 0, not 'yes'"),
        ("MAX_RESULT_BYTES", "many", "FURU_MAX_RESULT_BYTES must be a number, not 'many'"),
        ("MAX_RESULT_BYTES", "0", "max_result_bytes must be 1 or more"),
        ("MAX_RESULT_BYTES", "-5", "max_result_bytes must be 1 or more"),
        ("MAX_RESULT_BYTES", "nan", "(?i)max_result_bytes must be"),
        ("MAX_RESULT_BYTES", "inf", "(?i)max_result_bytes must be"),
        ("CACHE_BYTES", "much", "FURU_CACHE_BYTES must be a number, not 'much'"),
        ("CACHE_BYTES", "-1", "cache_bytes must be 0 or more"),
        ("CACHE_BYTES", "0.5", "cache_bytes must be an int"),
    ],
)
def test_variable_with_a_wrong_value_is_an_error_that_names_allowed_values(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is also a `ValueError`."""
    monkeypatch.setenv(f"FURU_{name}", value)
    with pytest.raises(FuruSettingsError, match=message) as caught:
        current_settings()
    assert isinstance(caught.value, ValueError)


def test_wrong_variable_is_an_error_until_it_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FURU_LEASE_SEC", "soon")
    for _ in range(2):
        with pytest.raises(FuruSettingsError):
            current_settings()
    monkeypatch.setenv("FURU_LEASE_SEC", "3")
    assert 3.0 == current_settings().lease_sec


# ---- the class ----


def test_settings_are_frozen_and_picklable() -> None:
    settings = Settings(store=Path("/tmp/store"), lease_sec=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.lease_sec = 4  # type: ignore[misc]
    assert settings == pickle.loads(pickle.dumps(settings))
    assert hash(settings) == hash(dataclasses.replace(settings))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("store", 3),
        ("store", None),
        ("store", b"/tmp"),
        ("store", "a\0b"),
        ("lease_sec", True),
        ("lease_sec", "3"),
        ("lease_sec", None),
        ("lease_sec", 0),
        ("lease_sec", float("inf")),
        ("durability", "POWER"),
        ("durability", None),
        ("allow_shared", 1),
        ("allow_shared", "yes"),
        ("max_result_bytes", 1.5),
        ("max_result_bytes", True),
        ("max_result_bytes", 0),
        ("max_result_bytes", "9"),
        ("cache_bytes", -1),
        ("cache_bytes", True),
        ("cache_bytes", 1.5),
    ],
)
def test_wrong_value_is_an_error_that_names_the_field(field: str, wrong: Any) -> None:
    """Both `Settings` and `use_settings` raise the error, and the block is not entered."""
    with pytest.raises(FuruSettingsError, match=rf"^{field} must be .* not "):
        Settings(**{"store": Path("/tmp"), field: wrong})
    before = current_settings()
    with (
        pytest.raises(FuruSettingsError, match=rf"^{field} must be .* not "),
        use_settings(**{field: wrong}),
    ):
        raise AssertionError("not reached")
    assert before == current_settings()


def test_store_given_as_a_string_becomes_an_absolute_path(folder: Path) -> None:
    assert folder / "a" == Settings(store="a").store  # type: ignore[arg-type]
    assert folder / "a" == Settings(store=Path("b/../a")).store
    assert Path("/a") == Settings(store=Path("/b/../a")).store


# ---- blocks ----


def test_block_changes_only_the_named_settings(store: Path) -> None:
    before = current_settings()
    with use_settings(lease_sec=5) as inside:
        assert dataclasses.replace(before, lease_sec=5) == inside == current_settings()
    assert before == current_settings()


def test_nested_blocks_add_up() -> None:
    """The inner block keeps the settings of the outer block that it does not change."""
    with use_settings(lease_sec=5, durability="power"):
        with use_settings(lease_sec=6) as inner:
            assert (6, "power") == (inner.lease_sec, inner.durability)
        assert (5, "power") == (current_settings().lease_sec, current_settings().durability)


def test_block_may_replace_all_settings() -> None:
    """The block may change single fields of the new settings at the same time."""
    whole = Settings(store=Path("/tmp/whole"), lease_sec=7)
    with use_settings(lease_sec=5), use_settings(whole):
        assert whole == current_settings()
    with use_settings(whole, durability="power") as changed:
        assert dataclasses.replace(whole, durability="power") == changed


def test_exception_ends_the_block_too() -> None:
    before = current_settings()
    with pytest.raises(KeyError), use_settings(lease_sec=5):
        raise KeyError
    assert before == current_settings()


def test_block_that_names_the_store_does_not_search_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a block does not use the disk, so it is safe on an event loop."""
    monkeypatch.delenv("FURU_PATH")

    def refuse(*args: Any) -> Any:
        raise AssertionError("looked for the working directory")

    monkeypatch.setattr("os.getcwd", refuse)
    with use_settings(store="/tmp/named") as settings:
        assert Path("/tmp/named") == settings.store


def test_unknown_setting_is_an_error_that_lists_the_settings() -> None:
    message = r"no setting is called 'lease'; there are .*'lease_sec'"
    with pytest.raises(FuruSettingsError, match=message), use_settings(lease=5):
        raise AssertionError("not reached")


@pytest.mark.parametrize(("name", "meant"), [("stor", "store"), ("leese_sec", "lease_sec"), ("x", None)])
def test_unknown_setting_is_rejected_with_the_nearest_name(name: str, meant: str | None) -> None:
    with pytest.raises(FuruSettingsError) as caught, use_settings(**{name: 5}):
        raise AssertionError("not reached")
    assert (f"Did you mean {meant!r}?" in str(caught.value)) is (meant is not None)


# ---- home and working directories ----


@pytest.mark.parametrize("path", ["~/data", "~"])
def test_home_directory_in_the_path_of_a_store_is_expanded(
    path: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path may come from the environment or from code, and a changed HOME takes effect at once."""
    for home in ("/homes/first", "/homes/second"):
        monkeypatch.setenv("HOME", home)
        monkeypatch.setenv("FURU_PATH", path)
        expected = Path(path.replace("~", home))
        assert expected == current_settings().store == Settings(store=Path(path)).store
        with use_settings(store=path) as settings:
            assert expected == settings.store
    assert [] == list(folder.iterdir())


def test_home_directory_of_an_unknown_user_is_rejected(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory whose name begins with `~` can be named as `./~name`."""
    monkeypatch.setenv("FURU_PATH", "~nosuchuser-furu/data")
    with pytest.raises(FuruSettingsError, match="of an unknown user"):
        current_settings()
    with pytest.raises(FuruSettingsError, match="of an unknown user"):
        Settings(store=Path("~nosuchuser-furu"))
    assert folder / "~x" == Settings(store="./~x").store  # type: ignore[arg-type]


@pytest.fixture
def gone(folder: Path) -> Path:
    """A working directory that was removed."""
    folder.rmdir()
    return folder


@pytest.mark.usefixtures("gone")
def test_absolute_store_needs_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, path in enumerate([str(tmp_path / "store"), "~/store"]):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("FURU_PATH", path)
        assert tmp_path / "store" == current_settings().store
        assert str(tmp_path / "store") == Where(name=f"get {number}").get()
        assert 1 == run_local([Where(name=f"run {number}")]).computed
    monkeypatch.delenv("FURU_PATH")
    with use_settings(store=tmp_path / "named"):
        assert str(tmp_path / "named") == Where(name="named").get()


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize("path", ["relative", None])
def test_relative_store_without_a_working_directory_is_rejected(
    path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path is not None:
        monkeypatch.setenv("FURU_PATH", path)
    with pytest.raises(FuruSettingsError, match="Set FURU_PATH to an absolute path"):
        Where(name="a").get()
    with pytest.raises(FuruSettingsError, match="working directory"), use_settings(store="relative"):
        raise AssertionError("not reached")


@pytest.mark.parametrize("wrong", ["/tmp/store", Path("/tmp/store"), {"lease_sec": 5}, 3])
def test_non_settings_are_rejected_at_the_block(wrong: Any) -> None:
    """`use_settings` itself raises the error, not the first node in the block."""
    before = current_settings()
    with pytest.raises(FuruError, match=r"use_settings"), use_settings(wrong):
        raise AssertionError("not reached")
    assert before == current_settings()


class Where(Furu[str]):
    name: str

    def _create(self) -> str:
        return str(current_settings().store)


def test_block_applies_to_the_nodes_of_a_run_started_in_it(tmp_path: Path) -> None:
    node = Where(name="a")
    with use_settings(store=tmp_path / "other"):
        run_local([node])
        assert str(tmp_path / "other") == node.get()
        assert node.furu_dir.is_relative_to(tmp_path / "other")
    assert not node.exists()


def test_block_does_not_apply_in_another_thread() -> None:
    seen: list[float] = []
    before = current_settings().lease_sec
    with use_settings(lease_sec=before + 1):
        thread = threading.Thread(target=lambda: seen.append(current_settings().lease_sec))
        thread.start()
        thread.join()
    assert [before] == seen


@pytest.mark.anyio
async def test_block_applies_in_its_own_task_and_the_threads_it_calls() -> None:
    """Two tasks are in two different blocks at the same time."""
    seen: dict[float, list[float]] = {}
    both_inside = [anyio.Event(), anyio.Event()]

    def lease() -> float:
        return current_settings().lease_sec

    async def request(number: int) -> None:
        with use_settings(store="/tmp/request", lease_sec=number + 1):
            both_inside[number].set()
            await both_inside[1 - number].wait()
            seen[number] = [lease(), await anyio.to_thread.run_sync(lease)]

    async with anyio.create_task_group() as group:
        group.start_soon(request, 0)
        group.start_soon(request, 1)
    assert {0: [1, 1], 1: [2, 2]} == seen
