# SPDX-License-Identifier: Apache-2.0
"""Schedules: factors against formulas written out here, against torch, and their checks."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotloop import schedules
from hotloop.schedules import (
    Constant,
    Cosine,
    Custom,
    Exponential,
    Linear,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    Step,
)

N, EPOCH = 24, 4  # steps of the run, steps of an epoch


def one_cycle(t: int, n: int, start: float, div: float, final: float, linear: bool) -> float:
    """torch's two phases: up to step pct*n - 1, down to step n - 1."""
    turn = start * n - 1
    low, last = 1 / div, 1 / div / final
    a, b, part = (low, 1.0, t / turn) if t <= turn else (1.0, last, (t - turn) / (n - 1 - turn))
    return a + (b - a) * part if linear else b + (a - b) / 2 * (1 + math.cos(math.pi * part))


LINEAR_CYCLE = OneCycle(None, 0.5, div_factor=10, final_div_factor=9, anneal="linear")
FORMULAS: list[tuple[Schedule, Any]] = [
    (Constant(), lambda t: 1.0),
    (Linear(), lambda t: 1 - t / N),
    (Linear(0.5, 2.0), lambda t: 0.5 + 1.5 * t / N),
    (Step(2, 0.5), lambda t: 0.5 ** (t // EPOCH // 2)),
    (Exponential(0.9), lambda t: 0.9 ** (t // EPOCH)),
    (Cosine(), lambda t: 0.5 * (1 + math.cos(math.pi * t / N))),
    (Cosine(0.1), lambda t: 0.1 + 0.45 * (1 + math.cos(math.pi * t / N))),
    (OneCycle(), lambda t: one_cycle(t, N, 0.3, 25, 1e4, False)),
    (LINEAR_CYCLE, lambda t: one_cycle(t, N, 0.5, 10, 9, True)),
    (ReduceOnPlateau(), lambda t: 1.0),
    (Custom(lambda t: 1 / (1 + t)), lambda t: 1 / (1 + t)),
]  # fmt: skip


def case_id(value: object) -> str | None:
    """A schedule's class; pytest numbers the rest. (The text of a function differs from process to process.)"""
    return type(value).__name__ if isinstance(value, schedules.Schedule) else None


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=case_id)
def test_factors_follow_the_formula(schedule: Schedule, formula: Any) -> None:
    factors = schedule.factors(N, EPOCH)
    assert factors.dtype == np.float64
    np.testing.assert_allclose(factors, [formula(t) for t in range(N)], rtol=1e-14, atol=1e-16)


def test_known_values() -> None:
    np.testing.assert_allclose(
        Cosine().factors(4), [1, 0.5 + 0.5 / math.sqrt(2), 0.5, 0.5 - 0.5 / math.sqrt(2)]
    )
    assert Linear(1, 0).factors(4).tolist() == [1, 0.75, 0.5, 0.25]
    assert Step(1, 0.1).factors(6, 2).round(12).tolist() == [1, 1, 0.1, 0.1, 0.01, 0.01]
    cycle = OneCycle().factors(10)
    assert cycle[0] == pytest.approx(1 / 25)
    assert cycle.argmax() == 2
    assert cycle[2] == 1
    assert cycle[-1] == pytest.approx(1 / 25 / 1e4)


def test_one_cycle_divides_by_the_learning_rate() -> None:
    np.testing.assert_allclose(OneCycle(0.5).factors(N, base_lr=0.1), OneCycle().factors(N) * 5, rtol=1e-14)
    with pytest.raises(ValueError, match="max_lr needs the optimizer's learning rate"):
        OneCycle(0.5).factors(N)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_cycle_of_very_few_steps_is_finite(n: int) -> None:
    assert np.isfinite(OneCycle().factors(n)).all()
    assert np.isfinite(OneCycle(pct_start=1.0).factors(n)).all()
    assert np.isfinite(OneCycle(pct_start=0.0).factors(n)).all()


@pytest.mark.parametrize(("schedule", "_"), FORMULAS, ids=case_id)
@pytest.mark.parametrize("warmup", [1, 6, 0.25, N + 5])
def test_warmup_climbs_to_the_schedule(schedule: Schedule, _: Any, warmup: float) -> None:
    lifted = dataclasses.replace(schedule, warmup=warmup)  # type: ignore[type-var]
    factors = lifted.factors(N, EPOCH)
    w = warmup if isinstance(warmup, int) else round(warmup * N)
    spans_run = not isinstance(schedule, (Step, Exponential))
    if spans_run:  # the shape begins after the warm-up, which multiplies its first value
        body = schedule.factors(max(N - w, 1), EPOCH)
        expected = [body[0] * (t + 1) / w if t < w else body[t - w] for t in range(N)]
    else:  # epochs count from the start
        body = schedule.factors(N, EPOCH)
        expected = [body[t] * min(1, (t + 1) / w) for t in range(N)]
    np.testing.assert_allclose(factors, expected, rtol=1e-13)


@given(st.integers(1, 60), st.integers(1, 10), st.one_of(st.integers(0, 70), st.floats(0.001, 0.999)))
def test_every_run_gets_finite_factors(n: int, per_epoch: int, warmup: float) -> None:
    for schedule in (
        Linear(warmup=warmup),
        Cosine(warmup=warmup),
        OneCycle(warmup=warmup),
        Step(2, warmup=warmup),
    ):
        factors = schedule.factors(n, per_epoch)
        assert factors.shape == (n,)
        assert np.isfinite(factors).all()
        assert (factors >= 0).all()
        assert factors.max() <= 1 + 1e-12


def test_plateau_follows_the_rules_of_torch_step_by_step() -> None:
    tracker = ReduceOnPlateau(0.1, 2, threshold=0.1, cooldown=1).tracker(1.0)
    #          best   bad1  bad2  bad3: cut   cooldown, bad1, bad2  bad3: cut
    metrics = [1.0, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95]
    expected = [1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.01]
    np.testing.assert_allclose([tracker.update(m) for m in metrics], expected, rtol=1e-12)


def test_plateau_improvement_resets_patience_and_nan_never_improves() -> None:
    tracker = ReduceOnPlateau(0.5, 1).tracker()
    assert [tracker.update(m) for m in (3.0, 3.0, 2.0, 2.0, float("nan"))] == [1, 1, 1, 1, 0.5]
    assert tracker.best == 2.0


def test_plateau_direction() -> None:
    rising = (0.1, 0.2, 0.3, 0.4)
    assert ReduceOnPlateau(0.5, 0).tracker(maximize=True).update(0.1) == 1
    upward = ReduceOnPlateau(0.5, 0, mode="max").tracker()
    assert [upward.update(m) for m in rising] == [1, 1, 1, 1]
    downward = ReduceOnPlateau(0.5, 0, mode="min").tracker(maximize=True)
    assert [downward.update(m) for m in rising] == [1, 0.5, 0.25, 0.125]


def test_plateau_floor_and_absolute_threshold() -> None:
    tracker = ReduceOnPlateau(0.1, 0, min_lr=0.05).tracker(1.0)
    assert [tracker.update(1.0) for _ in range(4)] == [1.0, 0.1, 0.05, 0.05]
    absolute = ReduceOnPlateau(0.5, 0, threshold=0.5, threshold_mode="abs").tracker()
    assert [absolute.update(m) for m in (10.0, 9.6, 9.4)] == [1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Cosine(warmup=-1), ValueError, "warmup"),
        (lambda: Cosine(warmup=1.0), ValueError, r"an int\) or a fraction"),
        (lambda: Cosine(warmup=0.0), ValueError, "warmup"),
        (lambda: Cosine(warmup=True), TypeError, "warmup"),
        (lambda: Cosine(warmup="5"), TypeError, "warmup"),
        (lambda: Cosine(-0.1), ValueError, "final"),
        (lambda: Linear("a"), TypeError, "start_factor must be a number"),
        (lambda: Step(0), ValueError, "every must be >= 1"),
        (lambda: Step(1.5), TypeError, "every must be a whole number"),
        (lambda: Exponential(-0.5), ValueError, "gamma"),
        (lambda: Exponential(float("nan")), ValueError, "gamma"),
        (lambda: OneCycle(-1), ValueError, "max_lr"),
        (lambda: OneCycle(pct_start=1.5), ValueError, "pct_start must be between 0 and 1"),
        (lambda: OneCycle(div_factor=0), ValueError, "div_factor"),
        (lambda: OneCycle(anneal="exp"), ValueError, "anneal"),
        (lambda: ReduceOnPlateau(1.0), ValueError, r"factor must be in \(0, 1\)"),
        (lambda: ReduceOnPlateau(patience=-1), ValueError, "patience"),
        (lambda: ReduceOnPlateau(mode="down"), ValueError, "mode"),
        (lambda: Custom(3), TypeError, "callable"),
        (lambda: Custom(lambda t: -1.0).factors(3), ValueError, "-1.0 at step 0"),
        (lambda: Custom(lambda t: "x").factors(3), TypeError, "must be a number"),
        (lambda: Custom(lambda t: math.nan).factors(3), ValueError, "finite"),
        (lambda: Constant().factors(0), ValueError, "n_steps=0"),
        (lambda: schedules.resolve("step"), ValueError, "unknown schedule"),
        (lambda: schedules.resolve(Cosine), TypeError, r"write hl.schedules.Cosine"),
        (lambda: schedules.resolve(3), TypeError, "a schedule is"),
        (lambda: schedules.from_dict({"kind": "?"}), ValueError, "unknown schedule"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_resolve() -> None:
    assert schedules.resolve(None) == Constant()
    assert schedules.resolve("one_cycle") == OneCycle()
    assert schedules.resolve(Step(3)) == Step(3)
    assert schedules.resolve(lambda t: 0.5).factors(2).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("schedule", "_"), FORMULAS[:-1], ids=case_id)
def test_json_round_trip(schedule: Schedule, _: Any) -> None:
    assert schedules.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


def test_a_function_is_stored_by_name_and_missed_when_needed() -> None:
    stored = Custom(one_cycle, warmup=3).to_dict()  # type: ignore[arg-type]
    restored = schedules.from_dict(json.loads(json.dumps(stored)))
    assert stored["name"].endswith("one_cycle")
    assert restored.to_dict() == stored
    with pytest.raises(RuntimeError, match=r"one_cycle only; give it as schedule="):
        restored.factors(3)


# --- against torch, where it is installed ---------------------------------------------------------


def torch_factors(make: Any, n: int, every: int = 1) -> list[float]:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    factors = []
    for step in range(n):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < n:
            scheduler.step()
    return factors


@pytest.mark.parametrize(
    ("schedule", "make", "every"),
    [
        (Linear(1.0, 0.25), lambda s, o: s.LinearLR(o, 1.0, 0.25, total_iters=N), 1),
        (Cosine(0.01), lambda s, o: s.CosineAnnealingLR(o, N, eta_min=0.01), 1),
        (Step(2, 0.5), lambda s, o: s.StepLR(o, 2, 0.5), EPOCH),
        (Exponential(0.9), lambda s, o: s.ExponentialLR(o, 0.9), EPOCH),
        (OneCycle(), lambda s, o: s.OneCycleLR(o, 1.0, total_steps=N, cycle_momentum=False), 1),
    ],
    ids=case_id,
)
def test_equals_torch(schedule: Schedule, make: Any, every: int) -> None:
    expected = torch_factors(make, N, every)
    np.testing.assert_allclose(schedule.factors(N, EPOCH), expected, rtol=1e-12)


def test_plateau_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    metrics = np.random.Generator(np.random.Philox(3)).normal(size=60).cumsum() * 0.1 + 1
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, cooldown=2, min_lr=1e-3
    )
    ours = ReduceOnPlateau(0.5, 2, cooldown=2, min_lr=1e-3).tracker(0.1)
    for metric in metrics:
        theirs.step(metric)
        assert ours.update(metric) * 0.1 == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
