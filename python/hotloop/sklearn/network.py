# SPDX-License-Identifier: Apache-2.0
"""The network behind an estimator: a module, its session, and scikit-learn's view of its weights.

`coefs` and `intercepts` are views of native memory, transposed because our matrices are (out, in). What an
estimator's owner puts in their place is copied in before the next use.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop import nn
from hotloop.engine import native
from hotloop.optim import SGD, Optimizer
from hotloop.runtime.device import first_kind
from hotloop.runtime.session import DType, Session

Array = NDArray[Any]

_ACTIVATIONS: dict[str, type[nn.Module] | None] = {
    "identity": None, "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU,
}  # fmt: skip
ACTIVATIONS = tuple(_ACTIVATIONS)


def draw_weights(
    units: Sequence[int], activation: str, rng: np.random.RandomState, real: Any
) -> tuple[list[Array], list[Array]]:
    """Weights (in, out) and biases (out,) of each layer, from Glorot and Bengio's (2010) uniform
    distribution with scikit-learn's bounds: sqrt(6 / (in + out)), or sqrt(2 / (in + out)) for "logistic".
    Drawn in scikit-learn's order, so that a seed begins with the same weights there and here."""
    coefs, intercepts = [], []
    for n_in, n_out in pairwise(units):
        bound = np.sqrt((2.0 if activation == "logistic" else 6.0) / (n_in + n_out))
        coefs.append(rng.uniform(-bound, bound, (n_in, n_out)).astype(real))
        intercepts.append(rng.uniform(-bound, bound, n_out).astype(real))
    return coefs, intercepts


class Network:
    """A multi-layer perceptron with the given weights, and in their dtype, ready to train and to predict.

    One call at a time: others wait, because scikit-learn's tools may predict from several threads.
    """

    def __init__(
        self, coefs: Sequence[Array], intercepts: Sequence[Array], activation: str, *,
        dropout: float = 0.0, optimizer: Optimizer | None = None, seed: int = 0, threads: int | None = None,
        device: str = "auto",
    ) -> None:  # fmt: skip
        self.lock = threading.RLock()
        self.units = (len(coefs[0]), *(len(b) for b in intercepts))
        self._linears = [_linear(w, b) for w, b in zip(coefs, intercepts, strict=True)]
        real: DType = "float64" if coefs[0].dtype == np.float64 else "float32"
        self.session = Session(
            _chain(self._linears, activation, dropout), optimizer or SGD(0.0), seed=seed, threads=threads,
            dtype=real, where=first_kind(device),
        )  # fmt: skip
        row = np.empty((1, self.units[0]), real)
        self.graph = self.session.graph_for({"x": row}, "fit")
        self.input = self.graph.inputs[0][0]
        self.coefs: list[Array] = [linear.weight.data.T for linear in self._linears]
        self.intercepts: list[Array] = [_bias(linear) for linear in self._linears]
        if real == "float64":
            self.take(coefs, intercepts)  # which a module holds in float32

    def take(self, coefs: Sequence[Array], intercepts: Sequence[Array]) -> None:
        """Copy in what is not our own view. Raises `ValueError` if a shape differs."""
        for ours, given in zip((*self.coefs, *self.intercepts), (*coefs, *intercepts), strict=True):
            if given is not ours:
                ours[...] = given

    def predict(self, X: Array) -> Array:
        """Raw outputs (n, outputs) of X (n, features) of the session's dtype."""
        with self.lock, self.session.entered("predict"):
            return self.outputs(X)

    def outputs(self, X: Array) -> Array:
        """As `predict`, for who has entered the session."""
        return native.predict(self.session, self.graph, {self.input: X})

    @cached_property
    def n_weights(self) -> int:
        """Where the weights end in the flat parameters: biases stand behind them (compile/layout.py)."""
        entries = self.session.memory.layout.entries
        return next(e.offset for e in entries if len(e.shape) == 1)

    def square_norm(self) -> float:
        """The sum of the squared weights, biases left out; infinite if it overflows."""
        weights = self.session.memory.native.parameters[: self.n_weights]
        with np.errstate(over="ignore", invalid="ignore"):  # and no dot, which may wake the threads of a BLAS
            return float(np.square(weights).sum(dtype=np.float64))


def _linear(weight: Array, bias: Array) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    layer.weight = nn.Parameter(np.ascontiguousarray(weight.T, np.float32))
    layer.bias = nn.Parameter(np.asarray(bias, np.float32))
    return layer


def _bias(linear: nn.Linear) -> Array:
    assert linear.bias is not None  # `_linear` made one
    return linear.bias.data


def _chain(linears: Sequence[nn.Linear], activation: str, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    between = _ACTIVATIONS[activation]
    for linear in linears:
        layers.append(linear)
        if linear is not linears[-1]:
            layers += [] if between is None else [between()]
            layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)
