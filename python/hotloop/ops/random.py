# SPDX-License-Identifier: Apache-2.0
"""`dropout` of an array: the numbers are a function of seed, offset and place, and of nothing else."""

from __future__ import annotations

from typing import Any

from hotloop import _core
from hotloop.arguments import count, number
from hotloop.ops.arrays import dense, out_array, real_arrays, returned
from hotloop.ops.launch import launch

_NS = 0.4


def dropout(x: Any, p: float, *, seed: int, offset: int = 0, out: Any = None) -> Any:
    """Each element 0 with probability p, else divided by the probability of staying.

    Args:
        x: float32 or float64, any shape.
        p: in [0, 1), rounded to a multiple of 2**-16.
        seed, offset: integers that choose the random numbers (Philox4x32-10, Salmon et al. 2011): the same two
            give the same mask for the same number of elements, on any machine; other offsets other masks.
        out: may be x itself.

    The gradient is the same call on the gradient. Raises `ValueError` or `DTypeError`.

    >>> import numpy as np, hotloop as hl
    >>> y = hl.ops.dropout(np.ones(1000, np.float32), 0.5, seed=1)
    >>> sorted(set(y.tolist()))
    [0.0, 2.0]
    """
    p = number("ops.dropout", "p", p, low=0)
    if p >= 1:
        raise ValueError(f"[ops.dropout] p must be in [0, 1), got {p:g}")
    seed, offset = count("ops.dropout", "seed", seed), count("ops.dropout", "offset", offset)
    found = _core.plain_dropout(x, p, seed, offset, out)
    if found is not None:
        return found
    (view,) = real_arrays("dropout", x=x)
    result = out_array(out, view.shape, view, "dropout")
    source = dense(view, beside=result, in_place=True)
    fields = (result, source, result.size, result.size, 0)
    launch("dropout", view.dtype, fields, result.size * _NS, seed=seed, step=offset, dropout=[p])
    return returned(result, x, out)
