# SPDX-License-Identifier: Apache-2.0
"""Direct calls and prepared plans: as fast as they are, nothing that an owner changes is overlooked."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.data import border


@pytest.fixture
def no_border(monkeypatch: Any) -> Any:
    """Call it, and whatever takes the long way from then on fails the test."""

    def forbid() -> None:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("this call took the long way")

        monkeypatch.setattr(border, "as_inputs", refuse)

    return forbid


def expected(model: Any, x: Any) -> Any:
    """What Sequential(Linear, ReLU, Linear) gives, from its parameters as they stand."""
    w1, b1, w2, b2 = (np.array(p.data, np.float64) for p in model.parameters())
    return np.maximum(x @ w1.T + b1, 0) @ w2.T + b2


def ready(rows: int = 3) -> tuple[Any, Any]:
    """A TrainStep that predicts directly, and the rows it does that for."""
    model = hl.nn.Sequential(hl.nn.Linear(5, 20), hl.nn.ReLU(), hl.nn.Linear(20, 4))
    step = hl.TrainStep(model, "mse", hl.optim.SGD(0.1))
    x = np.random.default_rng(1).normal(size=(rows, 5)).astype(np.float32)
    for _ in range(2):
        step.predict(x)
    assert len(step._session.direct["predict"]) == 1
    return step, x


def check(step: Any, x: Any) -> None:
    np.testing.assert_allclose(step.predict(x), expected(step.model, x), rtol=1e-5, atol=1e-5)


# --- what was packed follows the parameters ---


def weight(step: Any) -> Any:
    return next(step.model.parameters()).data


def restore_doubled(memory: Any) -> None:
    snapshot = memory.snapshot()
    snapshot.native.parameters[...] *= 2
    memory.restore(snapshot)


EDITS = {
    "Parameter.data": lambda step: weight(step).__setitem__(..., 0.5),
    "a slice of it": lambda step: weight(step)[1:3].__setitem__(..., 0.5),
    "its reshaped transpose": lambda step: weight(step).T[:, :2].__imul__(3.0),
    "a memoryview": lambda step: memoryview(weight(step)).cast("B").__setitem__(slice(0, 4), b"\0\0\0\x40"),
    "flat_params": lambda step: step.flat_params.__imul__(-2.0),
    "flat_params, some": lambda step: step.flat_params[3:40].__iadd__(1.0),
    "initialize": lambda step: step.model.initialize(9),
    "bind": lambda step: next(step.model.parameters()).bind(np.full((20, 5), 0.25, np.float32)),
    "load_state_dict": lambda step: step.load_state_dict(
        {name: value + 1 for name, value in step.state_dict().items()}
    ),
    "the model's load_state_dict": lambda step: step.model.load_state_dict(
        {name: value - 1 for name, value in step.state_dict().items()}
    ),
    "a step": lambda step: step(np.ones((4, 5), np.float32), np.ones((4, 4), np.float32)),
    "an update": lambda step: (
        step.loss_and_grads(np.ones((4, 5), np.float32), np.ones((4, 4), np.float32)),
        step.update(),
    ),
    "restore": lambda step: restore_doubled(step._session.memory),
    "another trainer": lambda step: hl.Trainer(step.model, "mse", optimizer="sgd").fit(
        np.ones((8, 5)), np.ones((8, 4)), epochs=2
    ),
}


@pytest.mark.parametrize("how", EDITS)
def test_every_change_of_a_parameter_shows_in_the_next_prediction(how: str) -> None:
    step, x = ready()
    before = step.predict(x)
    EDITS[how](step)
    assert not np.array_equal(step.predict(x), before)
    check(step, x)


def test_a_view_that_is_kept_may_be_written_at_any_time() -> None:
    step, x = ready()
    kept = [step.flat_params[7:9], weight(step)[2].reshape(5, 1)]
    for value in (1.0, -3.0):
        for view in kept:
            view[...] = value
            check(step, x)
    last = weight(step).ravel()
    check(step, x)
    last[:] = 0.125
    del last, kept, view
    gc.collect()
    check(step, x)  # written after the last prediction, and gone before the next


def test_what_is_packed_stays_as_long_as_nothing_changes() -> None:
    step, x = ready()
    right = step.predict(x)
    step.predict(x[:1])
    exe = next(e for e in step._session._programs.values() if e.plan.mode == "predict")
    assert exe.plan.prepare == 2
    panels = [dict(s.fields)["out"].buffer for s in exe.plan.steps[: exe.plan.prepare]]
    for panel in panels:
        exe.program.buffer(panel, 1)[...] = 0.0
    assert not np.array_equal(step.predict(x), right)  # it is read, not made again
    step.flat_params[0] += 0.0
    np.testing.assert_array_equal(step.predict(x), right)


def test_evaluation_packs_anew_after_each_epoch(toy: Any) -> None:
    X, y = toy.classes(600)
    trainer = hl.Trainer(toy.mlp(6, 16, 3), seed=1)
    run = trainer.fit(X, y, validation=(X, y), epochs=3)
    again = trainer.evaluate(X, y)
    assert again["loss"] == min(run.history["val_loss"])
    assert len(set(run.history["val_loss"])) == 3


# --- direct calls ---


@pytest.mark.parametrize("given", ["float32", "float64", "uint8", "named"])
def test_predictions_are_those_of_the_long_way(given: str, toy: Any, no_border: Any) -> None:
    rng = np.random.default_rng(0)
    x: Any = rng.integers(0, 9, (6, 5))
    if given == "named":
        model = toy.two_inputs()
        x = {"num": rng.normal(size=(6, 2)).astype(np.float32), "cat": rng.integers(0, 4, 6)}
        slow = {"num": x["num"].tolist(), "cat": x["cat"].tolist()}
    else:
        model = hl.nn.Sequential(hl.nn.Linear(5, 8), hl.nn.Tanh(), hl.nn.Linear(8, 2))
        x = x.astype(given) if given == "uint8" else rng.normal(size=(6, 5)).astype(given)
        slow = x.astype(np.float32).tolist()
    trainer = hl.Trainer(model, "mse")
    want = trainer.predict(slow)
    trainer.predict(x)
    no_border()
    out = trainer.predict(x)
    np.testing.assert_array_equal(out, want)
    assert out.dtype == np.float32
    assert out.flags.owndata
    for rows in (1, 4):
        part = {k: v[:rows] for k, v in x.items()} if given == "named" else x[:rows]
        np.testing.assert_array_equal(trainer.predict(part), want[:rows])


def test_results_are_apart() -> None:
    step, x = ready()
    first = step.predict(x)
    kept = first.copy()
    step.predict(-x)
    np.testing.assert_array_equal(first, kept)


def strided(x: Any) -> Any:
    return np.repeat(x, 2, axis=1)[:, ::2]


OTHER_FORMS = {
    "list": lambda x: x.tolist(),
    "strided": strided,
    "Fortran": np.asfortranarray,
    "matrix": lambda x: x.view(type("Mine", (np.ndarray,), {})),
    "swapped": lambda x: x.astype(">f4"),
    "float16": lambda x: x.astype(np.float16).astype(np.float32),
    "named": lambda x: {"x": x},
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_other_forms_of_the_same_numbers(form: str) -> None:
    step, x = ready()
    x = np.round(x, 1).astype(np.float16).astype(np.float32)
    want = step.predict(x)
    for _ in range(2):
        np.testing.assert_array_equal(step.predict(OTHER_FORMS[form](x)), want)
        np.testing.assert_array_equal(step.predict(x), want)


def test_no_rows_and_too_many_rows() -> None:
    step, x = ready()
    assert step.predict(x[:0]).shape == (0, 4)
    many = np.tile(x, (200, 1))
    np.testing.assert_array_equal(step.predict(many)[-3:], step.predict(x))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_as_ever(bad: float) -> None:
    step, x = ready()
    x[1, 2] = bad
    with pytest.raises(hl.NonFiniteError, match=r"\[predict\] x\[1, 2\] = .*is not a finite number"):
        step.predict(x)
    with pytest.raises(hl.NonFiniteError, match=r"\[predict\] x\[1, 2\] = "):
        step.predict(x)


def test_doubles_that_overflow_are_refused_as_ever() -> None:
    step, x = ready()
    wide = x.astype(np.float64)
    for _ in range(2):
        step.predict(wide)
    wide[0, 1] = 1e300
    with pytest.raises(hl.NonFiniteError, match=r"x\[0, 1\] = 1e\+300 overflows float32"):
        step.predict(wide)


@pytest.mark.parametrize("bad", [-1, 4, 2**40])
def test_ids_out_of_range_are_refused_as_ever(bad: int, toy: Any) -> None:
    trainer = hl.Trainer(toy.two_inputs(), "mse")
    x = {"num": np.ones((2, 2), np.float32), "cat": np.array([0, 3])}
    for _ in range(3):
        trainer.predict(x)
    x["cat"][1] = bad
    with pytest.raises(hl.LabelError, match=rf"X\['cat'\]\[1\] = {bad} "):
        trainer.predict(x)


def test_an_edit_of_the_model_counts_at_once() -> None:
    step, x = ready()
    before = step.predict(x)
    step.model[1] = hl.nn.Tanh()
    w1, b1, w2, b2 = (p.data for p in step.model.parameters())
    after = step.predict(x)
    assert not np.array_equal(after, before)
    np.testing.assert_allclose(after, np.tanh(x @ w1.T + b1) @ w2.T + b2, rtol=1e-5, atol=1e-5)


def test_threads_set_later_count() -> None:
    step, x = ready()
    try:
        hl.set_num_threads(2)
        check(step, x)
        assert {key[2] for key in step._session._programs} == {None, 2}
    finally:
        hl.set_num_threads(None)


def test_few_calls_are_kept(no_border: Any) -> None:
    class Mean(hl.nn.Module):
        def __init__(self) -> None:
            self.linear = hl.nn.Linear(3, 2)

        def forward(self, x: Any) -> Any:
            return self.linear(x).mean(1)

    trainer = hl.Trainer(Mean(), "mse")
    batches = [np.ones((2, length, 3), np.float32) for length in range(1, 12)]
    for x in batches:
        trainer.predict(x)
    assert len(trainer._session.direct["predict"]) == 4
    no_border()
    for x in batches[-4:]:
        trainer.predict(x)


def test_a_second_thread_is_turned_away() -> None:
    step, x = ready()
    seen: list[str] = []

    def other() -> None:
        with pytest.raises(RuntimeError) as caught:
            step.predict(x)
        seen.append(str(caught.value))

    with step._session.entered("test"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "[predict] this model is in use in another thread" in seen[0]
    check(step, x)


def test_arrays_are_let_go_after_a_call() -> None:
    import weakref

    step, x = ready()
    mine = x.copy()
    step.predict(mine)
    mine[0, 0] = np.nan
    with pytest.raises(hl.NonFiniteError):
        step.predict(mine)
    gone = weakref.ref(mine)
    del mine
    assert gone() is None
