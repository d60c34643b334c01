# SPDX-License-Identifier: Apache-2.0
"""From a model's raw outputs to class probabilities and labels; double inside, so that no row sums to 0.99."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def probabilities(outputs: Floats, kind: str) -> Floats:
    """Softmax of logits (n, C) for cross_entropy, else the sigmoid of each output; (n, 1) gives two columns.

    >>> probabilities(np.array([[0.0]], np.float32), "bce_with_logits").tolist()
    [[0.5, 0.5]]
    """
    z = outputs.astype(np.float64)
    if kind == "cross_entropy":
        e = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(e / e.sum(axis=1, keepdims=True), np.float32)
    # exp(-|z|) cannot overflow; 1 - s(z) = s(-z) keeps the smaller of the two exact
    small = np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z)))
    positive = np.where(z >= 0, 1 - small, small)
    if z.ndim == 2 and z.shape[1] == 1:
        positive = np.concatenate([np.where(z >= 0, small, 1 - small), positive], axis=1)
    return np.asarray(positive, np.float32)


def labels(outputs: Floats, kind: str) -> NDArray[np.int64]:
    """The first largest of (n, C) for cross_entropy, else whether each output is above 0; (n, 1) gives (n,).

    >>> labels(np.array([[0.1, 0.7], [2.0, 1.0]], np.float32), "cross_entropy").tolist()
    [1, 0]
    """
    if kind == "cross_entropy":
        return np.asarray(outputs.argmax(axis=1), np.int64)
    above = (outputs > 0).astype(np.int64)
    return above[:, 0] if above.ndim == 2 and above.shape[1] == 1 else above
