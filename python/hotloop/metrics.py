# SPDX-License-Identifier: Apache-2.0
"""Metrics: from the names a user may give, over the kinds the plan counts, to the numbers in the history.

The native loop only adds up sums; everything that divides stands here. Accuracy is over rows (over elements
for binary cross-entropy); MSE, MAE and R2 are means over outputs, R2 as ``sklearn.metrics.r2_score``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from hotloop.compile.plan import LossSpec, Metric
from hotloop.losses import CallableLoss

Totals = npt.NDArray[np.float64]

CLASSIFICATION = ("accuracy",)
REGRESSION = ("mse", "mae", "r2")
NAMES = CLASSIFICATION + REGRESSION
_EPSILON = 2.0**-52  # of float64


def resolve(
    metrics: Union[str, Iterable[str], None], loss: Union[LossSpec, CallableLoss], y: Any = None
) -> tuple[str, ...]:
    """The names of the metrics to report. "auto": accuracy for classes, else MSE, MAE and R2.

    ``loss`` decides between the two, and for a loss of one's own the target ``y`` (integers are classes).
    Raises `ValueError` for unknown names and for metrics that the loss's target does not have.

    >>> resolve("auto", LossSpec("huber"))
    ('mse', 'mae', 'r2')
    """
    fitting = CLASSIFICATION if _classifies(loss, y) else REGRESSION
    if metrics is None:
        return ()
    if isinstance(metrics, str):
        metrics = fitting if metrics == "auto" else (metrics,)
    names = tuple(dict.fromkeys(metrics))
    for name in names:
        if name not in NAMES:
            raise ValueError(f"[metrics] unknown metric {name!r}; allowed: auto, {', '.join(NAMES)}")
        if name not in fitting:
            kind = loss.name if isinstance(loss, CallableLoss) else loss.kind
            raise ValueError(
                f"[metrics] {name!r} does not fit the loss {kind!r}; allowed: {', '.join(fitting)}"
            )
    return names


def kinds(names: Iterable[str]) -> tuple[str, ...]:
    """What the plan has to count for these names: kinds of `Metric`, each once.

    >>> kinds(("mse", "r2"))
    ('regression',)
    """
    return tuple(dict.fromkeys("accuracy" if name in CLASSIFICATION else "regression" for name in names))


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
        if metric.kind in ("loss", "accuracy"):
            result[metric.kind] = block[0] / block[1] if block[1] else math.nan
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
    return y is not None and np.asarray(y).dtype.kind in "iub"
