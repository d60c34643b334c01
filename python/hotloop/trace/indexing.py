# SPDX-License-Identifier: Apache-2.0
"""``x[...]`` in forward: NumPy's basic indexing, as one slice and one reshape."""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, Any, Union

from hotloop.errors import GraphError, ShapeError
from hotloop.graph import Dim, Rows
from hotloop.rules.dims import show

if TYPE_CHECKING:
    from hotloop.trace.tensor import Tensor

Index = Union[int, slice, EllipsisType, None]


def getitem(x: Tensor, index: tuple[Any, ...]) -> Tensor:
    """One slice for the ranges, then one reshape that drops and adds axes."""
    n_axes = sum(i is not None and i is not Ellipsis for i in index)
    if n_axes > x.ndim or sum(i is Ellipsis for i in index) > 1:
        raise ShapeError(f"[trace] too many indices for {show(x.shape)}, got {len(index)}")
    if not any(i is Ellipsis for i in index):
        index = (*index, Ellipsis)
    starts: list[int] = []
    stops: list[int | None] = []
    kept: list[bool | None] = []  # True: the axis stays, False: it goes, None: a new one
    for item in index:
        if item is None:
            kept.append(None)
            continue
        for one in [slice(None)] * (x.ndim - n_axes) if item is Ellipsis else [item]:
            start, stop = _range(x, len(starts), one)
            starts.append(start)
            stops.append(stop)
            kept.append(isinstance(one, slice))
    if any(start or stop is not None for start, stop in zip(starts, stops, strict=True)):
        x = x.emit("slice", starts=tuple(starts), stops=tuple(stops))
    dims = iter(x.shape)
    shape: list[Dim] = []
    for keep in kept:
        dim = 1 if keep is None else next(dims)
        if keep is not False:
            shape.append(dim)
    return x.reshape(tuple(shape))


def _range(x: Tensor, axis: int, item: object) -> tuple[int, int | None]:
    dim = x.shape[axis]
    if isinstance(item, slice) and item == slice(None):
        return 0, None
    if isinstance(dim, Rows):
        raise GraphError(
            f"[trace] rows of the batch cannot be picked, got {item!r} for axis {axis}; write ':' there"
        )
    if isinstance(item, slice):
        start, stop, step = item.indices(dim)
        if step != 1 or start >= stop:
            raise ShapeError(f"[trace] slices must be non-empty with step 1, got {item} of {dim}")
        return (0, None) if (start, stop) == (0, dim) else (start, stop)
    if isinstance(item, bool) or not isinstance(item, int) or not -dim <= item < dim:
        raise ShapeError(
            f"[trace] an index is an int inside the axis, a slice, ... or None; got {item!r} of {dim}"
        )
    return item % dim, item % dim + 1
