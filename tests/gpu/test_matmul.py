# SPDX-License-Identifier: Apache-2.0
"""Products on devices: the cases of the CPU's kernel; whole numbers exactly around every tile's edge, for all
ways an operand can lie; the epilogue at addresses that no 16 bytes fit; sums over k in pieces, with equal bits.

An emulated device has four multiprocessors, so small products already take the largest tiles."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from hotloop.reference.elementwise import ACTIVATIONS
from hotloop.reference.matmul import pack
from tests.cases import Fields, KernelCase
from tests.cases.matmul import Product, case, strided_array
from tests.gpu.device_plans import MODES, emulating
from tests.gpu.kernel_harness import call_device, check_case, on_devices, run_device, with_cases
from tests.kernels.harness import assert_same_bits, initial

#: Around the heights and widths of tiles (16, 32, 64, 128), of thin operands (16) and their blocks (8, 32).
EDGES = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129]
#: Around the depth of a tile (8, 16), of a thin product (128), a quad (4); several tiles and a rest.
DEPTHS = [0, 1, 3, 4, 5, 8, 15, 16, 17, 33, 127, 128, 129, 300]
#: (m, n, k) that take the larger tiles, and those with few outputs and a long way along k.
LARGE = [(256, 255, 40), (257, 129, 17), (384, 100, 20), (129, 384, 9), (700, 10, 33), (13, 700, 20)]
DEEP = [
    (40, 40, 2000),
    (7, 9, 3000),
    (1, 1, 5000),
    (128, 128, 520),
    (2, 65, 1111),
    (130, 16, 1024),
    (10, 512, 400),
]
#: How A and B lie: by rows, by columns, with room between rows, with room between all elements; B in panels.
LAYOUTS = ["rows", "columns", "padded", "padded columns", "spread"]


def lay(matrix: np.ndarray, how: str) -> tuple[np.ndarray, int, int]:
    """(flat array, row stride, column stride) of a matrix that lies so; NaN between its elements."""
    rows, columns = matrix.shape
    step = 3 if how == "spread" else 1
    if "columns" in how:
        stride = rows + (4 if "padded" in how else 0)
        return strided_array(matrix.T, stride, 1), 1, stride
    stride = columns * step + (0 if how == "rows" else 4)
    return strided_array(matrix, stride, step), stride, step


def integer_fields(
    m: int, n: int, k: int, a: str, b: str, seed: int
) -> tuple[Fields, np.ndarray, np.ndarray]:
    """Fields of a product of whole numbers, with the sums of A's rows; the exact product and sums."""
    rng = np.random.default_rng(seed)
    left, right = rng.integers(-8, 9, (m, k)), rng.integers(-8, 9, (k, n))
    f = Product(m, n, k, packed=b == "panels", row_sum=True).fields(rng, np.float32)
    f["a"], f["a_stride_m"], f["a_stride_k"] = lay(left.astype(np.float32), a)
    if b == "panels":
        f["b"] = pack(right.astype(np.float32)).ravel()
    else:
        f["b"], f["b_stride_k"], f["b_stride_n"] = lay(right.astype(np.float32), b)
    f["out"] = np.full(m * n, np.nan, np.float32)
    f["row_sum"] = np.full(m, np.nan, np.float32)
    return f, left @ right, left.sum(axis=1)


def check_integers(device: str, m: int, n: int, k: int, a: str, b: str, *, seed: int = 0, **how: Any) -> None:
    f, want, sums = integer_fields(m, n, k, a, b, seed)
    call_device(device, "matmul", f, **how)
    np.testing.assert_array_equal(f["out"].reshape(m, n), want, f"{m}x{n}x{k} {a} {b}")
    np.testing.assert_array_equal(f["row_sum"], sums, f"row sums of {m}x{n}x{k} {a} {b}")


@on_devices
@with_cases("matmul", "pack_panels")
def test_like_the_reference(device: str, case: KernelCase) -> None:
    check_case(device, case)


@on_devices
@with_cases("matmul")
def test_like_the_reference_off_aligned_addresses(device: str, case: KernelCase) -> None:
    check_case(device, case, shift=4)


@on_devices
@pytest.mark.parametrize("m", EDGES)
def test_whole_numbers_around_every_edge(device: str, m: int) -> None:
    for i, n in enumerate(EDGES):
        a, b = LAYOUTS[i % 5], [*LAYOUTS, "panels"][(i + m) % 6]
        check_integers(device, m, n, DEPTHS[(i + m) % len(DEPTHS)], a, b)


@on_devices
@pytest.mark.parametrize("a", LAYOUTS)
@pytest.mark.parametrize("b", [*LAYOUTS, "panels"])
def test_whole_numbers_in_every_layout(device: str, a: str, b: str) -> None:
    for m, n in [(9, 40), (40, 9), (70, 70), (1, 3)]:
        for k in DEPTHS:
            check_integers(device, m, n, k, a, b)


@on_devices
@pytest.mark.parametrize(("m", "n", "k"), LARGE)
def test_whole_numbers_in_large_tiles(device: str, m: int, n: int, k: int) -> None:
    for a, b in [("rows", "rows"), ("rows", "columns"), ("columns", "rows"), ("spread", "panels")]:
        check_integers(device, m, n, k, a, b)


@on_devices
@pytest.mark.parametrize(("m", "n", "k"), DEEP)
def test_whole_numbers_in_pieces_of_k(device: str, m: int, n: int, k: int) -> None:
    for a, b in [("rows", "columns"), ("columns", "rows"), ("padded", "spread")]:
        check_integers(device, m, n, k, a, b, times=3)  # the counters are zero again after each


@on_devices
@pytest.mark.parametrize(("m", "n", "k"), DEEP)
def test_pieces_of_k_give_equal_bits_in_any_order_of_blocks(device: str, m: int, n: int, k: int) -> None:
    deep = case(Product(m, n, k, bias=True, activation="gelu", saved=True, row_sum=True, dropout=1))
    start = initial(deep, deep.fields(np.float32))
    check_case(device, deep)
    first = run_device(device, deep, start)
    for mode in MODES:
        with emulating(device, mode):
            assert_same_bits(run_device(device, deep, start, times=2), first, mode)


products = st.builds(
    Product,
    m=st.integers(0, 70),
    n=st.integers(0, 70),
    k=st.integers(0, 200),
    transposed_a=st.booleans(),
    packed=st.booleans(),
    pad=st.integers(0, 5),
    spread=st.integers(1, 2),
    bias=st.booleans(),
    activation=st.sampled_from([None, *ACTIVATIONS]),
    residual=st.booleans(),
    row_sum=st.booleans(),
    dropout=st.integers(-1, 3),
    alpha=st.sampled_from([1.0, -0.5]),
    beta=st.sampled_from([0.0, 1.0, 0.25]),
)


@on_devices
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    of=products, extra=st.sampled_from(["none", "saved", "gate"]), shift=st.sampled_from([0, 4, 8])
)
def test_any_product(device: str, of: Product, extra: str, shift: int) -> None:
    gate = extra == "gate" and of.activation is not None
    # log and sqrt want a positive argument, which a product is not
    activation = (
        of.activation if gate or of.activation not in ("log", "sqrt", "reciprocal", "exp") else "relu"
    )
    of = replace(of, saved=extra == "saved", gate=gate, activation=activation)
    # a sum of k terms rounds by up to k / 4 of their eps, and tanh makes 1 of it however large the terms
    check_case(device, replace(case(of), cancels=of.k / 2), shift=shift)


@on_devices
def test_what_was_in_out_is_not_read_without_beta(device: str) -> None:
    for m, n, k in product((1, 40, 200), (3, 64), (0, 5, 600)):
        f, want, _ = integer_fields(m, n, k, "rows", "rows", 1)
        f["out"][:] = np.inf
        call_device(device, "matmul", f)
        np.testing.assert_array_equal(f["out"].reshape(m, n), want)
