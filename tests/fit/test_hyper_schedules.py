# SPDX-License-Identifier: Apache-2.0
"""Schedules of weight decay and dropout beside the learning rate's: the table of step parameters, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.engine.native import NativeTrainPass
from hotloop.fit import hyper_schedules
from hotloop.schedules import Constant, Cosine, Custom, Linear, OneCycle, ReduceOnPlateau, Step

STEPS = 4  # an epoch


def tables(trainer: Any, X: Any, y: Any, epochs: int) -> np.ndarray:
    """The step parameters of a run, (epochs * STEPS, columns), as its native passes saw them."""
    seen = []
    original = NativeTrainPass.run

    def watched(self: Any, epoch: int, params: Any, *more: Any) -> Any:
        seen.append(np.repeat(params, STEPS // len(params), axis=0))
        return original(self, epoch, params, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeTrainPass, "run", watched)
        trainer.fit(X, y, epochs=epochs, batch_size=-(-len(X) // STEPS))
    return np.concatenate(seen)


def model() -> Any:
    return hl.nn.Sequential(
        hl.nn.Linear(6, 8), hl.nn.Dropout(0.4), hl.nn.ReLU(), hl.nn.Dropout(0.2), hl.nn.Linear(8, 3)
    )


def test_every_step_has_the_factor_of_each_schedule(toy: Any) -> None:
    X, y = toy.classes(64)
    lr, decay, dropout = Cosine(warmup=2), Linear(0.0, 1.0), Step(1, 0.5)
    optimizer = hl.optim.AdamW(0.02, weight_decay=0.3, decay="weights")
    trainer = hl.Trainer(
        model(), optimizer=optimizer, schedule={"lr": lr, "weight_decay": decay, "dropout": dropout},
        freeze={"0": {"lr_scale": 0.1}},
    )  # fmt: skip
    table = tables(trainer, X, y, 3)
    n = 3 * STEPS
    rate, wd, p = (s.factors(n, STEPS) for s in (lr, decay, dropout))
    full, tenth = 0.02 * rate, 0.02 * rate * 0.1
    zero = np.zeros(n)
    columns = [full, 0.3 * wd, full, zero, tenth, 0.3 * wd, tenth, zero, 0.4 * p, 0.2 * p]
    np.testing.assert_allclose(table, np.stack(columns, axis=1), rtol=1e-14)


def test_one_row_serves_where_nothing_varies(toy: Any) -> None:
    X, y = toy.classes(64)
    for schedule in (None, {}, {"weight_decay": None}, {"dropout": Constant(), "weight_decay": Constant()}):
        trainer = hl.Trainer(model(), schedule=schedule)
        job_table = tables(trainer, X, y, 2)
        np.testing.assert_allclose(job_table, [[1e-3, 1e-2, 0.4, 0.2]] * 8, rtol=1e-15)


def test_a_plateau_scales_the_rate_alone(toy: Any) -> None:
    X, y = toy.classes(64)
    schedule = {
        "lr": ReduceOnPlateau(0.5, 0, threshold=1e9, threshold_mode="abs"),
        "weight_decay": Step(1, 0.1),
    }
    trainer = hl.Trainer(model(), schedule=schedule, optimizer=hl.optim.AdamW(0.1, weight_decay=0.5))
    table = tables(trainer, X, y, 3)
    np.testing.assert_allclose(table[::STEPS, 0], [0.1, 0.1, 0.05])
    np.testing.assert_allclose(table[::STEPS, 1], [0.5, 0.05, 0.005])
    assert trainer.history.history["lr"] == pytest.approx([0.1, 0.1, 0.05])


def test_dropout_scheduled_to_zero_is_no_dropout(toy: Any) -> None:
    X, y = toy.classes(64)
    none, zero = model(), model()
    none.set_dropout(0.0)
    results = []
    for network, schedule in ((none, None), (zero, {"dropout": Linear(0.0, 0.0)})):
        trainer = hl.Trainer(network, schedule=schedule)
        trainer.fit(X, y, epochs=2)
        results.append(trainer.model.state_dict())
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-6, atol=1e-7)


def test_a_mapping_is_data(tmp_path: Path, toy: Any) -> None:
    given = hyper_schedules.resolve({"lr": "one_cycle", "dropout": Step(2, 0.5, warmup=0.1)})
    again = hyper_schedules.from_dict(json.loads(json.dumps(given.to_dict())))
    assert again == given
    assert hyper_schedules.from_dict(Cosine(warmup=3).to_dict()) == Cosine(warmup=3)
    assert hyper_schedules.resolve(given) is given
    assert isinstance(hyper_schedules.resolve({"dropout": lambda step: 0.5}).dropout, Custom)  # type: ignore[union-attr]
    X, y = toy.classes(64)
    trainer = hl.Trainer(model(), schedule=given)
    trainer.fit(X, y, epochs=2)
    trainer.save(tmp_path / "m")
    assert hl.load(tmp_path / "m").schedule == given


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            {"drop": "cosine"},
            "nothing is scheduled under the name 'drop'; allowed: lr, weight_decay, dropout",
        ),
        ({"dropout": ReduceOnPlateau()}, "ReduceOnPlateau is for the learning rate, got it for 'dropout'"),
        ({"weight_decay": "reduce_on_plateau"}, "ReduceOnPlateau is for the learning rate"),
        ({"weight_decay": OneCycle(0.1)}, "max_lr is a learning rate"),
        ({"lr": "cosin"}, "unknown schedule 'cosin'"),
        ({"lr": 3}, "a schedule is an object"),
    ],
)
def test_schedules_that_cannot_be(schedule: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        hl.Trainer(model(), schedule=schedule)


def test_factors_on_nothing_or_out_of_range_are_refused_before_training(toy: Any, digest: Any) -> None:
    X, y = toy.classes(64)
    plain = toy.mlp(6, 8, 3)
    for network, optimizer, schedule, message in (
        (plain, "adam", {"weight_decay": "cosine"}, "multiplies the optimizer's weight_decay, which is 0"),
        (plain, "adamw", {"dropout": "cosine"}, "needs a Dropout layer with p > 0; the model has none"),
        (model(), "adamw", {"dropout": Linear(1, 4)}, r"dropout becomes 0.4 \* 3.25 = 1.3 at step 3"),
        (model(), "adamw", {"dropout": Linear(2.5, 0)}, r"= 1 at step 0; it must stay in \[0, 1\)"),
    ):
        trainer = hl.Trainer(network, optimizer=optimizer, schedule=schedule)
        trainer.predict(X)
        before = digest(trainer)
        with pytest.raises(ValueError, match=message):
            trainer.fit(X, y, epochs=1, batch_size=16)
        assert digest(trainer) == before and trainer.history is None
