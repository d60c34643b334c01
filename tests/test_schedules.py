# SPDX-License-Identifier: Apache-2.0
"""Schedules: factors against formulas written out here, their warm-up, their checks, their files.

Against torch's and Keras's own schedules: tests/interop/test_schedules.py.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotloop as hl
from hotloop import schedules
from hotloop.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Custom,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
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


def restarts(t: int, starts: list[int], gamma: float = 1.0) -> float:
    """Half a cosine from each start to the next, each time ``gamma`` as high."""
    cycle = max(i for i, start in enumerate(starts) if start <= t)
    part = (t - starts[cycle]) / (starts[cycle + 1] - starts[cycle])
    return gamma**cycle * (1 + math.cos(math.pi * part)) / 2


LINEAR_CYCLE = OneCycle(None, 0.5, div_factor=10, final_div_factor=9, anneal="linear")
FORMULAS: list[tuple[Schedule, Any]] = [
    (Constant(), lambda t: 1.0),
    (Linear(), lambda t: 1 - t / N),
    (Linear(0.5, 2.0), lambda t: 0.5 + 1.5 * t / N),
    (Step(2, 0.5), lambda t: 0.5 ** (t // EPOCH // 2)),
    (MultiStep([1, 4, 9], 0.5), lambda t: 0.5 ** ((t // EPOCH >= 1) + (t // EPOCH >= 4))),
    (Exponential(0.9), lambda t: 0.9 ** (t // EPOCH)),
    (Exponential(0.9, staircase=False), lambda t: 0.9 ** (t / EPOCH)),
    (Polynomial(), lambda t: 1 - t / N),
    (Polynomial(2.5, 0.2), lambda t: 0.2 + 0.8 * (1 - t / N) ** 2.5),
    (Cosine(), lambda t: 0.5 * (1 + math.cos(math.pi * t / N))),
    (Cosine(0.1), lambda t: 0.1 + 0.45 * (1 + math.cos(math.pi * t / N))),
    (CosineRestarts(2), lambda t: restarts(t, [0, 8, 16, 24])),
    (CosineRestarts(1, 2, 0.1, gamma=0.5), lambda t: 0.1 + 0.9 * restarts(t, [0, 4, 12, 28], 0.5)),
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
@pytest.mark.parametrize("warmup", [1, 6, 0.25, N])
def test_warmup_climbs_to_the_schedule(schedule: Schedule, _: Any, warmup: float) -> None:
    lifted = dataclasses.replace(schedule, warmup=warmup)  # type: ignore[type-var]
    factors = lifted.factors(N, EPOCH)
    w = warmup if isinstance(warmup, int) else round(warmup * N)
    if not isinstance(schedule, (Step, MultiStep, Exponential)):
        # The shape begins after the warm-up, which multiplies its first value.
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
        Polynomial(3, warmup=warmup),
        Cosine(warmup=warmup),
        CosineRestarts(1, 1.5, warmup=warmup),
        OneCycle(warmup=warmup),
        Step(2, warmup=warmup),
        MultiStep([1, 5], warmup=warmup),
        Exponential(0.5, staircase=False, warmup=warmup),
    ):
        if warmup > n:
            with pytest.raises(ValueError, match=f"longer than the run, got {warmup} steps of {n};"):
                schedule.factors(n, per_epoch)
            continue
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
        (lambda: Polynomial(-1), ValueError, "power"),
        (lambda: Polynomial(final=-1), ValueError, "final"),
        (lambda: MultiStep([]), ValueError, "at least one epoch"),
        (lambda: MultiStep([0, 3]), ValueError, r"milestones\[0\] must be >= 1"),
        (lambda: MultiStep([3, 3]), ValueError, "must increase, got 3 after 3 at index 1"),
        (lambda: MultiStep([2, 5, 4]), ValueError, "must increase, got 4 after 5 at index 2"),
        (lambda: MultiStep([2.5]), TypeError, r"milestones\[0\] must be a whole number"),
        (lambda: MultiStep(30), TypeError, r"a sequence of epochs, as \[30, 60\], got 30"),
        (lambda: MultiStep([1], -0.1), ValueError, "gamma"),
        (lambda: CosineRestarts(0), ValueError, "first must be >= 1"),
        (lambda: CosineRestarts(1, 0.5), ValueError, "mult"),
        (lambda: CosineRestarts(1, gamma=-1), ValueError, "gamma"),
        (lambda: Exponential(0.5, staircase=1), TypeError, "staircase"),
        (lambda: Exponential(2.0).factors(2000), ValueError, "gives inf at step 1024"),
        (lambda: Cosine().factors(10**12), ValueError, "too long, got 1000000000000 steps"),
        (lambda: Cosine(warmup=11).factors(10), ValueError, r"\[Cosine\] warmup is longer than the run"),
        (lambda: schedules.resolve("step"), ValueError, r"write schedule=hl.schedules.Step\(every=10\)"),
        (lambda: schedules.resolve("cosin"), ValueError, "unknown schedule 'cosin'; allowed: constant,"),
        (lambda: schedules.resolve(Cosine), TypeError, r"write hl.schedules.Cosine"),
        (lambda: schedules.resolve(3), TypeError, "a schedule is"),
        (lambda: schedules.from_dict({"kind": "?"}), ValueError, "unknown schedule"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    "name",
    [
        "constant", "linear", "step", "multi_step", "exponential", "polynomial", "cosine", "cosine_restarts",
        "one_cycle", "reduce_on_plateau",
    ],
)  # fmt: skip
def test_every_schedule_has_its_name(name: str) -> None:
    """A name gives the schedule, or an error whose advice gives it."""
    try:
        schedule = schedules.resolve(name)
    except ValueError as error:
        advice = str(error).partition("schedule=hl.")[2]
        schedule = eval(advice, {"schedules": schedules})
    assert schedule.kind == name
    assert schedules.from_dict(schedule.to_dict()) == schedule


@pytest.mark.parametrize(
    ("schedule", "epochs", "match"),
    [
        (Cosine(warmup=1000), 3, "warmup is longer than the run, got 1000 steps of 30"),
        (Constant(warmup=31), 3, "got 31 steps of 30"),
        (ReduceOnPlateau(warmup=31), 3, "got 31 steps of 30"),
        (Custom(lambda t: 1 - t), 3, "gives -1.0 at step 2"),
        (Exponential(1e200), 3, "gives inf at step 20"),
    ],
    ids=case_id,
)
def test_a_bad_schedule_is_refused_before_training(
    schedule: Schedule, epochs: int, match: str, toy: Any, digest: Any
) -> None:
    X, y = toy.classes(320)
    trainer = hl.Trainer(toy.mlp(6, 3), schedule=schedule)
    trainer.predict(X)  # draws the weights
    before = digest(trainer)
    with pytest.raises(ValueError, match=match):
        trainer.fit(X, y, epochs=epochs)
    assert digest(trainer) == before
    assert trainer.history is None


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


# --- docs/schedules.md ----------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]
CLASSES = {cls for cls in vars(schedules).values() if isinstance(cls, type) and issubclass(cls, Schedule)}


def test_the_page_describes_every_schedule() -> None:
    page = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
    missing = [cls.__name__ for cls in CLASSES - {Schedule} if f"| `{cls.__name__}(" not in page]
    assert missing == []


def test_the_picture_shows_every_schedule(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("draw_schedules", ROOT / "tools" / "draw_schedules.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert {type(schedule) for panel in tool.PANELS for schedule in panel} == CLASSES - {Schedule}
    tool.draw(tmp_path / "schedules.png")
    assert (tmp_path / "schedules.png").stat().st_size > 20_000
