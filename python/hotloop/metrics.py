# SPDX-License-Identifier: Apache-2.0
"""Metrics: from the names a user may give, over the kinds the plan counts, to the numbers in the history.

The native loop only adds up sums; everything that divides stands here. Accuracy is over rows (over elements
for binary cross-entropy), top-k accuracy over rows; MSE, MAE and R2 are means over outputs, R2 as
``sklearn.metrics.r2_score``. Names that are none of these are scikit-learn's scorers; see scoring.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from hotloop import scoring
from hotloop.compile.plan import LossSpec, Metric, top_k
from hotloop.losses import CallableLoss

Totals = npt.NDArray[np.float64]

CLASSIFICATION = ("accuracy",)
REGRESSION = ("mse", "mae", "r2")
NAMES = CLASSIFICATION + REGRESSION
#: In messages; any k below the number of classes will do.
TOP_K = "top<k>_accuracy"
_EPSILON = 2.0**-52  # of float64


def resolve(
    metrics: Union[str, Iterable[str], None], loss: Union[LossSpec, CallableLoss], y: Any = None
) -> tuple[str, ...]:
    """The names of the metrics to report. "auto", also among others: accuracy for classes, else MSE, MAE, R2.

    ``loss`` decides between the two, and for a loss of one's own the target ``y`` (integers are classes).
    Raises `ValueError` for unknown names and for metrics that the loss's target does not have, `TypeError`
    for what is no name, and `ImportError` for a scorer without scikit-learn.

    >>> resolve("auto", LossSpec("huber"))
    ('mse', 'mae', 'r2')
    """
    classifies = _classifies(loss, y)
    fitting = CLASSIFICATION if classifies else REGRESSION
    if metrics is None:
        return ()
    names: dict[str, None] = {}
    for name in (metrics,) if isinstance(metrics, str) else metrics:
        if not isinstance(name, str):
            raise TypeError(f"[metrics] metrics are names, got {name!r:.80}; allowed: {', '.join(NAMES)}")
        names.update(dict.fromkeys(fitting if name == "auto" else (name,)))
    labels = classifies and (isinstance(loss, CallableLoss) or loss.kind == "cross_entropy")
    for name in names:
        if name in NAMES or top_k(name):
            if name not in fitting and not (labels and top_k(name)):
                kind = loss.name if isinstance(loss, CallableLoss) else loss.kind
                allowed = (*fitting, TOP_K) if labels else fitting
                raise ValueError(
                    f"[metrics] {name!r} does not fit the loss {kind!r}; allowed: {', '.join(allowed)}"
                )
        else:
            scoring.check_name(name, (*NAMES, TOP_K))
    return tuple(names)


def native(names: Iterable[str]) -> tuple[str, ...]:
    """Those that the plan counts, in training too; the others are scikit-learn's.

    >>> native(("f1_macro", "accuracy", "top3_accuracy"))
    ('accuracy', 'top3_accuracy')
    """
    return tuple(name for name in names if name in NAMES or top_k(name))


def check_top_k(names: Iterable[str], n_classes: int) -> None:
    """Raises `ValueError` for a top-k accuracy that counts every row as right."""
    for name in names:
        k = top_k(name)
        if k and k >= n_classes:
            raise ValueError(
                f"[metrics] {name!r} of {n_classes} classes would always be 1; allowed: k below {n_classes}; "
                "use a smaller k, or accuracy"
            )


def kinds(names: Iterable[str]) -> tuple[str, ...]:
    """What the plan has to count for these names: kinds of `Metric`, and each top-k accuracy by its name.

    >>> kinds(("mse", "r2"))
    ('regression',)
    """
    return tuple(dict.fromkeys("regression" if name in REGRESSION else name for name in names))


def finalize(
    plan_metrics: Sequence[Metric], totals: Totals, names: Iterable[str] | None = None
) -> dict[str, float]:
    """The loss and the metrics from a plan's block of sums, float64 (metric doubles,).

    ``names`` picks among the metrics (None: all that were counted); "loss" is always there if the plan has
    one. What no row contributed to is NaN.

    >>> finalize([Metric("loss", "loss", 0, 2)], np.array([3.0, 2.0]))
    {'loss': 1.5}
    """
    result: dict[str, float] = {}
    sums = totals.tolist()  # Python's numbers: arrays of two elements cost more than what they compute
    for metric in plan_metrics:
        block = sums[metric.offset : metric.offset + metric.size]
        if metric.kind in ("loss", "accuracy", "top_k"):
            result[metric.name] = block[0] / block[1] if block[1] else math.nan
        elif metric.kind == "regression":
            result.update(regression(block))
    if names is None:
        return result
    wanted = ("loss", *names)
    return {name: result[name] for name in wanted if name in result}


def regression(totals: Sequence[float]) -> dict[str, float]:
    """MSE, MAE and R2 from ``[rows, then per output: sum (p-t)^2, sum |p-t|, sum t, sum t^2]``.

    ``R2 = mean over outputs of 1 - sum (p-t)^2 / sum (t - mean t)^2``; an output whose target is constant
    counts 1 if it was met exactly and 0 if not. Below two rows R2 is NaN.
    """
    rows, *sums = map(float, totals)
    if not rows:
        return dict.fromkeys(REGRESSION, math.nan)
    outputs = len(sums) // 4
    mse = mae = r2 = 0.0
    columns = zip(sums[0::4], sums[1::4], sums[2::4], sums[3::4], strict=True)
    for squared, absolute, target, target_squared in columns:
        mse += squared / rows / outputs
        mae += absolute / rows / outputs
        spread = target_squared - target * target / rows
        # The subtraction cancels: what is left of a constant target is rounding, which grows as sqrt(rows).
        if spread <= 8 * math.sqrt(rows) * _EPSILON * target_squared:
            r2 += (1.0 if squared == 0 else 0.0) / outputs
        else:
            r2 += (1 - squared / spread) / outputs
    return {"mse": mse, "mae": mae, "r2": r2 if rows >= 2 else math.nan}


def _classifies(loss: Union[LossSpec, CallableLoss], y: Any) -> bool:
    if isinstance(loss, LossSpec):
        return loss.kind in ("cross_entropy", "bce_with_logits")
    return y is not None and y.dtype.kind in "iub"
