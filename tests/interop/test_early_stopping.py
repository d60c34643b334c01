# SPDX-License-Identifier: Apache-2.0
"""Early stopping and rollback against Keras's own EarlyStopping callback, on random sequences of metrics.

The values are multiples of 1/8, so that neither side rounds: Keras compares in its own float type.
"""

from __future__ import annotations

import math
import os
import warnings
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import hotloop as hl
from hotloop.early_stopping import BestEpoch, EarlyStopping, Patience
from hotloop.engine.native import NativeEngine, PassResult

torch = pytest.importorskip("torch")

NAN, INF = math.nan, math.inf
EIGHTHS = st.integers(-12, 12).map(lambda k: k / 8)
WITH_BAD = st.one_of(EIGHTHS, EIGHTHS, EIGHTHS, st.sampled_from([NAN, INF, -INF]))
RULES = st.fixed_dictionaries(
    {
        "patience": st.integers(0, 4),
        "min_delta": st.sampled_from([0.0, 0.125, 0.5]),
        "mode": st.sampled_from(["min", "max"]),
        "baseline": st.one_of(st.none(), EIGHTHS),
        "start_from_epoch": st.integers(0, 4),
    }
)
RUNS = settings(max_examples=200, deadline=None)


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras")


class FakeModel:
    """Weights that say after which epoch they were taken."""

    def __init__(self) -> None:
        self.epoch = 0
        self.stop_training = False

    def get_weights(self) -> list[int]:
        return [self.epoch]

    def set_weights(self, weights: list[int]) -> None:
        self.epoch = weights[0]


def keras_run(keras: Any, rule: dict[str, Any], values: list[float]) -> tuple[int, int]:
    """(epochs that Keras trains, the one of them whose weights it ends with), 1-based."""
    callback = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True, **rule)
    model = FakeModel()
    callback.set_model(model)
    callback.on_train_begin()
    ran = 0
    for epoch, value in enumerate(values):
        ran = model.epoch = epoch + 1
        callback.on_epoch_end(epoch, {"val_loss": value})
        if model.stop_training:
            break
    callback.on_train_end()
    return ran, model.epoch


def our_run(rule: dict[str, Any], values: list[float]) -> tuple[int, int | None]:
    patience = Patience(EarlyStopping(**rule), "val_loss")
    best = BestEpoch("val_loss", rule.get("mode", "min"))
    ran = 0
    for ran, value in enumerate(values, start=1):
        best.update(ran, value)
        if patience.should_stop(ran, value):
            break
    return ran, best.epoch


def worst(rule: dict[str, Any]) -> float:
    return INF if rule["mode"] == "min" else -INF


def known_to_keras(rule: dict[str, Any], values: list[float]) -> list[float]:
    """Our rule in Keras's terms: what is no number counts as the worst there is."""
    return [value if math.isfinite(value) else worst(rule) for value in values]


@RUNS
@given(rule=RULES, values=st.lists(EIGHTHS, min_size=1, max_size=14))
def test_stops_after_the_same_epoch(keras: Any, rule: dict[str, Any], values: list[float]) -> None:
    assert our_run(rule, values)[0] == keras_run(keras, rule, values)[0]


@RUNS
@given(rule=RULES, values=st.lists(WITH_BAD, min_size=1, max_size=14))
def test_nan_and_infinity_count_as_the_worst(keras: Any, rule: dict[str, Any], values: list[float]) -> None:
    translated = known_to_keras(rule, values)
    assert our_run(rule, values)[0] == keras_run(keras, rule, translated)[0]


@RUNS
@given(rule=RULES, values=st.lists(WITH_BAD, min_size=1, max_size=14))
def test_keras_agrees_unless_its_best_is_no_number(
    keras: Any, rule: dict[str, Any], values: list[float]
) -> None:
    """Without translation: Keras takes a first NaN, and the better one of both infinities, for the best."""
    assume(-worst(rule) not in values)
    counted = values[rule["start_from_epoch"] :]
    assume(not counted or not math.isnan(counted[0]) or all(map(math.isnan, counted)))
    assert our_run(rule, values)[0] == keras_run(keras, rule, values)[0]


@RUNS
@given(
    patience=st.integers(0, 4), mode=st.sampled_from(["min", "max"]),
    values=st.lists(WITH_BAD, min_size=1, max_size=14),
)  # fmt: skip
def test_restores_the_same_epoch(keras: Any, patience: int, mode: Any, values: list[float]) -> None:
    rule = {"patience": patience, "mode": mode}
    ran, restored = keras_run(keras, rule, known_to_keras(rule, values))
    if any(math.isfinite(value) for value in values[:ran]):
        assert our_run(rule, values) == (ran, restored)
    else:  # Keras goes back to the first epoch, for want of a better one
        assert our_run(rule, values) == (ran, None)


@RUNS
@given(rule=RULES, values=st.lists(EIGHTHS, min_size=1, max_size=14))
def test_the_best_epoch_is_the_plain_best(rule: dict[str, Any], values: list[float]) -> None:
    """Where we mean something else: Keras restores the last epoch that its rule of stopping took for an
    improvement; the rollback takes the best of all epochs, whatever the rule."""
    ran, best = our_run(rule, values)
    sign = 1 if rule["mode"] == "min" else -1
    assert best == 1 + int(np.argmin(sign * np.array(values[:ran])))


@settings(max_examples=25, deadline=None)
@given(
    patience=st.integers(0, 3), mode=st.sampled_from(["min", "max"]),
    values=st.lists(WITH_BAD, min_size=2, max_size=10),
)  # fmt: skip
def test_fit_ends_as_keras_ends(keras: Any, patience: int, mode: Any, values: list[float]) -> None:
    """A real run whose validation loss is scripted; the optimiser's step count tells the restored epoch."""
    rule = {"patience": patience, "mode": mode}
    ran, restored = keras_run(keras, rule, known_to_keras(rule, values))
    assume(any(math.isfinite(value) for value in values[:ran]))
    script = iter(values)

    def evaluate(engine: Any, data: Any, stop: Any = None) -> PassResult:
        return PassResult("done", {"loss": next(script)})

    X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(-1, 1)
    trainer = hl.Trainer(
        hl.nn.Sequential(hl.nn.Linear(1, 1)), "mse", optimizer=hl.optim.SGD(0.1), metrics=None,
        early_stopping=EarlyStopping(**rule),
    )  # fmt: skip
    with mock.patch.object(NativeEngine, "evaluate", evaluate):
        run = trainer.fit(X, X, validation=(X, X), epochs=len(values), batch_size=4)
    assert (run.epochs, run.best_epoch) == (ran, restored)
    assert int(trainer.optimizer_state()["0.weight.step"]) == 2 * restored
    assert run.stop_reason in ("early_stopping", "epochs")
    assert run.stop_reason == "early_stopping" or ran == len(values)
