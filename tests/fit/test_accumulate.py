# SPDX-License-Identifier: Apache-2.0
"""Batches that share an update: the update of one batch of all their rows, whatever the weights, the schedule,
the clipping and the number of threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import _core
from hotloop.compile import compile_plan
from hotloop.compile.interpret import Interpreter
from hotloop.compile.plan import LossSpec, PlanSpec
from tests.compile.graphs import ADAMW, batch, mlp, runner, train_spec
from tests.compile.test_native import Native
from tests.kernels.native import run as run_kernel
from tests.kernels.native import same_bits
from tests.runs import stopping

Weights = dict[str, np.ndarray]


def weights(trainer: Any) -> Weights:
    return {name: value.copy() for name, value in trainer.model.state_dict().items()}


def trained(toy: Any, batch_size: int, accumulate: int, *, fit: Any = None, **options: Any) -> Any:
    """A trainer after three epochs over 100 rows in their order."""
    X, y = toy.classes(100)
    options = {"optimizer": hl.optim.SGD(0.1, momentum=0.9), "accumulate": accumulate, **options}
    trainer = hl.Trainer(toy.mlp(6, 16, 3), options.pop("loss", "cross_entropy"), progress=False, **options)
    trainer.fit(X, y, epochs=3, batch_size=batch_size, shuffle=False, **(fit or {}))
    return trainer


def assert_near(got: Weights, want: Weights, rtol: float = 2e-6) -> None:
    for name, value in want.items():
        scale = float(np.abs(value).max())
        np.testing.assert_allclose(got[name], value, rtol=0, atol=rtol * scale, err_msg=name)


# --- the meaning ----------------------------------------------------------------------------------


def test_whole_numbers_give_the_bits_of_the_large_batch() -> None:
    """Every sum and mean of these gradients is a float32, so nothing is left to rounding."""
    rng = np.random.default_rng(0)
    X = rng.integers(-3, 4, (64, 3)).astype(np.float32)
    y = rng.integers(-3, 4, 64).astype(np.float32)
    seen = []
    for batch_size, accumulate in ((32, 1), (16, 2), (8, 4), (4, 8)):
        model = hl.nn.Linear(3, 1)
        model.load_state_dict({"weight": np.ones((1, 3), np.float32), "bias": np.zeros(1, np.float32)})
        trainer = hl.Trainer(model, "mse", optimizer=hl.optim.SGD(2.0**-6), accumulate=accumulate)
        trainer.fit(X, y, epochs=1, batch_size=batch_size, shuffle=False)
        seen.append(weights(trainer))
    assert not np.array_equal(seen[0]["weight"], np.ones((1, 3)))
    for other in seen[1:]:
        for name, value in seen[0].items():
            np.testing.assert_array_equal(other[name], value)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}], ids=str)
def test_it_is_the_update_of_the_large_batch(toy: Any, options: dict[str, Any]) -> None:
    """The last update of an epoch has 28 rows, in batches of 9, 9, 9 and 1."""
    one = trained(toy, 36, 1, **options)
    many = trained(toy, 9, 4, **options)
    assert_near(weights(many), weights(one))
    plain = weights(trained(toy, 36, 1))
    assert (options == {}) == all(np.array_equal(plain[n], v) for n, v in weights(one).items())


def test_weighted_batches_follow_a_float64_loop() -> None:
    """sum(total_k g_k) / sum(total_k), total_k the sum of a batch's row weights, in plain NumPy."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=50).astype(np.float32)
    weight = rng.uniform(0, 3, 50) * (rng.random(50) < 0.7)
    weight[8:16] = 0  # a batch without weight in the midst of a group
    weight[24:48] = 0  # the second group has none at all
    model = hl.nn.Linear(4, 1)
    trainer = hl.Trainer(model, "mse", optimizer=hl.optim.SGD(0.1, momentum=0.5), accumulate=3)
    trainer.fit(X, y, epochs=1, batch_size=8, sample_weight=weight, shuffle=False)

    fresh = hl.nn.Linear(4, 1)
    fresh.initialize(0)
    w, b = (fresh.state_dict()[n].astype(np.float64).ravel() for n in ("weight", "bias"))
    momentum = np.zeros(5)
    updates = 0
    for rows in (slice(0, 24), slice(24, 48), slice(48, 50)):
        x, t, r = X[rows].astype(np.float64), y[rows].astype(np.float64), weight[rows].astype(np.float32)
        if not r.sum():
            continue
        error = 2 * (x @ w + b[0] - t) * r / r.sum()
        momentum = 0.5 * momentum + np.append(error @ x, error.sum())
        w, b = w - 0.1 * momentum[:4], b - 0.1 * momentum[4]
        updates += 1
    assert updates == 2 == trainer.optimizer_state()["weight.step"]
    assert_near(weights(trainer), {"weight": w[None], "bias": b})


def test_a_loss_in_python_accumulates_as_one_in_the_plan(toy: Any) -> None:
    def squared(prediction: Any, target: Any) -> Any:
        error = prediction.astype(np.float64) - target
        return (error**2).mean(axis=1), 2 * error / error.shape[1]

    X, y = toy.classes(100)
    target, weight = np.eye(3, dtype=np.float32)[y], np.arange(100) % 4
    weight[16:32] = 0
    results = []
    for loss in ("mse", squared):
        trainer = hl.Trainer(toy.mlp(6, 8, 3), loss, accumulate=3, ema=0.5, metrics=None)
        trainer.fit(X, target, epochs=2, batch_size=8, sample_weight=weight)
        results.append((weights(trainer), trainer.optimizer_state()["0.weight.step"]))
    assert_near(results[1][0], results[0][0], 1e-5)
    assert results[0][1] == results[1][1] == 2 * 5


def test_statistics_of_batch_norm_are_of_each_batch(toy: Any) -> None:
    """The learning rate is 0, so that only the statistics move: one step for every batch, as in torch."""
    X, y = toy.classes(96)
    model = toy.batch_norm()
    trainer = hl.Trainer(model, optimizer=hl.optim.SGD(0.0), accumulate=4)
    trainer.fit(X, y, epochs=1, batch_size=16, shuffle=False)
    state = model.state_dict()
    hidden = X.astype(np.float64) @ state["0.weight"].T + state["0.bias"]
    mean = np.zeros(8)
    for rows in hidden.reshape(6, 16, 8):
        mean = 0.9 * mean + 0.1 * rows.mean(axis=0)
    np.testing.assert_allclose(state["1.running_mean"], mean, rtol=1e-4, atol=1e-6)
    assert state["1.num_batches_tracked"] == 6


# --- what counts updates --------------------------------------------------------------------------


def test_schedule_and_optimizer_count_updates(toy: Any) -> None:
    """100 rows in batches of 8 are 13 batches: updates after 5, 10 and 13 of them."""
    seen: list[int] = []

    def schedule(update: int) -> float:
        seen.append(update)
        return 1 / (1 + update)

    trainer = trained(toy, 8, 5, schedule=schedule, optimizer="adam")
    assert max(seen) == 8
    assert trainer.history.history["lr"] == pytest.approx([1e-3 / 3, 1e-3 / 6, 1e-3 / 9])
    assert trainer.optimizer_state()["0.weight.step"] == 9


def test_each_update_has_its_own_learning_rate(toy: Any) -> None:
    """25 * 4 rows: with equal groups the schedule gives the updates of large batches the same rates."""

    def schedule(update: int) -> float:
        return float(update % 3)

    one, many = (trained(toy, *sizes, schedule=schedule) for sizes in ((20, 1), (5, 4)))
    assert_near(weights(many), weights(one))
    assert_different(weights(many), weights(trained(toy, 20, 1)))


def assert_different(a: Weights, b: Weights) -> None:
    assert any(not np.allclose(a[name], b[name], rtol=1e-3) for name in a)


def test_what_is_not_finished_is_dropped(toy: Any) -> None:
    """Batches 5 and 6 of the second group of four change nothing, nor do they enter the next run."""
    ends = []
    for step in (4, 6):
        with stopping(step):
            trainer = trained(toy, 10, 4, restore_best=False)
        assert trainer.history.stop_reason == "interrupt"
        ends.append(weights(trainer))
        X, y = toy.classes(100)
        trainer.fit(X, y, epochs=1, batch_size=10, shuffle=False, reset_optimizer=False)
        ends.append(weights(trainer))
    for name, value in ends[0].items():
        np.testing.assert_array_equal(ends[2][name], value)
        np.testing.assert_array_equal(ends[3][name], ends[1][name])


# --- threads, plans, memory -----------------------------------------------------------------------


@pytest.mark.parametrize("make", ["mlp", "batch_norm"])
def test_threads_do_not_change_a_bit(toy: Any, digest: Any, make: str) -> None:
    X, y = toy.classes(200)
    weight = np.random.default_rng(2).uniform(0, 2, 200)
    found = set()
    for threads in (1, 2, 3, 7):
        model = toy.mlp(6, 200, 120, 3, dropout=0.1) if make == "mlp" else toy.batch_norm()
        trainer = hl.Trainer(model, accumulate=3, ema=0.9, clip_norm=1.0, threads=threads)
        run = trainer.fit(X, y, epochs=2, batch_size=24, sample_weight=weight, validation=0.2)
        found.add((digest(trainer), *run.history["val_loss"]))
    assert len(found) == 1


def test_without_accumulation_the_plan_is_as_it_was() -> None:
    graph = mlp()
    spec = train_spec("cross_entropy", optimizer=ADAMW)
    plain = compile_plan(graph, spec)
    more = compile_plan(graph, dataclasses.replace(spec, accumulate=True, ema=0.9))
    added = {"accumulate_begin", "accumulate", "ema_begin", "ema"}
    assert [s.kernel for s in plain.steps] == [s.kernel for s in more.steps if s.kernel not in added]
    assert not {s.kernel for s in plain.steps} & added
    assert [name for name, _, _ in plain.sections] == ["forward", "backward", "update"]
    assert [name for name, _, _ in more.sections] == ["forward", "backward", "accumulate", "update"]
    assert not {b.kind for b in plain.buffers} & {"accumulated", "ema", "ema_counter"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_executor_runs_a_group_as_the_interpreter_does(dtype: str) -> None:
    graph = mlp()
    spec = dataclasses.replace(
        train_spec("mse", optimizer=ADAMW), accumulate=True, ema=0.75, weighted=True, dtype=dtype
    )
    oracle: Interpreter = runner(graph, spec)
    native = Native(graph, spec, oracle.plan, oracle, "generic", reserve=True)
    params = np.array([0.01, 0.1])
    for index in range(8):  # groups of three, the last of two; weights of 0 in all places
        inputs = batch(graph, spec, 5)
        inputs["sample_weight"] = np.full(5, [1.0, 3.0, 0.0, 0.5][index % 4])
        first, last = index % 3 == 0, index % 3 == 2 or index == 7
        end = len(oracle.plan.steps) if last else oracle.plan.update
        how: dict[str, Any] = {"params": params, "first": first, "last": last, "end": end}
        oracle.run(5, inputs, **how)
        native.run(5, inputs, **how)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    for kind, name in (("parameter", "parameters"), ("accumulated", "accumulated"), ("ema", "ema")):
        np.testing.assert_allclose(getattr(native.memory, name), oracle.memory[kind], atol=tolerance, rtol=0)
    assert native.memory.ema_counter[0] == oracle.memory["ema_counter"][0] == 3
    np.testing.assert_allclose(native.program.metrics, oracle.metrics, rtol=1e-4)


def test_a_program_needs_the_buffers_of_its_plan() -> None:
    graph = mlp()
    spec = dataclasses.replace(train_spec("mse", optimizer=ADAMW), accumulate=True)
    oracle = runner(graph, spec)
    with pytest.raises(hl.HotloopError, match="of a space of 0"):
        Native(graph, spec, oracle.plan, oracle, "generic")


def test_memory_is_counted_to_the_byte(toy: Any) -> None:
    X, y = toy.classes(100)
    plans = {}
    for key, options in {"plain": {}, "sums": {"accumulate": 4}, "ema": {"ema": 0.9}}.items():
        trainer = hl.Trainer(toy.mlp(6, 8, 3), **options)
        plans[key] = trainer.plan(X, y, batch_size=10)
        native = trainer._session.memory.native
        assert plans[key].memory_bytes == native.nbytes
        assert native.accumulated.size == (native.parameters.size if key == "sums" else 0)
        assert native.ema.size == (native.parameters.size if key == "ema" else 0)
    flat = native.parameters.nbytes
    assert plans["sums"].memory_bytes - plans["plain"].memory_bytes == flat
    assert plans["ema"].memory_bytes - plans["plain"].memory_bytes == flat + 8  # and the count of updates
    assert len({plan.snapshot_bytes for plan in plans.values()}) == 1
    # an update in four: 7 flat buffers of Adam less 3/4 of them, and the pass that sums (3 of them)
    spared = plans["plain"].bytes_per_step - plans["sums"].bytes_per_step
    assert spared == pytest.approx(0.75 * 4 * flat - 2 * flat, abs=200)


# --- the kernels' own ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_any_scale_of_the_weights_gives_the_same_gradient(scale: float) -> None:
    """Sums are in units of the first weight, so that tiny and huge totals neither vanish nor overflow."""
    rng = np.random.default_rng(3)
    totals, gradients = [0.0, 4.0, 0.0, 2.0, 6.0], rng.integers(-8, 9, (5, 20)).astype(np.float32)
    tally, kept, grad = np.full(2, np.nan), np.full(20, np.nan, np.float32), np.empty(20, np.float32)
    for index, total in enumerate(totals):
        scalars = np.empty(4)
        fields = {"scalars": scalars, "tally": tally, "total": np.array([scale * total])}
        _core.run_kernel("accumulate_begin", fields, first=index == 0, last=index == 4)
        grad[:] = gradients[index] if total else 0
        run_kernel("accumulate", "", sum=kept, grad=grad, scalars=scalars, n=20)
    exact = np.array(totals) @ gradients / 12
    np.testing.assert_allclose(grad, exact, rtol=3e-7)
    assert tally[0] == pytest.approx(12 * scale)


def test_a_lone_batch_keeps_its_gradient() -> None:
    grad = np.random.default_rng(4).normal(size=33).astype(np.float32)
    kept, before = np.full(33, np.nan, np.float32), grad.copy()
    tally, scalars = np.array([7.0, 7.0]), np.empty(4)
    _core.run_kernel("accumulate_begin", {"scalars": scalars, "tally": tally, "total": np.array([0.3])})
    run_kernel("accumulate", "", sum=kept, grad=grad, scalars=scalars, n=33)
    assert same_bits(grad, before)
    assert tally.tolist() == [0.3, 0.3]


# --- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)]
)
def test_nonsense_is_refused(toy: Any, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\[Trainer\] accumulate"):
        hl.Trainer(toy.mlp(6, 3), accumulate=value)


def test_more_batches_than_an_epoch_has_make_one_update(toy: Any) -> None:
    assert trained(toy, 8, 1000).optimizer_state()["0.weight.step"] == 3


def test_it_is_saved_and_part_of_a_checkpoint(toy: Any, tmp_path: Any) -> None:
    X, y = toy.classes(60)
    make: Callable[..., Any] = lambda **o: hl.Trainer(toy.mlp(6, 3), progress=False, **o)  # noqa: E731
    trainer = make(accumulate=3, ema=0.9)
    trainer.fit(X, y, epochs=2, checkpoint=hl.Checkpoint(tmp_path))
    trainer.save(tmp_path / "model.safetensors")
    again = hl.load(tmp_path / "model.safetensors")
    assert (again.accumulate, again.ema) == (3, 0.9)
    for options, what in (({"ema": 0.9}, "accumulate"), ({"accumulate": 3, "ema": 0.8}, "ema")):
        with pytest.raises(hl.CheckpointError, match=f"{what} differs"):
            make(**options).fit(X, y, epochs=2, resume=sorted(tmp_path.glob("run*"))[-1])


def test_plans_for_a_loss_of_the_callers_ask_for_its_weight() -> None:
    graph = mlp()
    spec = PlanSpec("vjp", 4, optimizer=ADAMW, accumulate=True)
    kinds = {metric.kind for metric in compile_plan(graph, spec).metrics}
    assert kinds == {"accumulated", "batch_weight"}
    spec = dataclasses.replace(spec, mode="train", loss=LossSpec("mse"))
    assert "batch_weight" not in {metric.kind for metric in compile_plan(graph, spec).metrics}
