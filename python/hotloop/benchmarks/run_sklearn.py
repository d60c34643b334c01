# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's runner: `partial_fit`, which is one epoch in mini-batches, on float32.

It has Adam only, without AdamW's decoupled decay; its own L2 term is set to 0. First weights are put in after
a first call has made room for them.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

from hotloop.benchmarks.networks import LEARNING_RATE, Network, Weights


def prepare(contestant: str, threads: int | None) -> None:
    threadpool_limits(threads)  # of NumPy's and SciPy's BLAS; stays until the process ends


def make(network: Network, contestant: str, threads: int | None) -> SklearnRunner:
    return SklearnRunner(network)


class SklearnRunner:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.x, self.y = network.data()
        self.model: Any = self._model()

    def _model(self) -> Any:
        network = self.network
        kind = MLPRegressor if network.loss == "mse" else MLPClassifier
        return kind(
            hidden_layer_sizes=network.sizes[1:-1], activation=network.activation, solver="adam", alpha=0.0,
            batch_size=network.batch, learning_rate_init=LEARNING_RATE, random_state=0,
        )  # fmt: skip

    def _fit(self, model: Any, rows: int) -> None:
        if self.network.loss == "mse":
            model.partial_fit(self.x[:rows], self.y[:rows])
        else:
            model.partial_fit(self.x[:rows], self.y[:rows], classes=np.arange(self.network.sizes[-1]))

    def first_step(self) -> float:
        begin = time.perf_counter()
        self._fit(self.model, self.network.batch)
        return time.perf_counter() - begin

    def reset(self) -> None:
        if not hasattr(self.model, "coefs_"):
            self._fit(self.model, self.network.batch)
        weights = self.network.weights()
        if self._one_output:
            w, b = weights[-1]
            weights[-1] = w[:, 1:] - w[:, :1], b[1:] - b[:1]
        self.model.coefs_ = [w for w, _ in weights]
        self.model.intercepts_ = [b for _, b in weights]
        del self.model._optimizer  # partial_fit makes a new one, over these arrays

    def run(self, epochs: int, *, shuffle: bool) -> None:
        self.model.shuffle = shuffle
        for _ in range(epochs):
            self._fit(self.model, self.network.rows)

    def weights(self) -> Weights:
        pairs = zip(self.model.coefs_, self.model.intercepts_, strict=True)
        found = [(np.array(w, np.float32), np.array(b, np.float32)) for w, b in pairs]
        if self._one_output:  # softmax over (0, z) is the logistic function of z
            w, b = found[-1]
            found[-1] = np.hstack([np.zeros_like(w), w]), np.append(np.zeros_like(b), b)
        return found

    @property
    def _one_output(self) -> bool:
        """Of two classes it models the second only, with one logistic output."""
        return self.network.loss == "cross_entropy" and self.network.sizes[-1] == 2
