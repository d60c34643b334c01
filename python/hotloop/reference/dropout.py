# SPDX-License-Identifier: Apache-2.0
"""Dropout's mask from first principles: Philox4x32-10 in NumPy (csrc/core/philox.h is its twin)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from hotloop.reference import Context, reference

#: A float64 array (float32 where the tests ask how much rounding is usual).
Array = Any
Words = list[npt.NDArray[np.uint64]]

LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
DROPOUT_STREAM = 1


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10 of many counters: four arrays of 32-bit words in, four out."""
    c0, c1, c2, c3 = counter
    for i in range(ROUNDS):
        k0, k1 = (np.uint64((word + i * step) & 0xFFFFFFFF) for word, step in zip(key, WEYL, strict=True))
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> SHIFT) ^ c1 ^ k0, p1 & LOW, (p0 >> SHIFT) ^ c3 ^ k1, p0 & LOW
    return [c0, c1, c2, c3]


def _words(*values: int) -> Words:
    return [np.array([value & 0xFFFFFFFF], np.uint64) for value in values]


def stream_key(seed: int, run: int, number: int, stream: int) -> tuple[int, int]:
    """The key of one stream of random numbers under the user's seed."""
    block = philox(_words(run, number, stream, 0), (seed & 0xFFFFFFFF, seed >> 32))
    return int(block[0][0]), int(block[1][0])


def threshold(p: float) -> int:
    """Half-words below it are dropped, of 65536."""
    return int(np.floor(p * 65536 + 0.5))


def kept(ctx: Context, layer: int, n: int, first: int = 0) -> npt.NDArray[np.bool_]:
    """Which of elements first ... first+n-1 dropout layer ``layer`` keeps in this step: bool (n)."""
    end = first + n
    key = stream_key(ctx.seed, ctx.run, layer, DROPOUT_STREAM)
    block = np.arange(-(-end // 8), dtype=np.uint64)
    zero = np.zeros_like(block)
    low, high = zero + np.uint64(ctx.step & 0xFFFFFFFF), zero + np.uint64(ctx.step >> 32)
    words = np.stack(philox([block & LOW, block >> SHIFT, low, high], key), axis=1)
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=2)
    return np.asarray(halves.reshape(-1)[first:end] >= threshold(ctx.dropout[layer]))


def drop(x: Array, ctx: Context, layer: int, row: int) -> Array:
    """x (n) flat after dropout layer ``layer``; -1 is no dropout. A row of the batch has ``row`` elements."""
    below = threshold(ctx.dropout[layer]) if layer >= 0 else 0
    if below == 0:
        return x
    if below == 65536:
        return np.zeros_like(x)
    keep = kept(ctx, layer, x.size, ctx.first_row * row)
    return np.where(keep, x * x.dtype.type(65536 / (65536 - below)), x.dtype.type(0))


@reference("dropout")
def dropout(a: SimpleNamespace, ctx: Context) -> None:
    a.y[: a.n] = drop(a.x[: a.n], ctx, a.dropout, a.dropout_row)
