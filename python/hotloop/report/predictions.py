# SPDX-License-Identifier: Apache-2.0
"""What a model predicted for rows whose truth is known, and how good that is: counts, calibration, residuals.

Plain NumPy and data, so that a report can be made of any model's predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

#: Bins of the reliability diagram: with ten, a bin of a few hundred rows still has some in most of them.
BINS = 10


class Unavailable(Exception):
    """There are no predictions to show; the message says why, to the reader of a report."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of classes: ``true`` labels (n,) and ``probability`` (n, C). Of numbers: ``true`` and ``predicted``
    (n, outputs), in ``unit``'s unit. ``source`` says whose rows they are,
    ``checked`` whether the model is known to be the one that the run left.
    """

    source: str
    true: Labels | Values
    probability: npt.NDArray[np.float32] | None = None
    predicted: Values | None = None
    class_names: tuple[str, ...] = ()
    unit: str = ""
    checked: bool = True

    def names(self) -> list[str]:
        """The classes' names, or their numbers."""
        assert self.probability is not None
        n = self.probability.shape[1]
        return list(self.class_names) if len(self.class_names) == n else [str(label) for label in range(n)]


def confusion(true: Labels, predicted: Labels, n_classes: int) -> npt.NDArray[np.int64]:
    """Rows of each true class (down) by predicted class (across), int64 (C, C).

    >>> confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    return np.bincount(true * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Per bin of confidence (BINS,): rows, mean confidence, share of right predictions (NaN where there is no
    row); ``error`` is the expected calibration error, ``gap`` mean confidence less accuracy."""

    rows: Labels
    confidence: Values
    accuracy: Values
    error: float
    gap: float


def reliability(true: Labels, probability: npt.NDArray[np.float32], bins: int = BINS) -> Reliability:
    """How far the probability (n, C) of the predicted class can be taken at its word.

    ``ECE = sum_b n_b/n |accuracy_b - confidence_b|`` over equal bins of the largest probability (Guo et al.
    2017, "On Calibration of Modern Neural Networks").

    >>> reliability(np.array([0, 1]), np.array([[0.75, 0.25], [0.75, 0.25]], np.float32)).error
    0.25
    """
    top = probability.max(axis=1).astype(np.float64)
    right = (probability.argmax(axis=1) == true).astype(np.float64)
    place = np.minimum((top * bins).astype(np.int64), bins - 1)
    rows = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, top, bins) / rows
        accuracy = np.bincount(place, right, bins) / rows
    used = rows > 0
    error = float(np.abs(accuracy - confidence)[used] @ rows[used] / max(len(true), 1))
    return Reliability(rows, confidence, accuracy, error, float(top.mean() - right.mean()))
