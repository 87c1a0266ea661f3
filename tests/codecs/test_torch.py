"""Tensors of torch, which `nox -s torch` installs."""

from __future__ import annotations

from typing import Any

import pytest

from furu import Furu, FuruComputeError

torch = pytest.importorskip("torch")

TENSORS = {
    "float": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "strided": torch.arange(6).reshape(2, 3).T,
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(3),
}


class Tensors(Furu[dict[str, torch.Tensor]]):
    """Returns a dict of tensors, as a model's state is."""

    def _create(self) -> dict[str, Any]:
        return TENSORS


class One(Furu[torch.Tensor]):
    """Returns a tensor that needs gradients."""

    def _create(self) -> Any:
        return torch.zeros(1, requires_grad=True)


def test_tensors_are_read_back_equal_and_of_the_same_type() -> None:
    for loaded in (Tensors().get(), Tensors().get()):
        for name, tensor in TENSORS.items():
            assert tensor.dtype == loaded[name].dtype
            assert tensor.shape == loaded[name].shape
            assert torch.equal(tensor, loaded[name])


def test_tensor_with_gradients_is_refused() -> None:
    with pytest.raises(FuruComputeError, match=r"write x\.detach\(\)"):
        One().get()
