# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's scorers on raw outputs: each as it scores an estimator of scikit-learn's own."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import classes, scoring
from hotloop.early_stopping import direction

sklearn_metrics = pytest.importorskip("sklearn.metrics")
base = pytest.importorskip("sklearn.base")

ROWS = 80


def takes_weights(scorer: Any) -> bool:
    return "sample_weight" in inspect.signature(scorer._score_func).parameters


def attempt(scorer: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return scorer(*arguments, **options)
    except (AttributeError, ValueError) as error:
        return error


class Classifier(base.ClassifierMixin, base.BaseEstimator):
    """What scikit-learn itself would be given: labels and probabilities, kept from the outputs."""

    def __init__(self, kind: str, columns: int) -> None:
        self.kind = kind
        self.classes_ = np.arange(max(columns, 2))

    def predict(self, X: Any) -> Any:
        return classes.labels(X, self.kind)

    def predict_proba(self, X: Any) -> Any:
        return classes.probabilities(X, self.kind)


class Regressor(base.RegressorMixin, base.BaseEstimator):
    def predict(self, X: Any) -> Any:
        return X if X.ndim == 1 or X.shape[1] > 1 else X[:, 0]


def data(task: str, columns: int) -> tuple[Any, Any]:
    """Outputs (n, columns) and targets that they tell something about."""
    rng = np.random.default_rng(columns)
    outputs = rng.normal(size=(ROWS, columns)).astype(np.float32)
    noisy = outputs + rng.normal(size=outputs.shape)
    if task == "regression":
        return np.abs(outputs) + 0.1, np.abs(noisy).astype(np.float32) + 0.1
    if columns == 1:
        return outputs, (noisy > 0).astype(np.float32)
    return outputs, noisy.argmax(axis=1).astype(np.int32)


CASES = [
    ("cross_entropy", 2), ("cross_entropy", 4), ("bce_with_logits", 1), ("regression", 1), ("regression", 3),
]  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("task", "columns"), CASES)
def test_every_scorer_scores_as_on_its_own_estimator(task: Any, columns: int, weighted: bool) -> None:
    outputs, target = data(task, columns)
    weight = np.random.default_rng(9).uniform(0, 2, ROWS).astype(np.float32) if weighted else None
    estimator = Regressor() if task == "regression" else Classifier(task, columns)
    y = target.ravel() if target.ndim == 2 and target.shape[1] == 1 else target
    y = y.astype(int) if task == "bce_with_logits" else y
    compared = 0
    for name in sklearn_metrics.get_scorer_names():
        scorer = sklearn_metrics.get_scorer(name)
        options = {"sample_weight": weight} if weighted and takes_weights(scorer) else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = scoring.score([name], task, outputs, target, weight)[name]
            expected = attempt(scorer, estimator, outputs, y, **options)
        if isinstance(expected, Exception):
            assert type(found) is type(expected), name
            continue
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True), name
        assert direction(f"val_{name}") == "max"
        compared += 1
    assert compared >= (10 if task == "regression" else 35)


def test_logits_rank_where_probabilities_round_to_1() -> None:
    outputs = np.array([[30.0], [40.0], [50.0], [60.0]], np.float32)
    target = np.array([[0.0], [0.0], [1.0], [1.0]], np.float32)
    assert scoring.score(["roc_auc"], "bce_with_logits", outputs, target, None) == {"roc_auc": 1.0}
    assert (classes.probabilities(outputs, "bce_with_logits")[:, 1] == 1).all()


def test_several_labels_of_their_own() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(ROWS, 3)).astype(np.float32)
    target = (outputs + rng.normal(size=outputs.shape) > 0).astype(np.float32)
    found = scoring.score(["f1_macro", "roc_auc", "accuracy"], "bce_with_logits", outputs, target, None)
    y = target.astype(int)
    assert found["f1_macro"] == sklearn_metrics.f1_score(y, outputs > 0, average="macro")
    assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y, outputs))
    assert found["accuracy"] == sklearn_metrics.accuracy_score(y, outputs > 0)


def test_probabilities_as_targets_count_as_their_most_likely_class() -> None:
    outputs, labels = data("cross_entropy", 4)
    soft = np.full((ROWS, 4), 0.1, np.float32)
    soft[np.arange(ROWS), labels] = 0.7
    names = ["f1_macro", "neg_log_loss"]
    assert scoring.score(names, "cross_entropy", outputs, soft, None) == scoring.score(
        names, "cross_entropy", outputs, labels, None
    )


def test_labels_alone_have_no_probabilities() -> None:
    outputs, labels = data("cross_entropy", 4)
    found = scoring.score(["f1_macro", "balanced_accuracy"], "labels", outputs, labels, None)
    assert found["f1_macro"] == sklearn_metrics.f1_score(labels, outputs.argmax(axis=1), average="macro")
    found = scoring.score(["neg_log_loss"], "labels", outputs, labels, None)
    assert "predict_proba" in str(found["neg_log_loss"])


def in_a_process_of_its_own(code: str) -> subprocess.CompletedProcess[str]:
    """This environment, a preloaded sanitizer included, and this hotloop."""
    env = {**os.environ, "PYTHONPATH": str(Path(hl.__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)


def test_a_name_without_scikit_learn_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import hotloop as hl\n"
        "try: hl.Trainer(hl.nn.Linear(2, 2), 'cross_entropy', metrics='f1_macro').fit([[1., 2]] * 8, [0, 1] * 4)\n"
        "except ImportError as error: print(error)\n"
    )
    done = in_a_process_of_its_own(code)
    assert "pip install 'hotloop[sklearn]'" in done.stdout, done.stderr
    assert "'f1_macro' is none of ours (accuracy, " in done.stdout


def test_without_scorers_nothing_of_scikit_learn_is_loaded() -> None:
    code = (
        "import sys, hotloop as hl\n"
        "t = hl.Trainer(hl.nn.Linear(2, 3), 'cross_entropy', metrics=['auto', 'top2_accuracy'])\n"
        "t.fit([[1., 2]] * 8, [0, 1] * 4, validation=0.5, epochs=2)\n"
        "print([m for m in sys.modules if m.startswith('sklearn')])"
    )
    done = in_a_process_of_its_own(code)
    assert done.stdout.strip() == "[]", done.stderr
