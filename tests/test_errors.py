"""The errors that furu raises."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import pytest

import furu
from furu import (
    Failure,
    FuruComputeError,
    FuruError,
    FuruIdentityError,
    FuruLoadError,
    FuruRunningLoopError,
    FuruUsageError,
)
from tests.graphs import Node, actions
from tests.node.nodes import Holder, fail


def every_error() -> list[type[FuruError]]:
    """Return the error classes that furu exports."""
    names = [getattr(furu, name) for name in furu.__all__]
    return [one for one in names if isinstance(one, type) and issubclass(one, FuruError)]


@pytest.mark.parametrize("cls", every_error(), ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling_with_its_data(cls: type[FuruError]) -> None:
    """Each error can also be created with only a message."""
    sample = {
        "node": Node(name="a"),
        "asked_by": Node(name="b"),
        "cycle": (Node(name="a"), Node(name="a")),
        "path": Path("a"),
        "state_path": Path("b"),
        "node_dir": Path("c"),
        "failures": (Failure(Node(name="a"), ValueError("x"), Path("b"), "words"),),
        "attempt": 3,
    }
    names = [
        name for name in inspect.signature(cls).parameters if name not in ("message", "args", "kwargs")
    ]
    error = cls("what happened", **{name: sample.get(name, "text") for name in names})
    other = pickle.loads(pickle.dumps(error))
    assert type(error) is type(other)
    assert "what happened" == str(error) == str(other)
    for name in names:
        expected, found = getattr(error, name), getattr(other, name)
        assert expected == found or (name == "failures" and repr(expected) == repr(found))
    assert "what happened" == str(cls("what happened"))


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (FuruUsageError, TypeError),
        (FuruIdentityError, FuruUsageError),
        (furu.FuruSettingsError, ValueError),
        (FuruRunningLoopError, RuntimeError),
        (FuruLoadError, furu.FuruStoreError),
    ],
)
def test_errors_have_built_in_base_classes(cls: type, base: type) -> None:
    assert issubclass(cls, base)
    assert issubclass(cls, FuruError)


def test_errors_that_were_raised_survive_pickling() -> None:
    """The copies keep their data: the node, the failures and the path of the field."""
    actions["a"] = fail
    with pytest.raises(FuruComputeError) as computing:
        Node(name="a").get()
    with pytest.raises(FuruIdentityError) as identifying:
        Holder(value=[object()])
    other = pickle.loads(pickle.dumps(computing.value))
    assert (str(computing.value), Node(name="a")) == (str(other), other.node)
    assert ["bad split"] == [str(failure.error) for failure in other.failures]
    assert "Holder.value[0]" == pickle.loads(pickle.dumps(identifying.value)).field_path
