# SPDX-License-Identifier: Apache-2.0
"""Kernels along rows and down columns: the cases of the CPU's kernels, sizes at the border of every way of
sharing out rows and columns, equal bits in every run, and the values that a careless formula spoils."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cases import Fields, KernelCase, loss, norm
from tests.gpu.kernel_harness import call_device, check_case, on_devices, run_device, with_cases
from tests.kernels.harness import SCHEMA, assert_same_bits, initial

Array = np.ndarray
SOFTMAX = ("softmax_fwd", "softmax_bwd", "log_softmax_fwd", "log_softmax_bwd")
NORMS = ("layer_norm_fwd", "layer_norm_bwd", "layer_norm_both_bwd", "rms_norm_fwd", "rms_norm_bwd")
COLUMNS = (
    "layer_norm_param_bwd",
    "rms_norm_param_bwd",
    "batch_norm_fwd",
    "batch_norm_eval",
    "batch_norm_bwd",
)
#: Columns at the border of every team of threads: lanes of a warp, warps, blocks that hold their row, blocks
#: that read it again; each with groups of four and without.
BORDERS = [1, 4, 5, 8, 9, 31, 32, 33, 64, 65, 127, 128, 129, 132, 256, 257, 260, 511, 512, 516, 1023, 1024, 1025,
           1028, 2052, 4099, 16384, 16387, 16388]  # fmt: skip
HELD_AT_MOST = 32768  # columns of a row that a block holds where a kernel has one operand


def _rows_of(cols: int) -> int:
    return 70 if cols < 40 else 5 if cols < 2000 else 2


def _softmax(kernel: str, rows: int, cols: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        x, y = (2 * rng.standard_normal((rows, cols))).astype(dtype), np.empty((rows, cols), dtype)
        if kernel.endswith("fwd"):
            return dict(y=y, x=x, rows=rows, cols=cols)
        p = rng.dirichlet(np.ones(cols), rows).astype(dtype)
        saved = np.log(p + dtype(1e-6)) if kernel.startswith("log") else p
        return dict(dx=y, dy=x, y=saved, rows=rows, cols=cols)

    return KernelCase(kernel, f"{rows}x{cols}", make)


def _norm(kernel: str, rows: int, cols: int, full: bool = True, offset: float = 0.0) -> KernelCase:
    fields: Callable[[norm.Draw, Array], Fields] = getattr(norm, kernel)

    def make(rng: np.random.Generator, dtype: type) -> Fields:
        draw = norm.Draw(rng, dtype, full)
        return dict(rows=rows, cols=cols, **fields(draw, draw(rows, cols) + dtype(offset)))

    return KernelCase(kernel, f"{rows}x{cols}{'' if full else ' bare'} at {offset:g}", make, cancels=offset)


def _checked(device: str, case: KernelCase, **how: Any) -> None:
    """As the reference; and the same bits from a second launch over what the first one left behind."""
    check_case(device, case, **how)
    start = initial(case, case.fields(np.float32))
    first, again = run_device(device, case, start, **how), run_device(device, case, start, times=2, **how)
    updated = {name for name, kind, _ in SCHEMA[case.kernel] if kind.startswith("InOut")}
    assert_same_bits(again, {k: v for k, v in first.items() if k not in updated}, "a second launch")


@on_devices
@with_cases(*SOFTMAX, *NORMS, *COLUMNS, "cross_entropy", *loss.LOSSES)
def test_like_the_reference(device: str, case: KernelCase) -> None:
    check_case(device, case)


@on_devices
@pytest.mark.parametrize("cols", [*BORDERS, HELD_AT_MOST, HELD_AT_MOST + 1, HELD_AT_MOST + 4])
@pytest.mark.parametrize("kernel", SOFTMAX)
def test_softmax_of_every_team(device: str, kernel: str, cols: int) -> None:
    _checked(device, _softmax(kernel, _rows_of(cols), cols))


@on_devices
@pytest.mark.parametrize("cols", [*BORDERS, HELD_AT_MOST, HELD_AT_MOST + 1, HELD_AT_MOST + 4])
@pytest.mark.parametrize(("probs", "smoothing"), [(False, 0.0), (False, 0.1), (True, 0.1)])
def test_cross_entropy_of_every_team(device: str, cols: int, probs: bool, smoothing: float) -> None:
    _checked(device, loss.cross_entropy(_rows_of(cols), cols, probs=probs, smoothing=smoothing))


@on_devices
@pytest.mark.parametrize("cols", [*BORDERS[:-3], 4096])
@pytest.mark.parametrize("kernel", loss.LOSSES)
def test_losses_of_every_team(device: str, kernel: str, cols: int) -> None:
    _checked(device, loss.loss(kernel, _rows_of(cols), cols, pos_weight=kernel == "bce_with_logits"))


@on_devices
@pytest.mark.parametrize("cols", BORDERS)
@pytest.mark.parametrize("kernel", NORMS)
def test_norms_of_every_team(device: str, kernel: str, cols: int) -> None:
    _checked(device, _norm(kernel, _rows_of(cols), cols, full=cols % 2 == 0))


#: (rows, cols): one block a tile and several; whole columns and two launches (512 rows); 64 rows of a partial.
MATRICES = [(1, 1), (7, 3), (64, 5), (65, 32), (300, 33), (511, 9), (512, 8), (513, 8), (513, 100), (700, 1),
            (1500, 2), (2100, 16), (900, 65), (20, 700)]  # fmt: skip


@on_devices
@pytest.mark.parametrize("shape", MATRICES, ids=str)
@pytest.mark.parametrize("kernel", [*COLUMNS, "layer_norm_both_bwd"])
def test_columns_of_every_plan(device: str, kernel: str, shape: tuple[int, int]) -> None:
    _checked(device, _norm(kernel, *shape, full=shape[0] % 2 == 0))


@on_devices
@pytest.mark.parametrize("shape", [(300, 40), (700, 12)], ids=str)
def test_a_large_offset_does_not_destroy_a_variance(device: str, shape: tuple[int, int]) -> None:
    """E[x^2] - E[x]^2 would be off by offset^2 eps: 100 times the variance in float32, here 1e-5. A first
    element far from all others must not matter either."""
    rows, cols = shape
    x = (1e4 + np.random.default_rng(4).standard_normal(shape)).astype(np.float32)
    for first in (x[0, 0], np.float32(0)):
        x[0] = first
        wide = x.astype(np.float64)
        for kernel, axis in (("batch_norm_fwd", 0), ("layer_norm_fwd", 1)):
            n = cols if axis == 0 else rows
            mean, rstd = np.empty(n, np.float32), np.empty(n, np.float32)
            given = {name: None if element else 0 for name, _, element in SCHEMA[kernel]}
            given |= dict(y=np.empty_like(x), mean=mean, rstd=rstd, x=x, rows=rows, cols=cols, eps=1e-5)
            call_device(device, kernel, given)
            np.testing.assert_allclose(rstd, 1 / np.sqrt(wide.var(axis=axis) + 1e-5), rtol=1e-5)
            np.testing.assert_allclose(mean, wide.mean(axis=axis), rtol=1e-6)


@on_devices
@pytest.mark.parametrize("shift", [4, 8])
@pytest.mark.parametrize("cols", [4, 12, 256, 2048])
def test_operands_may_lie_off_sixteen_bytes(device: str, cols: int, shift: int) -> None:
    cases = [_softmax(k, 5, cols) for k in SOFTMAX] + [_norm(k, 5, cols) for k in (*NORMS, *COLUMNS)]
    cases += [loss.loss(k, 5, cols) for k in loss.LOSSES]
    for case in (*cases, loss.cross_entropy(5, cols), loss.cross_entropy(5, cols, probs=True)):
        check_case(device, case, shift=shift)


def _special_rows(cols: int) -> Array:
    """Rows of logits: NaN, inf, a number beside -inf, nothing but -inf, huge, ordinary."""
    x = np.random.default_rng(8).standard_normal((6, cols)).astype(np.float32)
    x[0, cols // 2], x[1, cols - 1] = np.nan, np.inf
    x[2:4] = -np.inf
    x[2, cols // 3] = 2.5
    x[4] *= np.float32(1e30)
    return x


@on_devices
@pytest.mark.parametrize("cols", [3, 16, 100, 700, 3000, 20000, HELD_AT_MOST + 3])
def test_special_values_stay_in_their_row(device: str, cols: int) -> None:
    x, labels = _special_rows(cols), np.full(6, cols // 3, np.int32)
    for kernel in ("softmax_fwd", "log_softmax_fwd"):
        check_case(device, KernelCase(kernel, "special", lambda rng, dtype: dict(
            y=np.empty_like(x, dtype), x=x.astype(dtype), rows=6, cols=cols)))  # fmt: skip
    for probs in (None, np.full((6, cols), 1 / cols, np.float32)):
        check_case(device, KernelCase("cross_entropy", "special", lambda rng, dtype, probs=probs: dict(
            row_loss=np.empty(6, dtype), dlogits=np.empty_like(x, dtype), logits=x.astype(dtype),
            labels=labels if probs is None else None, probs=None if probs is None else probs.astype(dtype),
            drow=None, rows=6, cols=cols, label_smoothing=0.0)))  # fmt: skip


@on_devices
@pytest.mark.parametrize("cols", [4, 900, 5000, HELD_AT_MOST + 4])
@pytest.mark.parametrize("label", [-1, 2**31 - 1, -(2**31)])
def test_a_label_out_of_range_does_no_harm(device: str, label: int, cols: int) -> None:
    logits = np.random.default_rng(5).standard_normal((3, cols)).astype(np.float32)
    logits[1, 0] = np.nan

    def run(middle: int) -> tuple[Array, Array]:
        row_loss, dlogits = np.full(3, 7, np.float32), np.full_like(logits, 7)
        labels = np.array([1, middle, 2], np.int32)
        call_device(device, "cross_entropy", dict(
            row_loss=row_loss, dlogits=dlogits, logits=logits, labels=labels, probs=None, drow=None, rows=3,
            cols=cols, label_smoothing=0.1))  # fmt: skip
        return row_loss, dlogits

    row_loss, dlogits = run(label)
    fine = run(cols)  # one too many, as it were
    assert np.isnan(row_loss[1]) and not dlogits[1].any()
    assert np.isfinite(row_loss[[0, 2]]).all() and np.isfinite(dlogits[[0, 2]]).all()
    assert_same_bits(dict(loss=row_loss, d=dlogits), dict(loss=fine[0], d=fine[1]), "another wrong label")


@on_devices
@pytest.mark.parametrize("cols", [1, 2, 10, 33, 4096])
def test_equal_logits_are_exact(device: str, cols: int) -> None:
    x, y = np.full((3, cols), 2.5, np.float32), np.empty((3, cols), np.float32)
    call_device(device, "softmax_fwd", dict(y=y, x=x, rows=3, cols=cols))
    assert (y == np.float32(1) / np.float32(cols)).all()


@on_devices
@pytest.mark.parametrize("rows", [6, 600])
def test_constant_columns_become_the_bias(device: str, rows: int) -> None:
    bias = np.random.default_rng(3).standard_normal(9).astype(np.float32)
    given = {name: None if element else 0 for name, _, element in SCHEMA["batch_norm_fwd"]}
    y = np.empty((rows, 9), np.float32)
    given |= dict(
        y=y, mean=np.empty(9, np.float32), rstd=np.empty(9, np.float32), bias=bias, rows=rows, cols=9
    )
    call_device(device, "batch_norm_fwd", given | dict(x=np.full((rows, 9), 0.75, np.float32), eps=1e-5))
    assert (y == bias).all()
