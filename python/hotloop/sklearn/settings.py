# SPDX-License-Identifier: Apache-2.0
"""Checks of an estimator's parameters, made when it is fitted: scikit-learn's ranges, our messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from hotloop import schedules
from hotloop.arguments import choice, count, number, rate
from hotloop.runtime.device import check_device
from hotloop.sklearn.network import ACTIVATIONS

SOLVERS = ("lbfgs", "sgd", "adam", "adamw")


def hidden_sizes(estimator: Any) -> list[int]:
    """The sizes of the hidden layers. Raises `ValueError` or `TypeError`."""
    given = estimator.hidden_layer_sizes
    sizes: Iterable[Any] = given if isinstance(given, (list, tuple, np.ndarray)) else [given]
    return [count(_name(estimator), "hidden_layer_sizes", size, low=1) for size in sizes]


def check_settings(estimator: Any) -> None:
    """Raises `ValueError` or `TypeError` for a parameter that cannot work, `DeviceError` for a device."""
    est, where = estimator, _name(estimator)
    choice(where, "activation", est.activation, ACTIVATIONS)
    choice(where, "solver", est.solver, SOLVERS)
    choice(where, "learning_rate", est.learning_rate, ("constant", "invscaling", "adaptive"))
    choice(where, "dtype", est.dtype, ("auto", "float32", "float64"))
    check_device(est.device, where)
    if est.dtype == "float64" and est.device not in ("auto", "cpu"):
        raise ValueError(
            f"[{where}] dtype='float64' runs on the CPU only, got device={est.device!r}; use dtype='float32'"
        )
    for name in ("alpha", "power_t", "tol"):
        number(where, name, getattr(est, name), low=0)
    for name in ("learning_rate_init", "epsilon"):
        if number(where, name, getattr(est, name), low=0) == 0:
            raise ValueError(f"[{where}] {name} must be > 0, got 0")
    for name in ("beta_1", "beta_2", "validation_fraction", "dropout"):
        rate(where, name, getattr(est, name))
    number(where, "momentum", est.momentum, low=0, high=1)
    for name in ("max_iter", "max_fun"):
        count(where, name, getattr(est, name), low=1)
    if est.n_iter_no_change != np.inf:
        count(where, "n_iter_no_change", est.n_iter_no_change, low=1)
    if not (isinstance(est.batch_size, str) and est.batch_size == "auto"):
        count(where, "batch_size", est.batch_size, low=1)
    for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
        if not isinstance(getattr(est, name), (bool, np.bool_)):
            raise TypeError(f"[{where}] {name} must be True or False, got {getattr(est, name)!r:.80}")
    if est.n_jobs is not None:
        check_jobs(where, est.n_jobs)
    _check_schedule(est, where)
    if est.solver == "lbfgs" and est.dropout:
        raise ValueError(
            f"[{where}] dropout={est.dropout:g} makes the loss random, which solver='lbfgs' cannot follow; use "
            "solver='adam', 'adamw' or 'sgd'"
        )


def check_jobs(where: str, n_jobs: Any) -> None:
    """Raises `TypeError` or `ValueError` unless it is a whole number other than 0."""
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, (int, np.integer)):
        raise TypeError(f"[{where}] n_jobs must be None or a whole number, got {n_jobs!r:.80}")
    if n_jobs == 0:
        raise ValueError(f"[{where}] n_jobs must not be 0; use 1 for one thread, -1 for all processors")


def _check_schedule(est: Any, where: str) -> None:
    if est.schedule is None:
        return
    schedules.resolve(est.schedule)
    if est.solver == "lbfgs":
        raise ValueError(f"[{where}] schedule is for solvers with a learning rate, got solver='lbfgs'")
    if est.solver == "sgd" and est.learning_rate != "constant":
        raise ValueError(
            f"[{where}] schedule and learning_rate={est.learning_rate!r} both change the rate; leave one out"
        )


def _name(estimator: Any) -> str:
    return type(estimator).__name__
