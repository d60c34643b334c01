# SPDX-License-Identifier: Apache-2.0
"""Products on the matrix units. Which operands are rounded, and how, is known: so results are compared with the
product in float64 of the rounded operands, by the rule for float32, which also shows that no other way was taken.

An emulated device has four multiprocessors: 70 x 90 takes tiles of 64 x 64, 130 x 140 of 128 x 128, 256 x 512 of
128 x 256, where they are for bf16 and tf32. Tensor cores of a GPU sum in an order of their own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop
from tests.cases import Fields
from tests.cases.matmul import EPILOGUES, Product, case, strided_array
from tests.gpu.kernel_harness import DEVICE_CONTEXT, call_device, on_devices, run_device
from tests.kernels.harness import assert_close, assert_same_bits, initial, run_reference

LOW = ["bf16", "tf32"]
#: Around the tiles; k around a tile's 32 steps and their halves, and of several stages.
SHAPES = [(70, 90, 100), (64, 64, 32), (33, 47, 17), (127, 140, 49)]
WIDE = [(256, 512, 40), (255, 513, 7), (257, 300, 33), (130, 512, 16)]  # one for each form
FORMS = [(a, b) for a in ("rows", "columns") for b in ("rows", "columns")]


def rounded(values: np.ndarray, precision: str) -> np.ndarray:
    """float32 rounded to bf16 (ties to even) or to tf32 (ties away from zero), in float64."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    if precision == "bf16":
        kept = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    else:
        kept = (bits + 0x1000) & np.uint32(0xFFFFE000)
    return kept.view(np.float32).astype(np.float64)


def product_fields(
    a: np.ndarray, b: np.ndarray, form: tuple[str, str], pad: int = 0, row_sum: bool = True
) -> Fields:
    """Fields of the product of ``a`` (m, k) and ``b`` (k, n), each stored by rows or by columns, with ``pad`` NaN
    between them."""
    (m, k), n = a.shape, b.shape[1]
    f = Product(m, n, k, row_sum=row_sum).fields(np.random.default_rng(0), np.float32)
    for name, matrix, how in (("a", a, form[0]), ("b", b, form[1])):
        stored = matrix.astype(np.float32) if how == "rows" else matrix.T.astype(np.float32)
        line = stored.shape[1] + pad
        f[name] = strided_array(stored, line, 1)
        strides = (line, 1) if how == "rows" else (1, line)
        names = ("a_stride_m", "a_stride_k") if name == "a" else ("b_stride_k", "b_stride_n")
        f.update(zip(names, strides, strict=True))
    f["out"] = np.full(m * n, np.nan, np.float32)
    if row_sum:
        f["row_sum"] = np.full(m, np.nan, np.float32)
    return f


def whole_numbers(rng: np.random.Generator, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(-8, 9, (m, k)), rng.integers(-8, 9, (k, n))


def normals(seed: int, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)


def assert_float32(got: np.ndarray, a: np.ndarray, b: np.ndarray, what: str) -> None:
    """``got`` is a b, up to twice the error of a product in float32 of the same numbers."""
    exact = a.astype(np.float64) @ b.astype(np.float64)
    usual = a.astype(np.float32) @ b.astype(np.float32)
    limit = max(2 * np.abs(usual - exact).max(), 8 * np.finfo(np.float32).eps * np.abs(exact).max())
    error = np.abs(got.reshape(exact.shape) - exact).max()
    assert error <= limit, f"{what}: off by {error:.3g}, allowed {limit:.3g}"


@on_devices
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", LOW)
def test_whole_numbers_exactly(device: str, precision: str, form: tuple[str, str]) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in [*SHAPES, WIDE[FORMS.index(form)]]:
        a, b = whole_numbers(rng, m, n, k)
        f = product_fields(a, b, form)
        call_device(device, "matmul", f, precision=precision)
        np.testing.assert_array_equal(f["out"].reshape(m, n), a @ b, f"{m}x{n}x{k}")
        np.testing.assert_array_equal(f["row_sum"], a.sum(axis=1), f"row sums of {m}x{n}x{k}")


@on_devices
@pytest.mark.parametrize(("pad", "shift"), [(0, 0), (0, 4), (3, 0), (4, 0), (4, 8)])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", LOW)
def test_operands_are_rounded_and_nothing_else(
    device: str, precision: str, form: tuple[str, str], pad: int, shift: int
) -> None:
    for m, n, k in [(68, 72, 36), (132, 136, 20)] + ([(256, 300, 33)] if pad == shift == 0 else []):
        a, b = normals(k, m, n, k)
        f = product_fields(a, b, form, pad)
        call_device(device, "matmul", f, precision=precision, shift=shift)
        if device == "simt":  # a GPU has so many multiprocessors that it may choose another way
            assert_float32(f["out"], rounded(a, precision), rounded(b, precision), f"{m}x{n}x{k}")
        exact = a.astype(np.float64) @ b
        off = np.linalg.norm(f["out"].reshape(m, n) - exact) / np.linalg.norm(exact)
        assert off < {"bf16": 2**-8, "tf32": 2**-11}[precision]
        assert_float32(f["row_sum"], a, np.ones((k, 1)), "row sums")


@on_devices
@pytest.mark.parametrize("how", EPILOGUES, ids=str)
@pytest.mark.parametrize("precision", LOW)
def test_every_epilogue(device: str, precision: str, how: dict[str, Any]) -> None:
    if how.get("packed"):  # panels are not for the matrix units
        how = {**how, "packed": False}
    for m, n, k in [(70, 90, 36), (120, 140, 9)]:
        one = case(Product(m, n, k, **{**how, "row_sum": False}))
        start = initial(one, one.fields(np.float32))
        for name in (
            "a",
            "b",
        ):  # what is representable is not rounded: the reference needs to know of nothing
            start[name] = rounded(np.nan_to_num(start[name]), precision).astype(np.float32)
        exact = run_reference(one, start, np.float64, DEVICE_CONTEXT)
        usual = run_reference(one, start, np.float32, DEVICE_CONTEXT)
        assert_close(one, run_device(device, one, start, precision=precision), exact, usual, np.float32)


@on_devices
@pytest.mark.parametrize("precision", LOW)
def test_pieces_of_k_give_equal_bits(device: str, precision: str) -> None:
    for m, n, k in [(40, 50, 1500), (64, 64, 555), (128, 100, 600)]:
        a, b = whole_numbers(np.random.default_rng(k), m, n, k)
        f = product_fields(a, b, ("columns", "rows"))
        call_device(device, "matmul", f, precision=precision, times=3)  # counters are zero again after each
        np.testing.assert_array_equal(f["out"].reshape(m, n), a @ b)
        np.testing.assert_array_equal(f["row_sum"], a.sum(axis=1))
        a, b = normals(k, m, n, k)
        bits = set()
        for _ in range(2):
            f = product_fields(a, b, ("columns", "rows"))
            call_device(device, "matmul", f, precision=precision)
            bits.add(f["out"].tobytes() + f["row_sum"].tobytes())
        assert len(bits) == 1


#: Large enough to be multiplied from copies in bf16, on an emulated device: k of whole tiles of 64, of less than one
#: more, below one; for each form of A and B, and room between lines.
COPIED = [
    (1024, 1024, 256, FORMS[0], 0),
    (1030, 1100, 200, FORMS[3], 3),
    (1100, 1025, 130, FORMS[1], 4),
    (1025, 1281, 191, FORMS[2], 0),
]


@on_devices
@pytest.mark.parametrize(("m", "n", "k", "form", "pad"), COPIED, ids=str)
def test_products_of_copies(device: str, m: int, n: int, k: int, form: tuple[str, str], pad: int) -> None:
    a, b = whole_numbers(np.random.default_rng(k), m, n, k)
    f = product_fields(a, b, form, pad)
    call_device(device, "matmul", f, precision="bf16", shift=4 * (pad == 4))
    np.testing.assert_array_equal(f["out"].reshape(m, n), a @ b)
    np.testing.assert_array_equal(f["row_sum"], a.sum(axis=1))
    a, b = normals(k, m, n, k)
    a[5, 7], a[9, k - 1] = np.inf, np.nan
    bits = set()
    for _ in range(2):
        f = product_fields(a, b, form, pad)
        call_device(device, "matmul", f, precision="bf16")
        bits.add(f["out"].tobytes() + f["row_sum"].tobytes())
    assert len(bits) == 1
    got, others = f["out"].reshape(m, n), np.setdiff1d(np.arange(m), [5, 9])
    assert np.isinf(got[5]).all()
    assert np.isnan(got[9]).all()
    assert_float32(got[others], rounded(a[others], "bf16"), rounded(b, "bf16"), "rounded operands")
    assert_float32(f["row_sum"][others], a[others], np.ones((k, 1)), "row sums")


@on_devices
def test_what_follows_a_product_of_copies(device: str) -> None:
    how = dict(bias=True, activation="tanh", saved=True, residual=True, dropout=1)
    one = case(Product(1032, 1030, 160, **how))
    start = initial(one, one.fields(np.float32))
    for name in ("a", "b"):  # what is representable is not rounded
        start[name] = rounded(np.nan_to_num(start[name]), "bf16").astype(np.float32)
    exact = run_reference(one, start, np.float64, DEVICE_CONTEXT)
    usual = run_reference(one, start, np.float32, DEVICE_CONTEXT)
    assert_close(one, run_device(device, one, start, precision="bf16"), exact, usual, np.float32)


#: float32 products are theirs from 2^24 multiply-adds on; one for each form.
LARGE = [(256, 256, 260), (260, 257, 255), (200, 300, 300), (1030, 1024, 16)]


@on_devices
@pytest.mark.parametrize("form", FORMS)
def test_three_products_are_as_accurate_as_float32(device: str, form: tuple[str, str]) -> None:
    m, n, k = LARGE[FORMS.index(form)]
    a, b = normals(k, m, n, k)
    if form[0] == "columns":  # of one sign, of many magnitudes: what is lost does not cancel
        a, b = np.exp(3 * a), np.exp(3 * b)
    f = product_fields(a, b, form)
    call_device(device, "matmul", f)
    assert_float32(f["out"], a, b, f"{m}x{n}x{k}")
    assert_float32(f["row_sum"], a, np.ones((k, 1)), "row sums")
    if form[0] == "columns":
        exact = a.astype(np.float64) @ b.astype(np.float64)
        usual = np.abs((a @ b) / exact - 1).max()
        assert np.abs(f["out"].reshape(m, n) / exact - 1).max() <= max(2 * usual, 1e-6)


@on_devices
def test_three_products_are_exact_on_whole_numbers(device: str) -> None:
    # 13 bits on one side, so that its second words are needed; all sums are below 2^24
    rng = np.random.default_rng(2)
    few, small = rng.integers(-1, 2, (257, 255)), rng.integers(-8, 9, (255, 260))
    assert 255 * 4099 * 8 < 2**24
    for form in (FORMS[0], FORMS[3]):
        a, b = (few * 4099, small) if form == FORMS[0] else (few, small // 8 * 4099 + small % 2)
        f = product_fields(a, b, form)
        call_device(device, "matmul", f)
        np.testing.assert_array_equal(f["out"].reshape(257, 260), a @ b)


@pytest.mark.parametrize("device", ["simt"])
def test_three_products_are_what_is_computed(device: str) -> None:
    if not _simt().exists():
        pytest.skip("the emulator is not built")
    # x = 1 + 3 2^-13 leaves low = 3 2^-13: x^2 rounds up by low^2, which the three products do not hold
    a, b = np.zeros((1024, 16)), np.zeros((16, 1024))
    a[:, 0] = b[0] = 1 + 3 * 2.0**-13
    f = product_fields(a, b, ("rows", "rows"))
    call_device(device, "matmul", f)
    np.testing.assert_array_equal(f["out"], np.float32(1 + 6 * 2.0**-13))
    assert np.float32((1 + 3 * 2.0**-13) ** 2) > np.float32(1 + 6 * 2.0**-13)


@on_devices
def test_infinities_nan_and_the_largest_numbers(device: str) -> None:
    a, b = normals(3, 256, 256, 256)
    b = np.abs(b) + 0.5
    a[3, 5], a[70, 0], a[200, 255] = np.inf, np.nan, -np.inf
    a[130] = 0
    a[130, 9] = np.finfo(np.float32).max  # rounds to infinity in 11 bits
    b[9] = 0.125
    f = product_fields(a, b, ("rows", "columns"))
    call_device(device, "matmul", f)
    got = f["out"].reshape(256, 256)
    assert np.isposinf(got[3]).all()
    assert np.isnan(got[70]).all()
    assert np.isneginf(got[200]).all()
    np.testing.assert_allclose(got[130], np.finfo(np.float32).max / 8, rtol=1e-6)
    others = np.setdiff1d(np.arange(256), [3, 70, 130, 200])
    assert np.isfinite(got[others]).all()
    assert_float32(got[others], a[others], b, "rows beside them")


@on_devices
@pytest.mark.parametrize("precision", LOW)
def test_infinities_and_nan_in_low_precision(device: str, precision: str) -> None:
    a, b = normals(4, 70, 90, 40)
    a[3, 5], a[69, 0] = np.inf, np.nan
    f = product_fields(a, np.abs(b), ("rows", "rows"))
    call_device(device, "matmul", f, precision=precision)
    got = f["out"].reshape(70, 90)
    assert np.isposinf(got[3]).all()
    assert np.isnan(got[69]).all()
    assert np.isfinite(np.delete(got, [3, 69], axis=0)).all()


@on_devices
@pytest.mark.parametrize(
    "how", [dict(packed=True), dict(spread=2), dict(m=5), dict(n=9), dict(k=0), dict(m=0)], ids=str
)
def test_what_is_not_taken_is_computed_in_float32(device: str, how: dict[str, Any]) -> None:
    one = case(Product(**{**dict(m=70, n=90, k=40), **how}, bias=True))
    start = initial(one, one.fields(np.float32))
    want = run_device(device, one, start, precision="float32")
    for precision in LOW:
        assert_same_bits(run_device(device, one, start, precision=precision), want, precision)


def _simt() -> Path:
    return Path(hotloop.__file__).with_name("_simt.so")


def digest() -> str:
    """A hash of products on the emulator, in its present mode."""
    found = hashlib.sha256()
    for precision, sizes in [("bf16", (70, 90, 100)), ("tf32", (130, 140, 65)), ("tf32", (40, 50, 1000))]:
        f = product_fields(*normals(5, *sizes), ("columns", "rows"))
        call_device("simt", "matmul", f, precision=precision)
        found.update(f["out"].tobytes() + f["row_sum"].tobytes())
    f = product_fields(*normals(7, 1024, 1024, 200), ("columns", "rows"))
    call_device("simt", "matmul", f, precision="bf16")
    found.update(f["out"].tobytes() + f["row_sum"].tobytes())
    f = product_fields(*normals(6, 256, 256, 257), ("rows", "columns"))
    call_device("simt", "matmul", f)
    found.update(f["out"].tobytes())
    return found.hexdigest()


@pytest.mark.skipif(not _simt().exists(), reason="the emulator is not built")
def test_neither_order_nor_copies_change_a_bit() -> None:
    script = "from tests.gpu.test_matmul_mma import digest; print(digest())"
    found = {}
    for mode in ("forward late", "random=7 eager"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "HOTLOOP_SIMT": mode},
        )
        assert done.returncode == 0, f"{mode}: {done.stderr}"
        found[mode] = done.stdout.strip()
    assert len(set(found.values())) == 1, found
