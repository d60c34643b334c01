# SPDX-License-Identifier: Apache-2.0
"""`from_torch` and `to_torch`: the same outputs, the same weights, and refusals by name and position."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hotloop as hl

torch = pytest.importorskip("torch")

from hotloop.torch import from_torch, to_torch  # noqa: E402
from hotloop.torch.convert import LAYERS  # noqa: E402

nn = torch.nn

#: Every layer of the table, on 6 features, with arguments that are not the defaults.
MADE: dict[str, Callable[[], Any]] = {
    "Identity": nn.Identity,
    "ReLU": nn.ReLU,
    "SELU": nn.SELU,
    "SiLU": nn.SiLU,
    "Mish": nn.Mish,
    "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid,
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "ELU": lambda: nn.ELU(0.7),
    "GELU": lambda: nn.GELU(approximate="tanh"),
    "Softplus": lambda: nn.Softplus(2.0, 5.0),
    "Softmax": lambda: nn.Softmax(dim=1),
    "LogSoftmax": lambda: nn.LogSoftmax(dim=-1),
    "Dropout": lambda: nn.Dropout(0.25),
    "Flatten": lambda: nn.Flatten(1, -1),
    "Linear": lambda: nn.Linear(6, 5, bias=False),
    "Embedding": lambda: nn.Embedding(9, 4),
    "LayerNorm": lambda: nn.LayerNorm(6, eps=1e-3, bias=False),
    "RMSNorm": lambda: nn.RMSNorm(6, eps=1e-4),
    "BatchNorm1d": lambda: nn.BatchNorm1d(6, eps=1e-3, momentum=0.3),
}


def test_the_table_holds_every_layer_that_there_is() -> None:
    containers = {"Module", "Sequential", "ModuleList", "GraphModule", "Parameter", "Buffer"}
    layers = {name for name in hl.nn.__all__ if name[0].isupper()} - containers
    assert layers <= LAYERS.keys()
    assert MADE.keys() == LAYERS.keys()


def features(kind: str = "real") -> Any:
    rng = np.random.default_rng(1)
    if kind == "ids":
        return torch.from_numpy(rng.integers(0, 9, (11, 3)))
    return torch.from_numpy(rng.standard_normal((11, 6)).astype(np.float32))


def outputs(ours: Any, x: Any) -> Any:
    trainer = hl.Trainer(ours, "mse", progress=False)
    return trainer.predict(x.numpy())


def settings(module: Any) -> str:
    return repr(module).replace("inplace=False", "")


@pytest.mark.parametrize("name", MADE)
def test_each_layer_there_and_back(name: str) -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(OrderedDict(first=MADE[name]())).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    for buffer in theirs.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2.0)
    x = features("ids" if name == "Embedding" else "real")
    ours = from_torch(theirs)
    with torch.no_grad():
        want = theirs(x)
    np.testing.assert_allclose(outputs(ours, x), want.numpy(), rtol=1e-6, atol=1e-6)
    again = to_torch(ours).eval()
    assert settings(again) == settings(theirs)
    assert list(again.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    with torch.no_grad():
        assert torch.equal(again(x), want)
    once_more = from_torch(again)
    assert repr(once_more) == repr(ours)
    for key, array in ours.state_dict().items():
        assert array.tobytes() == once_more.state_dict()[key].tobytes()


def test_a_network_of_many_kinds() -> None:
    torch.manual_seed(1)
    block = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.SiLU(), nn.Dropout(0.1))
    theirs = nn.Sequential(block, nn.Linear(6, 4), nn.Softmax(dim=-1)).eval()
    ours = from_torch(theirs)
    with torch.no_grad():
        np.testing.assert_allclose(
            outputs(ours, features()), theirs(features()).numpy(), rtol=1e-6, atol=1e-7
        )
    ours.load_state_dict({k: v + 1 for k, v in ours.state_dict().items()})  # copies: torch's did not move
    assert not torch.equal(to_torch(ours)[1].weight, theirs[1].weight)


def test_what_is_shared_stays_shared_and_what_is_frozen_frozen() -> None:
    twice = nn.Linear(6, 6)
    tied = nn.Linear(6, 6, bias=False)
    tied.weight = twice.weight
    theirs = nn.Sequential(twice, nn.Tanh(), twice, tied)
    theirs[0].bias.requires_grad_(False)
    ours = from_torch(theirs)
    assert ours[0] is ours[2]
    assert ours[3].weight is ours[0].weight
    assert ours.frozen_names() == ("0.bias",)
    again = to_torch(ours)
    assert again[0] is again[2]
    assert again[3].weight is again[0].weight
    assert [name for name, p in again.named_parameters() if not p.requires_grad] == ["0.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(
            outputs(ours, features()), theirs(features()).numpy(), rtol=1e-5, atol=1e-6
        )


class Special(nn.Linear):
    """A subclass may compute anything."""


def hooked() -> Any:
    layer = nn.ReLU()
    layer.register_forward_hook(lambda module, x, y: y)
    return layer


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "conv": (lambda: nn.Conv1d(1, 1, 1), hl.GraphError, r"layer '1.0' \(Conv1d\) is not available"),
    "relu6": (nn.ReLU6, hl.GraphError, "ReLU6"),
    "subclass": (lambda: Special(6, 6), hl.GraphError, "Special"),
    "padding": (lambda: nn.Embedding(3, 2, padding_idx=0), hl.GraphError, "padding_idx=0"),
    "momentum": (
        lambda: nn.BatchNorm1d(6, momentum=None),
        hl.GraphError,
        r"layer '1.0' \(BatchNorm1d\).*momentum",
    ),
    "untracked": (lambda: nn.BatchNorm1d(6, track_running_stats=False), hl.GraphError, "track_running_stats"),
    "dim": (nn.Softmax, hl.GraphError, "dim=None"),
    "slope": (lambda: nn.LeakyReLU(-1.0), hl.GraphError, "negative_slope"),
    "double": (lambda: nn.Linear(6, 6).double(), hl.DTypeError, "weight is torch.float64"),
    "hook": (hooked, hl.GraphError, "hooks"),
    "parametrized": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
        hl.GraphError,
        "Parametrized",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_refused_with_its_place(case: str) -> None:
    make, error, text = REFUSED[case]
    with pytest.raises(error, match=text):
        from_torch(nn.Sequential(nn.ReLU(), nn.Sequential(make())))


def test_models_that_are_no_sequential_are_refused() -> None:
    with pytest.raises(hl.GraphError, match=r"got torch.nn.modules.linear.Linear"):
        from_torch(nn.Linear(2, 2))
    with pytest.raises(hl.GraphError, match=r"hotloop.nn.linear.Linear"):
        to_torch(hl.nn.Linear(2, 2))

    class Own(hl.nn.Module):
        def forward(self, x: Any) -> Any:
            return x

    with pytest.raises(hl.GraphError, match=r"layer '1' \(Own\) is not available"):
        to_torch(hl.nn.Sequential(hl.nn.ReLU(), Own()))
