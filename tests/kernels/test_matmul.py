# SPDX-License-Identifier: Apache-2.0
"""What the cases cannot show of the matrix product: exact results on whole numbers over all edges and
layouts, and bits that do not depend on batch size, packing or fusion."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from hotloop.reference.elementwise import ACTIVATIONS
from hotloop.reference.matmul import pack, unpack
from tests.cases import Fields
from tests.cases.matmul import Product
from tests.kernels.harness import call, guarded

Unit = tuple[str, type]

#: Around the heights of register tiles (2, 6, 14; low ones are wider), and around one panel of columns to four.
HEIGHTS = [0, 1, 2, 3, 5, 6, 7, 12, 13, 14, 15, 16, 17, 29]
WIDTHS = [0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 48, 49, 63, 65]
DEPTHS = [0, 1, 2, 7, 33]
#: Around a chunk of 84, 96 or 140 rows, 128 columns (256 of 1024), runs of 256, 512 or 1024 in k; one prime each.
#: The last have strides of a page: blocks of A are copied, for several strips and runs, then groups of panels of
#: B, then both.
BLOCKS = [
    (96, 128, 256), (97, 129, 257), (95, 127, 255), (101, 40, 521), (7, 300, 300), (193, 17, 64),
    (141, 33, 300), (230, 1030, 20), (3, 1024, 257), (29, 600, 1024), (150, 530, 1024), (1024, 300, 520),
    (90, 1040, 1029), (20, 1024, 1030), (17, 2048, 1024),
]  # fmt: skip


def fields(seed: int, dtype: type, **how: Any) -> Fields:
    return Product(**how).fields(np.random.default_rng(seed), dtype)


def matmul(f: Fields, isa: str, whole: bool = False) -> np.ndarray:
    """Run on ``f``, chunk by chunk or ``whole``; the outputs as a matrix (m, n)."""
    call("matmul", f, isa, whole=whole)
    return dense(f["out"], f)


def dense(flat: np.ndarray, f: Fields) -> np.ndarray:
    rows = np.arange(f["m"])[:, None] * f["out_stride"]
    return flat[rows + np.arange(f["n"])]


def exact(f: Fields) -> tuple[np.ndarray, np.ndarray]:
    """A (m, k) and B (k, n) of integer fields, in int64."""
    m, n, k = f["m"], f["n"], f["k"]
    rows = np.arange(m)[:, None] * f["a_stride_m"]
    a = f["a"][rows + np.arange(k) * f["a_stride_k"]]
    if f["b_packed"]:
        b = unpack(f["b"], k, n)
    else:
        b = f["b"][np.arange(k)[:, None] * f["b_stride_k"] + np.arange(n)]
    return a.astype(np.int64), b.astype(np.int64)


def check_integers(isa: str, dtype: type, how: dict[str, Any], sizes: list[tuple[int, int, int]]) -> None:
    zeros = total = 0
    for seed, (m, n, k) in enumerate(sizes):
        f = fields(seed, dtype, m=m, n=n, k=k, integers=True, **how)
        a, b = exact(f)
        want = int(f["alpha"]) * (a @ b) + (f["bias"].astype(np.int64) if f["bias"] is not None else 0)
        if f["beta"]:
            want = want + int(f["beta"]) * dense(f["out"], f).astype(np.int64)
        if f["activation"] >= 0:
            want = np.maximum(want, 0)
        got = matmul(f, isa)
        assert np.array_equal(got, want), f"{how} {m}x{n}x{k}"
        if f["row_sum"] is not None:
            assert np.array_equal(f["row_sum"], a.sum(axis=1)), f"row_sum {how} {m}x{n}x{k}"
        zeros += int((got == 0).sum())
        total += got.size
    assert total > 1000
    assert zeros < 0.9 * total  # else the operands prove nothing


FORMS: list[dict[str, Any]] = [
    dict(transposed_a=transposed_a, packed=packed)
    for transposed_a in (False, True)
    for packed in (False, True)
]
EPILOGUES: list[dict[str, Any]] = [
    dict(bias=True, pad=1),
    dict(beta=1.0, pad=3),
    dict(alpha=2.0, beta=-3.0, bias=True, activation="relu"),
    dict(row_sum=True, bias=True, activation="relu"),
    dict(spread=2, row_sum=True),
]


@pytest.mark.parametrize("how", [*FORMS, *EPILOGUES], ids=str)
def test_whole_numbers_are_exact(how: dict[str, Any], unit: Unit) -> None:
    check_integers(*unit, how, [*product(HEIGHTS, WIDTHS, DEPTHS), *BLOCKS])


@pytest.mark.parametrize("transposed_a", [False, True])
def test_transposed_b_is_packed_first(transposed_a: bool, unit: Unit) -> None:
    """NT and TT: B (k, n) lies as (n, k); pack_panels reads it with stride 1 along k."""
    isa, dtype = unit
    for seed, (m, n, k) in enumerate([*product([1, 6, 17], WIDTHS, [0, 1, 7, 15, 16, 17, 33]), *BLOCKS]):
        f = fields(seed, dtype, m=m, n=n, k=k, transposed_a=transposed_a, packed=True, integers=True)
        a, b = exact(f)
        panels = np.full_like(f["b"], np.nan)
        source = np.ascontiguousarray(b.T).ravel().astype(dtype)
        call("pack_panels", dict(out=panels, x=source, k=k, n=n, stride_k=1, stride_n=k), isa)
        assert np.array_equal(panels, pack(b.astype(dtype)).ravel())
        assert np.array_equal(matmul({**f, "b": panels}, isa), a @ b), f"{m}x{n}x{k}"


@pytest.mark.parametrize("transposed", [False, True])
def test_panels_written_past_the_caches(transposed: bool, unit: Unit) -> None:
    """More than 4 MB of them, on a cache line and off it."""
    isa, dtype = unit
    k, n = 1031, 1037
    b = np.arange(k * n, dtype=dtype).reshape(k, n)
    want = pack(b).ravel()
    source = np.ascontiguousarray(b.T if transposed else b).ravel()
    strides = dict(stride_k=1, stride_n=k) if transposed else dict(stride_k=n, stride_n=1)
    memory = np.empty(want.size + 64, dtype)
    line = -memory.ctypes.data % 64 // memory.itemsize
    for start in (line, line + 3):
        panels = memory[start : start + want.size]
        panels[:] = np.nan
        call("pack_panels", dict(out=panels, x=source, k=k, n=n, **strides), isa)
        assert np.array_equal(panels, want)


@pytest.mark.parametrize("how", [dict(), dict(packed=True), dict(transposed_a=True)], ids=str)
@pytest.mark.parametrize(
    "shape", [(103, 37, 300), (29, 16, 1000), (14, 140, 70), (150, 320, 1024), (100, 1024, 1100)], ids=str
)
def test_a_row_has_the_same_bits_in_any_batch(
    how: dict[str, Any], shape: tuple[int, int, int], unit: Unit
) -> None:
    isa, dtype = unit
    m, n, k = shape
    f = fields(1, dtype, m=m, n=n, k=k, bias=True, **how)
    whole = matmul(f, isa)
    assert matmul({**f, "out": np.empty(m * n, dtype)}, isa, whole=True).tobytes() == whole.tobytes()
    for rows in (1, 2, 3, 5, 6, 7, 11, 13, 15):
        for first in range(0, m - rows, 17):
            out = np.empty(rows * n, dtype)
            part = {**f, "a": f["a"][first * f["a_stride_m"] :], "m": rows, "out": out}
            assert matmul(part, isa).tobytes() == whole[first : first + rows].tobytes(), (rows, first)


@pytest.mark.parametrize(
    "shape",
    [(1, 5, 3), (4, 90, 9), (13, 37, 70), (40, 16, 600), (101, 70, 300), (30, 1030, 700), (30, 1030, 1100)],
    ids=str,
)
def test_layout_and_packing_do_not_change_bits(shape: tuple[int, int, int], unit: Unit) -> None:
    isa, dtype = unit
    m, n, k = shape
    plain = fields(2, dtype, m=m, n=n, k=k)
    want = matmul(plain, isa)
    b = plain["b"].reshape(k, n)
    pages = [-(-size // 1024) * 1024 for size in (m, n, k)]
    for stride in (n + 7, pages[1]):  # the second: panels of B are copied, if it is large
        apart = np.full((k, stride), np.nan, dtype)
        apart[:, :n] = b
        assert matmul({**plain, "b": apart.ravel(), "b_stride_k": stride}, isa).tobytes() == want.tobytes()
    packed = {**plain, "b": pack(b).ravel(), "b_packed": 1}
    a = plain["a"].reshape(m, k)
    # pages apart: the block of A is copied; 7 more than needed: it is read in place
    for row, column in ((k + 7, m + 7), (pages[2], pages[0])):
        by_rows = np.full((m, row), np.nan, dtype)
        by_rows[:, :k] = a
        rows = {**packed, "a": by_rows.ravel(), "a_stride_m": row}
        assert matmul(rows, isa).tobytes() == want.tobytes()
        by_columns = np.full((k, column), np.nan, dtype)
        by_columns[:, :m] = a.T
        columns = {**packed, "a": by_columns.ravel(), "a_stride_m": 1, "a_stride_k": column}
        assert matmul(columns, isa).tobytes() == want.tobytes()
    both = np.full((m, k, 2), np.nan, dtype)
    both[:, :, 0] = a
    spread = {**packed, "a": both.ravel(), "a_stride_m": 2 * k, "a_stride_k": 2}
    assert matmul(spread, isa).tobytes() == want.tobytes()
    assert matmul(packed, isa).tobytes() == want.tobytes()


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "softplus"])
def test_fusion_does_not_change_bits(activation: str, unit: Unit) -> None:
    """matmul with an epilogue = matmul with bias, then the function, then dropout, as separate kernels."""
    isa, dtype = unit
    m, n, k, layer = 31, 53, 40, 1
    f = fields(3, dtype, m=m, n=n, k=k, bias=True, saved=True)
    parameters = dict(p0=1.0, p1=20.0)
    index = ACTIVATIONS.index(activation)
    z = matmul({**f, "out": np.empty(m * n, dtype), "saved": None}, isa).ravel()
    y, dropped = np.empty_like(z), np.empty_like(z)
    call(f"{activation}_fwd", dict(y=y, x=z, n=z.size, **parameters), isa)
    call("dropout", dict(y=dropped, x=y, n=z.size, dropout=layer, dropout_row=f["n"]), isa)
    fused = matmul({**f, "activation": index, "dropout": layer, **parameters}, isa)
    assert fused.tobytes() == dropped.tobytes()
    assert f["saved"].tobytes() in (z.tobytes(), y.tobytes())


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "softplus"])
@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_a_gate_and_a_residual_do_not_change_bits(activation: str, layer: int, unit: Unit) -> None:
    """matmul with a gate and a residual = matmul, then the function's gradient with dropout (layer 0: p = 0),
    then add."""
    isa, dtype = unit
    m, n, k = 101, 150, 300
    f = fields(3, dtype, m=m, n=n, k=k, gate=True, residual=True, dropout=layer)
    parameters = dict(p0=1.0, p1=20.0)
    plain = {**f, "out": np.empty(m * n, dtype), "gate": None, "residual": None, "dropout": -1}
    dy = matmul(plain, isa).ravel()
    dx = np.empty_like(dy)
    step = dict(dx=dx, dy=dy, saved=f["gate"], n=dy.size, dropout=layer, dropout_row=f["n"], **parameters)
    call(f"{activation}_bwd", step, isa)
    gated = matmul({**f, "activation": ACTIVATIONS.index(activation), **parameters}, isa)
    assert gated.tobytes() == (dx + f["residual"]).tobytes()


def test_nan_stays_in_its_row_and_column(unit: Unit) -> None:
    isa, dtype = unit
    m, n, k = 13, 37, 20
    f = fields(4, dtype, m=m, n=n, k=k)
    f["a"].reshape(m, k)[7, 3] = np.nan
    f["b"].reshape(k, n)[5, 33] = np.inf
    f["a"].reshape(m, k)[2, 5] = 0.0  # 0 * inf is NaN, not skipped
    got = matmul(f, isa)
    rows, columns = np.nonzero(~np.isfinite(got))
    assert np.isnan(got[7]).all()
    assert np.isnan(got[2, 33])
    assert set(rows[columns != 33]) == {7}
    assert set(rows[columns == 33]) == set(range(m))


def test_row_sum_without_columns(unit: Unit) -> None:
    isa, dtype = unit
    f = fields(5, dtype, m=9, n=0, k=11, transposed_a=True, row_sum=True, integers=True)
    matmul(f, isa)
    assert np.array_equal(f["row_sum"], exact(f)[0].sum(axis=1))


@pytest.mark.parametrize("k", [1, 100, 5000])
def test_row_sum_is_accurate(k: int, unit: Unit) -> None:
    isa, dtype = unit
    allowed = (16 if dtype is np.float32 else 64) * np.finfo(dtype).eps  # totals are double, not wider
    for how in (dict(), dict(transposed_a=True), dict(spread=2)):
        f = fields(6, dtype, m=21, n=1, k=k, row_sum=True, **how)
        f["a"] = np.abs(f["a"])
        matmul(f, isa)
        rows = np.arange(21)[:, None] * f["a_stride_m"] + np.arange(k) * f["a_stride_k"]
        want = f["a"][rows].astype(np.longdouble).sum(axis=1)
        assert (np.abs(f["row_sum"] - want) <= allowed * want).all()


def test_operands_may_end_where_memory_ends(unit: Unit) -> None:
    """Every height of tile, with B and out ending inside a vector."""
    isa, dtype = unit
    for m, n, transposed_a in product(range(1, 16), (1, 9, 15, 17, 24, 33, 50), (False, True)):
        f = fields(7, dtype, m=m, n=n, k=5, transposed_a=transposed_a, bias=True)
        placed = {name: guarded(f[name], "end", name == "out") for name in ("a", "b", "bias", "out")}
        assert matmul({**f, **placed}, isa).tobytes() == matmul(f, isa).tobytes()
