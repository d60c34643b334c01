# SPDX-License-Identifier: Apache-2.0
"""A new head on a trained model: what is cut, what stays, which names and values it has, what cannot be cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import nn
from hotloop.graph import Graph, Rows, TensorType
from hotloop.nn import functional as F
from hotloop.trace import trace


def graph_module(model: nn.Module, columns: int = 4) -> nn.GraphModule:
    graph = trace(model, {"x": TensorType((Rows(), columns))})
    return nn.GraphModule(graph, model.state_dict(), aliases=model.tied_names())


def traced(model: nn.Module, columns: int = 4) -> Graph:
    return trace(model, {"x": TensorType((Rows(), columns))})


def stack(*tail: nn.Module) -> nn.Sequential:
    layers = [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3), *tail]
    return nn.Sequential(*layers)


TAILS: dict[str, list[nn.Module]] = {
    "linear": [],
    "activation": [nn.Tanh()],
    "norm and softmax": [nn.BatchNorm1d(3), nn.Softmax(-1)],
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("stored", [False, True])
def test_the_last_linear_layer_and_what_follows_are_replaced(tail: list[nn.Module], stored: bool) -> None:
    model: Any = stack(*tail).initialize(1)
    before = {name: value for name, value in model.state_dict().items() if name[0] in "01"}
    if stored:
        model = graph_module(model)
    assert model.replace_head(nn.Linear(6, 5)) is model
    state = model.state_dict()
    assert list(state) == [*before, "4.weight", "4.bias"]
    assert state["4.weight"].shape == (5, 6)
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)
    fresh = nn.Sequential(*list(stack())[:4], nn.Linear(6, 5))
    assert [node.op for node in traced(model).nodes] == [node.op for node in traced(fresh).nodes]
    assert traced(model).types[traced(model).output].shape == (Rows(), 5)


@pytest.mark.parametrize("stored", [False, True])
def test_a_head_may_be_a_network_and_be_replaced_again(stored: bool) -> None:
    model: Any = graph_module(stack()) if stored else stack()
    model.replace_head(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 2)))
    assert list(model.state_dict())[-4:] == ["4.0.weight", "4.0.bias", "4.2.weight", "4.2.bias"]
    model.replace_head(nn.Linear(6 if stored else 9, 7))
    assert traced(model).types[traced(model).output].shape == (Rows(), 7)
    model.freeze("1")
    assert model.frozen_names() == ("1.weight", "1.bias")
    again = graph_module(model)  # as a file gives it back
    assert list(again.state_dict()) == list(model.state_dict())


def test_a_model_of_one_layer_becomes_its_head() -> None:
    model = graph_module(nn.Linear(4, 3))
    assert list(model.replace_head(nn.Linear(4, 2)).state_dict()) == ["head.weight", "head.bias"]


class Residual(nn.Module):
    def __init__(self) -> None:
        self.stem, self.inner = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        h = F.relu(self.stem(x))
        return h + self.inner(h)


class Tied(nn.Module):
    def __init__(self) -> None:
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last.weight = self.first.weight

    def forward(self, x: Any) -> Any:
        return self.last(F.relu(self.first(x)))


class Gated(nn.Module):
    """What follows the layer reads it twice, which is no way around it."""

    def __init__(self) -> None:
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        y = self.head(F.relu(self.body(x)))
        return y * F.sigmoid(y)


def test_a_head_with_branches_of_its_own_is_cut_as_a_whole() -> None:
    model = graph_module(Gated())
    model.replace_head(nn.Linear(5, 2))
    assert [node.op for node in traced(model).nodes] == ["linear", "relu", "linear"]
    assert list(model.state_dict()) == ["body.weight", "body.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Residual(),
            r"cannot cut before the last linear layer, 'inner.weight': input 'x' reaches the output",
        ),
        (Tied(), r"cannot cut before 'first.weight': its parameter 'first.weight' is also used before it"),
        (nn.Sequential(nn.ReLU()), r"no linear layer that could be its head; describe a new model"),
    ],
)
def test_what_cannot_be_cut_says_why_and_stays(model: nn.Module, message: str) -> None:
    stored = graph_module(model)
    before = stored.graph, list(stored.state_dict())
    with pytest.raises(hl.GraphError, match=message):
        stored.replace_head(nn.Linear(4, 2))
    assert (stored.graph, list(stored.state_dict())) == before


def test_modules_with_a_forward_of_their_own_name_their_attributes() -> None:
    with pytest.raises(hl.GraphError, match=r"Gated has a forward of its own.*\(modules: body, head\)"):
        Gated().replace_head(nn.Linear(5, 2))
    with pytest.raises(hl.GraphError, match="Gated has a forward"):
        nn.Sequential(Gated()).replace_head(nn.Linear(5, 2))
    with pytest.raises(hl.GraphError, match="no linear layer that could"):
        nn.Sequential(nn.ReLU()).replace_head(nn.Linear(5, 2))
    for model in (stack(), graph_module(stack())):
        with pytest.raises(hl.GraphError, match="must be a Module, got int"):
            model.replace_head(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("from_file", [False, True])
def test_a_trainer_goes_on_with_the_new_head(from_file: bool, toy: Any, tmp_path: Path) -> None:
    X, y = toy.classes(60, features=4)
    trainer = hl.Trainer(stack(), seed=7)
    trainer.fit(X, y, epochs=2)
    if from_file:
        trainer.save(tmp_path / "m")
        trainer = hl.load(tmp_path / "m")
    old = trainer.model.state_dict()
    moments = trainer.optimizer_state()
    trainer.model.replace_head(nn.Linear(6, 5))
    if from_file:
        trainer.save(tmp_path / "cut")  # before it has seen data again
        assert hl.load(tmp_path / "cut").predict(X).shape == (60, 5)
    assert trainer.predict(X).shape == (60, 5)
    new = trainer.model.state_dict()
    assert all(np.array_equal(new[name], old[name]) for name in old if name[0] != "4")
    drawn = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 5)).initialize(
        7
    )  # as many before it
    np.testing.assert_array_equal(new["4.weight"], drawn[2].weight.data)
    state = trainer.optimizer_state()
    assert np.array_equal(state["0.weight.exp_avg"], moments["0.weight.exp_avg"])
    assert not state["4.weight.exp_avg"].any() and int(state["4.weight.step"]) == 0
    trainer.model.freeze("0", "1")
    labels = np.arange(60) % 5
    trainer.fit(X, labels, epochs=2)
    after = trainer.model.state_dict()
    assert {name for name in new if not np.array_equal(after[name], new[name])} == {"4.weight", "4.bias"}
    trainer.save(tmp_path / "end")
    np.testing.assert_array_equal(hl.load(tmp_path / "end").predict(X), trainer.predict(X))


def test_set_dropout_by_name(toy: Any, tmp_path: Path) -> None:
    X, y = toy.classes(60, features=4)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 3)))
    assert model.set_dropout(0.4, "2") == ("2.0",)
    assert model.set_dropout(0.1) == ("1", "2.0")
    model[1].p = 0.5
    for bad, error in ((1.5, hl.GraphError), ("a", hl.GraphError)):
        with pytest.raises(error, match="p must"):
            model.set_dropout(bad)
        with pytest.raises(error, match="p must"):
            model[1].p = bad
    with pytest.raises(ValueError, match=r"pattern '3' matches no Dropout layer; there are 1, 2.0"):
        model.set_dropout(0.3, "3")
    assert (model[1].p, model[2][0].p) == (0.5, 0.1)
    trainer = hl.Trainer(model)
    trainer.fit(X, y, epochs=1)
    trainer.save(tmp_path / "m")
    again = hl.load(tmp_path / "m")
    assert again.model.set_dropout(0.25, "2.0") == ("2.0",)
    model[2][0].p = 0.25
    for each in (trainer, again):
        each.fit(X, y, epochs=2)
    np.testing.assert_array_equal(again.predict(X), trainer.predict(X))
    again.model.set_dropout(0.0)
    again.save(tmp_path / "m")
    nodes = [node.op for node in hl.load(tmp_path / "m").model.graph.nodes]
    assert "dropout" not in nodes
