# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's losses in terms of ours.

Ours are means over a row's outputs, scikit-learn's gradients are sums over them. Multiplying a gradient by a
number is the same as changing rates, decay and epsilon (see rates.py), so no loss needs a kernel of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Union

import numpy as np
from numpy.typing import NDArray

from hotloop.compile.plan import LossSpec
from hotloop.losses import MSE, BCEWithLogits, CallableLoss, CrossEntropy

Array = NDArray[Any]


@dataclass(frozen=True)
class Objective:
    """``kind``: of the target. Our gradient is ``gradient`` times scikit-learn's, and scikit-learn's value of
    the loss ``value`` times ours."""

    loss: Union[LossSpec, CallableLoss]
    kind: Literal["index", "real"]
    gradient: float = 1.0
    value: float = 1.0


def log_loss(n_outputs: int, *, multiclass: bool, label_smoothing: float) -> Objective:
    """Softmax cross-entropy of class indices, or a sum of binary ones, one for each of the outputs."""
    if multiclass:
        return Objective(CrossEntropy(label_smoothing).spec(n_outputs=n_outputs), "index")
    return Objective(BCEWithLogits().spec(n_outputs=n_outputs), "real", 1.0 / n_outputs, n_outputs)


def squared_error(n_outputs: int) -> Objective:
    """Half the squared error; its value a mean over the outputs, its gradient that of the sum."""
    return Objective(MSE().spec(), "real", 2.0 / n_outputs, 0.5)


def poisson() -> Objective:
    """Half the Poisson deviance of ``exp(output)``, summed over the outputs."""
    return Objective(CallableLoss(_poisson, "poisson"), "real")


def _poisson(output: Array, target: Array) -> tuple[Array, Array]:
    """l = sum_j (p - t log p + t log t - t) with p = exp(z);  dl/dz = p - t"""
    z, t = output.astype(np.float64), target.astype(np.float64)
    with np.errstate(over="ignore"):  # infinite: the run ends as one that diverged
        mean = np.exp(z)
    constant = t * np.log(np.where(t > 0, t, 1.0)) - t
    gradient: Array = (mean - t).astype(output.dtype)
    return (mean - t * z + constant).sum(axis=1), gradient
