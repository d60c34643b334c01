# SPDX-License-Identifier: Apache-2.0
"""Schedules point by point against torch's and Keras's own, over random lengths and parameters.

Both are stepped as their users do: torch's once a batch or once an epoch, Keras's called with the step.
"""

from __future__ import annotations

import itertools
import os
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hotloop.schedules import (
    Cosine,
    CosineRestarts,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    ReduceOnPlateau,
    Schedule,
    Step,
)

torch = pytest.importorskip("torch")

RUNS = settings(max_examples=40, deadline=None)
LENGTH, PER_EPOCH = st.integers(2, 60), st.integers(1, 7)
FACTOR, FINAL = st.floats(0.05, 1.5), st.floats(0.0, 0.9)
MILESTONES = st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True).map(sorted)


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras on torch, computing in float64 as our tables do."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("keras")
    before = module.backend.floatx()
    module.backend.set_floatx("float64")
    yield module
    module.backend.set_floatx(before)


def torch_factors(make: Any, n: int, every: int = 1) -> list[float]:
    """The rates of torch's scheduler over n batches, stepped after every ``every`` of them."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    factors = []
    for step in range(n):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < n:
            scheduler.step()
    return factors


def close(schedule: Schedule, n: int, per_epoch: int, expected: Any) -> None:
    """Factors are computed in one formula here, by recursion in torch: some last bits per step apart."""
    np.testing.assert_allclose(schedule.factors(n, per_epoch), expected, rtol=1e-10, atol=1e-13)


# --- torch ----------------------------------------------------------------------------------------


@RUNS
@given(LENGTH, FACTOR, FACTOR)
def test_linear_equals_torch(n: int, start: float, end: float) -> None:
    start, end = min(start, 1.0), min(end, 1.0)  # torch refuses more
    theirs = torch_factors(lambda s, o: s.LinearLR(o, start, end, total_iters=n), n)
    close(Linear(start, end), n, 1, theirs)


@RUNS
@given(LENGTH, st.floats(0.3, 4))
def test_polynomial_equals_torch(n: int, power: float) -> None:
    close(Polynomial(power), n, 1, torch_factors(lambda s, o: s.PolynomialLR(o, n, power), n))


@RUNS
@given(LENGTH, FINAL)
def test_cosine_equals_torch(n: int, final: float) -> None:
    close(Cosine(final), n, 1, torch_factors(lambda s, o: s.CosineAnnealingLR(o, n, eta_min=final), n))


@RUNS
@given(LENGTH, PER_EPOCH, st.integers(1, 5), FACTOR)
def test_step_equals_torch(n: int, per_epoch: int, every: int, gamma: float) -> None:
    theirs = torch_factors(lambda s, o: s.StepLR(o, every, gamma), n, per_epoch)
    close(Step(every, gamma), n, per_epoch, theirs)


@RUNS
@given(LENGTH, PER_EPOCH, MILESTONES, FACTOR)
def test_multi_step_equals_torch(n: int, per_epoch: int, milestones: list[int], gamma: float) -> None:
    theirs = torch_factors(lambda s, o: s.MultiStepLR(o, milestones, gamma), n, per_epoch)
    close(MultiStep(milestones, gamma), n, per_epoch, theirs)


@RUNS
@given(LENGTH, PER_EPOCH, st.floats(0.5, 1.1))
def test_exponential_equals_torch(n: int, per_epoch: int, gamma: float) -> None:
    theirs = torch_factors(lambda s, o: s.ExponentialLR(o, gamma), n, per_epoch)
    close(Exponential(gamma), n, per_epoch, theirs)


@RUNS
@given(LENGTH, st.integers(1, 9), st.integers(1, 3), FINAL)
def test_restarts_equal_torch(n: int, first: int, mult: int, final: float) -> None:
    def make(schedulers: Any, optimizer: Any) -> Any:
        return schedulers.CosineAnnealingWarmRestarts(optimizer, first, mult, eta_min=final)

    close(CosineRestarts(first, mult, final), n, 1, torch_factors(make, n))


@RUNS
@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3))
def test_restarts_within_epochs_equal_torch(epochs: int, per_epoch: int, first: int, mult: int) -> None:
    """torch's way for batches: step(epoch + batch / batches). It takes logarithms, which miss a restart by a
    rounding here and there: where a cycle begins it may still stand at the end of the one before."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, first, mult)
    ours = CosineRestarts(first, mult).factors(epochs * per_epoch, per_epoch)
    optimizer.step()
    for step in range(1, epochs * per_epoch):
        scheduler.step(step / per_epoch)
        theirs = optimizer.param_groups[0]["lr"]
        assert theirs == pytest.approx(ours[step], abs=1e-9) or (ours[step] == 1.0 and theirs < 1e-9)


@RUNS
@given(LENGTH, st.floats(0.1, 0.9), st.floats(2, 50), st.sampled_from(["cos", "linear"]))
def test_one_cycle_equals_torch(n: int, start: float, div: float, anneal: Any) -> None:
    assume(start * n > 1.001)  # the peak must lie behind the first step

    def make(schedulers: Any, optimizer: Any) -> Any:
        return schedulers.OneCycleLR(
            optimizer, 1.0, total_steps=n, pct_start=start, div_factor=div, final_div_factor=7.0,
            anneal_strategy=anneal, cycle_momentum=False,
        )  # fmt: skip

    schedule = OneCycle(pct_start=start, div_factor=div, final_div_factor=7.0, anneal=anneal)
    close(schedule, n, 1, torch_factors(make, n))


@RUNS
@given(LENGTH, st.integers(2, 20), FINAL)
def test_warm_up_equals_torch_linear_before_the_schedule(n: int, warmup: int, final: float) -> None:
    """torch joins two schedulers for it; its SequentialLR warns of its own call to step."""
    assume(warmup < n)

    def make(s: Any, o: Any) -> Any:
        ramp = s.LinearLR(o, 1 / warmup, 1.0, total_iters=warmup - 1)
        body = s.CosineAnnealingLR(o, n - warmup, eta_min=final)
        return s.SequentialLR(o, [ramp, body], milestones=[warmup])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch_factors(make, n)
    close(Cosine(final, warmup=warmup), n, 1, theirs)


METRICS = st.lists(st.integers(-40, 40).map(lambda k: k / 8), min_size=1, max_size=40)


@RUNS
@given(
    METRICS, st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.25]),
    st.sampled_from(["min", "max"]), st.sampled_from(["rel", "abs"]),
)  # fmt: skip
def test_plateau_equals_torch(
    metrics: list[float], patience: int, cooldown: int, threshold: float, mode: Any, kind: Any
) -> None:
    assume(kind == "abs" or min(metrics) > 0)  # relative to a negative best, torch's better is worse
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    options = {"factor": 0.5, "patience": patience, "cooldown": cooldown, "min_lr": 1e-3, "mode": mode}
    options |= {"threshold": threshold, "threshold_mode": kind}
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    ours = ReduceOnPlateau(**options).tracker(0.1)
    for metric in metrics:
        theirs.step(metric)
        assert ours.update(metric) * 0.1 == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


# --- Keras ----------------------------------------------------------------------------------------


def keras_factors(schedule: Any, n: int) -> list[float]:
    return [float(schedule(step)) for step in range(n)]


@RUNS
@given(n=LENGTH, power=st.floats(0.3, 4), final=FINAL)
def test_polynomial_equals_keras(keras: Any, n: int, power: float, final: float) -> None:
    theirs = keras.optimizers.schedules.PolynomialDecay(1.0, n, end_learning_rate=final, power=power)
    close(Polynomial(power, final), n, 1, keras_factors(theirs, n))
    straight = keras.optimizers.schedules.PolynomialDecay(1.0, n, end_learning_rate=final)
    close(Linear(1.0, final), n, 1, keras_factors(straight, n))


@RUNS
@given(n=LENGTH, final=FINAL)
def test_cosine_equals_keras(keras: Any, n: int, final: float) -> None:
    theirs = keras.optimizers.schedules.CosineDecay(1.0, n, alpha=final)
    close(Cosine(final), n, 1, keras_factors(theirs, n))


@RUNS
@given(n=LENGTH, per_epoch=PER_EPOCH, gamma=FACTOR, staircase=st.booleans())
def test_exponential_equals_keras(keras: Any, n: int, per_epoch: int, gamma: float, staircase: bool) -> None:
    theirs = keras.optimizers.schedules.ExponentialDecay(1.0, per_epoch, gamma, staircase=staircase)
    close(Exponential(gamma, staircase=staircase), n, per_epoch, keras_factors(theirs, n))


@RUNS
@given(n=LENGTH, per_epoch=PER_EPOCH, milestones=MILESTONES, gamma=FACTOR)
def test_multi_step_equals_keras(
    keras: Any, n: int, per_epoch: int, milestones: list[int], gamma: float
) -> None:
    """Keras counts steps and holds a value up to its boundary, that step included."""
    boundaries = [epoch * per_epoch - 1 for epoch in milestones]
    values = [gamma**i for i in range(len(milestones) + 1)]
    theirs = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
    close(MultiStep(milestones, gamma), n, per_epoch, keras_factors(theirs, n))


@RUNS
@given(
    n=LENGTH, first=st.integers(1, 9), mult=st.sampled_from([1.0, 1.5, 2.0, 3.0]),
    gamma=st.floats(0.3, 1.0), final=FINAL,
)  # fmt: skip
def test_restarts_equal_keras(
    keras: Any, n: int, first: int, mult: float, gamma: float, final: float
) -> None:
    """Keras takes logarithms to find the cycle, which a rounding moves by one where a cycle begins."""
    theirs = keras.optimizers.schedules.CosineDecayRestarts(1.0, first, t_mul=mult, m_mul=gamma, alpha=final)
    lengths = (first * mult**i for i in range(n))
    starts = {round(start, 9) for start in itertools.accumulate(lengths, initial=0.0)}
    inside = np.array([step == 0 or step not in starts for step in range(n)])
    ours = CosineRestarts(first, mult, final, gamma=gamma).factors(n)
    np.testing.assert_allclose(
        ours[inside], np.array(keras_factors(theirs, n))[inside], rtol=1e-9, atol=1e-12
    )


class FakeModel:
    """What Keras's callback needs of a model: an optimiser with a learning rate."""

    def __init__(self, keras: Any, lr: float) -> None:
        self.optimizer = keras.optimizers.SGD(lr)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")  # its own, about NumPy 2
@RUNS
@given(
    metrics=METRICS, patience=st.integers(1, 4), cooldown=st.integers(0, 4),
    delta=st.sampled_from([0.0, 0.25]), mode=st.sampled_from(["min", "max"]),
)  # fmt: skip
def test_plateau_equals_keras(
    keras: Any, metrics: list[float], patience: int, cooldown: int, delta: float, mode: Any
) -> None:
    """Keras's patience of p epochs is torch's of p - 1, and so is its cooldown of c >= 1."""
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor="m", factor=0.5, patience=patience, cooldown=cooldown, min_delta=delta, mode=mode, min_lr=1e-3
    )
    model = FakeModel(keras, 1.0)
    callback.set_model(model)
    callback.on_train_begin()
    rule = ReduceOnPlateau(
        0.5, patience - 1, cooldown=max(cooldown - 1, 0), threshold=delta, threshold_mode="abs", mode=mode,
        min_lr=1e-3,
    )  # fmt: skip
    ours = rule.tracker(1.0)
    for epoch, metric in enumerate(metrics):
        callback.on_epoch_end(epoch, {"m": metric})
        assert ours.update(metric) == pytest.approx(float(model.optimizer.learning_rate), rel=1e-6)
