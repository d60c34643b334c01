# SPDX-License-Identifier: Apache-2.0
"""What row weights, losses and metrics compute, in float64 NumPy."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt

from hotloop.reference import Context, reference
from hotloop.reference.softmax import log_softmax

Array = npt.NDArray[np.float64]


@reference("row_weight")
def row_weight(a: SimpleNamespace, ctx: Context) -> None:
    weight = np.ones(a.rows) if a.sample_weight is None else a.sample_weight.copy()
    if a.class_weight is not None and a.labels is not None:
        weight *= a.class_weight[a.labels]
    total = float(weight.sum())
    a.weight[:] = weight
    a.total[:] = total
    a.drow[:] = weight / total if total else 0.0


@reference("cross_entropy")
def cross_entropy(a: SimpleNamespace, ctx: Context) -> None:
    logits = a.logits.reshape(a.rows, a.cols)
    if a.labels is not None:
        target = (a.labels[:, None] == np.arange(a.cols)).astype(np.float64)
    else:
        target = a.probs.reshape(a.rows, a.cols)
    q = (1 - a.label_smoothing) * target + a.label_smoothing / a.cols
    log_p = log_softmax(logits)
    if a.row_loss is not None:
        terms = -q * log_p
        if a.labels is not None:
            terms[q == 0] = 0.0  # a class that is not the label takes no part, even at a logit of -inf
        a.row_loss[:] = terms.sum(axis=1)
    if a.dlogits is not None:
        drow = 1.0 if a.drow is None else a.drow[:, None]
        a.dlogits[:] = (drow * (np.exp(log_p) * q.sum(axis=1, keepdims=True) - q)).ravel()


def _sigmoid(x: Array) -> Array:
    result: Array = np.exp(-np.logaddexp(0.0, -x))
    return result


# name -> (pred, target, pos_weight, p0) -> (value, slope), element by element
Formula = Callable[[Array, Array, "Array | float", float], tuple[Array, Array]]


def _mse(p: Array, t: Array, w: Array | float, p0: float) -> tuple[Array, Array]:
    return (p - t) ** 2, 2 * (p - t)


def _mae(p: Array, t: Array, w: Array | float, p0: float) -> tuple[Array, Array]:
    return np.abs(p - t), np.sign(p - t)


def _huber(p: Array, t: Array, w: Array | float, delta: float) -> tuple[Array, Array]:
    e = p - t
    value = np.where(np.abs(e) <= delta, e * e / 2, delta * (np.abs(e) - delta / 2))
    return value, np.clip(e, -delta, delta)


def _bce_with_logits(x: Array, t: Array, w: Array | float, p0: float) -> tuple[Array, Array]:
    value = (1 - t) * np.logaddexp(0.0, x) + w * t * np.logaddexp(0.0, -x)
    return value, (1 - t) * _sigmoid(x) - w * t * _sigmoid(-x)


def _loss(a: SimpleNamespace, formula: Formula) -> None:
    shape = (a.rows, a.cols)
    pos_weight = 1.0 if a.pos_weight is None else a.pos_weight
    value, slope = formula(a.pred.reshape(shape), a.target.reshape(shape), pos_weight, a.p0)
    if a.row_loss is not None:
        a.row_loss[:] = value.mean(axis=1)
    if a.dpred is not None:
        drow = 1.0 if a.drow is None else a.drow[:, None]
        a.dpred[:] = (drow / a.cols * slope).ravel()


@reference("mse")
def mse(a: SimpleNamespace, ctx: Context) -> None:
    _loss(a, _mse)


@reference("mae")
def mae(a: SimpleNamespace, ctx: Context) -> None:
    _loss(a, _mae)


@reference("huber")
def huber(a: SimpleNamespace, ctx: Context) -> None:
    _loss(a, _huber)


@reference("bce_with_logits")
def bce_with_logits(a: SimpleNamespace, ctx: Context) -> None:
    _loss(a, _bce_with_logits)


@reference("loss_stats")
def loss_stats(a: SimpleNamespace, ctx: Context) -> None:
    weighted, weights = float((a.weight * a.row_loss).sum()), float(a.weight.sum())
    a.loss[:] = weighted / weights if weights else 0.0
    a.totals += [weighted, weights]


@reference("accuracy")
def accuracy(a: SimpleNamespace, ctx: Context) -> None:
    logits = a.logits.reshape(a.rows, a.cols)
    labels = a.probs.reshape(a.rows, a.cols).argmax(axis=1) if a.labels is None else a.labels
    right = (logits.argmax(axis=1) == labels) & ~np.isnan(logits).any(axis=1)
    a.totals += [right.sum(), a.rows]


@reference("top_k_accuracy")
def top_k_accuracy(a: SimpleNamespace, ctx: Context) -> None:
    logits = a.logits.reshape(a.rows, a.cols)
    ranked = np.argsort(-np.where(np.isnan(logits), np.inf, logits), axis=1, kind="stable")
    label = a.labels[:, None].astype(np.int64)
    known = (label >= 0) & (label < a.cols)
    chosen = np.take_along_axis(logits, np.where(known, label, 0), axis=1)
    right = (ranked[:, : a.top_k] == label) & ~np.isnan(chosen) & known
    a.totals += [right.sum(), a.rows]


@reference("binary_accuracy")
def binary_accuracy(a: SimpleNamespace, ctx: Context) -> None:
    right = ((a.logits > 0) == (a.target > 0.5)) & ~np.isnan(a.logits)
    a.totals += [right.sum(), a.rows * a.cols]


@reference("regression_stats")
def regression_stats(a: SimpleNamespace, ctx: Context) -> None:
    pred, target = (v.reshape(a.rows, a.cols) for v in (a.pred, a.target))
    e = pred - target
    stats = np.stack([(e * e).sum(0), np.abs(e).sum(0), target.sum(0), (target * target).sum(0)], axis=1)
    a.totals += np.concatenate([[a.rows], stats.ravel()])
