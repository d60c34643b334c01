# SPDX-License-Identifier: Apache-2.0
"""What one step of the optimisers computes, in float64 NumPy, as torch.optim defines it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt

from hotloop.reference import Context, reference

Array = npt.NDArray[np.float64]
_RUN = 8192  # elements of one partial sum


@reference("square_sum")
def square_sum(a: SimpleNamespace, ctx: Context) -> None:
    a.partial[:] = [float((run * run).sum()) for run in np.split(a.x, range(_RUN, a.n, _RUN)) if len(run)]


@reference("optimizer_begin")
def optimizer_begin(a: SimpleNamespace, ctx: Context) -> None:
    norm = math.sqrt(0.0 if a.partial is None else float(a.partial[: a.n_partial].sum()))
    ratio = a.clip_norm / (norm + 1e-6) if a.clip_norm else 1.0
    skip = a.total is not None and a.total[0] == 0
    if not skip:
        a.counter[: a.n_counter] += 1
    t = int(a.counter[0])
    lr, weight_decay = ctx.groups[a.group]
    c1, c2 = 1 - a.beta1**t, 1 - a.beta2**t
    a.scalars[:] = [skip, lr, weight_decay, 1.0 if ratio >= 1 else ratio, c1, math.sqrt(c2), t, norm]


def _gradient(a: SimpleNamespace, weight_decay: float) -> Array:
    gradient: Array = a.scalars[3] * a.grad + weight_decay * a.param
    return gradient


@reference("adam")
def adam(a: SimpleNamespace, ctx: Context) -> None:
    skip, lr, weight_decay, _, c1, root_c2 = a.scalars[:6]
    if skip:
        return
    g = _gradient(a, 0.0 if a.decoupled else weight_decay)
    if a.decoupled:
        a.param *= 1 - lr * weight_decay
    a.exp_avg[:] = a.beta1 * a.exp_avg + (1 - a.beta1) * g
    a.exp_avg_sq[:] = a.beta2 * a.exp_avg_sq + (1 - a.beta2) * g * g
    a.param -= (lr / c1) * a.exp_avg / (np.sqrt(a.exp_avg_sq) / root_c2 + a.eps)


@reference("sgd")
def sgd(a: SimpleNamespace, ctx: Context) -> None:
    skip, lr, weight_decay = a.scalars[:3]
    if skip:
        return
    g = _gradient(a, weight_decay)
    if a.momentum_buffer is not None:
        a.momentum_buffer[:] = a.momentum * a.momentum_buffer + g
        g = g + a.momentum * a.momentum_buffer if a.nesterov else a.momentum_buffer
    a.param -= lr * g


@reference("rmsprop")
def rmsprop(a: SimpleNamespace, ctx: Context) -> None:
    skip, lr, weight_decay = a.scalars[:3]
    if skip:
        return
    g = _gradient(a, weight_decay)
    a.square_avg[:] = a.alpha * a.square_avg + (1 - a.alpha) * g * g
    step = g / (np.sqrt(a.square_avg) + a.eps)
    if a.momentum_buffer is not None:
        a.momentum_buffer[:] = a.momentum * a.momentum_buffer + step
        step = a.momentum_buffer
    a.param -= lr * step
