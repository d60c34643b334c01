# SPDX-License-Identifier: Apache-2.0
"""The L2 term of scikit-learn's loss: alpha / 2 |W|^2 / (weights of the batch's rows), a mean over rows.

The native loop decays weights, which is this term's gradient, but does not sum it. It changes little within an epoch,
so that |W|^2 at both ends will do, unless that would show in the decisions made by the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


class Penalty:
    """The term of each epoch of a fit in batches of these ``sizes``, (batches,).

    ``every_batch``: whether the next epoch wants |W|^2 before each batch. So does the first, to see how fast it
    changes.
    """

    def __init__(self, estimator: Any, sizes: Doubles) -> None:
        self._alpha = 0.0 if estimator.solver == "adamw" else float(estimator.alpha)
        self._visible = 0.1 * estimator.tol
        self._sizes = sizes
        self._weights: Doubles | None = None  # that the shares are of
        self.every_batch = self._alpha > 0 and len(sizes) > 1

    def value(self, norms: Sequence[float], weights: Doubles) -> float:
        """The term, given |W|^2 before each batch and at the end, or at both ends only, and the weights of the
        batches' rows, (batches,)."""
        if not self._alpha:
            return 0.0
        if weights is not self._weights:
            self._share(weights)
        change = norms[-1] - norms[0]
        self.every_batch = len(weights) > 1 and abs(change) * self._total > self._visible
        if len(norms) == len(weights) + 1:
            return float(np.dot(norms[:-1], self._shares))
        return norms[0] * self._total + change * self._ramp

    def _share(self, weights: Doubles) -> None:
        shares = np.divide(self._sizes, weights, out=np.zeros(len(weights)), where=weights > 0)
        self._shares = shares * (0.5 * self._alpha / self._sizes.sum())
        self._total = float(self._shares.sum())
        self._ramp = float(self._shares @ np.arange(len(weights))) / len(weights)
        self._weights = weights
