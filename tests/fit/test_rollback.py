# SPDX-License-Identifier: Apache-2.0
"""The rollback, for every way in which a run can end."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pytest

import hotloop as hl


def check_rolled_back(trainer: Any, fit: dict[str, Any], run: Any) -> None:
    """The weights are those of the best epoch: they give its validation loss again."""
    best = run.history["val_loss"][run.best_epoch - 1]
    assert best == min(run.history["val_loss"])
    assert trainer.evaluate(*fit["validation"])["loss"] == best
    assert int(trainer.optimizer_state()["0.weight.step"]) == 4 * run.best_epoch


def test_rollback_after_the_last_epoch(toy: Any) -> None:
    trainer, fit = toy.turning()
    run = trainer.fit(**fit)
    assert run.stop_reason == "epochs"
    assert 1 < run.best_epoch < 200
    assert run.history["val_loss"][-1] > 2 * run.history["val_loss"][run.best_epoch - 1]
    check_rolled_back(trainer, fit, run)


def test_rollback_after_patience(toy: Any) -> None:
    trainer, fit = toy.turning(early_stopping=hl.EarlyStopping(patience=3))
    run = trainer.fit(**fit)
    assert run.stop_reason == "early_stopping"
    assert run.epochs == run.best_epoch + 3
    check_rolled_back(trainer, fit, run)


@pytest.mark.parametrize("how", ["truthy", "stop"])
def test_rollback_after_a_callback(toy: Any, how: str) -> None:
    class Stop(hl.Callback):
        def on_epoch_end(self, state: Any) -> object:
            if state.epoch == 150 and how == "stop":
                state.stop()
            return state.epoch == 150 and how == "truthy"

    trainer, fit = toy.turning(callbacks=[Stop()])
    run = trainer.fit(**fit)
    assert (run.stop_reason, run.epochs) == ("callback", 150)
    assert run.best_epoch < 150
    check_rolled_back(trainer, fit, run)


def test_rollback_after_the_time_limit(toy: Any) -> None:
    trainer, fit = toy.turning(callbacks=[lambda state: time.sleep(0.4) if state.epoch == 150 else None])
    run = trainer.fit(**fit, max_time=0.4)
    assert run.stop_reason == "time"
    assert run.epochs == 150
    check_rolled_back(trainer, fit, run)


def test_rollback_after_an_interrupt(toy: Any) -> None:
    trainer, fit = toy.turning(
        callbacks=[lambda state: os.kill(os.getpid(), signal.SIGINT) if state.epoch == 150 else None]
    )
    run = trainer.fit(**fit)
    assert (run.stop_reason, run.epochs) == ("interrupt", 150)
    check_rolled_back(trainer, fit, run)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_rollback_after_an_exception_in_a_callback(toy: Any) -> None:
    def fail(state: Any) -> None:
        if state.epoch == 150:
            raise ZeroDivisionError

    trainer, fit = toy.turning(callbacks=[fail])
    with pytest.raises(ZeroDivisionError):
        trainer.fit(**fit)
    trainer.history.best_epoch = 1 + int(np.argmin(trainer.history.history["val_loss"]))
    check_rolled_back(trainer, fit, trainer.history)
    assert trainer.fit(**{**fit, "epochs": 1}, dry_run=True).epochs == 0  # usable again


def diverging(toy: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A run whose learning rate explodes in epoch 50."""
    schedule = hl.schedules.Custom(lambda step: 1.0 if step < 200 else 1e30)
    return toy.turning(schedule=schedule, **options)


def test_rollback_after_divergence(toy: Any) -> None:
    trainer, fit = diverging(toy)
    text = r"\[fit\] .* in epoch 51, step 2 of 4; restored epoch \d+; try a smaller"
    with pytest.warns(hl.HotloopWarning, match=text) as warned:
        run = trainer.fit(**fit)
    assert warned[0].filename == __file__  # it points at the caller
    assert run.stop_reason == "divergence"
    assert run.epochs == 50
    check_rolled_back(trainer, fit, run)


def test_divergence_may_raise(toy: Any) -> None:
    trainer, fit = diverging(toy, on_divergence="raise")
    with pytest.raises(hl.DivergenceError, match="epoch 51"):
        trainer.fit(**fit)
    assert trainer.history.stop_reason == "divergence"
    check_rolled_back(trainer, fit, trainer.history)


def test_parameters_that_overflow_in_the_last_step_of_an_epoch_are_noticed(toy: Any) -> None:
    schedule = hl.schedules.Custom(lambda step: 1.0 if step < 50 else 1e60)
    trainer, fit = toy.turning(schedule=schedule)
    with pytest.warns(hl.HotloopWarning, match="a parameter became infinite or NaN in epoch 51, step 1 of 1"):
        run = trainer.fit(**{**fit, "batch_size": 64})
    assert run.epochs == 50
    assert np.isfinite(trainer.model[0].weight.data).all()


def test_divergence_without_validation_restores_the_last_finite_epoch(toy: Any) -> None:
    trainer, fit = diverging(toy)
    fit["validation"] = None
    expected, other = toy.turning()
    expected.fit(**{**other, "validation": None, "epochs": 50})
    with pytest.warns(hl.HotloopWarning, match="restored epoch 50"):
        trainer.fit(**fit)
    np.testing.assert_array_equal(trainer.model[0].weight.data, expected.model[0].weight.data)


def test_the_last_finite_epoch_need_not_be_the_best(toy: Any) -> None:
    """Two good epochs, two that overshoot (the error grows by 2.4 a step), then the explosion."""

    def factor(step: int) -> float:
        return 1.0 if step < 8 else 1000.0 if step < 16 else 1e30

    trainer, fit = toy.turning(schedule=hl.schedules.Custom(factor))
    expected, _ = toy.turning(schedule=hl.schedules.Custom(factor))
    fit["validation"] = None
    with pytest.warns(hl.HotloopWarning, match="restored epoch 4"):
        run = trainer.fit(**fit)
    assert run.best_epoch == 2
    expected.fit(**{**fit, "epochs": 4})
    np.testing.assert_array_equal(trainer.model[0].weight.data, expected.model[0].weight.data)


def test_divergence_in_the_first_epoch_restores_the_start(toy: Any, digest: Any) -> None:
    trainer, fit = toy.turning(lr=1e30)
    trainer.fit(**fit, dry_run=True)
    before = digest(trainer)
    with pytest.warns(hl.HotloopWarning, match="in epoch 1, .*restored the start of the run"):
        run = trainer.fit(**fit)
    assert (run.epochs, run.best_epoch) == (0, None)
    assert digest(trainer) == before


@pytest.mark.parametrize("monitor", ["val_r2", "val_loss"])
def test_a_metric_that_is_no_number_is_not_divergence(toy: Any, monitor: str) -> None:
    """R2 of one row is NaN, and the squared error of a huge input infinite; training goes well meanwhile."""
    trainer, fit = toy.turning(monitor=monitor)
    huge = np.full((1, 1), 1e30, np.float32)
    run = trainer.fit(**{**fit, "validation": (huge, np.ones((1, 1))), "epochs": 6})
    assert (run.stop_reason, run.epochs, run.best_epoch) == ("epochs", 6, None)
    assert not np.isfinite(run.history[monitor]).any()
    assert np.isfinite(run.history["loss"]).all()
    assert int(trainer.optimizer_state()["0.weight.step"]) == 24  # there was nothing to go back to


def test_a_metric_that_is_no_number_wears_patience_out(toy: Any) -> None:
    trainer, fit = toy.turning(early_stopping=hl.EarlyStopping(patience=3), monitor="val_r2")
    run = trainer.fit(**{**fit, "validation": (fit["X"][:1], fit["y"][:1])})
    assert (run.stop_reason, run.epochs) == ("early_stopping", 4)


def test_divergence_of_a_loss_in_python_is_noticed_too(toy: Any, digest: Any) -> None:
    def own_loss(prediction: Any, target: Any) -> Any:
        return np.full(len(target), np.nan), np.zeros_like(prediction)

    trainer, fit = toy.turning()
    trainer.loss = own_loss
    trainer.predict(fit["X"])  # draws the weights
    before = digest(trainer)
    with pytest.warns(
        hl.HotloopWarning, match="the loss became nan in epoch 1, step 1 of 4; restored the start"
    ):
        assert trainer.fit(**fit).stop_reason == "divergence"
    assert digest(trainer) == before


@pytest.mark.parametrize("policy", ["stop", "raise"])
def test_divergence_tells_callbacks_and_history_whatever_the_policy(toy: Any, policy: Any) -> None:
    seen: list[Any] = []

    class Watch(hl.Callback):
        def on_fit_end(self, state: Any) -> None:
            seen.append(float(state.model[0].weight.data[0, 0]))

    trainer, fit = diverging(toy, on_divergence=policy, callbacks=[Watch()])
    with pytest.raises(hl.DivergenceError) if policy == "raise" else pytest.warns(hl.HotloopWarning):
        trainer.fit(**fit)
    assert trainer.history.stop_reason == "divergence"
    assert seen == [float(trainer.model[0].weight.data[0, 0])]  # once, after the rollback
    assert np.isfinite(seen[0])


def test_restore_best_off_keeps_the_last_epoch(toy: Any) -> None:
    trainer, fit = toy.turning(restore_best=False)
    run = trainer.fit(**fit)
    assert trainer.evaluate(*fit["validation"])["loss"] == run.history["val_loss"][-1]
    assert run.best_epoch < 200
    trainer, fit = diverging(toy, restore_best=False)
    with pytest.warns(hl.HotloopWarning, match="nothing was restored"):
        trainer.fit(**fit)
    assert not np.isfinite(trainer.model[0].weight.data).all()


def test_without_validation_the_last_epoch_stays(toy: Any) -> None:
    trainer, fit = toy.turning()
    run = trainer.fit(**{**fit, "validation": None, "epochs": 5})
    assert run.monitor == "loss"
    assert int(trainer.optimizer_state()["0.weight.step"]) == 20


def test_the_monitored_metric_decides(toy: Any) -> None:
    trainer, fit = toy.turning(monitor="val_r2")
    by_r2 = trainer.fit(**fit)
    assert by_r2.best_epoch == 1 + int(np.argmax(by_r2.history["val_r2"]))
    trainer, fit = toy.turning(monitor="loss")
    by_loss = trainer.fit(**fit)
    assert by_loss.best_epoch == 200
    sets = {"dev": fit["validation"], "own": (fit["X"], fit["y"])}
    trainer, _ = toy.turning()
    run = trainer.fit(**{**fit, "validation": sets, "epochs": 150})
    assert run.monitor == "dev_loss"
    assert {"dev_loss", "own_loss", "own_r2"} <= set(run.history)
    assert run.best_epoch == 1 + int(np.argmin(run.history["dev_loss"]))
