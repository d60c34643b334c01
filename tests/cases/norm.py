# SPDX-License-Identifier: Apache-2.0
"""Cases of LayerNorm, RMSNorm and BatchNorm: every tail, all optional operands present and all absent,
constant rows and columns, and offsets far larger than the spread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.cases import Fields, KernelCase

Array = np.ndarray
EPS = 1e-5


class Draw:
    """Standard normal arrays of one dtype; `opt` gives None instead where operands are to be absent."""

    def __init__(self, rng: np.random.Generator, dtype: type, full: bool) -> None:
        self.rng, self.dtype, self.full = rng, dtype, full

    def __call__(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def opt(self, *shape: int) -> Array | None:
        return self(*shape) if self.full else None


def _statistics(x: Array, axis: int) -> tuple[Array, Array]:
    wide = x.astype(np.float64)
    mean, rstd = wide.mean(axis=axis), 1 / np.sqrt(wide.var(axis=axis) + EPS)
    return mean.astype(x.dtype), rstd.astype(x.dtype)


def layer_norm_fwd(draw: Draw, x: Array) -> Fields:
    rows, cols = x.shape
    return dict(
        y=np.empty_like(x), mean=draw.opt(rows), rstd=draw.opt(rows), x=x,
        weight=draw.opt(cols), bias=draw.opt(cols), eps=EPS,
    )  # fmt: skip


def layer_norm_bwd(draw: Draw, x: Array) -> Fields:
    mean, rstd = _statistics(x, 1)
    dy, weight = draw(*x.shape), draw.opt(x.shape[1])
    residual = draw.opt(*x.shape)
    return dict(dx=np.empty_like(x), dy=dy, x=x, mean=mean, rstd=rstd, weight=weight, residual=residual)


def layer_norm_param_bwd(draw: Draw, x: Array) -> Fields:
    mean, rstd = _statistics(x, 1)
    cols = x.shape[1]
    return dict(dweight=draw.opt(cols), dbias=draw(cols), dy=draw(*x.shape), x=x, mean=mean, rstd=rstd)


def layer_norm_both_bwd(draw: Draw, x: Array) -> Fields:
    mean, rstd = _statistics(x, 1)
    rows, cols = x.shape
    partial = np.empty((-(-rows // 64), 2, cols), x.dtype)
    return dict(
        dx=np.empty_like(x), partial=partial, dy=draw(*x.shape), x=x, mean=mean, rstd=rstd, weight=draw.opt(cols)
    )  # fmt: skip


def rms_norm_fwd(draw: Draw, x: Array) -> Fields:
    rows, cols = x.shape
    return dict(y=np.empty_like(x), rstd=draw.opt(rows), x=x, weight=draw.opt(cols), eps=EPS)


def _root(x: Array) -> Array:
    return (1 / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1) + EPS)).astype(x.dtype)


def rms_norm_bwd(draw: Draw, x: Array) -> Fields:
    dy, weight, residual = draw(*x.shape), draw.opt(x.shape[1]), draw.opt(*x.shape)
    return dict(dx=np.empty_like(x), dy=dy, x=x, rstd=_root(x), weight=weight, residual=residual)


def rms_norm_param_bwd(draw: Draw, x: Array) -> Fields:
    return dict(dweight=draw(x.shape[1]), dy=draw(*x.shape), x=x, rstd=_root(x))


def batch_norm_fwd(draw: Draw, x: Array) -> Fields:
    cols = x.shape[1]
    running_var = np.abs(draw(cols)) if draw.full else None
    return dict(
        y=np.empty_like(x), mean=draw(cols), rstd=draw(cols), running_mean=draw.opt(cols),
        running_var=running_var, x=x, weight=draw.opt(cols), bias=draw.opt(cols), eps=EPS, momentum=0.1,
    )  # fmt: skip


def batch_norm_eval(draw: Draw, x: Array) -> Fields:
    cols = x.shape[1]
    return dict(
        y=np.empty_like(x), x=x, running_mean=draw(cols), running_var=np.abs(draw(cols)) + draw.dtype(0.1),
        weight=draw.opt(cols), bias=draw.opt(cols), eps=EPS,
    )  # fmt: skip


def batch_norm_bwd(draw: Draw, x: Array) -> Fields:
    mean, rstd = _statistics(x, 0)
    cols = x.shape[1]
    return dict(
        dx=np.empty_like(x), dweight=draw.opt(cols), dbias=draw.opt(cols), dy=draw(*x.shape), x=x,
        mean=mean, rstd=rstd, weight=draw.opt(cols),
    )  # fmt: skip


def _case(
    fields: Callable[[Draw, Array], Fields], rows: int, cols: int, full: bool, offset: float = 0.0,
    spread: float = 1.0,
) -> KernelCase:  # fmt: skip
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        draw = Draw(rng, dtype, full)
        x = (spread * draw(rows, cols) + offset).astype(dtype)
        return dict(rows=rows, cols=cols, **fields(draw, x))

    label = f"{rows}x{cols}{'' if full else ' bare'}"
    # x - mean: how far the mean is off depends on the order of its sum, which is the unit's own
    cancels = offset / spread if spread else 0.0
    return KernelCase(fields.__name__, f"{label} {offset:g}+-{spread:g}", make, cancels=cancels)


ROW_KERNELS = [
    layer_norm_fwd, layer_norm_bwd, layer_norm_param_bwd, layer_norm_both_bwd, rms_norm_fwd, rms_norm_bwd,
    rms_norm_param_bwd,
]  # fmt: skip
ROW_SHAPES = [(0, 4), (1, 3), (2, 7), (3, 8), (1, 9), (4, 16), (5, 17), (3, 33), (200, 64), (2, 1100),
              (130, 40)]  # fmt: skip
COLUMN_KERNELS = [batch_norm_fwd, batch_norm_eval, batch_norm_bwd]
COLUMN_SHAPES = [(4, 1), (3, 7), (5, 8), (64, 9), (65, 16), (33, 17), (130, 33), (300, 100)]

CASES = [
    *(
        _case(kernel, *shape, full)
        for kernel in ROW_KERNELS
        for shape in ROW_SHAPES
        for full in (True, False)
    ),
    *(
        _case(kernel, *shape, full)
        for kernel in COLUMN_KERNELS
        for shape in COLUMN_SHAPES
        for full in (True, False)
    ),
    _case(batch_norm_eval, 0, 5, full=True),
    _case(batch_norm_fwd, 0, 5, full=True),
    _case(batch_norm_fwd, 1, 9, full=True),
    # constant: the variance is 0; an offset of 64: variance of a small difference
    *(
        _case(kernel, 5, 19, full=True, offset=offset, spread=spread)
        for kernel in (layer_norm_fwd, rms_norm_fwd, batch_norm_fwd)
        for offset, spread in ((0.5, 0.0), (0.0, 0.0), (64.0, 1.0))
    ),
]
