# SPDX-License-Identifier: Apache-2.0
"""Diagnosis: each illness is created by training and found with every seed; healthy runs are left alone."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotloop as hl
from hotloop.diagnosis import EXPLAINS, RULES, Diagnosis, Finding, diagnose
from hotloop.diagnosis.view import wilson
from hotloop.evidence import Evidence
from hotloop.history import StopReason
from hotloop.probes.learning_curve import CurvePoint, LearningCurve
from tests.illnesses import (
    ILLNESSES,
    bundled,
    class_ignored_binary,
    dead_relus,
    fit,
    mlp,
    noisy_labels,
    overfitting,
    overfitting_kept,
    overfitting_regression,
    rate_too_high_sgd,
    rate_too_low,
    smooth,
    stopped_by_patience,
    validation_too_small_regression,
    vanishing,
    xor,
)

nn, optim = hl.nn, hl.optim
SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("make", "rule"), ILLNESSES, ids=[make.__name__ for make, _ in ILLNESSES])
def test_an_illness_is_found(make: Callable[[int], hl.History], rule: str, seed: int) -> None:
    diagnosis = make(seed).diagnosis
    names = [finding.rule for finding in diagnosis]
    assert rule in names, str(diagnosis)
    found = diagnosis[names.index(rule)]
    if rule not in ("validation_too_small", "constant_columns"):  # advice that another finding may precede
        assert diagnosis.main == found, str(diagnosis)
    assert any(character.isdigit() for character in found.reason)
    assert found.numbers
    assert found.next_step.count(".") <= 3 + found.next_step.count("hl.") * 3  # one step, not a lecture
    assert json.loads(json.dumps(diagnosis.to_dict())) == diagnosis.to_dict()
    assert Diagnosis.from_dict(json.loads(json.dumps(diagnosis.to_dict()))) == diagnosis


def test_every_rule_has_an_illness() -> None:
    shown = {rule for _, rule in ILLNESSES} | {"more_data"}
    assert {rule.__name__ for rule in RULES} == shown
    assert EXPLAINS.keys() <= shown
    assert set().union(*EXPLAINS.values()) <= shown


def test_causes_stand_before_what_they_explain() -> None:
    order = [rule.__name__ for rule in RULES]
    for cause, symptoms in EXPLAINS.items():
        assert all(order.index(cause) < order.index(symptom) for symptom in symptoms)


# --- healthy runs ---------------------------------------------------------------------------------


def _healthy_models(n_in: int, n_out: int) -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """Model, optimiser and options of runs with which nothing is wrong: small and medium, ended by patience or
    by their epochs, with and without dropout and norms."""
    stop = {"early_stopping": hl.EarlyStopping(15), "epochs": 300}
    norms = nn.Sequential(
        nn.Linear(n_in, 48), nn.BatchNorm1d(48), nn.GELU(), nn.Linear(48, 48), nn.LayerNorm(48), nn.SiLU(),
        nn.Linear(48, n_out),
    )  # fmt: skip
    return {
        "small": (mlp(n_in, (24,), n_out), optim.AdamW(5e-3), {"epochs": 60}),
        "small, patience": (mlp(n_in, (24,), n_out), optim.AdamW(5e-3), stop),
        "medium": (mlp(n_in, (128,), n_out), optim.AdamW(3e-3), stop),
        "medium, SGD": (mlp(n_in, (64,), n_out), optim.SGD(0.02, momentum=0.9), stop),
        "deep, dropout": (mlp(n_in, (64, 64), n_out, dropout=0.2), optim.AdamW(3e-3), stop),
        "tanh": (mlp(n_in, (32, 32), n_out, nn.Tanh), optim.Adam(3e-3), stop),
        "norms": (norms, optim.AdamW(3e-3), stop),
    }


def test_every_rule_is_documented() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "diagnosis.md"
    documented = re.findall(r"^\| `(\w+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted(rule.__name__ for rule in RULES)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes", "smooth"])
def test_a_healthy_run_is_left_alone(name: str, seed: int) -> None:
    X, y = smooth(3000, 0) if name == "smooth" else bundled(name)
    if len(X) % 32 == 1 or round(0.8 * len(X)) % 32 == 1:  # BatchNorm takes no batch of one row
        X, y = X[:-2], y[:-2]
    n_out = int(y.max()) + 1 if y.dtype.kind == "i" else 1
    for what, (model, optimizer, options) in _healthy_models(X.shape[1], n_out).items():
        run = fit(model, X, y, optimizer, seed, **options)
        assert not run.diagnosis, f"{what}: {run}\n{run.diagnosis}"
        assert str(run.diagnosis).startswith("healthy: looked at the curves")
        assert not [text for text in run.diagnosis.missing if "learning_curve" not in text]


# --- what surrounds the rules ---------------------------------------------------------------------


def test_the_onset_and_the_scores_of_overfitting_are_those_of_the_curves() -> None:
    run = overfitting_kept(0)
    main = run.diagnosis.main
    turn = int(np.argmin(run.history["val_loss"]))
    assert main.numbers == {
        "train": run.history["accuracy"][-1], "validation": run.history["val_accuracy"][-1],
        "onset": turn + 2, "epochs": 40,
    }  # fmt: skip
    assert f"training reached {100 * run.history['accuracy'][-1]:.1f} %" in main.reason
    assert f"it set in at epoch {turn + 2}" in main.reason
    assert main.next_step == "put hl.nn.Dropout(0.3) behind each activation"


def test_the_next_step_against_overfitting_follows_what_is_there() -> None:
    X, y = noisy_labels(0)
    options: dict[str, Any] = {"epochs": 150, "validation": 0.3, "restore_best": False}
    dropped = fit(mlp(20, (128,), 2, dropout=0.1), X, y, optim.AdamW(3e-3), 0, **options)
    assert "weight_decay=0.1" in dropped.diagnosis.main.next_step
    decayed = fit(mlp(20, (128,), 2, dropout=0.1), X, y, optim.AdamW(3e-3, weight_decay=0.2), 0, **options)
    assert decayed.diagnosis.main.next_step == "halve the widths of the hidden layers"


def test_divergence_comes_first_and_says_where() -> None:
    X, y = smooth(320, 0)
    jump = optim.SGD(0.01)
    run = fit(
        mlp(8, (16,), 1), 100 * X, y, jump, 0, epochs=6, validation=None, batch_size=32, monitor="loss",
        schedule=lambda step: 1e-4 if step < 34 else 1e6,
    )  # fmt: skip
    assert run.stop_reason == "divergence"
    main = run.diagnosis.main
    assert (main.rule, main.severity) == ("diverged", "error")
    assert main.numbers["epoch"] == 4
    assert 5 <= main.numbers["step"] <= 10
    assert main.numbers["steps"] == 10
    assert "epoch 3 was put back" in main.reason
    assert [finding.rule for finding in run.diagnosis][1] == "inputs_not_scaled"


def test_a_symptom_is_not_told_beside_its_cause() -> None:
    explained = rate_too_low(0).diagnosis
    assert [finding.rule for finding in explained] == ["learning_rate_too_low"]
    assert [finding.rule for finding in vanishing(0).diagnosis] == ["vanishing_gradients"]


def test_the_gravest_finding_comes_first() -> None:
    order = {"error": 0, "warning": 1, "advice": 2}
    several = [make(0).diagnosis for make in (rate_too_high_sgd, dead_relus, validation_too_small_regression)]
    for diagnosis in several:
        ranks = [order[finding.severity] for finding in diagnosis]
        assert ranks == sorted(ranks)
    assert max(map(len, several)) >= 2


def test_more_data_needs_a_curve_that_falls_to_its_end() -> None:
    run = fit(nn.Linear(20, 2), *noisy_labels(0), optim.AdamW(3e-3), 0)
    falling = LearningCurve((CurvePoint(100, 9, 0.2, 0.6), CurvePoint(200, 9, 0.2, 0.45)))
    flat = LearningCurve((CurvePoint(100, 9, 0.2, 0.6), CurvePoint(200, 9, 0.2, 0.59)))
    closed = LearningCurve((CurvePoint(100, 9, 0.2, 0.6), CurvePoint(200, 9, 0.44, 0.45)))
    found = [[f for f in diagnose(run, curve) if f.rule == "more_data"] for curve in (falling, flat, closed)]
    assert [len(findings) for findings in found] == [1, 0, 0]
    finding = found[0][0]
    assert finding.numbers["predicted_val_loss"] == pytest.approx(0.45**2 / 0.6)  # half of the rows again
    assert "400" in finding.next_step


_curves = st.integers(0, 12).flatmap(
    lambda epochs: st.fixed_dictionaries(
        {
            name: st.lists(st.floats(width=32), min_size=epochs, max_size=epochs)
            for name in ("loss", "val_loss")
        },
        optional={
            name: st.lists(st.floats(0, 1), min_size=epochs, max_size=epochs)
            for name in ("accuracy", "val_accuracy", "lr")
        },
    )
)


@given(_curves, st.sampled_from(get_args(StopReason)), st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_no_history_is_too_odd_to_be_judged(curves: Any, reason: Any, bare: bool, data: Any) -> None:
    epochs = len(curves["loss"])
    best = data.draw(st.none() | st.integers(1, epochs)) if epochs else None
    evidence = None if bare else data.draw(st.sampled_from(_evidence()))
    run = hl.History(curves, best, reason, epochs=epochs, evidence=evidence)
    diagnosis = diagnose(run)
    assert len(diagnosis.looked_at) + len(diagnosis.missing) == 6
    assert isinstance(str(diagnosis), str)
    assert json.loads(json.dumps(diagnosis.to_dict()))["findings"] is not None


@functools.cache
def _evidence() -> list[Any]:
    """Of runs of different losses and settings."""
    runs = [
        make(0) for make in (overfitting, overfitting_regression, stopped_by_patience, class_ignored_binary)
    ]
    for run in runs:
        run.complete()
    X, y = xor(0)
    own = fit(nn.Linear(2, 2), X, y, optim.SGD(0.1), 0, loss=lambda p, t: (p.sum(1), np.ones_like(p)))
    return [Evidence(), own.evidence, *(run.evidence for run in runs)]


def test_judging_changes_nothing() -> None:
    run = overfitting(0)
    run.complete()
    before = copy.deepcopy(run.to_dict())
    first, second = diagnose(run), diagnose(run)
    assert first == second == run.diagnosis
    assert run.to_dict() == before


def test_a_history_without_evidence_is_judged_by_its_curves() -> None:
    run = overfitting_kept(0)
    data = run.to_dict()
    del data["evidence"]  # as files were before there was any
    old = hl.History.from_dict(json.loads(json.dumps(data)))
    assert old.evidence is None
    assert [finding.rule for finding in old.diagnosis] == ["overfitting"]
    assert "gradients, which were not recorded" in old.diagnosis.missing
    for make, _ in ILLNESSES:
        assert isinstance(str(replace(make(0), evidence=None).diagnosis), str)
    assert str(hl.History().diagnosis).startswith("nothing to look at")


def test_a_run_of_one_epoch_says_what_it_cannot_know() -> None:
    run = fit(nn.Linear(2, 2), *xor(0), optim.AdamW(0.01), 0, epochs=1, validation=None)
    assert not run.diagnosis
    assert "trends, which take 3 epochs (here 1)" in run.diagnosis.missing
    assert "overfitting, for want of validation data" in run.diagnosis.missing


def test_the_text_of_a_finding_is_its_reason_and_then_what_to_do() -> None:
    finding = Finding("dead_relus", "warning", "24 of 32 are 0", "use another", {"dead": 24})
    assert str(finding) == "dead relus: 24 of 32 are 0\n  next: use another"
    assert str(Diagnosis((finding,))) == "1. [warning] dead relus: 24 of 32 are 0\n  next: use another"


def test_damaged_json_is_refused() -> None:
    data = overfitting(0).diagnosis.to_dict()
    data["findings"][0]["severity"] = "odd"
    with pytest.raises(ValueError, match="severity"):
        Diagnosis.from_dict(data)


def test_wilson_interval() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81/263 and 15/148
    for hits, rows, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        assert wilson(hits / rows, rows) == pytest.approx((low, high), abs=1e-4)


def test_the_summary_of_a_run_ends_with_the_main_finding(capsys: Any) -> None:
    X, y = bundled("digits")
    run = fit(mlp(64, (64,), 10), X, y, optim.AdamW(1e-6), 0, progress=True)
    *_, reason, step = capsys.readouterr().out.splitlines()
    assert reason.startswith("learning rate too low: the training loss fell from")
    assert step == "  next: raise the learning rate tenfold: optimizer=hl.optim.AdamW(1e-05)"
    assert run.summary().splitlines()[1:] == [reason, step]
    fit(mlp(64, (64,), 10), X, y, optim.AdamW(3e-3), 0, progress=True, epochs=40)
    assert capsys.readouterr().out.splitlines()[-1].startswith("History(40 epochs")
