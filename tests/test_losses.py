# SPDX-License-Identifier: Apache-2.0
"""Losses as data: names, checks, class weights, and functions as losses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hotloop import losses
from hotloop.compile.plan import LossSpec
from hotloop.errors import DTypeError, LabelError, ShapeError
from hotloop.losses import MAE, MSE, BCEWithLogits, CallableLoss, CrossEntropy, Huber

LABELS = np.array([0, 0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("loss", "spec"),
    [
        ("cross_entropy", LossSpec("cross_entropy")),
        ("mse", LossSpec("mse")),
        ("mae", LossSpec("mae")),
        ("huber", LossSpec("huber", delta=1.0)),
        ("bce_with_logits", LossSpec("bce_with_logits")),
        (CrossEntropy(0.1), LossSpec("cross_entropy", label_smoothing=0.1)),
        (Huber(2), LossSpec("huber", delta=2.0)),
        (MSE(), LossSpec("mse")),
        (MAE(), LossSpec("mae")),
        (BCEWithLogits([1, 2]), LossSpec("bce_with_logits", pos_weight=(1.0, 2.0))),
        (BCEWithLogits(np.float32(3)), LossSpec("bce_with_logits", pos_weight=(3.0,))),
        (LossSpec("mse"), LossSpec("mse")),
    ],
)
def test_resolve(loss: Any, spec: LossSpec) -> None:
    assert losses.resolve(loss) == spec
    losses.check(loss)


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (LABELS, "cross_entropy"),
        (LABELS.astype(np.uint8), "cross_entropy"),
        ([0, 1], "cross_entropy"),
        (LABELS.astype(np.float32), "mse"),
        (np.zeros((4, 2)), "mse"),
    ],
)
def test_auto_follows_the_target(y: Any, kind: str) -> None:
    resolved = losses.resolve("auto", y)
    assert isinstance(resolved, LossSpec)
    assert resolved.kind == kind


def class_weight(value: Any, y: Any = None, n_outputs: int | None = None) -> Any:
    resolved = losses.resolve(CrossEntropy(class_weight=value), y, n_outputs=n_outputs)
    assert isinstance(resolved, LossSpec)
    return resolved.class_weight


def test_class_weights() -> None:
    assert class_weight(None) is None
    assert class_weight([1, 2, 0.5]) == (1.0, 2.0, 0.5)
    assert class_weight(np.array([1.0, 2.0], np.float32), n_outputs=2) == (1.0, 2.0)
    assert class_weight({2: 5}, n_outputs=4) == (1.0, 1.0, 5.0, 1.0)
    assert class_weight({1: 2.0, 0: 0.5}) == (0.5, 2.0)


def test_balanced_class_weights() -> None:
    # n / (classes * rows of the class): 6/(3*3), 6/(3*2), 6/(3*1)
    assert class_weight("balanced", LABELS) == pytest.approx((2 / 3, 1.0, 2.0))
    # a class without rows takes no part in the average
    assert class_weight("balanced", np.array([0, 0, 2]), n_outputs=3) == pytest.approx((0.75, 1.0, 1.5))


def test_balanced_equals_sklearn() -> None:
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert class_weight("balanced", LABELS) == pytest.approx(tuple(expected), rel=1e-15)


def test_pos_weight_spreads_over_the_outputs() -> None:
    assert BCEWithLogits(2.0).spec(n_outputs=3).pos_weight == (2.0, 2.0, 2.0)
    with pytest.raises(ShapeError, match="2 numbers for 3 outputs"):
        BCEWithLogits([1, 2]).spec(n_outputs=3)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: CrossEntropy(1.5), ValueError, "label_smoothing must be between 0 and 1"),
        (lambda: CrossEntropy(-0.1), ValueError, "label_smoothing"),
        (lambda: CrossEntropy("x"), TypeError, "label_smoothing must be a number"),
        (lambda: CrossEntropy(class_weight="even"), ValueError, "'balanced', a dict or a list"),
        (lambda: CrossEntropy(class_weight=[1, -1]), ValueError, r"class_weight\[1\]"),
        (lambda: CrossEntropy(class_weight=[0, 0]), ValueError, "only zeros"),
        (lambda: CrossEntropy(class_weight=[[1, 2]]), ShapeError, "list of numbers"),
        (lambda: CrossEntropy(class_weight=["a"]), ShapeError, "list of numbers"),
        (lambda: CrossEntropy(class_weight={-1: 2}), LabelError, "maps classes"),
        (lambda: CrossEntropy(class_weight={"a": 2}), LabelError, "maps classes"),
        (lambda: CrossEntropy(class_weight={}), LabelError, "maps classes"),
        (lambda: CrossEntropy(class_weight=[1, 2]).spec(n_outputs=3), ShapeError, "2 weights for 3 classes"),
        (lambda: CrossEntropy(class_weight={5: 2}).spec(n_outputs=3), LabelError, "names class 5"),
        (lambda: CrossEntropy(class_weight="balanced").spec(), ValueError, "needs integer labels"),
        (lambda: CrossEntropy(class_weight="balanced").spec(np.array([0, -1])), LabelError, r"y\[1\] = -1"),
        (lambda: Huber(0), ValueError, "delta must be > 0"),
        (lambda: Huber(-1), ValueError, "delta"),
        (lambda: BCEWithLogits(-1), ValueError, "pos_weight"),
        (lambda: losses.resolve("hinge"), ValueError, "unknown loss 'hinge'; allowed: auto, cross_entropy"),
        (lambda: losses.resolve("auto"), ValueError, "needs the target"),
        (lambda: losses.resolve("auto", ["a", "b"]), DTypeError, "number the classes first"),
        (lambda: losses.resolve(MSE), TypeError, r"write hl.losses.MSE\(\)"),
        (lambda: losses.resolve(3), TypeError, "a loss is"),
        (lambda: losses.check("hinge"), ValueError, "unknown loss"),
        (lambda: losses.check(None), TypeError, "a loss is"),
        (lambda: losses.from_dict({"kind": "hinge"}), ValueError, "unknown loss"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_losses_are_values() -> None:
    assert CrossEntropy(class_weight=np.array([1.0, 2.0])) == CrossEntropy(class_weight=[1, 2])
    assert hash(CrossEntropy(class_weight={1: 2})) == hash(CrossEntropy(class_weight={1: 2.0}))
    assert CrossEntropy(class_weight=CrossEntropy(class_weight={1: 2}).class_weight).spec() == LossSpec(
        "cross_entropy", class_weight=(1.0, 2.0)
    )


def squared(prediction: Any, target: Any) -> Any:
    error = prediction - target
    return (error**2).mean(axis=1), 2 * error / error.shape[1]


def test_a_function_as_loss() -> None:
    loss = losses.resolve(squared)
    assert isinstance(loss, CallableLoss)
    prediction = np.array([[1.0, 2.0], [0.0, 4.0]], np.float32)
    row_loss, gradient = loss(prediction, np.zeros((2, 2), np.float32))
    np.testing.assert_array_equal(row_loss, [2.5, 8.0])
    np.testing.assert_array_equal(gradient, prediction)
    assert gradient.dtype == np.float32


@pytest.mark.parametrize(
    ("function", "error", "match"),
    [
        (lambda p, t: p.sum(), TypeError, "must return"),
        (lambda p, t: (p.sum(), p), ShapeError, "do not average over rows"),
        (lambda p, t: (p.sum(axis=1), p[:1]), ShapeError, r"gradient of shape \(2, 2\), got \(1, 2\)"),
    ],
)
def test_a_function_that_returns_something_else(function: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        CallableLoss(function)(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))


@pytest.mark.parametrize(
    "spec",
    [LossSpec("cross_entropy", 0.1, class_weight=(1.0, 2.0)), LossSpec("huber", delta=0.5), LossSpec("mse")],
)
def test_json_round_trip(spec: LossSpec) -> None:
    assert losses.from_dict(json.loads(json.dumps(losses.to_dict(spec)))) == spec


def test_a_function_is_stored_by_name_and_missed_when_needed() -> None:
    restored = losses.from_dict(json.loads(json.dumps(losses.to_dict(CallableLoss(squared)))))
    assert isinstance(restored, CallableLoss)
    assert restored.name.endswith("squared")
    with pytest.raises(RuntimeError, match="squared only; give it as loss="):
        restored(np.ones((2, 1)), np.ones((2, 1)))
