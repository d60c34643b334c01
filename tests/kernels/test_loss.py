# SPDX-License-Identifier: Apache-2.0
"""Losses and softmax beyond the formulas: gradients against differences, bits of a row in any batch, exact
values, and labels that must never be followed out of the row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.native import run, same_bits, units

Array = np.ndarray
LOSSES = {"mse": 0.0, "mae": 0.0, "huber": 0.75, "bce_with_logits": 0.0}  # name -> p0


def _cross_entropy(isa: str, logits: Array, *, outputs: str = "both", **fields: Any) -> tuple[Array, Array]:
    rows, cols = logits.shape
    row_loss = np.full(rows, np.nan, logits.dtype)
    dlogits = np.full_like(logits, np.nan)
    run(
        "cross_entropy", isa, logits=logits, rows=rows, cols=cols,
        row_loss=row_loss if outputs != "grad" else None,
        dlogits=dlogits if outputs != "loss" else None, **fields,
    )  # fmt: skip
    return row_loss, dlogits


def _loss(isa: str, kernel: str, pred: Array, target: Array, **fields: Any) -> tuple[Array, Array]:
    rows, cols = pred.shape
    row_loss, dpred = np.full(rows, np.nan, pred.dtype), np.full_like(pred, np.nan)
    run(
        kernel, isa, pred=pred, target=target, row_loss=row_loss, dpred=dpred, rows=rows, cols=cols,
        p0=LOSSES[kernel], **fields,
    )  # fmt: skip
    return row_loss, dpred


def _differences(f: Any, x: Array, h: float = 1e-6) -> Array:
    """Central differences of f(x) (rows), each depending on its own row of x (rows, cols)."""
    result = np.empty_like(x)
    for c in range(x.shape[1]):
        step = np.zeros(x.shape[1])
        step[c] = h
        result[:, c] = (f(x + step) - f(x - step)) / (2 * h)
    return result


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("target", ["labels", "probs", "sums to 1.7"])
def test_cross_entropy_gradient_is_the_difference(target: str, smoothing: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((6, 5))
    fields: dict[str, Any] = dict(label_smoothing=smoothing)
    if target == "labels":
        fields["labels"] = rng.integers(0, 5, 6).astype(np.int32)
    else:
        fields["probs"] = rng.dirichlet(np.ones(5), 6) * (1.0 if target == "probs" else 1.7)
    _, gradient = _cross_entropy("generic", logits, **fields)
    expected = _differences(lambda x: _cross_entropy("generic", x, **fields)[0], logits)
    np.testing.assert_allclose(gradient, expected, atol=1e-9)


@pytest.mark.parametrize("pos_weight", [False, True])
@pytest.mark.parametrize("kernel", LOSSES)
def test_loss_gradient_is_the_difference(kernel: str, pos_weight: bool) -> None:
    rng = np.random.default_rng(2)
    pred, target = rng.standard_normal((7, 4)), rng.uniform(0, 1, (7, 4))
    fields = dict(pos_weight=rng.uniform(0.5, 3, 4)) if pos_weight else {}
    _, gradient = _loss("generic", kernel, pred, target, **fields)
    expected = _differences(lambda x: _loss("generic", kernel, x, target, **fields)[0], pred)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)


@units
def test_bce_is_torchs_formula(isa: str, dtype: type) -> None:
    """torch's form of the loss: (1 - t) x + (1 + (w - 1) t) (log1p(exp(-|x|)) + max(-x, 0))."""
    rng = np.random.default_rng(3)
    x, t, w = 4 * rng.standard_normal((50, 3)), rng.uniform(0, 1, (50, 3)), rng.uniform(0.5, 3, 3)
    x, t, w = (v.astype(dtype) for v in (x, t, w))
    wide, t64, w64 = (v.astype(np.float64) for v in (x, t, w))
    softplus = np.log1p(np.exp(-np.abs(wide))) + np.maximum(-wide, 0)
    expected = ((1 - t64) * wide + (1 + (w64 - 1) * t64) * softplus).mean(axis=1)
    row_loss, _ = _loss(isa, "bce_with_logits", x, t, pos_weight=w)
    np.testing.assert_allclose(row_loss, expected, rtol=20 * np.finfo(dtype).eps)


@units
def test_bce_keeps_its_precision_where_it_vanishes(isa: str, dtype: type) -> None:
    x = np.array([[-30.0], [30.0], [-12.0], [12.0]], dtype)
    t = np.array([[0.0], [1.0], [0.0], [1.0]], dtype)
    row_loss, dpred = _loss(isa, "bce_with_logits", x, t)
    tiny = np.log1p(np.exp(-np.abs(x.astype(np.float64))))
    np.testing.assert_allclose(row_loss, tiny[:, 0], rtol=20 * np.finfo(dtype).eps)
    np.testing.assert_allclose(np.abs(dpred), -np.expm1(-tiny), rtol=20 * np.finfo(dtype).eps)


@units
def test_slope_of_mae_at_zero_is_zero_and_huber_meets_its_lines(isa: str, dtype: type) -> None:
    e = np.array([[0.0, 0.75, -0.75, 2.75, -2.75]], dtype)
    _, dmae = _loss(isa, "mae", e, np.zeros_like(e))
    assert same_bits(dmae, np.array([[0, 1, -1, 1, -1]], dtype) / dtype(5))
    value, dhuber = _loss(isa, "huber", e.T.copy(), np.zeros_like(e.T))
    assert same_bits(value, np.array([0, 0.28125, 0.28125, 1.78125, 1.78125], dtype))
    assert same_bits(dhuber, np.array([[0, 0.75, -0.75, 0.75, -0.75]], dtype).T.copy())


@pytest.mark.parametrize("cols", [1, 2, 8, 10, 33])
@units
def test_equal_logits_are_exact(isa: str, dtype: type, cols: int) -> None:
    logits = np.full((3, cols), 2.5, dtype)
    y = run("softmax_fwd", isa, y=np.empty_like(logits), x=logits, rows=3, cols=cols).y
    assert same_bits(y, np.full((3, cols), dtype(1) / dtype(cols)))
    row_loss, dlogits = _cross_entropy(isa, logits, labels=np.zeros(3, np.int32))
    np.testing.assert_allclose(row_loss, np.log(cols), rtol=2 * np.finfo(dtype).eps)
    np.testing.assert_allclose(dlogits.sum(axis=1), 0, atol=4 * np.finfo(dtype).eps)
    if cols == 1:
        assert not row_loss.any() and not dlogits.any()


@units
def test_huge_logits_are_ordinary(isa: str, dtype: type) -> None:
    logits = np.array([[1e30, -1e30, 0.0], [-np.inf, 5.0, 5.0]], dtype)
    row_loss, dlogits = _cross_entropy(isa, logits, labels=np.array([0, 1], np.int32))
    np.testing.assert_allclose(row_loss, [0, np.log(2)], rtol=2 * np.finfo(dtype).eps)
    np.testing.assert_allclose(dlogits, [[0, 0, 0], [0, -0.5, 0.5]], rtol=2 * np.finfo(dtype).eps)


@units
def test_nan_fills_its_own_row_only(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((3, 11)).astype(dtype)
    logits[1, 10] = np.nan
    row_loss, dlogits = _cross_entropy(isa, logits, labels=np.array([3, 4, 5], np.int32))
    assert np.isnan(row_loss).tolist() == [False, True, False]
    assert np.isnan(dlogits).all(axis=1).tolist() == [False, True, False]
    assert np.isfinite(dlogits[[0, 2]]).all()


@pytest.mark.parametrize("label", [-1, 4, 2**31 - 1, -(2**31)])
@units
def test_a_label_out_of_range_does_no_harm(isa: str, dtype: type, label: int) -> None:
    logits = np.random.default_rng(5).standard_normal((3, 4)).astype(dtype)
    labels = np.array([1, label, 2], np.int32)
    row_loss, dlogits = _cross_entropy(isa, logits, labels=labels)
    fine = _cross_entropy(isa, logits, labels=np.array([1, 0, 2], np.int32))
    assert np.isnan(row_loss[1]) and not dlogits[1].any()
    assert same_bits(row_loss[[0, 2]], fine[0][[0, 2]]) and same_bits(dlogits[[0, 2]], fine[1][[0, 2]])


@pytest.mark.parametrize("probs", [False, True])
@units
def test_either_output_alone_has_the_same_bits(isa: str, dtype: type, probs: bool) -> None:
    rng = np.random.default_rng(6)
    logits = rng.standard_normal((70, 10)).astype(dtype)
    target: dict[str, Any] = dict(labels=rng.integers(0, 10, 70).astype(np.int32))
    if probs:
        target = dict(probs=rng.dirichlet(np.ones(10), 70).astype(dtype))
    row_loss, dlogits = _cross_entropy(isa, logits, **target)
    assert same_bits(row_loss, _cross_entropy(isa, logits, outputs="loss", **target)[0])
    assert same_bits(dlogits, _cross_entropy(isa, logits, outputs="grad", **target)[1])


@pytest.mark.parametrize("cols", [1, 3, 10, 16, 33, 1000])
@units
def test_a_row_has_the_same_bits_in_any_batch(isa: str, dtype: type, cols: int) -> None:
    rng = np.random.default_rng(7)
    rows = 70
    x, t = rng.standard_normal((rows, cols)).astype(dtype), rng.uniform(0, 1, (rows, cols)).astype(dtype)
    labels = rng.integers(0, cols, rows).astype(np.int32)

    def results(at: slice) -> list[Array]:
        part, target = x[at].copy(), t[at].copy()
        sizes = dict(rows=len(part), cols=cols)
        forward = [
            run(f"{k}_fwd", isa, y=np.empty_like(part), x=part, **sizes).y for k in ("softmax", "log_softmax")
        ]
        loss = [r for kernel in LOSSES for r in _loss(isa, kernel, part, target)]
        return [*forward, *_cross_entropy(isa, part, labels=labels[at].copy()), *loss]

    whole = results(slice(0, rows))
    for at in (slice(0, 1), slice(7, 8), slice(3, 66)):
        assert all(same_bits(w[at].copy(), r) for w, r in zip(whole, results(at), strict=True))


@units
def test_accuracy_takes_the_first_of_equals_and_no_nan(isa: str, dtype: type) -> None:
    logits = np.array([[1, 2, 2], [1, 2, 2], [np.nan, 5, 1], [-np.inf, -np.inf, -np.inf]], dtype)
    labels, totals = np.array([1, 2, 1, 0], np.int32), np.array([10.0, 20.0])
    run("accuracy", isa, totals=totals, logits=logits, labels=labels, rows=4, cols=3)
    assert totals.tolist() == [12.0, 24.0]


@units
def test_weights_of_zero_give_no_gradient_and_no_loss(isa: str, dtype: type) -> None:
    weight, drow, total = np.empty(4, dtype), np.full(4, np.nan, dtype), np.empty(1)
    run("row_weight", isa, weight=weight, drow=drow, total=total, sample_weight=np.zeros(4, dtype), rows=4)
    assert total[0] == 0 and not drow.any() and not weight.any()
    loss, totals = np.empty(1), np.array([1.0, 2.0])
    run("loss_stats", isa, loss=loss, totals=totals, row_loss=np.ones(4, dtype), weight=weight, rows=4)
    assert loss[0] == 0 and totals.tolist() == [1.0, 2.0]
