# SPDX-License-Identifier: Apache-2.0
"""Cases of the optimisers: every tail and chunk boundary, each form of the update, and a step to skip."""

from __future__ import annotations

import numpy as np

from tests.cases import Fields, KernelCase

SIZES = [0, 1, 7, 8, 9, 33, 1000, 16384, 40001]


def scalars(skip: bool = False, step: int = 3, lr: float = 1e-2, weight_decay: float = 0.1) -> np.ndarray:
    """What optimizer_begin leaves for the kernels of step ``step`` (betas of Adam)."""
    corrections = 1 - 0.9**step, np.sqrt(1 - 0.999**step)
    return np.array([skip, lr, weight_decay, 0.5, *corrections, step, 2.0], dtype=np.float64)


def square_sum(n: int, scale: float = 1.0) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        x = (scale * rng.standard_normal(n)).astype(dtype)
        return dict(partial=np.empty(-(-n // 8192)), x=x, n=n)

    return KernelCase("square_sum", f"{n} x{scale:g}", make)


def optimizer_begin(
    label: str, *, total: float | None = None, clip_norm: float = 0.0, group: int = 0, n_counter: int = 1
) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        return dict(
            scalars=np.empty(8), counter=np.full(n_counter, 4, np.int64), n_counter=n_counter,
            total=None if total is None else np.array([total]),
            partial=rng.uniform(0, 9, 3) if clip_norm else None, n_partial=3 if clip_norm else 0,
            group=group, clip_norm=clip_norm, beta1=0.9, beta2=0.999,
        )  # fmt: skip

    return KernelCase("optimizer_begin", label, make)


def adam(n: int, decoupled: bool, skip: bool = False) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        param, exp_avg, grad = (rng.standard_normal(n).astype(dtype) for _ in range(3))
        return dict(
            param=param, exp_avg=exp_avg, exp_avg_sq=np.abs(rng.standard_normal(n)).astype(dtype), grad=grad,
            scalars=scalars(skip), n=n, decoupled=int(decoupled), beta1=0.9, beta2=0.999, eps=1e-8,
        )  # fmt: skip

    return KernelCase("adam", f"{n}{' decoupled' if decoupled else ''}{' skip' if skip else ''}", make)


def sgd(n: int, momentum: float, nesterov: bool, skip: bool = False) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        param, buffer, grad = (rng.standard_normal(n).astype(dtype) for _ in range(3))
        return dict(
            param=param, momentum_buffer=buffer if momentum else None, grad=grad, scalars=scalars(skip), n=n,
            nesterov=int(nesterov), momentum=momentum,
        )  # fmt: skip

    label = f"{n} momentum={momentum:g}{' nesterov' if nesterov else ''}{' skip' if skip else ''}"
    return KernelCase("sgd", label, make)


def rmsprop(n: int, momentum: float, skip: bool = False) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        param, buffer, grad = (rng.standard_normal(n).astype(dtype) for _ in range(3))
        return dict(
            param=param, square_avg=np.abs(rng.standard_normal(n)).astype(dtype),
            momentum_buffer=buffer if momentum else None, grad=grad, scalars=scalars(skip), n=n, alpha=0.99,
            eps=1e-8, momentum=momentum,
        )  # fmt: skip

    return KernelCase("rmsprop", f"{n} momentum={momentum:g}{' skip' if skip else ''}", make)


CASES = [
    *(square_sum(n) for n in (*SIZES, 8192, 8193)),
    square_sum(100, scale=1e25),
    optimizer_begin("plain"),
    optimizer_begin("second group", total=2.0, group=1),
    optimizer_begin("skip", total=0.0, n_counter=2),
    optimizer_begin("many parameters", n_counter=37),
    optimizer_begin("clipped", total=2.0, clip_norm=0.5),
    optimizer_begin("short of clipping", clip_norm=50.0),
    *(adam(n, decoupled) for n in SIZES for decoupled in (False, True)),
    *(
        sgd(n, momentum, nesterov)
        for n in SIZES
        for momentum, nesterov in ((0, False), (0.9, False), (0.9, True))
    ),
    *(rmsprop(n, momentum) for n in SIZES for momentum in (0, 0.9)),
    adam(20, decoupled=True, skip=True),
    sgd(20, 0.9, nesterov=False, skip=True),
    rmsprop(20, 0.9, skip=True),
]
