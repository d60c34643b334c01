# SPDX-License-Identifier: Apache-2.0
"""Callbacks: when they are called, what they see, how they stop a run, and what checkpoints keep of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import hotloop as hl
from hotloop.callbacks import hooks
from hotloop.engine.native import NativeTrainPass
from hotloop.storage.files import read_safetensors
from tests import runs
from tests.runs import interrupted, resumed, stopping, whole


class Steps(hl.Callback):
    """Writes down what it sees, in a state that travels."""

    def __init__(self, every: int | None = 1, stop_at: int | None = None) -> None:
        self.every_n_batches = every
        self.stop_at = stop_at
        self.seen: list[Any] = []

    def on_batch_end(self, state: Any) -> object:
        self.seen.append([state.epoch, state.batch, state.step])
        return state.step == self.stop_at

    def on_epoch_end(self, state: Any) -> None:
        self.seen.append([state.epoch, state.batch, state.step])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Any) -> None:
        self.seen = state["seen"]


def steps_of(trainer: Any) -> int:
    return int(trainer.optimizer_state()["0.weight.step"])


# --- ends of batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropout", "callable"])
@pytest.mark.parametrize("every", [1, 3, 5, 7])
def test_every_so_many_batches_of_the_run(name: str, every: int) -> None:
    watch = Steps(every)
    trainer, fit = runs.make(name, callbacks=[watch])
    run = trainer.fit(**fit)
    assert runs.result(trainer, run, fit["X"]) == whole(name)  # looking changes nothing
    n = steps_of(trainer) // run.best_epoch if name == "dropout" else -(-len(fit["X"]) * 4 // 5 // 16)
    expected = [[s // n + 1, s % n + 1, s + 1] for s in range(run.epochs * n) if (s + 1) % every == 0]
    expected += [[epoch, 0, epoch * n] for epoch in range(1, run.epochs + 1)]
    # the last batch of an epoch is seen before the epoch
    assert watch.seen == sorted(expected, key=lambda at: (at[2], at[1] == 0))


@pytest.mark.parametrize("threads", [1, 2])
def test_pausing_does_not_change_a_bit(toy: Any, digest: Any, threads: int) -> None:
    X, y = toy.classes(2000, 64, 10)
    results = []
    for callbacks in ([], [Steps(2)], [Steps(1), Steps(5)]):
        trainer = hl.Trainer(toy.mlp(64, 128, 10, dropout=0.1), callbacks=callbacks, threads=threads)
        run = trainer.fit(X, y, validation=0.1, epochs=2)
        results.append((digest(trainer), run.history))
    assert results[0] == results[1] == results[2]


def test_the_native_loop_runs_through_where_nobody_asks(toy: Any) -> None:
    class Quiet(Steps):
        """Overrides `on_batch_end`, but does not want to be called."""

    class Epochs(hl.Callback):
        every_n_batches = 1

        def on_epoch_end(self, state: Any) -> None:
            pass

    trainer, fit = toy.turning(callbacks=[Quiet(None), Epochs(), lambda state: None])
    with mock.patch.object(NativeTrainPass, "run", autospec=True, side_effect=NativeTrainPass.run) as run:
        trainer.fit(**{**fit, "epochs": 7})
    assert run.call_count == 7
    assert trainer.callbacks[0].seen == [[epoch, 0, 4 * epoch] for epoch in range(1, 8)]


def test_what_is_seen_in_mid_epoch(toy: Any) -> None:
    """Running metrics, the rate of the step, the history so far; views that follow the training."""
    schedule = hl.schedules.Cosine()
    factors = schedule.factors(12)

    losses = []

    class Watch(hl.Callback):
        last: Any = None

        def on_batch_end(self, state: Any) -> None:
            assert state.lr == pytest.approx(0.005 * factors[state.step - 1], rel=1e-12)
            assert list(map(len, state.history.values())) == [state.epoch - 1] * len(state.history)
            now, gradient = state.parameters["0.weight"].copy(), state.gradients["0.weight"]
            if self.last is not None:  # SGD without momentum
                np.testing.assert_allclose(self.last - now, state.lr * gradient, rtol=1e-3, atol=1e-7)
            self.last = now
            if state.batch == 4:
                losses.append(state.metrics["loss"])

    trainer, fit = toy.turning(callbacks=[Watch()], schedule=schedule)
    run = trainer.fit(**{**fit, "epochs": 3})
    assert run.history["loss"] == losses
    assert len(losses) == 3


def test_views_are_of_the_live_memory_and_cannot_be_written(toy: Any) -> None:
    class Grasp(hl.Callback):
        views: Any = None

        def on_fit_start(self, state: Any) -> None:
            assert not any(g.any() for g in state.gradients.values())
            self.views = state.parameters

        def on_batch_end(self, state: Any) -> None:
            for name, parameter in state.model.named_parameters():
                view = state.parameters[name]
                assert np.shares_memory(view, parameter.data)
                np.testing.assert_array_equal(self.views[name], parameter.data)
                with pytest.raises(ValueError, match="read-only"):
                    view[...] = 0
                with pytest.raises(ValueError, match="WRITEABLE"):
                    view.flags.writeable = True
            with pytest.raises(TypeError):
                state.parameters["0.weight"] = 0
            with pytest.raises(TypeError):
                state.history["loss"] = []

    trainer, fit = toy.turning(callbacks=[Grasp()])
    trainer.fit(**{**fit, "epochs": 2})
    assert hl.callbacks.FitState(None, 1).parameters == {}


@pytest.mark.parametrize("stop_at", [1, 6, 8])
def test_a_batch_may_end_the_run(toy: Any, stop_at: int) -> None:
    """At once, whatever other callbacks say, and on the best epoch that there is."""
    after = Steps(1)
    trainer, fit = toy.turning(callbacks=[Steps(1, stop_at), after], restore_best=False)
    run = trainer.fit(**fit)
    assert (run.stop_reason, run.epochs) == ("callback", (stop_at - 1) // 4)
    assert steps_of(trainer) == stop_at == after.seen[-1][2]
    trainer, fit = toy.turning(callbacks=[Steps(2, 110 * 4 + 2)])
    run = trainer.fit(**fit)
    assert (run.stop_reason, run.epochs) == ("callback", 110)
    assert steps_of(trainer) == 4 * run.best_epoch < 4 * 110


def test_stop_is_as_good_as_a_truthy_return(toy: Any) -> None:
    class Stop(hl.Callback):
        every_n_batches = 3

        def on_batch_end(self, state: Any) -> None:
            state.stop()

    trainer, fit = toy.turning(callbacks=[Stop()], restore_best=False)
    assert trainer.fit(**fit).stop_reason == "callback"
    assert steps_of(trainer) == 3


@pytest.mark.parametrize(
    ("every", "error", "text"),
    [(0, ValueError, r"Steps\.every_n_batches must be >= 1, got 0"), ("2", TypeError, "a whole number")],
)
def test_a_bad_number_of_batches_is_refused_before_anything(
    toy: Any, digest: Any, every: Any, error: type[Exception], text: str
) -> None:
    trainer, fit = toy.turning(callbacks=[Steps(every)])
    trainer.predict(fit["X"])
    before = digest(trainer)
    with pytest.raises(error, match=text):
        trainer.fit(**fit)
    assert (digest(trainer), trainer.history) == (before, None)


# --- exceptions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["on_fit_start", "on_batch_end", "on_epoch_end", "on_fit_end"])
def test_an_exception_says_whose_it_is_and_leaves_the_best_epoch(toy: Any, hook: str) -> None:
    class Broken(hl.Callback):
        pass

    def fail(self: Any, state: Any) -> None:
        if hook in ("on_fit_start", "on_fit_end") or state.step == 4 * 150:
            raise ZeroDivisionError("mine")

    setattr(Broken, hook, fail)
    trainer, fit = toy.turning(callbacks=[Broken()])
    with pytest.raises(ZeroDivisionError, match="mine") as raised:
        trainer.fit(**fit)
    name = "test_an_exception_says_whose_it_is_and_leaves_the_best_epoch.<locals>.Broken"
    assert raised.value.__notes__ == [f"[fit] raised by the callback {name}.{hook}"]
    losses = trainer.history.history.get("val_loss", [])
    assert steps_of(trainer) == (4 * (1 + int(np.argmin(losses))) if losses else 0)
    trainer.callbacks = []
    assert trainer.fit(**{**fit, "epochs": 1}).stop_reason == "epochs"  # usable again


def test_notes_without_the_method_of_python_3_11() -> None:
    class Old(Exception):
        add_note: Any = property()  # hasattr says no

    error = Old()
    hooks._note(error, "a")
    hooks._note(error, "b")
    assert error.__notes__ == ["a", "b"]


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropout", "batch_norm"])
def test_a_resumed_callback_has_seen_what_it_would_have(name: str, tmp_path: Path) -> None:
    """Nothing twice, nothing left out, wherever the run is interrupted and by whom."""
    watch = [Steps(2), Steps(3)]
    trainer, fit = runs.make(name, callbacks=watch)
    trainer.fit(**fit)
    expected = [callback.seen for callback in watch]
    for step, by_callback in itertools.product([1, 4, 5, 6, 10, 12], [False, True]):
        folder = tmp_path / f"{step}{by_callback}"
        first, fit = runs.make(name, callbacks=[Steps(2), Steps(3), *[Steps(1, step)] * by_callback])
        checkpoint = hl.Checkpoint(folder, every=5)
        if by_callback:
            assert first.fit(**fit, checkpoint=checkpoint).stop_reason == "callback"
        else:
            with stopping(step):
                first.fit(**fit, checkpoint=checkpoint)
        again = [Steps(2), Steps(3)]
        if by_callback:
            again.append(Steps(None))
        trainer, fit = runs.make(name, callbacks=again)
        run = trainer.fit(**fit, resume=folder)
        assert [callback.seen for callback in again[:2]] == expected, step
        assert runs.result(trainer, run, fit["X"]) == whole(name)


def test_states_are_loaded_before_the_start_by_class_and_number(tmp_path: Path) -> None:
    order: list[str] = []

    class Own(hl.Callback):
        def __init__(self, label: str) -> None:
            self.label = label

        def state_dict(self) -> dict[str, Any]:
            return {"label": self.label, "numbers": (1, 2.5, None)}

        def load_state_dict(self, state: Any) -> None:
            order.append(f"{self.label} loads {state['label']} {state['numbers']}")

        def on_fit_start(self, state: Any) -> None:
            order.append(f"{self.label} starts at {state.epoch}, {state.batch}, {state.step}")

    trainer, fit = runs.make("dropout", callbacks=[Own("a"), Own("b")])
    with stopping(7):
        trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path))
    order.clear()
    trainer, fit = runs.make("dropout", callbacks=[lambda s: None, Own("c"), Own("d"), Own("e")])
    trainer.fit(**fit, resume=tmp_path)
    assert order == [
        "c loads a [1, 2.5, None]", "d loads b [1, 2.5, None]",
        "c starts at 1, 2, 7", "d starts at 1, 2, 7", "e starts at 1, 2, 7",
    ]  # fmt: skip


def test_a_state_without_its_callback_is_told(tmp_path: Path) -> None:
    trainer, fit = runs.make("dropout", callbacks=[Steps(2)])
    with stopping(7):
        trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path))
    trainer, fit = runs.make("dropout")
    with pytest.warns(hl.HotloopWarning, match="a callback Steps that this run does not have") as warned:
        run = trainer.fit(**fit, resume=tmp_path)
    assert warned[0].filename == __file__
    assert runs.result(trainer, run, fit["X"]) == whole("dropout")


def test_a_callback_without_state_stores_nothing(tmp_path: Path) -> None:
    interrupted("dropout", tmp_path / "a", 7)
    trainer, fit = runs.make("dropout", callbacks=[hl.Callback(), lambda state: None])
    with stopping(7):
        trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path / "b"))
    for folder in ("a", "b"):
        run = json.loads(read_safetensors(hl.Checkpoint.latest(tmp_path / folder))[1]["run"])
        assert run["record"]["callbacks"] == []
    assert resumed("dropout", tmp_path / "b") == whole("dropout")


def test_a_state_that_json_cannot_hold_is_refused(toy: Any, tmp_path: Path) -> None:
    class Odd(hl.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"weights": np.zeros(2)}

    trainer, fit = toy.turning(callbacks=[Odd()])
    with pytest.raises(TypeError, match=r"Odd.state_dict\(\) must be a dict that JSON can hold.*into lists"):
        trainer.fit(**fit, checkpoint=hl.Checkpoint(tmp_path))
    assert list(tmp_path.iterdir()) == []
