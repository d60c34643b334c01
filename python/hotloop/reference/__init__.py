# SPDX-License-Identifier: Apache-2.0
"""What every kernel means, in plain NumPy: the oracle of the native kernels and the engine of `interpret`.

``REFERENCES[name]`` is a function of (arguments, context). The arguments are a namespace with the fields of
the kernel in csrc/kernels/args.h: operands as flat arrays that begin at the operand (None where absent),
sizes, strides and integers as int, numbers as float. Outputs are written in place. Nothing here is fast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Context:
    """What varies by step and is no argument of a kernel.

    Attributes:
        seed: the user's seed.
        run: which call of fit.
        step: optimiser steps since the run began.
        groups: (groups, 2): learning rate and weight decay of each parameter group.
        dropout: (layers): drop probability of each dropout layer.
        first_row: where the rows of the call stand in the batch.
        first, last: whether the batch is the first, the last of those that share an update.
    """

    seed: int = 0
    run: int = 0
    step: int = 0
    groups: Sequence[Sequence[float]] | npt.NDArray[np.float64] = ()
    dropout: Sequence[float] = ()
    first_row: int = 0
    first: bool = True
    last: bool = True


Reference = Callable[[SimpleNamespace, Context], None]
REFERENCES: dict[str, Reference] = {}


def reference(name: str) -> Callable[[Reference], Reference]:
    """Register the reference of kernel ``name``. Overflow and NaN are results there, not warnings.

    >>> sorted(REFERENCES)[:2]
    ['abs_bwd', 'abs_fwd']
    """

    def register(function: Reference) -> Reference:
        if name in REFERENCES:
            raise ValueError(f"[reference] {name} is defined twice; remove one")

        @functools.wraps(function)
        def quiet(args: SimpleNamespace, ctx: Context) -> None:
            with np.errstate(all="ignore"):
                function(args, ctx)

        REFERENCES[name] = quiet
        return function

    return register


def element_index(shape: Sequence[int], strides: Sequence[int]) -> npt.NDArray[np.int64]:
    """Where the elements of a strided tensor lie in its flat operand: an integer array of this shape.

    >>> element_index((2, 3), (1, 2))
    array([[0, 2, 4],
           [1, 3, 5]])
    """
    index: Any = np.zeros((), np.int64)
    for size, stride in zip(shape, strides, strict=True):
        index = np.add.outer(index, np.arange(size, dtype=np.int64) * stride)
    return np.asarray(index, np.int64)


from hotloop.reference import (  # each family registers itself
    accumulate,
    dropout,
    elementwise,
    ema,
    embedding,
    loss,
    matmul,
    norm,
    optim,
    reduce,
    softmax,
)
