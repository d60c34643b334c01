# SPDX-License-Identifier: Apache-2.0
"""What LayerNorm, RMSNorm and BatchNorm compute, in float64 NumPy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import numpy.typing as npt

from hotloop.reference import Context, reference

Array = npt.NDArray[np.float64]


def _rows(a: SimpleNamespace, *names: str) -> list[Array]:
    """Matrices (rows, cols), and for the statistics of rows, columns (rows, 1)."""
    return [getattr(a, name).reshape(a.rows, -1 if a.rows else 1) for name in names]


def _or_one(weight: Array | None) -> Array | float:
    return 1.0 if weight is None else weight


def _or_zero(bias: Array | None) -> Array | float:
    return 0.0 if bias is None else bias


def _residual(a: SimpleNamespace) -> Array | float:
    return 0.0 if a.residual is None else _rows(a, "residual")[0]


def _store(out: Array | None, value: Array) -> None:
    if out is not None:
        out[:] = value.ravel()


@reference("layer_norm_fwd")
def layer_norm_fwd(a: SimpleNamespace, ctx: Context) -> None:
    (x,) = _rows(a, "x")
    mean = x.mean(axis=1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axis=1, keepdims=True) + a.eps)
    _store(a.y, (x - mean) * rstd * _or_one(a.weight) + _or_zero(a.bias))
    _store(a.mean, mean)
    _store(a.rstd, rstd)


@reference("layer_norm_bwd")
def layer_norm_bwd(a: SimpleNamespace, ctx: Context) -> None:
    dy, x, mean, rstd = _rows(a, "dy", "x", "mean", "rstd")
    g = dy * _or_one(a.weight)
    hat = (x - mean) * rstd
    mean_g = g.mean(axis=1, keepdims=True)
    mean_gh = (g * hat).mean(axis=1, keepdims=True)
    _store(a.dx, rstd * (g - mean_g - hat * mean_gh) + _residual(a))


@reference("layer_norm_param_bwd")
def layer_norm_param_bwd(a: SimpleNamespace, ctx: Context) -> None:
    dy, x, mean, rstd = _rows(a, "dy", "x", "mean", "rstd")
    _store(a.dweight, (dy * (x - mean) * rstd).sum(axis=0))
    _store(a.dbias, dy.sum(axis=0))


@reference("layer_norm_both_bwd")
def layer_norm_both_bwd(a: SimpleNamespace, ctx: Context) -> None:
    a.residual = None
    layer_norm_bwd(a, ctx)
    dy, x, mean, rstd = _rows(a, "dy", "x", "mean", "rstd")
    hat = (x - mean) * rstd
    sums = [np.stack([(dy * hat)[i : i + 64].sum(0), dy[i : i + 64].sum(0)]) for i in range(0, a.rows, 64)]
    _store(a.partial, np.array(sums))


@reference("rms_norm_fwd")
def rms_norm_fwd(a: SimpleNamespace, ctx: Context) -> None:
    (x,) = _rows(a, "x")
    rstd = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + a.eps)
    _store(a.y, x * rstd * _or_one(a.weight))
    _store(a.rstd, rstd)


@reference("rms_norm_bwd")
def rms_norm_bwd(a: SimpleNamespace, ctx: Context) -> None:
    dy, x, rstd = _rows(a, "dy", "x", "rstd")
    g = dy * _or_one(a.weight)
    hat = x * rstd
    _store(a.dx, rstd * (g - hat * (g * hat).mean(axis=1, keepdims=True)) + _residual(a))


@reference("rms_norm_param_bwd")
def rms_norm_param_bwd(a: SimpleNamespace, ctx: Context) -> None:
    dy, x, rstd = _rows(a, "dy", "x", "rstd")
    _store(a.dweight, (dy * x * rstd).sum(axis=0))


@reference("batch_norm_fwd")
def batch_norm_fwd(a: SimpleNamespace, ctx: Context) -> None:
    x = a.x.reshape(a.rows, a.cols)
    count = max(a.rows, 1)
    mean = x.sum(axis=0) / count
    var = ((x - mean) ** 2).sum(axis=0) / count
    rstd = 1 / np.sqrt(var + a.eps)
    _store(a.y, (x - mean) * rstd * _or_one(a.weight) + _or_zero(a.bias))
    _store(a.mean, mean)
    _store(a.rstd, rstd)
    if a.rows == 0:
        return
    unbiased = var * count / max(count - 1, 1)
    for running, batch in ((a.running_mean, mean), (a.running_var, unbiased)):
        if running is not None:
            running[:] = (1 - a.momentum) * running + a.momentum * batch


@reference("batch_norm_eval")
def batch_norm_eval(a: SimpleNamespace, ctx: Context) -> None:
    x = a.x.reshape(a.rows, a.cols)
    hat = (x - a.running_mean) / np.sqrt(a.running_var + a.eps)
    _store(a.y, hat * _or_one(a.weight) + _or_zero(a.bias))


@reference("batch_norm_bwd")
def batch_norm_bwd(a: SimpleNamespace, ctx: Context) -> None:
    dy, x = (v.reshape(a.rows, a.cols) for v in (a.dy, a.x))
    hat = (x - a.mean) * a.rstd
    dbias, dweight = dy.sum(axis=0), (dy * hat).sum(axis=0)
    count = max(a.rows, 1)
    _store(a.dx, _or_one(a.weight) * a.rstd * (dy - dbias / count - hat * dweight / count))
    _store(a.dweight, dweight)
    _store(a.dbias, dbias)
