# SPDX-License-Identifier: Apache-2.0
"""Weights between torch and us as safetensors files, for every layer that both have; outputs agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file, save_file

import hotloop as hl
from hotloop import nn

LAYERS: dict[str, tuple[tuple[Any, ...], tuple[int, ...]]] = {
    "BatchNorm1d": ((6,), (6,)),
    "Dropout": ((0.3,), (5,)),
    "ELU": ((0.5,), (5,)),
    "Embedding": ((9, 4), ()),
    "Flatten": ((), (3, 4)),
    "GELU": ((), (5,)),
    "Identity": ((), (5,)),
    "LayerNorm": ((5,), (5,)),
    "LeakyReLU": ((0.2,), (5,)),
    "Linear": ((5, 3), (5,)),
    "LogSoftmax": ((-1,), (5,)),
    "Mish": ((), (5,)),
    "RMSNorm": ((5,), (5,)),
    "ReLU": ((), (5,)),
    "SELU": ((), (5,)),
    "SiLU": ((), (5,)),
    "Sigmoid": ((), (5,)),
    "Softmax": ((-1,), (5,)),
    "Softplus": ((), (5,)),
    "Tanh": ((), (5,)),
}


def shaken(theirs: Any) -> Any:
    """The module of torch with numbers that it does not begin with, in evaluation mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.2)
            else:
                tensor.fill_(17)
    return theirs.eval()


def rows(name: str, shape: tuple[int, ...]) -> Any:
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 9, (4, 3))
        if name == "Embedding"
        else rng.standard_normal((4, *shape), dtype=np.float32)
    )


def agree(ours: nn.Module, theirs: Any, x: Any) -> None:
    found = hl.TrainStep(ours, "mse", "sgd").predict(x)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def equal(a: Any, b: Any) -> None:
    assert list(a) == list(b)
    for name in a:
        one, two = np.asarray(a[name]), np.asarray(b[name])
        assert (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes()), name


def test_every_layer_that_torch_has_is_here() -> None:
    ours = {
        n for n in nn.__all__ if isinstance(getattr(nn, n), type) and issubclass(getattr(nn, n), nn.Module)
    }
    theirs = {n for n in ours if hasattr(torch.nn, n)}
    assert theirs - set(LAYERS) == {"Module", "ModuleList", "Sequential"}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_there_and_back(name: str, tmp_path: Path) -> None:
    arguments, shape = LAYERS[name]
    theirs = shaken(getattr(torch.nn, name)(*arguments))
    path = tmp_path / "w.safetensors"
    save_file(theirs.state_dict(), path)
    ours = getattr(nn, name)(*arguments)
    ours.load_state_dict(hl.load_safetensors(path))
    equal(ours.state_dict(), theirs.state_dict())
    agree(ours, theirs, rows(name, shape))

    hl.save_safetensors(ours.state_dict(), path)
    again = getattr(torch.nn, name)(*arguments)
    again.load_state_dict(load_file(path))
    equal(again.state_dict(), theirs.state_dict())


def test_a_trained_model_and_the_file_of_its_trainer_are_read_by_torch(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((64, 5), dtype=np.float32), rng.integers(0, 3, 64)
    ours = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 3))
    trainer = hl.Trainer(ours, "cross_entropy", progress=False)
    trainer.fit(X, y, epochs=3)
    trainer.save(tmp_path / "model.safetensors")
    t = torch.nn
    theirs = t.Sequential(
        t.Linear(5, 16), t.BatchNorm1d(16), t.GELU(), t.Dropout(0.2), t.Linear(16, 3)
    ).eval()
    state = load_file(tmp_path / "model.safetensors")
    # beside the model's tensors, under torch's names, lies the optimiser's state, whose names have a slash
    theirs.load_state_dict({name: tensor for name, tensor in state.items() if "/" not in name})
    assert state["optimizer/0.weight.exp_avg"].shape == (16, 5)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(trainer.predict(X), expected, rtol=1e-5, atol=1e-5)


def test_shared_weights_are_written_once_for_each_name(tmp_path: Path) -> None:
    layer = nn.Linear(4, 4)
    hl.save_safetensors(nn.Sequential(layer, nn.ReLU(), layer).state_dict(), tmp_path / "w.safetensors")
    shared = torch.nn.Linear(4, 4)
    theirs = torch.nn.Sequential(shared, torch.nn.ReLU(), shared)
    theirs.load_state_dict(load_file(tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(theirs[2].weight.detach().numpy(), layer.weight.data)


def test_half_precision_of_torch_widens_and_what_would_lose_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    half = torch.nn.Linear(3, 2).half()
    save_file(half.state_dict(), path)
    ours = nn.Linear(3, 2)
    ours.load_state_dict(hl.load_safetensors(path))
    np.testing.assert_array_equal(ours.state_dict()["weight"], half.weight.detach().float().numpy())
    save_file(torch.nn.Linear(3, 2).double().state_dict(), path)
    with pytest.raises(hl.DTypeError, match=r"\[load_state_dict\].*float64"):
        ours.load_state_dict(hl.load_safetensors(path))
