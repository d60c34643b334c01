# SPDX-License-Identifier: Apache-2.0
"""The seven hyper-parameters of fine-tuning, each changed between two runs of one trainer, and each change
held against a trainer that was made with the new value and given the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.callbacks import as_callbacks
from hotloop.compile import compile_plan

SGD = hl.optim.SGD(0.05, 0.9, weight_decay=0.01)


def network() -> Any:
    return hl.nn.Sequential(
        hl.nn.Linear(6, 8), hl.nn.LayerNorm(8), hl.nn.ReLU(), hl.nn.Dropout(0.2), hl.nn.Linear(8, 3)
    )


def trainer_of(model: Any, **options: Any) -> Any:
    return hl.Trainer(model, **{"optimizer": SGD, "restore_best": False, "seed": 4, **options})


# what to change on a trainer that has trained: (change, arguments of the second fit)
CHANGES: dict[str, tuple[Callable[[Any], None], dict[str, Any]]] = {
    "learning rate": (lambda t: setattr(t, "optimizer", hl.optim.SGD(0.01, 0.9, weight_decay=0.01)), {}),
    "batch size": (lambda t: None, {"batch_size": 5}),
    "epochs": (lambda t: None, {"epochs": 4}),
    "dropout": (lambda t: t.model.set_dropout(0.6), {}),
    "no dropout": (lambda t: setattr(t.model[3], "p", 0.0), {}),
    "weight decay": (lambda t: setattr(t, "optimizer", hl.optim.SGD(0.05, 0.9, weight_decay=0.3)), {}),
    "decay of weights": (
        lambda t: setattr(t, "optimizer", hl.optim.SGD(0.05, 0.9, weight_decay=0.3, decay="weights")), {},
    ),
    "schedule": (lambda t: setattr(t, "schedule", "one_cycle"), {}),
    "schedules": (lambda t: setattr(t, "schedule", {"dropout": "cosine", "weight_decay": "linear"}), {}),
    "freezing": (lambda t: t.model.freeze("0"), {}),
    "freeze plan": (lambda t: setattr(t, "freeze", {"0": {"until_epoch": 1}, "4": {"lr_scale": 0.1}}), {}),
    "other optimiser": (lambda t: setattr(t, "optimizer", "adamw"), {}),
    "clipping": (lambda t: setattr(t, "clip_norm", 0.01), {}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_between_runs_is_what_the_next_run_does(what: str, toy: Any) -> None:
    X, y = toy.classes(60)
    change, more = CHANGES[what]
    trainer = trainer_of(network())
    trainer.fit(X, y, epochs=2, batch_size=16)
    before = copy.deepcopy(trainer.model)
    fit = {"epochs": 2, "batch_size": 16, **more}

    same = trainer_of(copy.deepcopy(before))
    same._runs = 1  # shuffles and dropout of a second run
    same.fit(X, y, epochs=2, batch_size=16)
    change(trainer)
    fresh = trainer_of(before)
    change(fresh)
    fresh._runs = 1
    for each in (trainer, fresh):
        each.fit(X, y, **fit)
    ours, theirs = trainer.model.state_dict(), fresh.model.state_dict()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert any(not np.array_equal(ours[name], same.model.state_dict()[name]) for name in ours), "no effect"
    state, other = trainer.optimizer_state(), fresh.optimizer_state()
    assert state.keys() == other.keys() and all(np.array_equal(state[name], other[name]) for name in state)


def test_moments_stay_with_an_optimiser_of_the_same_kind(toy: Any) -> None:
    X, y = toy.classes(64)
    trainer = hl.Trainer(toy.mlp(6, 8, 3), optimizer=hl.optim.AdamW(0.01), restore_best=False)
    trainer.fit(X, y, epochs=2, batch_size=16)
    parameters, state = trainer.model.state_dict(), trainer.optimizer_state()
    trainer.optimizer = hl.optim.Adam(0.02, decay="weights")
    assert trainer.optimizer == hl.optim.Adam(0.02, decay="weights")
    after = trainer.optimizer_state()
    assert all(np.array_equal(state[name], after[name]) for name in state)
    trainer.fit(X, y, epochs=1, batch_size=16, reset_optimizer=False)
    assert int(trainer.optimizer_state()["0.weight.step"]) == 12
    trainer.optimizer = hl.optim.SGD(0.1, 0.9)
    state = trainer.optimizer_state()
    assert set(state) == {f"{name}.{part}" for name in parameters for part in ("momentum_buffer", "step")}
    assert not any(np.any(value) for value in state.values())  # nothing of Adam's fits
    expected = trainer.predict(X)
    trainer.optimizer = "sgd"
    np.testing.assert_array_equal(trainer.predict(X), expected)


def test_before_the_first_use_and_in_a_callback(toy: Any) -> None:
    X, y = toy.classes(64)
    trainer = hl.Trainer(toy.mlp(6, 8, 3))
    trainer.optimizer = "sgd"
    trainer.fit(X, y, epochs=1)
    assert set(trainer.optimizer_state()) == {f"{n}.step" for n in trainer.model.state_dict()}
    trainer.callbacks = as_callbacks([lambda state: setattr(trainer, "optimizer", "adam")])
    with pytest.raises(RuntimeError, match=r"\[optimizer\] a callback may not replace the optimizer"):
        trainer.fit(X, y, epochs=1)
    assert trainer.optimizer == hl.optim.SGD()
    trainer.callbacks = ()
    assert trainer.fit(X, y, epochs=2).epochs == 2  # and nothing is left behind


def test_bad_values_leave_the_old_ones(toy: Any) -> None:
    trainer = hl.Trainer(toy.mlp(6, 8, 3), schedule="cosine", freeze={"0": {}})
    for name, bad in (("optimizer", "adamx"), ("schedule", "cosin"), ("freeze", {"0": {"until": 1}})):
        old = getattr(trainer, name)
        with pytest.raises((TypeError, ValueError)):
            setattr(trainer, name, bad)
        assert getattr(trainer, name) is old


def test_another_dropout_compiles_nothing(toy: Any) -> None:
    X, y = toy.classes(64)
    trainer = trainer_of(network())
    trainer.fit(X, y, epochs=1)
    misses = compile_plan.cache_info().misses  # type: ignore[attr-defined]
    for p in (0.3, 0.7):
        trainer.model[3].p = p
        trainer.fit(X, y, epochs=1)
    assert compile_plan.cache_info().misses == misses  # type: ignore[attr-defined]
    trainer.model[3].p = 0.0  # no layer at all: another plan
    trainer.fit(X, y, epochs=1)
    assert compile_plan.cache_info().misses > misses  # type: ignore[attr-defined]
