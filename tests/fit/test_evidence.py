# SPDX-License-Identifier: Apache-2.0
"""Evidence: what is gathered is true, travels in files, costs the run no bit, and survives an interruption."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.compile.plan import ParamEntry
from hotloop.evidence import Evidence, NormSample
from hotloop.fit.evidence import data_set, norm, norms_of
from hotloop.fit.setup import check_data
from tests.illnesses import dead_relus, fit, mlp, noisy_labels, smooth

nn, optim = hl.nn, hl.optim


def test_sizes_and_settings() -> None:
    X, y = noisy_labels(0)
    trainer = hl.Trainer(
        mlp(20, (8,), 2, dropout=0.3), hl.losses.CrossEntropy(class_weight="balanced"), clip_norm=2.0,
        optimizer=optim.SGD(0.1, momentum=0.9), early_stopping=hl.EarlyStopping(4, min_delta=0.1, baseline=1.0),
    )  # fmt: skip
    found = trainer.fit(X, y, validation={"a": (X[:50], y[:50]), "b": (X[50:], y[50:])}, epochs=3).evidence
    setup = found.setup
    assert (setup.loss, setup.optimizer, setup.lr, setup.momentum) == ("cross_entropy", "SGD", 0.1, 0.9)
    assert (setup.batch_size, setup.epochs, setup.steps_per_epoch) == (32, 3, 13)
    assert (setup.patience, setup.min_delta, setup.baseline) == (4, 0.1, True)
    assert (setup.dropout, setup.clip_norm, setup.class_weight, setup.schedule) == (
        0.3,
        2.0,
        True,
        "Constant",
    )
    assert [(s.name, s.rows) for s in found.validation] == [("a", 50), ("b", 350)]
    assert found.train.classes == tuple(np.bincount(y))
    assert found.train.majority == pytest.approx(max(np.bincount(y)) / 400)
    assert [(p.name, p.op, p.matrix) for p in found.parameters if p.matrix] == [
        ("0.weight", "linear", True), ("3.weight", "linear", True),
    ]  # fmt: skip


class Constant(nn.Module):
    """Predicts the same for every row."""

    def __init__(self, values: Any) -> None:
        self.value = nn.Parameter(np.asarray(values, np.float32))

    def forward(self, x: Any) -> Any:
        return x * 0.0 + self.value


def _losses(weighted: bool) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(3)
    labels = rng.choice(3, 200, p=(0.6, 0.3, 0.1))
    numbers = rng.normal(2, 1.5, size=(200, 3))
    several = (rng.random((200, 3)) < (0.1, 0.5, 0.8)).astype(np.float64)
    weights = {"class_weight": (1.0, 2.0, 5.0)} if weighted else {}
    return [
        (hl.losses.CrossEntropy(), labels),
        (hl.losses.CrossEntropy(label_smoothing=0.2, **weights), labels),
        (hl.losses.CrossEntropy(), rng.dirichlet(np.ones(3), 200)),
        (hl.losses.MSE(), numbers),
        (hl.losses.BCEWithLogits(), several),
        (hl.losses.BCEWithLogits(pos_weight=3.0), several),
        *([] if weighted else [(hl.losses.MAE(), numbers), (hl.losses.Huber(0.7), numbers)]),
    ]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_baseline_is_the_least_loss_of_any_constant(weighted: bool) -> None:
    X = np.ones((200, 3), np.float32)
    weight = np.random.default_rng(4).uniform(0.1, 2, 200) if weighted else None
    for loss, y in _losses(weighted):
        trainer = hl.Trainer(Constant(np.zeros(3)), loss, optimizer=optim.AdamW(0.05, weight_decay=0))
        data, _, resolved = check_data(trainer._session, X, y, weight, loss, where="test")
        baseline = data_set("train", data, resolved).baseline
        trainer.schedule = hl.schedules.Cosine()
        trainer.fit(X, y, sample_weight=weight, epochs=400, batch_size=200)  # the best constant, by descent
        reached = trainer.evaluate(X, y, sample_weight=weight)["loss"]
        # Huber's is that of the median, a little above its least
        assert reached - 1e-4 <= baseline + 1e-6 <= (1.05 if loss.kind == "huber" else 1.001) * reached + 1e-4


def test_the_scale_of_inputs() -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(1500, 5)) * (1, 10, 0, 0.1, 0) + (0, -30, 7, 0, 0)).astype(np.float32)
    (scale,) = fit(nn.Linear(5, 1), X, X[:, 0], optim.SGD(1e-6), 0, epochs=1, validation=None).evidence.inputs
    assert (scale.columns, scale.rows, scale.normalized) == (5, 750, False)
    assert (scale.constant, scale.constant_nonzero, scale.first_constant) == (2, 1, 2)
    assert scale.mean == pytest.approx(30, rel=0.05)
    assert scale.worst == 1
    assert scale.std_max == pytest.approx(10, rel=0.1)
    assert scale.std_min == pytest.approx(0.1, rel=0.1)


def test_a_column_that_is_rarely_set_is_not_constant() -> None:
    X = np.zeros((5000, 300), np.float32)  # so wide that means are taken from few rows
    X[777] = 1  # in a row that a sample passes over
    X[:, 0] = np.arange(5000) / 5000
    (scale,) = fit(
        nn.Linear(300, 1), X, X[:, 1], optim.SGD(1e-6), 0, epochs=1, validation=None
    ).evidence.inputs
    assert scale.constant == 0


def test_a_model_that_begins_with_a_norm_takes_any_scale(toy: Any) -> None:
    X, y = smooth(300, 0)
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 1))
    run = fit(model, 1000 * X, y, optim.AdamW(0.01), 0, epochs=3)
    assert run.evidence.inputs[0].normalized
    assert "inputs_not_scaled" not in [finding.rule for finding in run.diagnosis]


def test_norms_are_taken_at_powers_of_two_and_the_end() -> None:
    X, y = noisy_labels(0)
    evidence = fit(mlp(20, (8,), 2), X, y, optim.AdamW(1e-3), 0, epochs=11).evidence
    assert [sample.epoch for sample in evidence.norms] == [1, 2, 4, 8, 11]
    stopped = hl.Trainer(mlp(20, (8,), 2), callbacks=[lambda state: state.epoch == 6 and state.stop()])
    assert [n.epoch for n in stopped.fit(X, y, epochs=20).evidence.norms] == [1, 2, 4, 6]


def test_norms_are_those_of_the_last_gradient_and_of_the_weights() -> None:
    X, y = noisy_labels(0)
    model, same = (mlp(20, (8,), 2).initialize(5) for _ in range(2))
    step = hl.TrainStep(same, "cross_entropy", optim.SGD(0.1), seed=5)
    trainer = hl.Trainer(model, optimizer=optim.SGD(0.1), seed=5)
    (sample,) = trainer.fit(X, y, epochs=1, batch_size=400, shuffle=False).evidence.norms
    _, gradients = step.loss_and_grads(X, y)
    names = [parameter.name for parameter in trainer.history.evidence.parameters]
    weights = model.state_dict()
    assert sample.gradients == pytest.approx([np.linalg.norm(gradients[n]) for n in names], rel=1e-5)
    assert sample.weights == pytest.approx([np.linalg.norm(weights[n]) for n in names], rel=1e-5)


def test_the_norm_of_a_large_parameter_is_estimated() -> None:
    flat = np.random.default_rng(0).normal(size=1_000_003).astype(np.float32)
    assert norm(flat) == pytest.approx(np.linalg.norm(flat), rel=0.01)
    assert norm(flat[:1000]) == pytest.approx(np.linalg.norm(flat[:1000]), rel=1e-6)
    parts = [ParamEntry("a", (999_000,), 0, 999_000), ParamEntry("b", (5,), 999_008, 5)]
    assert norms_of(flat, parts) == (norm(flat[:999_000]), norm(flat[999_008:999_013]))
    assert norm(np.full(4, np.nan, np.float32)) is None
    assert norm(np.full(4, np.inf, np.float32)) is None


def test_evidence_survives_json() -> None:
    run = dead_relus(0)
    run.complete()
    evidence = run.evidence
    assert evidence.look is not None
    assert Evidence.from_dict(json.loads(json.dumps(evidence.to_dict()))) == evidence
    assert hl.History.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_absent_parts_have_defaults_and_newer_ones_are_passed_over() -> None:
    found = Evidence.from_dict({"norms": [{"epoch": 2, "later": 1}], "also": {}, "setup": None})
    assert found == Evidence(norms=(NormSample(2),))


@pytest.mark.parametrize("damaged", [[], {"train": 5}, {"norms": 7}, {"look": [1]}, {"inputs": ["x"]}])
def test_damaged_evidence_is_refused(damaged: Any) -> None:
    with pytest.raises(TypeError):
        Evidence.from_dict(damaged)


def test_a_resumed_run_has_the_evidence_of_one_that_was_not_interrupted(tmp_path: Any) -> None:
    X, y = noisy_labels(0)

    def trainer(*callbacks: Any) -> hl.Trainer:
        return hl.Trainer(mlp(20, (8,), 2), callbacks=callbacks, early_stopping=hl.EarlyStopping(4))

    whole = trainer().fit(X, y, validation=0.3, epochs=30)
    checkpoint = hl.Checkpoint(tmp_path, every=7)
    cut = trainer(lambda state: state.epoch == 3 and state.stop())
    first = cut.fit(X, y, validation=0.3, epochs=30, checkpoint=checkpoint)
    assert [n.epoch for n in first.evidence.norms] == [1, 2, 3]
    rest = trainer()
    run = rest.fit(X, y, validation=0.3, epochs=30, resume=tmp_path, checkpoint=checkpoint)
    whole.complete()
    run.complete()
    assert run.evidence == whole.evidence
    assert run.evidence.norms[-1].epoch == run.epochs
    ended = trainer().fit(X, y, validation=0.3, epochs=30, resume=tmp_path)  # nothing is left to do
    ended.complete()
    assert ended.evidence == whole.evidence


def test_a_checkpoint_without_evidence_can_be_resumed(tmp_path: Any, monkeypatch: Any) -> None:
    X, y = noisy_labels(0)
    with monkeypatch.context() as patch:  # as older versions wrote histories
        plain = hl.History.to_dict
        patch.setattr(
            hl.History, "to_dict", lambda self: {k: v for k, v in plain(self).items() if k != "evidence"}
        )
        stop = hl.Trainer(mlp(20, (8,), 2), callbacks=[lambda state: state.epoch == 3 and state.stop()])
        stop.fit(X, y, epochs=6, checkpoint=hl.Checkpoint(tmp_path))
    run = hl.Trainer(mlp(20, (8,), 2)).fit(X, y, epochs=6, resume=tmp_path)
    assert [n.epoch for n in run.evidence.norms] == [4, 6]
    assert run.evidence.train.rows == 400


def test_copies_do_not_hold_the_model() -> None:
    run = dead_relus(0)
    for other in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        assert other.evidence.look is None
        assert other._witness is None
        assert other == run
    run.complete()
    assert run._witness is None  # the rows and the model are let go
