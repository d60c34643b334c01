# SPDX-License-Identifier: Apache-2.0
"""Cases of LayerNorm, RMSNorm and BatchNorm: every tail, each optional operand present and absent, constant
rows and columns, and offsets far larger than the spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cases import KernelCase

Fields = dict[str, Any]
Random = Callable[..., np.ndarray]

ROW_SHAPES = [(0, 4), (1, 1), (2, 7), (3, 8), (1, 9), (4, 16), (5, 17), (3, 33), (200, 64), (2, 1100)]
COLUMN_SHAPES = [(1, 3), (2, 1), (3, 7), (5, 8), (64, 9), (65, 16), (33, 17), (130, 33), (300, 100)]
EPS = 1e-5


def _random(rng: np.random.Generator, dtype: type) -> Random:
    return lambda *shape: rng.standard_normal(shape).astype(dtype)


def _statistics(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    x64 = x.astype(np.float64)
    mean, rstd = x64.mean(axis=axis), 1 / np.sqrt(x64.var(axis=axis) + EPS)
    return mean.astype(x.dtype), rstd.astype(x.dtype)


def _root(x: np.ndarray) -> np.ndarray:
    return (1 / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1) + EPS)).astype(x.dtype)


def _case(kernel: str, rows: int, cols: int, label: str, fields: Callable[[Random], Fields]) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        return dict(rows=rows, cols=cols, **fields(_random(rng, dtype)))

    return KernelCase(kernel, f"{rows}x{cols}{label}", make)


def layer_norm(rows: int, cols: int, full: bool, offset: float = 0.0, spread: float = 1.0) -> list[KernelCase]:
    def forward(r: Random) -> Fields:
        x = spread * r(rows, cols) + x_type(r, offset)
        weight, bias = (r(cols), r(cols)) if full else (None, None)
        mean, rstd = (r(rows), r(rows)) if full else (None, None)
        return dict(y=np.empty_like(x), mean=mean, rstd=rstd, x=x, weight=weight, bias=bias, eps=EPS)

    def backward(r: Random) -> Fields:
        x = r(rows, cols)
        mean, rstd = _statistics(x, 1)
        weight = r(cols) if full else None
        return dict(dx=np.empty_like(x), dy=r(rows, cols), x=x, mean=mean, rstd=rstd, weight=weight)

    label = f"{'' if full else ' bare'}{f' offset {offset:g}' if offset else ''}{'' if spread else ' constant'}"
    cases = [_case("layer_norm_fwd", rows, cols, label, forward)]
    return cases if label.strip() not in ("", "bare") else [*cases, _case("layer_norm_bwd", rows, cols, label, backward)]
