# SPDX-License-Identifier: Apache-2.0
"""The look at a finished model: its numbers are right, and it is taken of that model or not at all."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.compile.inside import ACTIVATIONS, inside_plan
from hotloop.compile.interpret import Interpreter
from hotloop.engine.native import Data
from hotloop.fit.witness import class_places, fingerprint, rows_to_see
from hotloop.graph import Rows, TensorType
from hotloop.rules.elementwise import UNARY
from hotloop.trace import trace
from tests.illnesses import bundled, dead_relus, fit, mlp, noisy_labels, rare_class, smooth

nn, optim = hl.nn, hl.optim


def trained(model: Any, X: Any, y: Any, **options: Any) -> hl.Trainer:
    trainer = hl.Trainer(model, optimizer=optim.AdamW(5e-3))
    trainer.fit(X, y, epochs=3, **options)
    return trainer


def look(trainer: hl.Trainer) -> Any:
    trainer.history.complete()
    return trainer.history.evidence.look


def test_activations_are_those_of_a_forward_pass() -> None:
    X, y = bundled("digits")
    X, y = X[:200], y[:200]  # all of them are looked at
    trainer = trained(mlp(64, (24, 16), 10), X, y)
    found = look(trainer)
    p = trainer.model.state_dict()
    first = np.maximum(X @ p["0.weight"].T + p["0.bias"], 0)
    second = np.maximum(first @ p["2.weight"].T + p["2.bias"], 0)
    output = second @ p["4.weight"].T + p["4.bias"]
    assert [(a.layer, a.op, a.units) for a in found.activations] == [("0", "relu", 24), ("2", "relu", 16)]
    for activation, values in zip(found.activations, (first, second), strict=True):
        assert activation.dead == np.mean((values == 0).all(axis=0))
        assert activation.scale == pytest.approx(np.sqrt(np.mean(values**2)), rel=1e-5)
    assert found.rows == 200
    assert found.seen == tuple(np.bincount(y, minlength=10))
    assert found.hits == tuple(np.bincount(y[output.argmax(1) == y], minlength=10))


def test_it_looks_in_evaluation_mode_and_changes_nothing() -> None:
    X, y = noisy_labels(0)
    model = nn.Sequential(
        nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    )  # fmt: skip
    trainer = trained(model, X[:256], y[:256])
    before = {**model.state_dict(), **trainer.optimizer_state()}
    found = look(trainer)
    assert [(a.layer, a.op) for a in found.activations] == [("1", "tanh"), ("4", "relu")]
    right = trainer.predict_label(X[:256]) == y[:256]
    assert sum(found.hits) == right.sum()
    after = {**model.state_dict(), **trainer.optimizer_state()}
    assert all((before[name] == after[name]).all() for name in before)


def test_a_plan_that_shows_activations_equals_its_interpreter() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7), nn.GELU(), nn.Linear(7, 3), nn.ReLU())
    graph = trace(model, {"x": TensorType((Rows(), 5))})
    plan = inside_plan(graph, 8, "float32")
    assert [name for name, _ in plan.outputs] == ["output", "activation0", "activation1", "activation2"]
    model.initialize(3)
    from hotloop.compile.interpret import session_memory
    from hotloop.compile.layout import param_layout

    memory, state = session_memory(graph), model.state_dict()
    for entry in param_layout(graph).entries:
        memory["parameter"][entry.offset : entry.offset + entry.size] = state[entry.name].ravel()
    x = np.random.default_rng(0).normal(size=(8, 5))
    outputs = Interpreter(plan, memory).run(8, {"x": x})
    hidden = np.maximum(x @ state["0.weight"].T + state["0.bias"], 0)
    np.testing.assert_allclose(outputs["activation0"].reshape(8, 7), hidden, rtol=1e-6)
    np.testing.assert_array_equal(outputs["activation2"], outputs["output"])  # the model ends with it


def test_several_inputs_of_numbers_and_ids(toy: Any) -> None:
    rng = np.random.default_rng(0)
    X = {"num": rng.normal(size=(300, 2)).astype(np.float32), "cat": rng.integers(0, 4, 300)}
    found = look(trained(toy.two_inputs(), X, X["cat"] % 2))
    assert (found.rows, found.activations) == (256, ())
    assert sum(found.seen) == 256


def test_all_activations_are_known() -> None:
    layers = {"affine", "exp", "log", "sqrt", "square", "abs", "reciprocal"}
    assert set(UNARY) - layers == ACTIVATIONS


def test_a_rare_class_is_looked_at() -> None:
    X, y = rare_class(0, rows=3000)
    y[y == 1] *= np.arange((y == 1).sum()) < 12  # only twelve
    found = look(trained(mlp(10, (4,), 2), X, y))
    assert found.seen == (244, 12)


@pytest.mark.parametrize("rows", [1, 5, 256, 257, 40_000])
def test_the_rows_are_few_different_and_in_order(rows: int) -> None:
    trainer = trained(nn.Linear(3, 4), np.zeros((8, 3)), np.arange(8) % 4)
    graph = trainer._session.graph
    target = np.random.default_rng(0).integers(0, 4, rows)
    for kind, loss in (("index", "cross_entropy"), ("real", "mse")):
        found = rows_to_see(Data({"target": target}, kind), graph, loss)
        assert len(found) == min(rows, 256)
        assert (np.diff(found) > 0).all()
        assert found[0] >= 0
        assert found[-1] < rows


def test_places_in_a_class() -> None:
    rows, place = class_places(np.array([2, 0, 2, 2, 0, 70_000]))
    assert rows.tolist() == [1, 4, 0, 2, 3, 5]
    assert place.tolist() == [0, 1, 0, 1, 2, 0]


# --- only of the model that the run left ----------------------------------------------------------


def _change_in_place(trainer: hl.Trainer) -> None:
    next(iter(trainer.model.parameters())).data[0, 0] += 1


def _load(trainer: hl.Trainer) -> None:
    trainer.model.load_state_dict({k: v * 1.5 for k, v in trainer.model.state_dict().items()})


def _fit_again(trainer: hl.Trainer) -> None:
    history = trainer.history
    trainer.fit(*noisy_labels(0), epochs=1)
    trainer.history = history


@pytest.mark.parametrize("change", [_change_in_place, _load, _fit_again])
def test_a_model_that_changed_is_not_judged(change: Any) -> None:
    trainer = trained(mlp(20, (8,), 2), *noisy_labels(0))
    state = trainer.model.state_dict()
    change(trainer)
    run = trainer.history
    assert look(trainer) is None
    assert any("nobody looked at" in text for text in run.diagnosis.missing)
    trainer.model.load_state_dict(state)  # what it was again
    assert look(trainer) is not None


def test_fingerprints_tell_every_change(toy: Any) -> None:
    trainer = trained(toy.batch_norm(), *toy.classes(64))
    seen = {fingerprint(trainer._session)}
    memory = trainer._session.memory.native
    for flat in (memory.parameters, memory.state):
        flat[0] += 1
        seen.add(fingerprint(trainer._session))
        flat[[0, 1]] = flat[[1, 0]] + np.float32(1e-6)
        seen.add(fingerprint(trainer._session))
    assert len(seen) == 5


def test_no_look_while_another_thread_trains() -> None:
    trainer = trained(mlp(20, (8,), 2), *noisy_labels(0))
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with trainer._session.entered("test"):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    assert look(trainer) is None
    leave.set()
    thread.join()
    assert look(trainer) is not None


def test_a_file_holds_what_was_seen(tmp_path: Any) -> None:
    X, y = smooth(300, 0)
    trainer = trained(mlp(8, (8,), 1), X, y)
    assert trainer.history.evidence.look is None
    trainer.save(tmp_path / "model.safetensors")
    again = hl.load(tmp_path / "model.safetensors")
    assert again.history.evidence.look is not None
    assert again.history == trainer.history
    assert again.history.diagnosis == trainer.history.diagnosis


def test_dead_units_are_found_after_loading_too(tmp_path: Any) -> None:
    run = dead_relus(0)
    assert run.diagnosis.main.numbers["layer"] == "0"
    assert run.diagnosis.main.numbers["dead"] >= 0.75
    assert fit(mlp(8, (8,), 1), *smooth(300, 0), optim.AdamW(5e-3), 0).evidence.look is None  # nobody asked
