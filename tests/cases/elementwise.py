# SPDX-License-Identifier: Apache-2.0
"""Cases of the element-wise kernels: vector tails, several chunks, broadcasting, special values."""

from __future__ import annotations

import numpy as np

from hotloop.reference.elementwise import BINARY, UNARY
from tests.cases import Fields, KernelCase

SIZES = [0, 1, 7, 8, 9, 33]
LONG = 16384 + 77  # a second chunk, with a tail
PARAMETERS = {
    "leaky_relu": (0.1, 0.0),
    "elu": (1.3, 0.0),
    "softplus": (2.0, 15.0),
    "affine": (1.5, -0.5),
}
POSITIVE = ("log", "sqrt")
SPECIAL = [np.nan, 0.0, -0.0, 1e-20, -1e-20, 1.0, -1.0, 40.0, -40.0, 104.0, -104.0]


def _inputs(name: str, rng: np.random.Generator, dtype: type, n: int, special: bool) -> np.ndarray:
    x = 3 * rng.standard_normal(n)
    if name in POSITIVE or name == "reciprocal":
        x = np.abs(x) + 0.1
    return np.array(SPECIAL if special else x, dtype)


def unary_fwd(name: str, n: int, special: bool = False) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        x = _inputs(name, rng, dtype, n, special)
        if special:
            x = np.append(x, [np.inf, -np.inf]).astype(dtype)
        p0, p1 = PARAMETERS.get(name, (0.0, 0.0))
        return dict(y=np.empty_like(x), x=x, n=x.size, p0=p0, p1=p1)

    return KernelCase(f"{name}_fwd", "special" if special else str(n), make)


def unary_bwd(name: str, n: int, dropout: int = -1, special: bool = False) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        p0, p1 = PARAMETERS.get(name, (0.0, 0.0))
        x = _inputs(name, rng, dtype, n, special)
        function = UNARY[name]
        with np.errstate(all="ignore"):
            saved = function.value(x, p0, p1).astype(dtype) if function.reads_output else x
        dy = rng.standard_normal(x.size).astype(dtype)
        return dict(
            dx=np.empty_like(x), dy=dy, saved=saved, n=x.size, dropout=dropout, dropout_row=7, p0=p0, p1=p1
        )

    label = "special" if special else f"{n} dropout {dropout}"
    return KernelCase(f"{name}_bwd", label, make)


Strides = tuple[int, int, int, int]

# out dimensions, strides of a, strides of b
BINARY_SHAPES: dict[str, tuple[Strides, Strides, Strides]] = {
    "empty": ((3, 0, 2, 4), (0, 8, 4, 1), (0, 8, 4, 1)),
    "one": ((1, 1, 1, 1), (1, 1, 1, 1), (0, 0, 0, 0)),
    "dense": ((2, 3, 5, 7), (105, 35, 7, 1), (105, 35, 7, 1)),
    "dense, long": ((1, 1, 5, 4001), (0, 0, 4001, 1), (0, 0, 4001, 1)),
    "scalar b": ((1, 2, 3, 17), (102, 51, 17, 1), (0, 0, 0, 0)),
    "scalar a": ((1, 1, 1, 33), (0, 0, 0, 0), (0, 0, 0, 1)),
    "row b": ((1, 1, 9, 19), (0, 0, 19, 1), (0, 0, 0, 1)),
    "row b, long": ((1, 1, 300, 100), (0, 0, 100, 1), (0, 0, 0, 1)),
    "column b": ((1, 1, 9, 19), (0, 0, 19, 1), (0, 0, 1, 0)),
    "column a, row b": ((1, 1, 12, 9), (0, 0, 1, 0), (0, 0, 0, 1)),
    "middle b": ((2, 3, 4, 5), (60, 20, 5, 1), (5, 0, 0, 1)),
    "transposed a": ((1, 1, 11, 13), (0, 0, 1, 11), (0, 0, 13, 1)),
    "four strides": ((2, 3, 4, 5), (1, 2, 6, 24), (60, 1, 3, 12)),
}


def _reach(dims: Strides, strides: Strides) -> int:
    """Elements of the smallest array that holds such a view."""
    if 0 in dims:
        return 0
    return 1 + sum((d - 1) * s for d, s in zip(dims, strides, strict=True))


def _named(letter: str, values: Strides) -> Fields:
    return {f"{letter}{i}": value for i, value in enumerate(values)}


def binary(name: str, label: str) -> KernelCase:
    dims, a, b = BINARY_SHAPES[label]

    def make(rng: np.random.Generator, dtype: type) -> Fields:
        left, right = (rng.standard_normal(_reach(dims, strides)).astype(dtype) for strides in (a, b))
        if name == "div":
            right += np.copysign(dtype(0.5), right)
        out = np.empty(int(np.prod(dims)), dtype)
        return dict(out=out, a=left, b=right, **_named("d", dims), **_named("a", a), **_named("b", b))

    return KernelCase(name, label, make)


# dimensions, strides of out, strides of x
COPIES: dict[str, tuple[Strides, Strides, Strides]] = {
    "empty": ((1, 1, 0, 4), (0, 0, 4, 1), (0, 0, 4, 1)),
    "dense": ((2, 3, 4, 5), (60, 20, 5, 1), (60, 20, 5, 1)),
    "dense, long": ((1, 1, 4, 5000), (0, 0, 5000, 1), (0, 0, 5000, 1)),
    "transpose": ((1, 1, 13, 21), (0, 0, 21, 1), (0, 0, 1, 13)),
    "transpose, long": ((1, 1, 200, 170), (0, 0, 170, 1), (0, 0, 1, 200)),
    "heads": ((2, 3, 5, 8), (120, 40, 8, 1), (120, 8, 24, 1)),
    "into columns": ((1, 1, 7, 3), (0, 0, 10, 1), (0, 0, 3, 1)),
    "from columns": ((1, 1, 7, 9), (0, 0, 9, 1), (0, 0, 20, 1)),
    "scattered": ((1, 2, 3, 5), (0, 1, 2, 6), (0, 15, 5, 1)),
    "row to all": ((1, 1, 6, 11), (0, 0, 11, 1), (0, 0, 0, 1)),
    "column to all": ((1, 1, 6, 11), (0, 0, 11, 1), (0, 0, 1, 0)),
    "scalar to all": ((1, 2, 3, 9), (0, 27, 9, 1), (0, 0, 0, 0)),
}


def copy(label: str) -> KernelCase:
    dims, o, x = COPIES[label]

    def make(rng: np.random.Generator, dtype: type) -> Fields:
        source = rng.standard_normal(_reach(dims, x)).astype(dtype)
        out = np.empty(_reach(dims, o), dtype)
        return dict(out=out, x=source, **_named("d", dims), **_named("o", o), **_named("x", x))

    return KernelCase("copy", label, make)


def dropout(n: int, layer: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        x = rng.standard_normal(n).astype(dtype)
        x[n // 2 : n // 2 + 1] = np.nan  # dropped, or NaN
        return dict(y=np.empty_like(x), x=x, n=n, dropout=layer, dropout_row=5)

    return KernelCase("dropout", f"{n} layer {layer}", make)


def fill(n: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        return dict(out=np.empty(n, dtype), n=n, value=0.3)

    return KernelCase("fill", str(n), make)


def clamp(n: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        x = rng.standard_normal(n)
        x[:3] = [np.nan, np.inf, -np.inf][:n]
        return dict(x=x.astype(dtype), n=n, lo=-0.7, hi=0.5)

    return KernelCase("clamp", str(n), make)


CASES = [
    *(unary_fwd(name, n) for name in UNARY for n in [*SIZES, LONG]),
    *(unary_fwd(name, 0, special=True) for name in UNARY),
    *(unary_bwd(name, n) for name in UNARY for n in SIZES),
    *(unary_bwd(name, n, dropout) for name in UNARY for n, dropout in ((129, 0), (LONG, 1), (71, 2))),
    *(unary_bwd(name, 0, special=True) for name in UNARY),
    *(binary(name, label) for name in BINARY for label in BINARY_SHAPES),
    *(copy(label) for label in COPIES),
    *(dropout(n, layer) for n in [*SIZES, 64, 65, 200, LONG] for layer in (-1, 0, 1, 2, 3)),
    *(fill(n) for n in [*SIZES, LONG]),
    *(clamp(n) for n in [*SIZES, LONG]),
]
