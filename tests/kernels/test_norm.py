# SPDX-License-Identifier: Apache-2.0
"""Norms beyond the formulas: gradients against differences, running statistics over batches, constant rows,
large offsets, and bits that depend neither on other rows nor on other columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.kernels.native import run, same_bits, units

Array = np.ndarray
EPS = 1e-5


def _layer_norm(isa: str, x: Array, weight: Array | None = None, bias: Array | None = None) -> Any:
    rows, cols = x.shape
    mean, rstd = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    return run(
        "layer_norm_fwd", isa, y=np.empty_like(x), mean=mean, rstd=rstd, x=x, weight=weight, bias=bias,
        rows=rows, cols=cols, eps=EPS,
    )  # fmt: skip


def _rms_norm(isa: str, x: Array, weight: Array) -> Any:
    rows, cols = x.shape
    rstd = np.empty(rows, x.dtype)
    return run(
        "rms_norm_fwd", isa, y=np.empty_like(x), rstd=rstd, x=x, weight=weight, rows=rows, cols=cols, eps=EPS
    )


def _batch_norm(
    isa: str, x: Array, weight: Array | None = None, bias: Array | None = None, **running: Any
) -> Any:
    rows, cols = x.shape
    mean, rstd = np.empty(cols, x.dtype), np.empty(cols, x.dtype)
    return run(
        "batch_norm_fwd", isa, y=np.empty_like(x), mean=mean, rstd=rstd, x=x, weight=weight, bias=bias,
        rows=rows, cols=cols, eps=EPS, **running,
    )  # fmt: skip


def _difference(f: Callable[[Array], Array], x: Array, dy: Array, h: float = 1e-6) -> Array:
    """Gradient of sum(f(x) * dy) with respect to x by central differences."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        gradient[i] = ((f(x + step) - f(x - step)) * dy).sum() / (2 * h)
    return gradient


def _problem(rows: int = 5, cols: int = 4) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(1)
    return tuple(rng.standard_normal(shape) for shape in ((rows, cols), (rows, cols), cols, cols))  # type: ignore[return-value]


def test_layer_norm_gradients_are_the_differences() -> None:
    x, dy, weight, bias = _problem()
    f = _layer_norm("generic", x, weight, bias)
    given = dict(dy=dy, x=x, mean=f.mean, rstd=f.rstd, rows=5, cols=4)
    dx = run("layer_norm_bwd", "generic", dx=np.empty_like(x), weight=weight, residual=None, **given).dx
    d = run("layer_norm_param_bwd", "generic", dweight=np.empty(4), dbias=np.empty(4), **given)
    expected = _difference(lambda v: _layer_norm("generic", v, weight, bias).y, x, dy)
    np.testing.assert_allclose(dx, expected, atol=1e-8)
    expected = _difference(lambda v: _layer_norm("generic", x, v, bias).y, weight, dy)
    np.testing.assert_allclose(d.dweight, expected, atol=1e-8)
    np.testing.assert_allclose(d.dbias, dy.sum(axis=0), atol=1e-14)


def test_rms_norm_gradients_are_the_differences() -> None:
    x, dy, weight, _ = _problem()
    rstd = _rms_norm("generic", x, weight).rstd
    given = dict(dy=dy, x=x, rstd=rstd, rows=5, cols=4)
    dx = run("rms_norm_bwd", "generic", dx=np.empty_like(x), weight=weight, residual=None, **given).dx
    dweight = run("rms_norm_param_bwd", "generic", dweight=np.empty(4), **given).dweight
    expected = _difference(lambda v: _rms_norm("generic", v, weight).y, x, dy)
    np.testing.assert_allclose(dx, expected, atol=1e-8)
    expected = _difference(lambda v: _rms_norm("generic", x, v).y, weight, dy)
    np.testing.assert_allclose(dweight, expected, atol=1e-8)


def test_batch_norm_gradients_are_the_differences() -> None:
    x, dy, weight, bias = _problem()
    f = _batch_norm("generic", x, weight, bias)
    d = run(
        "batch_norm_bwd", "generic", dx=np.empty_like(x), dweight=np.empty(4), dbias=np.empty(4), dy=dy, x=x,
        mean=f.mean, rstd=f.rstd, weight=weight, rows=5, cols=4,
    )  # fmt: skip
    expected = _difference(lambda v: _batch_norm("generic", v, weight, bias).y, x, dy)
    np.testing.assert_allclose(d.dx, expected, atol=1e-8)
    expected = _difference(lambda v: _batch_norm("generic", x, v, bias).y, weight, dy)
    np.testing.assert_allclose(d.dweight, expected, atol=1e-8)
    np.testing.assert_allclose(d.dbias, dy.sum(axis=0), atol=1e-14)


@units
def test_running_statistics_follow_torch(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(2)
    mean, var = np.zeros(11, dtype), np.ones(11, dtype)
    expected_mean, expected_var = np.zeros(11), np.ones(11)
    for rows in (4, 9, 70):
        x = (3 + 2 * rng.standard_normal((rows, 11))).astype(dtype)
        _batch_norm(isa, x, running_mean=mean, running_var=var, momentum=0.1)
        expected_mean += 0.1 * (x.mean(axis=0, dtype=np.float64) - expected_mean)
        expected_var += 0.1 * (x.var(axis=0, ddof=1, dtype=np.float64) - expected_var)
    np.testing.assert_allclose(mean, expected_mean, rtol=20 * np.finfo(dtype).eps)
    np.testing.assert_allclose(var, expected_var, rtol=20 * np.finfo(dtype).eps)


@units
def test_constant_rows_and_columns_become_the_bias(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(3)
    weight, bias = rng.standard_normal(9).astype(dtype), rng.standard_normal(9).astype(dtype)
    x = np.full((6, 9), 0.75, dtype)  # sums of 0.75 are exact
    assert same_bits(_layer_norm(isa, x, weight, bias).y, np.tile(bias, (6, 1)))
    assert same_bits(_batch_norm(isa, x, weight, bias).y, np.tile(bias, (6, 1)))


@units
def test_a_large_offset_does_not_destroy_the_variance(isa: str, dtype: type) -> None:
    """E[x^2] - E[x]^2 would be off by offset^2 eps: 100 times the variance in float32, here 1e-5."""
    x = (1e4 + np.random.default_rng(4).standard_normal((300, 40))).astype(dtype)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(_layer_norm(isa, x).rstd, 1 / np.sqrt(wide.var(axis=1) + EPS), rtol=1e-5)
    np.testing.assert_allclose(_batch_norm(isa, x).rstd, 1 / np.sqrt(wide.var(axis=0) + EPS), rtol=1e-5)


@pytest.mark.parametrize("cols", [1, 7, 16, 33, 1100])
@units
def test_a_row_has_the_same_bits_in_any_batch(isa: str, dtype: type, cols: int) -> None:
    rng = np.random.default_rng(5)
    x, weight = rng.standard_normal((40, cols)).astype(dtype), rng.standard_normal(cols).astype(dtype)
    for norm in (_layer_norm, _rms_norm):
        whole = norm(isa, x, weight).y
        for at in (slice(0, 1), slice(11, 12), slice(3, 38)):
            assert same_bits(whole[at].copy(), norm(isa, x[at].copy(), weight).y)


@units
def test_a_column_has_the_same_bits_beside_any_others(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(6)
    rows, cols = 200, 150  # several blocks of columns, several runs of rows
    x, dy = (rng.standard_normal((rows, cols)).astype(dtype) for _ in range(2))
    mean, rstd = (rng.uniform(0.5, 1, rows).astype(dtype) for _ in range(2))

    def results(at: slice) -> list[Array]:
        part, upstream = x[:, at].copy(), dy[:, at].copy()
        n = part.shape[1]
        given = dict(dy=upstream, x=part, mean=mean, rstd=rstd, rows=rows, cols=n)
        empty = dict(dweight=np.empty(n, dtype), dbias=np.empty(n, dtype))
        d = run("layer_norm_param_bwd", isa, **empty, **given)
        f = _batch_norm(isa, part)
        total = run("reduce_sum", isa, out=np.empty(n, dtype), x=part, outer=1, reduce=rows, inner=n).out
        return [d.dweight, d.dbias, f.mean, f.rstd, total]

    whole = results(slice(0, cols))
    for at in (slice(0, 2), slice(5, 12), slice(17, 49), slice(120, 150)):
        assert all(same_bits(w[at].copy(), r) for w, r in zip(whole, results(at), strict=True))
