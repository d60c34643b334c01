# SPDX-License-Identifier: Apache-2.0
"""Module: names, order, sharing, state dicts and text, as torch has them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from hotloop import nn
from hotloop.errors import DTypeError, GraphError, ShapeError
from hotloop.trace import Tensor


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2))


class Block(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(np.full(n, 2.0))
        self.norm = nn.LayerNorm(n)
        self.layers = nn.ModuleList([nn.Linear(n, n), nn.Linear(n, n)])
        self.emb = nn.Embedding(7, n)
        self.register_buffer("table", np.arange(n, dtype=np.float32))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_names_are_torchs() -> None:
    # torch.nn: the same modules in the same order
    assert list(net().state_dict()) == [
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
        "1.num_batches_tracked", "4.weight", "4.bias",
    ]  # fmt: skip
    assert list(Block(4).state_dict()) == [
        "scale", "table", "norm.weight", "norm.bias", "layers.0.weight", "layers.0.bias", "layers.1.weight",
        "layers.1.bias", "emb.weight",
    ]  # fmt: skip
    assert [name for name, _ in Block(4).named_modules()] == [
        "", "norm", "layers", "layers.0", "layers.1", "emb",
    ]  # fmt: skip
    assert [name for name, _ in net().named_buffers()] == [
        "1.running_mean", "1.running_var", "1.num_batches_tracked",
    ]  # fmt: skip


def test_shapes_and_dtypes() -> None:
    state = net().state_dict()
    assert state["0.weight"].shape == (3, 4)
    assert state["1.num_batches_tracked"].shape == ()
    assert state["1.num_batches_tracked"].dtype == np.int64
    assert {a.dtype for n, a in state.items() if "tracked" not in n} == {np.dtype(np.float32)}


def test_shared_parameters_have_each_of_their_names() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert model.tied_names() == {"1.weight": "0.weight"}
    state = model.state_dict()
    np.testing.assert_array_equal(state["0.weight"], state["1.weight"])
    layer = nn.Linear(2, 2)
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    assert len(list(twice.parameters())) == 2
    assert list(twice.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [name for name, _ in twice.named_modules()] == ["", "0", "1"]


def test_a_state_dict_is_a_copy() -> None:
    model = nn.Linear(2, 2)
    state = model.state_dict()
    state["weight"][...] = 9.0
    assert not (model.weight.data == 9.0).any()


def test_load_state_dict_round_trip() -> None:
    a, b = net().initialize(1), net().initialize(2)
    views = [p.data for p in b.parameters()]
    assert b.load_state_dict(a.state_dict()) == ((), ())
    for name, array in a.state_dict().items():
        np.testing.assert_array_equal(b.state_dict()[name], array)
    assert all(p.data is v for p, v in zip(b.parameters(), views, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"0.weight": None}, ShapeError, "missing: 0.weight; unexpected: -"),
        ({"extra": np.zeros(1)}, ShapeError, "missing: -; unexpected: extra"),
        ({"4.bias": np.zeros(3, np.float32)}, ShapeError, "4.bias must have shape \\(2,\\), got \\(3,\\)"),
        ({"4.bias": np.zeros(2, np.float64)}, DTypeError, "4.bias must be float32, got float64"),
        ({"4.bias": np.zeros(2, np.int32)}, DTypeError, "4.bias must be float32"),
        ({"1.num_batches_tracked": np.array(1.0)}, DTypeError, "must be int64"),
    ],
)
def test_a_bad_state_dict_changes_nothing(
    change: dict[str, np.ndarray | None], error: type[Exception], message: str
) -> None:
    model = net().initialize(3)
    before = model.state_dict()
    state = {name: array + 1 for name, array in before.items()} | change
    with pytest.raises(error, match=message):
        model.load_state_dict({n: a for n, a in state.items() if a is not None})
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_load_without_strict_takes_what_fits() -> None:
    model = nn.Linear(2, 1).initialize(0)
    result = model.load_state_dict({"bias": np.array([5.0], np.float16), "other": np.zeros(1)}, strict=False)
    assert result.missing == ("weight",)
    assert result.unexpected == ("other",)
    assert model.bias.data == 5.0


def test_binding_moves_the_data() -> None:
    model = nn.Linear(2, 2).initialize(0)
    flat = np.zeros(16, np.float32)
    view = flat[:4].reshape(2, 2)
    view[...] = model.weight.data
    model.weight.bind(view)
    flat[0] = 42.0
    assert model.state_dict()["weight"][0, 0] == 42.0
    model.initialize(1)
    assert flat[:4].any()
    assert flat[0] != 42.0
    with pytest.raises(ShapeError, match="cannot bind"):
        model.weight.bind(flat)


def test_reassigning_an_attribute() -> None:
    model = nn.Linear(2, 2)
    model.bias = None
    assert list(model.state_dict()) == ["weight"]
    model.bias = nn.Parameter((2,))
    assert list(model.state_dict()) == ["weight", "bias"]
    assert "bias" not in vars(model)
    del model.bias
    assert list(model.state_dict()) == ["weight"]
    with pytest.raises(AttributeError, match="no attribute 'bias'"):
        _ = model.bias


def test_copies_and_pickles_are_whole_and_apart() -> None:
    model = Block(3).initialize(5)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(other.state_dict()[name], array)
        other.scale.data[...] = -1.0
        assert (model.scale.data == 2.0).all()


def test_sequential_is_a_sequence() -> None:
    model = net()
    assert len(model) == 5
    assert isinstance(model[-1], nn.Linear)
    assert [type(m).__name__ for m in model[:2]] == ["Linear", "BatchNorm1d"]
    assert model[0].weight is model[:1][0].weight
    assert list(model[4:].state_dict()) == ["4.weight", "4.bias"]
    assert model.append(nn.ReLU()) is model
    assert isinstance(model[5], nn.ReLU)
    model[5] = nn.Tanh()
    assert isinstance(model[5], nn.Tanh)
    named = nn.Sequential({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    assert next(iter(named.state_dict())) == "body.weight"
    with pytest.raises(IndexError):
        model[6]
    with pytest.raises(GraphError, match="must be a Module, got function"):
        nn.Sequential(lambda x: x)


def test_module_list() -> None:
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert len(layers) == 3
    assert layers[-1] is list(layers)[2]
    assert isinstance(layers[1:], nn.ModuleList)
    assert list(layers.extend([nn.ReLU()]))[3].__class__ is nn.ReLU


def test_text_is_torchs() -> None:
    assert repr(nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU()))) == (
        "Sequential(\n"
        "  (0): Linear(in_features=4, out_features=3, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        ")"
    )
    assert repr(nn.LayerNorm(3)) == "LayerNorm((3,), eps=1e-05, elementwise_affine=True)"


BAD_ARGUMENTS = [
    (lambda: nn.Linear(0, 3), "in_features must be a whole number of at least 1, got 0"),
    (lambda: nn.Linear(3, -1), "out_features"),
    (lambda: nn.Linear(3, 2.5), "out_features"),
    (lambda: nn.Dropout(1.5), "p must lie in 0..1"),
    (lambda: nn.Dropout(float("nan")), "finite"),
    (lambda: nn.GELU("erf"), "approximate must be 'none' or 'tanh', got 'erf'"),
    (lambda: nn.LeakyReLU(-0.1), "at least 0.0"),
    (lambda: nn.Softplus(beta=0.0), "beta must be greater than 0"),
    (lambda: nn.LayerNorm(()), "at least one dimension"),
    (lambda: nn.LayerNorm((3, 0)), "at least 1"),
    (lambda: nn.LayerNorm(3, eps=-1.0), "eps"),
    (lambda: nn.BatchNorm1d(3, momentum=None), "momentum"),
    (lambda: nn.BatchNorm1d(3, track_running_stats=False), "track_running_stats"),
    (lambda: nn.Embedding(0, 2), "num_embeddings"),
    (lambda: nn.Parameter((2, 0)), "at least 1"),
    (lambda: nn.Parameter(np.arange(3)), "floating-point"),
    (lambda: nn.Linear(2, 2).initialize(-1), "seed must be"),
]


@pytest.mark.parametrize(("make", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_at_once(make: object, message: str) -> None:
    with pytest.raises((ShapeError, GraphError, DTypeError), match=message):
        make()  # type: ignore[operator]
