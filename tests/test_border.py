# SPDX-License-Identifier: Apache-2.0
"""The border: what is converted, what is refused, and how the refusal reads."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotloop as hl
from hotloop import _core
from hotloop.data import border
from hotloop.data.target import Target, as_target, as_weight
from hotloop.graph import Rows, TensorType

F4, F8, I4, I8, U1 = np.float32, np.float64, np.int32, np.int64, np.uint8


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.zeros((2, 3), F4), F4), (np.zeros((2, 3), F8), F4), (np.zeros((2, 3), np.float16), F4),
        (np.zeros((2, 3), ">f4"), F4), (np.zeros((2, 3), U1), U1), (np.zeros((2, 3), np.int8), I4),
        (np.zeros((2, 3), np.uint16), I4), (np.zeros((2, 3), I8), I8), (np.zeros((2, 3), np.uint32), I8),
        (np.zeros((2, 3), np.uint64), I8), ([[1.0, 2.0]], F4), ([[1, 2]], I8),
        (np.zeros((4, 6), F4)[::2, ::2], F4),
        (np.asfortranarray(np.zeros((2, 3), F4)), F4),
    ],
)  # fmt: skip
def test_converted(value: Any, dtype: Any) -> None:
    out = border.as_array(value, "X", where="fit")
    assert out.dtype == dtype
    assert out.flags.c_contiguous
    assert out.dtype.isnative
    np.testing.assert_array_equal(out, value)


@pytest.mark.parametrize("dtype", [F4, U1, I4, I8])
def test_canonical_arrays_are_not_copied(dtype: Any) -> None:
    array = np.zeros((3, 2), dtype)
    array.flags.writeable = False
    assert np.shares_memory(border.as_array(array, "X", where="fit"), array)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (np.zeros((2, 2), bool), hl.DTypeError, r"\[fit\] X has dtype bool; .*astype"),
        (np.zeros((2, 2), complex), hl.DTypeError, "complex128"),
        (np.array([["a"]]), hl.DTypeError, "np.unique"),
        (np.array([[None, 1]]), hl.DTypeError, "object"),
        (np.zeros(2, "M8[s]"), hl.DTypeError, "datetime64"),
        (np.ma.masked_array([[1.0, 2.0]], [[0, 1]]), hl.DTypeError, "masked array; fill it"),
        ([[1.0], [1.0, 2.0]], hl.ShapeError, "ragged"),
        (3.0, hl.ShapeError, "single number"),
        (np.array([[1.0, np.nan], [np.inf, 0]]), hl.NonFiniteError, r"X\[0, 1\] = nan .*\(2 bad values in"),
        (np.array([[1.0], [1e39]]), hl.NonFiniteError, r"X\[1, 0\] = 1e\+39 overflows float32 \(1 bad"),
        (np.array([[2**63]], np.uint64), hl.DTypeError, "does not fit"),
    ],
)  # fmt: skip
def test_refused(value: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        border.as_array(value, "X", where="fit")


def test_float64_sessions_keep_what_float32_cannot_hold() -> None:
    array = np.array([[1e300, -1e300, 1e308, 1e308]])
    assert border.as_array(array, "X", where="fit", real=F8)[0, 0] == 1e300


def test_check_finite_off_lets_nan_through_but_not_overflow() -> None:
    out = border.as_array(np.array([np.nan, np.inf]), "X", where="fit", check_finite=False)
    assert np.isnan(out[0])
    assert np.isinf(out[1])
    with pytest.raises(hl.NonFiniteError, match="overflows"):
        border.as_array(np.array([np.nan, 1e39]), "X", where="fit", check_finite=False)


@pytest.mark.parametrize(
    ("X", "text"),
    [
        (np.zeros((0, 3), F4), "0 rows"),
        (np.zeros(3, F4), r"1-D with shape \(3,\).*reshape\(-1, 1\).*reshape\(1, -1\)"),
        ({}, "empty mapping"),
        ({"a": np.zeros((3, 1)), "b": np.zeros((2, 1))}, "differ in length: {'a': 3, 'b': 2}"),
    ],
)
def test_inputs_refused(X: Any, text: str) -> None:
    with pytest.raises(hl.ShapeError, match=text):
        border.as_inputs(X, where="fit")


def test_names_of_inputs_are_strings() -> None:
    with pytest.raises(TypeError, match="names of inputs must be strings"):
        border.as_inputs({1: np.zeros((3, 1))}, where="fit")


def target(y: Any, loss: str, output: tuple[int, ...], rows: int | None = None) -> Target:
    return as_target(y, loss=loss, output=output, rows=len(y) if rows is None else rows, where="fit")


def test_labels() -> None:
    checked = target(np.array([0, 2, 1]), "cross_entropy", (3,))
    assert checked.kind == "index"
    assert checked.array.dtype == I4
    message = "[fit] y[2] = 10 is not a class index (expected 0 <= y < 10; 2 bad values in 5)"
    with pytest.raises(hl.LabelError, match=re.escape(message)):
        target(np.array([0, 9, 10, 3, -1]), "cross_entropy", (10,))
    with pytest.raises(IndexError):
        target(np.array([-1]), "cross_entropy", (2,))


@pytest.mark.parametrize(
    ("y", "loss", "output", "error", "text"),
    [
        (np.array([0.0, 1.0]), "cross_entropy", (2,), hl.DTypeError, r"use y\.astype\(np\.int64\)"),
        (np.array([0.5, 1.0]), "cross_entropy", (2,), hl.DTypeError, r"probabilities \(n, 2\)"),
        (np.array(["a", "b"]), "cross_entropy", (2,), hl.DTypeError, "np.unique"),
        (np.array([[0], [1]]), "cross_entropy", (2,), hl.ShapeError, r"\(2, 1\) .*\(2, 2\).*y\.ravel\(\)"),
        (np.array([[0.5, 1.5]]), "cross_entropy", (2,), hl.LabelError, r"y\[0, 1\] = 1.5 is not a prob"),
        (np.array([0, 2]), "bce_with_logits", (1,), hl.LabelError, r"y\[1, 0\] = 2"),
        (np.zeros((3, 2)), "mse", (3,), hl.ShapeError, r"\(3, 2\) .*\(3, 3\).*nothing is broadcast"),
        (np.array([0.0, 1.0]), "mse", (3,), hl.ShapeError, r"for class labels use loss='cross_entropy' and y\.as"),
        (np.zeros(3), "mse", (2,), hl.ShapeError, r"\(3,\) .*\(3, 2\)"),
        (np.zeros((3, 1)), "mse", (), hl.ShapeError, r"\(3, 1\) .*\(3,\)"),
        (np.array([1.0, np.nan]), "mse", (1,), hl.NonFiniteError, r"y\[1\] = nan"),
    ],
)  # fmt: skip
def test_targets_refused(y: Any, loss: str, output: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        target(y, loss, output)


def test_target_lengths() -> None:
    with pytest.raises(hl.ShapeError, match="X has 4 rows and y has 3"):
        target(np.zeros(3), "mse", (1,), rows=4)


def test_columns_and_probabilities() -> None:
    assert target([1, 2, 3], "mse", (1,)).array.shape == (3, 1)
    assert target(np.array([0, 1]), "bce_with_logits", (1,)).array.dtype == F4
    one_hot = target(np.eye(3, dtype=I8), "cross_entropy", (3,))
    assert (one_hot.kind, one_hot.array.dtype) == ("real", F4)
    assert target({"y": [1.0]}, "mse", (1,)).array.shape == (1, 1)


@pytest.mark.parametrize(
    ("weight", "text"),
    [([1.0, -0.5, 1.0], r"sample_weight\[1\] = -0.5 is negative"), ([0, 0, 0], "zero everywhere"),
     ([1.0, 2.0], r"shape \(2,\); allowed: \(3,\)"), ([1.0, np.nan, 1.0], r"sample_weight\[1\] = nan")],
)  # fmt: skip
def test_weights_refused(weight: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        as_weight(weight, rows=3, where="fit")


class Ids(hl.nn.Module):
    def __init__(self) -> None:
        self.table = hl.nn.Embedding(5, 3)
        self.linear = hl.nn.Linear(5, 2)

    def forward(self, num: Any, cat: Any) -> Any:
        from hotloop.nn import functional as F

        return self.linear(F.concat([num, self.table(cat)], 1))


def ids_graph() -> Any:
    from hotloop.trace import trace

    return trace(Ids(), {"num": TensorType((Rows(), 2)), "cat": TensorType((Rows(),), "index")})


def test_embedding_ids_are_range_checked() -> None:
    graph = ids_graph()
    arrays = border.as_inputs({"num": np.zeros((3, 2)), "cat": np.array([0, 4, 1])}, where="fit")
    assert border.fit_inputs(arrays, graph, where="fit")["cat"].dtype == I4
    for bad in (5, -1):
        arrays["cat"] = np.array([0, bad, 1])
        with pytest.raises(hl.LabelError, match=rf"X\['cat'\]\[1\] = {bad} .*table.weight.*0 <= id < 5"):
            border.fit_inputs(arrays, graph, where="fit")
    arrays["cat"] = np.array([0, 2**40, 1])
    with pytest.raises(hl.LabelError, match="32 bits"):
        border.fit_inputs(arrays, graph, where="fit")
    arrays["cat"] = np.zeros(3, F4)
    with pytest.raises(hl.DTypeError, match="integer ids"):
        border.fit_inputs(arrays, graph, where="fit")


def test_integer_features_become_floats_and_bytes_stay() -> None:
    graph = ids_graph()
    arrays = {"num": np.ones((3, 2), I8), "cat": np.zeros(3, U1)}
    out = border.fit_inputs(arrays, graph, where="fit")
    assert out["num"].dtype == F4
    assert out["cat"].dtype == I4
    assert border.fit_inputs({**arrays, "num": np.ones((3, 2), U1)}, graph, where="fit")["num"].dtype == U1


def test_names_and_shapes_must_be_the_models() -> None:
    graph = ids_graph()
    with pytest.raises(hl.ShapeError, match=r"inputs \['a', 'num'\]; the model takes \['cat', 'num'\]"):
        border.fit_inputs({"num": np.zeros((3, 2), F4), "a": np.zeros(3, I4)}, graph, where="fit")
    with pytest.raises(hl.ShapeError, match=r"X\['num'\] has shape \(3, 4\); the model takes \(n, 2\)"):
        border.fit_inputs({"num": np.zeros((3, 4), F4), "cat": np.zeros(3, I4)}, graph, where="fit")


@given(st.integers(2, 200), st.floats(0.01, 0.99), st.integers(1, 5), st.integers(0, 3))
def test_hold_out_is_exact_disjoint_and_even(rows: int, fraction: float, classes: int, seed: int) -> None:
    labels = np.random.Generator(np.random.PCG64(seed)).integers(0, classes, rows)
    train, held = border.hold_out(rows, fraction, labels, seed)
    assert len(held) == min(max(round(fraction * rows), 1), rows - 1)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(rows))
    share = len(held) / rows
    for label in range(classes):
        assert abs(np.sum(labels[held] == label) - share * np.sum(labels == label)) < 1


def test_hold_out_depends_on_the_seed_alone() -> None:
    first, second, other = (border.hold_out(100, 0.2, None, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_seen_anywhere(dtype: type, bad: float) -> None:
    largest = np.finfo(dtype).max
    x = np.full((5, 2000), largest, dtype)  # whose sum overflows
    x[1] = np.finfo(dtype).tiny / 4  # and what is nearly zero
    assert _core.is_finite(x) and _core.is_finite(-x) and _core.is_finite(x[:0])
    for at in (0, 1, 4095, 4096, 9999):
        y = x.copy()
        y.flat[at] = bad
        assert not _core.is_finite(y)


def test_finite_is_asked_of_plain_floats_only() -> None:
    for array in (np.zeros(3, np.int32), np.zeros((3, 4), np.float32)[:, ::2], np.zeros(3, ">f4")):
        with pytest.raises(hl.HotloopError, match=r"\[is_finite\] an array is"):
            _core.is_finite(array)
