# SPDX-License-Identifier: Apache-2.0
"""Cases of the embedding: repeated and absent ids, every tail, tables cut into several chunks."""

from __future__ import annotations

import numpy as np

from tests.cases import Fields, KernelCase

# (n, vocab, dim)
SHAPES = [(0, 3, 4), (1, 1, 1), (5, 3, 7), (4, 9, 8), (20, 4, 9), (7, 30, 16), (50, 10, 17), (3, 5, 33),
          (600, 2, 3), (2000, 700, 40), (1100, 5000, 10)]  # fmt: skip


def _case(kernel: str, n: int, vocab: int, dim: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        ids = rng.integers(0, vocab, n).astype(np.int32)
        ids[:1], ids[1:2] = vocab - 1, 0
        sizes = dict(n=n, vocab=vocab, dim=dim)
        rows = rng.standard_normal((n, dim)).astype(dtype)
        table = rng.standard_normal((vocab, dim)).astype(dtype)
        if kernel == "embedding_fwd":
            return dict(y=np.empty_like(rows), weight=table, ids=ids, **sizes)
        return dict(dweight=np.empty_like(table), dy=rows, ids=ids, **sizes)

    return KernelCase(kernel, f"{n} of {vocab}x{dim}", make)


CASES = [_case(kernel, *shape) for kernel in ("embedding_fwd", "embedding_bwd") for shape in SHAPES]
