# SPDX-License-Identifier: Apache-2.0
"""`matmul` of arrays: NumPy's meaning for every form, shape and stride, exact where the numbers are whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotloop as hl
from hotloop import ops

SIZES = (1, 2, 5, 13, 14, 15, 16, 17, 31, 33, 64)


def whole(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Whole numbers so small that every sum of products is exact in float32."""
    return rng.integers(-8, 9, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_every_transpose_form_is_exact_on_whole_numbers(
    dtype: Any, transpose_a: bool, transpose_b: bool
) -> None:
    rng = np.random.default_rng(0)
    for m, n, k in [
        *((s, 17, 9) for s in SIZES),
        *((7, s, 33) for s in SIZES),
        *((15, 16, s) for s in SIZES),
    ]:
        a, b = whole(rng, (m, k), dtype), whole(rng, (k, n), dtype)
        got = ops.matmul(
            a.T.copy() if transpose_a else a, b.T.copy() if transpose_b else b,
            transpose_a=transpose_a, transpose_b=transpose_b,
        )  # fmt: skip
        assert got.dtype == dtype
        assert np.array_equal(got, a @ b), (m, n, k)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_shapes_broadcast_as_numpy_does(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    m, n, k = (data.draw(st.integers(0, 20)) for _ in range(3))
    lead = [data.draw(st.integers(1, 3)) for _ in range(data.draw(st.integers(0, 2)))]
    sides = []
    for core in ((m, k), (k, n)):
        own = [data.draw(st.sampled_from([1, d])) for d in lead][data.draw(st.integers(0, len(lead))) :]
        sides.append(strided(data, whole(rng, (*own, *core))))
    assert np.array_equal(ops.matmul(*sides), np.matmul(*sides))


def strided(data: st.DataObject, x: np.ndarray) -> np.ndarray:
    """The same values with other strides: every second element, backward, columns first, or read-only."""
    kind = data.draw(st.sampled_from(["dense", "gaps", "backward", "fortran", "read-only"]))
    if kind == "gaps":
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if kind == "backward":
        return x[..., ::-1].copy()[..., ::-1]
    if kind == "fortran":
        return np.asfortranarray(x)
    if kind == "read-only":
        x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    ("a", "b"), [((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5))]
)
def test_vectors_stand_for_rows_and_columns(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x, y = whole(rng, a), whole(rng, b)
    got, expected = ops.matmul(x, y), np.matmul(x, y)
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("size", [(3, 4, 5), (70, 1100, 40), (300, 200, 200)])
def test_bias_activation_alpha_and_beta(size: tuple[int, int, int]) -> None:
    m, n, k = size
    rng = np.random.default_rng(2)
    a, b, bias, c = whole(rng, (m, k)), whole(rng, (k, n)), whole(rng, (n,)), whole(rng, (m, n))
    assert np.array_equal(ops.matmul(a, b, bias=bias, activation="relu"), np.maximum(a @ b + bias, 0))
    out = c.copy()
    assert ops.matmul(a, b, beta=1.0, out=out) is out
    assert np.array_equal(out, a @ b + c)
    assert np.array_equal(
        ops.matmul(a, b, alpha=2.0, beta=-3.0, bias=bias, activation="relu", out=c.copy()),
        np.maximum(2 * (a @ b) - 3 * c + bias, 0),
    )


def test_large_matrices_of_a_batch_are_as_if_alone() -> None:
    """Many rows and columns: each matrix of B is packed, with strides of any kind and a shared A or B."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal((2, 3, 7, 90)).astype(np.float32).swapaxes(-1, -2)
    b = rng.standard_normal((3, 7, 1030)).astype(np.float32)
    bias = rng.standard_normal(1030).astype(np.float32)
    out = np.ones((2, 3, 90, 1030), np.float32)
    want = np.stack([[np.tanh(2 * x @ y + 0.5 + bias) for x, y in zip(z, b, strict=True)] for z in a])
    got = ops.matmul(a, b, bias=bias, activation="tanh", alpha=2.0, beta=0.5, out=out)
    assert got is out
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    alone = ops.matmul(a[1, 2], b[2])
    assert ops.matmul(a, b)[1, 2].tobytes() == alone.tobytes()
    assert ops.matmul(a, b[2])[1, 2].tobytes() == alone.tobytes()


def test_beta_0_ignores_what_was_in_out_and_0_times_infinity_is_not_skipped() -> None:
    a, b = np.zeros((3, 4), np.float32), np.ones((4, 5), np.float32)
    out = np.full((3, 5), np.nan, np.float32)
    ops.matmul(a, b, alpha=2.0, out=out)
    assert not out.any()
    b[0, 0] = np.inf
    assert np.isnan(ops.matmul(a, b)[:, 0]).all()


def test_the_same_bits_for_any_number_of_threads_and_for_a_row_alone() -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((300, 500)).astype(np.float32)
    b = rng.standard_normal((500, 400)).astype(np.float32)
    results = []
    for threads in (1, 2, 3, 7):
        hl.set_num_threads(threads)
        results.append(ops.matmul(a, b))
    hl.set_num_threads(None)
    assert all(r.tobytes() == results[0].tobytes() for r in results)
    assert ops.matmul(a[17:18], b).tobytes() == results[0][17:18].tobytes()


def test_integer_products_are_equal_to_int64() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(-9, 10, (45, 70)), rng.integers(-9, 10, (70, 50))
    assert np.array_equal(ops.matmul(a.astype(np.float32), b.astype(np.float32)), a @ b)


def test_what_cannot_be_multiplied_says_why() -> None:
    x = np.ones((2, 3), np.float32)
    with pytest.raises(hl.ShapeError, match=r"a \(2, 3\) has 3 columns, b \(2, 3\) has 2 rows"):
        ops.matmul(x, x)
    with pytest.raises(hl.DTypeError, match="b is float64 beside float32"):
        ops.matmul(x, x.T.astype(np.float64))
    with pytest.raises(hl.ShapeError, match=r"bias must be \(2,\), got \(3,\)"):
        ops.matmul(x, x.T, bias=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="unknown activation 'swish'; allowed: relu"):
        ops.matmul(x, x.T, activation="swish")
    with pytest.raises(ValueError, match="needs out, which it multiplies"):
        ops.matmul(x, x.T, beta=1.0)
    square = np.ones((3, 3), np.float32)
    with pytest.raises(ValueError, match="out overlaps an operand"):
        ops.matmul(square, square, out=square)
    with pytest.raises(hl.ShapeError, match="do not broadcast"):
        ops.matmul(np.ones((2, 3, 4), np.float32), np.ones((3, 4, 5), np.float32))
