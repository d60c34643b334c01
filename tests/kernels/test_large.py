# SPDX-License-Identifier: Apache-2.0
"""Outputs so large that they go past the caches, and column sums that one thread makes in one go: the bits are those
of parts of the same array, wherever it begins. The cases of the other tests are too small for both."""

from __future__ import annotations

import numpy as np
import pytest

from hotloop import _core
from tests.kernels.harness import Fields, call

#: 12 MB of float32 and a ragged rest; the arrays begin 16 bytes behind a cache line, as malloc's do, or at one.
ROWS, COLS = 3100, 1026
PARTS = 4  # each below 12 MB
OFFSETS = (0, 4)
LAYER = 1  # of the context's dropout rates


def placed(values: np.ndarray, offset: int) -> np.ndarray:
    """A copy whose first element is ``offset`` behind the beginning of a cache line."""
    raw = np.empty(values.size + 32, np.float32)
    begin = -raw.ctypes.data % 64 // 4 + offset
    copy = raw[begin : begin + values.size]
    copy[:] = values.ravel()
    return copy


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unary() -> tuple[dict[str, np.ndarray], Fields]:
    return {"y": np.zeros((ROWS, COLS)), "x": numbers(0, ROWS, COLS)}, {"p0": 0.5, "p1": 0.5}


def unary_grad(layer: int) -> tuple[dict[str, np.ndarray], Fields]:
    arrays = {"dx": np.zeros((ROWS, COLS)), "dy": numbers(1, ROWS, COLS), "saved": numbers(0, ROWS, COLS)}
    return arrays, {"p0": 0.5, "p1": 0.5, "dropout": layer, "dropout_row": COLS}


def binary() -> tuple[dict[str, np.ndarray], Fields]:
    arrays = {"out": np.zeros((ROWS, COLS)), "a": numbers(0, ROWS, COLS), "b": numbers(1, ROWS, COLS)}
    strides = {f"{letter}{i}": int(i == 3) for letter in "ab" for i in range(4)}
    return arrays, {"d0": 1, "d1": 1, "d2": 1, **strides}


WORKS = {
    "relu_fwd": unary(),
    "silu_fwd": unary(),
    "gelu_fwd": unary(),
    "tanh_fwd": unary(),
    "silu_bwd": unary_grad(-1),
    "relu_bwd": unary_grad(LAYER),
    "dropout": (
        {"y": np.zeros((ROWS, COLS)), "x": numbers(0, ROWS, COLS)},
        {"dropout": LAYER, "dropout_row": COLS},
    ),
    "add": binary(),
    "fill": ({"out": np.zeros((ROWS, COLS))}, {"value": 1.5}),
}


def elements(kernel: str, fields: Fields, rows: int) -> Fields:
    return {**fields, "d3" if kernel == "add" else "n": rows * COLS}


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("kernel", WORKS)
def test_a_large_output_has_the_bits_of_its_parts(kernel: str, isa: str, offset: int) -> None:
    arrays, fields = WORKS[kernel]
    out = next(iter(arrays))
    whole = {name: placed(values, offset) for name, values in arrays.items()}
    call(kernel, {**whole, **elements(kernel, fields, ROWS)}, isa)
    if fields.get("dropout", -1) >= 0:  # its mask counts from the first element of a call
        other = {name: placed(values, 1) for name, values in arrays.items()}
        other[out] = other["dy" if kernel == "relu_bwd" else "x"]  # in place nothing goes past the caches
        call(kernel, {**other, **elements(kernel, fields, ROWS)}, isa)
        dropped = float((whole["x" if kernel == "dropout" else "saved"][whole[out] == 0] > 0).mean())
        assert dropped > 0.1, "positive inputs become 0 only if they are dropped"
        np.testing.assert_array_equal(whole[out].view(np.int32), other[out].view(np.int32))
        return
    rows = ROWS // PARTS
    for first in range(0, ROWS, rows):
        part = {name: placed(values[first : first + rows], 1) for name, values in arrays.items()}
        call(kernel, {**part, **elements(kernel, fields, len(arrays[out][first : first + rows]))}, isa)
        at = slice(first * COLS, first * COLS + part[out].size)
        np.testing.assert_array_equal(whole[out][at].view(np.int32), part[out].view(np.int32))


NORMS = {
    "layer_norm_fwd": ("y", "mean", "rstd", "x", "weight", "bias", "eps"),
    "rms_norm_fwd": ("y", "rstd", "x", "weight", "eps"),
    "layer_norm_both_bwd": ("dx", "partial", "dy", "x", "mean", "rstd", "weight"),
}


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("kernel", NORMS)
def test_large_norms_have_the_bits_of_their_parts(kernel: str, isa: str, offset: int) -> None:
    wide = {name: numbers(i, ROWS, COLS) for i, name in enumerate(("x", "dy"))}
    narrow = {"mean": numbers(2, ROWS), "rstd": np.abs(numbers(3, ROWS)) + 0.5}
    own = {"weight": numbers(4, COLS), "bias": numbers(5, COLS), "eps": 1e-5}

    def run(first: int, rows: int, offset: int) -> Fields:
        fields: Fields = {"rows": rows, "cols": COLS}
        for name in NORMS[kernel]:
            if name in own:
                fields[name] = own[name]
            elif name == "partial":
                fields[name] = np.zeros((-(-rows // 64), 2, COLS), np.float32)
            elif name in wide or name in ("y", "dx"):
                fields[name] = placed(wide.get(name, wide["x"])[first : first + rows], offset)
            else:
                fields[name] = narrow[name][first : first + rows].copy()
        call(kernel, fields, isa)
        return fields

    whole = run(0, ROWS, offset)
    rows = 12 * 64  # whole runs of 64 rows, so that the partial sums are the same
    for first in range(0, ROWS, rows):
        part = run(first, min(rows, ROWS - first), 1)
        out = NORMS[kernel][0]
        at = slice(first * COLS, first * COLS + part[out].size)
        np.testing.assert_array_equal(whole[out][at].view(np.int32), part[out].view(np.int32))
        if "partial" in part:
            runs = slice(first // 64, first // 64 + len(part["partial"]))
            np.testing.assert_array_equal(whole["partial"][runs], part["partial"])


@pytest.mark.parametrize(("rows", "cols"), [(130, 1100), (1100, 1030), (67, 260)])
@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("kernel", ["layer_norm_param_bwd", "rms_norm_param_bwd"])
def test_sums_of_columns_are_the_same_in_chunks_and_at_once(
    kernel: str, isa: str, rows: int, cols: int
) -> None:
    found = []
    for whole in (False, True):
        fields: Fields = {"dweight": np.zeros(cols, np.float32), "dy": numbers(0, rows, cols)}
        fields |= {"x": numbers(1, rows, cols), "rstd": np.abs(numbers(2, rows)), "rows": rows, "cols": cols}
        if kernel == "layer_norm_param_bwd":
            fields |= {"dbias": np.zeros(cols, np.float32), "mean": numbers(3, rows)}
        call(kernel, fields, isa, whole=whole)
        found.append(fields)
    centred = found[0]["x"] - found[0].get("mean", np.zeros(rows))[:, None]
    exact = (found[0]["dy"] * centred.astype(np.float64) * found[0]["rstd"][:, None]).sum(0)
    np.testing.assert_allclose(found[0]["dweight"], exact, rtol=0, atol=1e-5 * rows)
    for name in ("dweight", "dbias"):
        if name in found[0]:
            np.testing.assert_array_equal(found[0][name].view(np.int32), found[1][name].view(np.int32))
