# SPDX-License-Identifier: Apache-2.0
"""Optimiser steps over lists of arrays: the bits of one call for each, whatever their layout and the threads."""

from __future__ import annotations

import numpy as np
import pytest

import hotloop as hl
from hotloop import ops

SIZES = [1, 0, 17, 16_384, 40_001, 200_000]


def arrays(dtype: type = np.float32) -> list[list[np.ndarray]]:
    """Parameters, gradients, first and second moments."""
    rng = np.random.default_rng(0)
    lists = [[rng.standard_normal(n).astype(dtype) for n in SIZES] for _ in range(3)]
    return [*lists, [np.abs(rng.standard_normal(n)).astype(dtype) for n in SIZES]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("step", [4, list(range(1, 1 + len(SIZES)))])
def test_a_list_is_each_of_its_arrays(dtype: type, threads: int, step: int | list[int]) -> None:
    many, single = arrays(dtype), arrays(dtype)
    hl.set_num_threads(threads)
    try:
        ops.adamw_(*many, step=step, lr=0.1, weight_decay=0.2)
    finally:
        hl.set_num_threads(None)
    for i, (p, g, m, v) in enumerate(zip(*single, strict=True)):
        ops.adamw_(p, g, m, v, step=step if isinstance(step, int) else step[i], lr=0.1, weight_decay=0.2)
    for mine, expected in zip(many, single, strict=True):
        for a, b in zip(mine, expected, strict=True):
            assert np.array_equal(a, b)


def test_momentum_and_gradients_of_any_layout() -> None:
    p, g, buffer, _ = arrays()
    q, h, other, _ = arrays()
    strided = [np.repeat(x, 2)[::2] for x in g]
    ops.sgd_(p, strided, buffer, lr=0.1, momentum=0.9, nesterov=True)
    for one, gradient, kept in zip(q, h, other, strict=True):
        ops.sgd_(one, gradient, kept, lr=0.1, momentum=0.9, nesterov=True)
    assert all(np.array_equal(a, b) for a, b in zip(p + buffer, q + other, strict=True))
    ops.sgd_([], [], lr=0.1)


def test_nothing_changes_where_one_array_is_wrong() -> None:
    p, g, m, v = arrays()
    before = [x.copy() for x in p + m + v]
    read_only = p[2].copy()
    read_only.flags.writeable = False
    for bad, error, message in (
        (([*p[:2], read_only, *p[3:]], g, m, v), ValueError, "param is read-only"),
        ((p, g[:-1], m, v), hl.ShapeError, r"grad must be a list of 6 arrays, as param, got list of 5"),
        ((p, [*g[:3], g[3][:-1], *g[4:]], m, v), hl.ShapeError, r"grad must be \(16384,\), as param"),
        ((p, g, [x.astype(np.float64) for x in m], v), hl.DTypeError, "exp_avg is float64 beside float32"),
        ((p, g, m, m), ValueError, "two of the arrays overlap"),
        (([*p[:4], p[5][:40_001], p[5]], g, m, v), ValueError, "two of the arrays overlap"),
    ):
        with pytest.raises(error, match=message):
            ops.adamw_(*bad, step=1, lr=0.1)
    with pytest.raises(hl.ShapeError, match="step must be one number or 6, got 2"):
        ops.adam_(p, g, m, v, step=[1, 2], lr=0.1)
    assert all(np.array_equal(a, b) for a, b in zip(p + m + v, before, strict=True))


def test_arrays_found_apart_are_looked_at_again() -> None:
    """The check of a step remembers addresses, not lists: the same list may hold other arrays in the next."""
    p, g, m, v = arrays()
    ops.adamw_(p, g, m, v, step=1, lr=0.1)
    ops.adamw_(p, g, m, v, step=2, lr=0.1)
    kept, before = m[4], m[5].copy()
    m[4] = m[5][: kept.size]
    with pytest.raises(ValueError, match="two of the arrays overlap"):
        ops.adamw_(p, g, m, v, step=3, lr=0.1)
    np.testing.assert_array_equal(m[5], before)
    m[4] = kept
    ops.adamw_(p, g, m, v, step=3, lr=0.1)


@pytest.mark.parametrize("lr", [-1.0, float("nan"), "0.1", [0.1]])
def test_wrong_numbers_are_wrong_every_time(lr: object) -> None:
    p, g, m, v = arrays()
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match="lr"):
            ops.adamw_(p, g, m, v, step=1, lr=lr)
