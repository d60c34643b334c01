# SPDX-License-Identifier: Apache-2.0
"""Test reports as text: precision, recall and F1 per class, or RMSE, MAE and R2.

Definitions and layout follow scikit-learn's ``classification_report`` (a ratio over nothing is 0); written
out here, since a command line should not take seconds to import a library for four divisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hotloop.metrics import regression

Labels = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Per class (classes,): precision, recall, F1 and support; and the accuracy over all rows."""

    precision: Values
    recall: Values
    f1: Values
    support: Labels
    accuracy: float


def class_scores(true: Labels, predicted: Labels, n_classes: int) -> ClassScores:
    """Scores of predicted labels (n,) against true ones (n,), each in 0 .. n_classes - 1.

    ``precision = hits / predicted as the class; recall = hits / rows of the class; f1 = 2 p r / (p + r)``

    >>> class_scores(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).recall.tolist()
    [1.0, 0.5]
    """
    hits = np.bincount(true[true == predicted], minlength=n_classes)
    support = np.bincount(true, minlength=n_classes)
    claimed = np.bincount(predicted, minlength=n_classes)
    # 2 p r / (p + r) = 2 hits / (claimed + support): defined also where p = r = 0
    scores = (_ratio(hits, claimed), _ratio(hits, support), _ratio(2 * hits, claimed + support))
    return ClassScores(*scores, support, float(np.mean(true == predicted)) if len(true) else float("nan"))


#: Of a class's name, at most and, on a narrow terminal, at least; and what the four columns beside it take.
_MOST, _LEAST, _COLUMNS = 30, 12, 41


def classification_report(
    true: Labels, predicted: Labels, class_names: Sequence[str], *, width: int = 100
) -> str:
    """A table of `class_scores`, one line per class, and their plain and weighted means.

    Long names are cut so that it fits into ``width`` columns, if 53 or more.

    >>> print(classification_report(np.array([0, 1, 1]), np.array([0, 1, 0]), ["no", "yes"]))
                 precision    recall  f1-score   support
              no      0.500     1.000     0.667         1
             yes      1.000     0.500     0.667         2
    <BLANKLINE>
        accuracy                          0.667         3
       macro avg      0.750     0.750     0.667         3
    weighted avg      0.833     0.667     0.667         3
    """
    scores = class_scores(true, predicted, len(class_names))
    most = min(max(width - _COLUMNS, _LEAST), _MOST)
    names = [name if len(name) <= most else name[: most - 3] + "..." for name in class_names]
    width = max(len("weighted avg"), *map(len, names))
    columns = (scores.precision, scores.recall, scores.f1)
    lines = [
        " " * width + "".join(f"{title:>10}" for title in ("precision", "recall", "f1-score", "support"))
    ]
    for label, name in enumerate(names):
        lines.append(_line(name, width, [column[label] for column in columns], scores.support[label]))
    rows = len(true)
    lines += ["", f"{'accuracy':>{width}} {'':>20}{scores.accuracy:>10.3f}{rows:>10}"]
    lines.append(_line("macro avg", width, [column.mean() for column in columns], rows))
    share = scores.support / max(rows, 1)
    lines.append(_line("weighted avg", width, [column @ share for column in columns], rows))
    return "\n".join(lines)


def regression_report(true: Values, predicted: Values) -> str:
    """RMSE, MAE and R2 of predicted values (n,) against true ones (n,), in the target's unit.

    >>> print(regression_report(np.array([1.0, 3.0]), np.array([1.0, 2.0])))
    RMSE     0.707107
    MAE           0.5
    R2            0.5
    """
    named = {name.upper(): value for name, value in regression_scores(true, predicted).items()}
    return "\n".join(f"{name:<5}{value:>12.6g}" for name, value in named.items())


def regression_scores(true: Values, predicted: Values) -> dict[str, float]:
    """What `regression_report` shows, as numbers.

    >>> regression_scores(np.array([1.0, 3.0]), np.array([1.0, 2.0]))["mae"]
    0.5
    """
    error = predicted - true
    center = true - true.mean() if len(true) else true  # R2 does not depend on it, its rounding does
    sums = [len(true), error @ error, np.abs(error).sum(), center.sum(), center @ center]
    scores = regression(sums)
    return {"rmse": float(scores["mse"]) ** 0.5, "mae": float(scores["mae"]), "r2": float(scores["r2"])}


def _ratio(part: Labels, whole: Labels) -> Values:
    return np.where(whole == 0, 0.0, part / np.maximum(whole, 1))


def _line(name: str, width: int, values: Sequence[Any], support: int) -> str:
    return f"{name:>{width}} " + "".join(f"{value:>10.3f}" for value in values) + f"{support:>10}"
