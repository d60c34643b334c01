# SPDX-License-Identifier: Apache-2.0
"""The solver "lbfgs": SciPy's L-BFGS-B in float64 over native gradients of all rows.

The gradients are float32, the loss is summed in double. SciPy's vector is the flat parameter buffer, gaps
included: they are zero and stay so.
"""

from __future__ import annotations

import functools
import threading
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController

from hotloop.runtime.parallel import stop_flag
from hotloop.sklearn.callbacks import Tasks
from hotloop.sklearn.network import Network
from hotloop.sklearn.objective import Objective
from hotloop.sklearn.stochastic import Rows, make_engine

Doubles = NDArray[np.float64]

#: Rows of a native batch: their activations stay within the caches, and a batch fills every thread.
BATCH_ROWS = 1024


def run_lbfgs(estimator: Any, network: Network, objective: Objective, train: Rows, tasks: Tasks) -> None:
    """Minimise the loss of all rows; sets ``n_iter_`` and ``loss_``. Callbacks see each iteration.

    Warns (`ConvergenceWarning`) where SciPy ends otherwise than by its tolerances."""
    est = estimator
    memory = network.session.memory
    with stop_flag() as stop, _ONE_BLAS_THREAD:
        loss = _Loss(network, objective, train, float(est.alpha), stop)

        def each(x: Doubles) -> None:
            est.n_iter_ += 1
            memory.native.parameters[...] = x
            if tasks.end():
                raise StopIteration
            tasks.begin()

        est.n_iter_ = 0
        tasks.begin()
        found = minimize(
            loss, memory.native.parameters.astype(np.float64), method="L-BFGS-B", jac=True, callback=each,
            options={"maxfun": est.max_fun, "maxiter": est.max_iter, "gtol": est.tol},
        )  # fmt: skip
    memory.native.parameters[...] = found.x
    est.n_iter_ = min(int(found.nit), est.max_iter)
    est.loss_ = float(found.fun)
    if est.verbose:
        print(f"Iterations {est.n_iter_}, loss = {est.loss_:.8f}: {found.message}")
    if found.status not in (0, 99):  # 99: a callback stopped it
        warnings.warn(
            f"[fit] lbfgs ended after {est.n_iter_} iterations (status {found.status}): {found.message}; increase "
            "max_iter, scale the data, or take dtype='float64'",
            ConvergenceWarning,
            stacklevel=2,
        )


class _OneBlasThread:
    """While any fit is inside, SciPy's BLAS has one thread: its vectors are short, and threads that wait for the next
    one keep our own off the processors. Counted, because fits run side by side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit = _pools().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.restore_original_limits()


@functools.cache
def _pools() -> Any:
    return ThreadpoolController()  # milliseconds: it looks at every loaded library


_ONE_BLAS_THREAD = _OneBlasThread()


class _Loss:
    """(loss, gradient) in double at a vector of parameters, both with the L2 term."""

    def __init__(self, network: Network, objective: Objective, train: Rows, alpha: float, stop: Any) -> None:
        self.memory, self.objective, self.stop = network.session.memory, objective, stop
        n = len(train)
        batch = min(n, BATCH_ROWS)
        engine = make_engine(network, objective, accumulate=-(-n // batch))
        self.train_pass = engine.prepare(train.data(network.input, objective), batch, shuffle=False, run=0)
        plan = self.train_pass.executable.plan
        self.table = network.session.params_table(plan, network.graph, (0.0,))  # the update changes nothing
        self.end = network.n_weights
        total = n if train.weight is None else float(train.weight.astype(np.float64).sum())
        self.alpha = alpha / total

    def __call__(self, x: Doubles) -> tuple[float, Doubles]:
        self.memory.native.parameters[...] = x
        _, status = self.train_pass.run(0, self.table, self.stop, None)
        if status == "stopped" or self.stop.is_set():
            raise KeyboardInterrupt
        gradient = self.memory.native.gradients.astype(np.float64)
        gradient /= self.objective.gradient
        weights = x[: self.end]
        gradient[: self.end] += self.alpha * weights
        loss = self.train_pass.metrics()["loss"] * self.objective.value
        return loss + 0.5 * self.alpha * float(np.square(weights).sum()), gradient
