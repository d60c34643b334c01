# SPDX-License-Identifier: Apache-2.0
"""oneDNN and libxsmm as peers of the matrix product: shared libraries with a function like BLAS's sgemm.

They are found where they were installed, and left out where they were not. oneDNN: ``pip install onednn-cpu-gomp``,
or a system package. libxsmm has no wheel and Debian's package only archives; ``HOTLOOP_BENCH_LIBXSMM`` names a
shared object made of them (bench/README.md says how).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Union

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
#: product(a, b, out, a transposed, b transposed) of matrices in row-major order, as they are stored.
Product = Callable[[Matrix, Matrix, Matrix, bool, bool], None]
#: libxsmm leaves products beyond so many multiply-adds, and transposes, to a BLAS that it is linked with.
LIBXSMM_MOST = 64**3


def products(m: int, n: int, k: int, *, transposed: bool) -> dict[str, Product]:
    """Who can multiply (m, k) by (k, n), by the library's name."""
    small = m * n * k <= LIBXSMM_MOST and not transposed
    return {name: product for name, product in libraries().items() if name != "libxsmm" or small}


@cache
def libraries() -> dict[str, Product]:
    """The products that this machine has, by the library's name."""
    found: dict[str, Product] = {}
    if (library := _load("dnnl")) is not None and hasattr(library, "dnnl_sgemm"):
        found["onednn"] = _onednn(library)
    if (library := _load("xsmm")) is not None and hasattr(library, "libxsmm_sgemm"):
        found["libxsmm"] = _libxsmm(library)
    return found


def _load(name: str) -> Union[ctypes.CDLL, None]:
    for place in _places(name):
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


def _places(name: str) -> Iterator[str]:
    if named := os.environ.get(f"HOTLOOP_BENCH_LIB{name.upper()}"):
        yield named
    wheel = Path(sys.prefix) / "lib" / f"lib{name}.so"  # where the wheel of oneDNN puts it
    if wheel.exists():
        yield str(wheel)
    if system := ctypes.util.find_library(name):
        yield system


def _address(array: Matrix) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _onednn(library: Any) -> Product:
    """dnnl_sgemm: row-major, sizes and strides by value."""
    size, factor = ctypes.c_int64, ctypes.c_float

    def product(a: Matrix, b: Matrix, out: Matrix, left: bool, right: bool) -> None:
        m, n = out.shape
        k = a.shape[0] if left else a.shape[1]
        failed = library.dnnl_sgemm(
            ctypes.c_char(b"T" if left else b"N"), ctypes.c_char(b"T" if right else b"N"), size(m), size(n), size(k),
            factor(1.0), _address(a), size(a.shape[1]), _address(b), size(b.shape[1]), factor(0.0), _address(out), size(n),
        )  # fmt: skip
        if failed:
            raise RuntimeError(f"dnnl_sgemm returned {failed}")

    return product


def _libxsmm(library: Any) -> Product:
    """libxsmm_sgemm: column-major, everything by address; C^T = B^T A^T is C in row-major order."""

    def product(a: Matrix, b: Matrix, out: Matrix, left: bool, right: bool) -> None:
        m, n = out.shape
        numbers = [ctypes.c_int(x) for x in (n, m, a.shape[0] if left else a.shape[1])]
        strides = [ctypes.c_int(x.shape[1]) for x in (b, a, out)]
        one, zero = ctypes.c_float(1.0), ctypes.c_float(0.0)
        library.libxsmm_sgemm(
            ctypes.byref(ctypes.c_char(b"T" if right else b"N")), ctypes.byref(ctypes.c_char(b"T" if left else b"N")),
            *map(ctypes.byref, numbers), ctypes.byref(one), _address(b), ctypes.byref(strides[0]),
            _address(a), ctypes.byref(strides[1]), ctypes.byref(zero), _address(out), ctypes.byref(strides[2]),
        )  # fmt: skip

    return product
