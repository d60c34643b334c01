# SPDX-License-Identifier: Apache-2.0
"""Cases of the matrix product: tile edges, runs of k, layouts of A and B, and every epilogue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hotloop.reference.elementwise import UNARY
from hotloop.reference.matmul import pack
from tests.cases import Fields, KernelCase
from tests.cases.elementwise import PARAMETERS


@dataclass(frozen=True)
class Product:
    """z (m, n) = A (m, k) B (k, n), and how its operands lie in memory.

    Attributes:
        transposed_a: A is stored (k, m).
        packed: B is stored in panels.
        pad: elements between the rows of A, B and out.
        spread: elements between the columns of A; 1 is dense.
        gate: the activation's gradient is applied, instead of the activation.
    """

    m: int
    n: int
    k: int
    transposed_a: bool = False
    packed: bool = False
    pad: int = 0
    spread: int = 1
    bias: bool = False
    activation: str | None = None
    saved: bool = False
    gate: bool = False
    residual: bool = False
    row_sum: bool = False
    dropout: int = -1
    alpha: float = 1.0
    beta: float = 0.0
    integers: bool = False

    @property
    def label(self) -> str:
        flags = [
            name
            for name in (
                "transposed_a",
                "packed",
                "bias",
                "saved",
                "gate",
                "residual",
                "row_sum",
            )
            if getattr(self, name)
        ]
        extra = [f"{name}={getattr(self, name)}" for name in ("pad", "spread") if getattr(self, name) > 1]
        extra += [] if self.alpha == 1 else [f"alpha={self.alpha}"]
        extra += [] if self.beta == 0 else [f"beta={self.beta}"]
        drop = [] if self.dropout < 0 else [f"dropout={self.dropout}"]
        function = [] if self.activation is None else [self.activation]
        return " ".join([f"{self.m}x{self.n}x{self.k}", *flags, *extra, *function, *drop])

    def draw(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        """Small whole numbers where the test demands equal bits, else standard normal."""
        return rng.integers(-8, 9, shape) if self.integers else rng.standard_normal(shape)

    def fields(self, rng: np.random.Generator, dtype: type) -> Fields:
        m, n, k = self.m, self.n, self.k
        a, b = self.draw(rng, m, k).astype(dtype), self.draw(rng, k, n).astype(dtype)
        row_step = (m if self.transposed_a else k) * self.spread + self.pad
        stored_a = strided_array(a.T if self.transposed_a else a, row_step, self.spread)
        stored_b = pack(b).ravel() if self.packed else strided_array(b, n + self.pad, 1)
        out_stride = n + self.pad
        size = (m - 1) * out_stride + n if m and n else 0
        p0, p1 = PARAMETERS.get(self.activation or "", (0.0, 0.0))
        return dict(
            out=self.draw(rng, size).astype(dtype),
            saved=np.empty(size, dtype) if self.saved else None,
            row_sum=np.empty(m, dtype) if self.row_sum else None,
            a=stored_a, b=stored_b,
            bias=self.draw(rng, n).astype(dtype) if self.bias else None,
            # positive, and below one: what every function can have read or written
            gate=rng.uniform(0.1, 0.9, size).astype(dtype) if self.gate else None,
            residual=self.draw(rng, size).astype(dtype) if self.residual else None,
            m=m, n=n, k=k,
            a_stride_m=self.spread if self.transposed_a else row_step,
            a_stride_k=row_step if self.transposed_a else self.spread,
            b_stride_k=n + self.pad, b_stride_n=1, out_stride=out_stride,
            b_packed=int(self.packed), alpha=self.alpha, beta=self.beta,
            activation=list(UNARY).index(self.activation) if self.activation else -1,
            dropout=self.dropout, dropout_row=n, p0=p0, p1=p1,
        )  # fmt: skip


def strided_array(matrix: np.ndarray, row_step: int, column_step: int) -> np.ndarray:
    """A flat array just long enough to hold ``matrix`` at these strides, NaN between its elements."""
    rows, columns = matrix.shape
    size = (rows - 1) * row_step + (columns - 1) * column_step + 1 if matrix.size else 0
    flat = np.full(size, np.nan, matrix.dtype)
    flat[np.add.outer(np.arange(rows) * row_step, np.arange(columns) * column_step)] = matrix
    return flat


def case(product: Product) -> KernelCase:
    keep = ("out",) if product.beta else ()
    return KernelCase("matmul", product.label, product.fields, keep=keep)


def pack_case(k: int, n: int, stride_k: int, stride_n: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        size = 1 + (k - 1) * stride_k + (n - 1) * stride_n if k and n else 0
        out = np.empty(-(-n // 16) * k * 16, dtype)
        x = rng.standard_normal(size).astype(dtype)
        return dict(out=out, x=x, k=k, n=n, stride_k=stride_k, stride_n=stride_n)

    return KernelCase("pack_panels", f"{k}x{n} strides {stride_k},{stride_n}", make)


def parts_case(parts: int, m: int, n: int, k: int, depth: int, row_sum: bool) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        a, b = (rng.standard_normal(k * width).astype(dtype) for width in (m, n))
        sums = np.empty(parts * m, dtype) if row_sum else None
        out = np.empty(parts * m * n, dtype)
        return dict(out=out, row_sum=sums, a=a, b=b, parts=parts, m=m, n=n, k=k, depth=depth)

    return KernelCase("matmul_parts", f"{m}x{n}x{k} in {parts} of {depth}{' row_sum' * row_sum}", make)


# the tile's edges, one block of rows and two, one run of k and several
SHAPES = [
    (0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (5, 16, 3), (6, 17, 8), (7, 33, 9), (13, 31, 70),
    (97, 129, 20), (20, 150, 257), (3, 40, 600), (200, 5, 30),
]  # fmt: skip
LAYOUTS = [
    dict(),
    dict(packed=True),
    dict(transposed_a=True),
    dict(transposed_a=True, packed=True, row_sum=True),
    dict(pad=3, row_sum=True),
    dict(pad=2, spread=3, row_sum=True),
    dict(beta=1.0, transposed_a=True),
]
EPILOGUES = [
    dict(bias=True),
    dict(saved=True),
    dict(bias=True, activation="relu", dropout=1, pad=1),
    dict(activation="gelu", saved=True, dropout=3, pad=2),
    dict(bias=True, activation="relu", dropout=2),
    dict(bias=True, dropout=1),
    dict(beta=1.0),
    dict(alpha=0.5, beta=-2.0, bias=True, activation="gelu", saved=True, dropout=1, pad=1),
    dict(alpha=-3.0, residual=True, packed=True),
    dict(alpha=0.0, beta=0.25),
    dict(gate=True, activation="relu"),
    dict(gate=True, activation="gelu", dropout=1, pad=1),
    dict(gate=True, activation="tanh", dropout=0, row_sum=True),
    dict(residual=True, bias=True),
    dict(residual=True, activation="gelu", saved=True, dropout=1, pad=1),
    dict(residual=True, gate=True, activation="elu", dropout=0),
]

CASES = [
    *(case(Product(*shape, **layout)) for shape in SHAPES for layout in LAYOUTS),
    *(case(Product(*shape, **how)) for shape in SHAPES[2::2] for how in EPILOGUES),
    *(case(Product(9, 21, 5, bias=True, saved=True, activation=name)) for name in UNARY),
    *(case(Product(9, 21, 5, gate=True, activation=name, dropout=d)) for name in UNARY for d in (-1, 1)),
    # rows of A a page apart in k, where the block of A is copied
    *(case(Product(m, 70, 300, transposed_a=True, pad=1024 - m, bias=True)) for m in (1, 6, 101)),
    # parts full, one cut short, past the end, of one row, and longer than a run of k; one chunk and several
    *(
        parts_case(*shape, row_sum)
        for shape in [
            (1, 5, 7, 3, 4), (2, 14, 32, 8, 4), (3, 10, 33, 9, 4), (4, 7, 20, 5, 2), (3, 3, 4, 0, 5),
            (2, 0, 4, 5, 3), (2, 4, 0, 5, 3), (5, 6, 16, 5, 1), (2, 64, 40, 700, 600), (3, 150, 150, 70, 30),
        ]
        for row_sum in (False, True)
    ),
    *(
        pack_case(k, n, *strides)
        for k, n in [(0, 5), (5, 0), (1, 1), (7, 16), (9, 33), (70, 40), (1100, 20)]
        for strides in [(n + 1, 1), (1, k), (2, 2 * k + 1)]
    ),
]  # fmt: skip
