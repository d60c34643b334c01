# SPDX-License-Identifier: Apache-2.0
"""Functions of the rows of an array: softmax, norms, and the gather of an embedding; torch's names and order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import numpy as np

from hotloop import _core
from hotloop.errors import ShapeError
from hotloop.ops.arrays import Array, as_array, assign, dense, indices, new, out_array, real_arrays, returned
from hotloop.ops.launch import launch, number_of

_NS_EXP, _NS_NORM, _NS_COPY = 0.6, 0.3, 0.15  # of one thread, per element


def softmax(x: Any, axis: int = -1, *, out: Any = None) -> Any:
    """``exp(x) / sum(exp(x))`` along an axis, without overflow: an array of x's shape, dtype and kind.

    Raises `ShapeError` for an axis that x does not have.

    >>> import numpy as np, hotloop as hl
    >>> hl.ops.softmax(np.zeros((1, 4), np.float32))
    array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    return _softmax("softmax", x, axis, out)


def log_softmax(x: Any, axis: int = -1, *, out: Any = None) -> Any:
    """``x - log(sum(exp(x)))`` along an axis, without overflow. Raises as `softmax`."""
    return _softmax("log_softmax", x, axis, out)


def _softmax(name: str, x: Any, axis: int, out: Any) -> Any:
    found = _core.plain_softmax(number_of(f"{name}_fwd"), x, axis, out)
    if found is not None:
        return found
    (view,) = real_arrays(name, x=x)
    if not -view.ndim <= axis < view.ndim:
        raise ShapeError(
            f"[ops.{name}] axis must be in [{-view.ndim}, {view.ndim}), got {axis} for {view.shape}"
        )
    result = out_array(out, view.shape, view, name)
    if not view.size:
        return returned(result, x, out)
    last = axis in (-1, view.ndim - 1)
    source = dense(np.moveaxis(view, axis, -1), beside=result if last else None)
    target = result if last else new(source, source.shape)
    cols = source.shape[-1]
    launch(f"{name}_fwd", view.dtype, (target, source, source.size // cols, cols), source.size * _NS_EXP)
    if not last:
        assign(result, np.moveaxis(target, -1, axis))
    return returned(result, x, out)


def layer_norm(
    x: Any, normalized_shape: Union[int, Sequence[int]], weight: Any = None, bias: Any = None, eps: float = 1e-5,
    *, out: Any = None,
) -> Any:  # fmt: skip
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions (Ba, Kiros and Hinton 2016).

    Args:
        x: (..., *normalized_shape).
        normalized_shape: the dimensions that are normalised together.
        weight, bias: arrays of normalized_shape, or None.
        eps: added to the biased variance.

    Returns an array of x's shape, dtype and kind. Raises `ShapeError` or `DTypeError`.

    >>> import numpy as np, hotloop as hl
    >>> hl.ops.layer_norm(np.array([[1.0, 3.0]]), 2, eps=0.0)
    array([[-1.,  1.]])
    """
    found = _core.plain_layer_norm(x, normalized_shape, weight, bias, eps, out)
    if found is not None:
        return found
    view, scale, shift = real_arrays("layer_norm", x=x, weight=weight, bias=bias)
    cols = _columns("layer_norm", view, normalized_shape, weight=scale, bias=shift)
    result = out_array(out, view.shape, view, "layer_norm")
    if view.size:
        fields = (
            result, None, None, dense(view, beside=result), _dense(scale, result), _dense(shift, result),
            view.size // cols, cols, float(eps),
        )  # fmt: skip
        launch("layer_norm_fwd", view.dtype, fields, view.size * _NS_NORM)
    return returned(result, x, out)


def rms_norm(
    x: Any, normalized_shape: Union[int, Sequence[int]], weight: Any = None, eps: float | None = None,
    *, out: Any = None,
) -> Any:  # fmt: skip
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimensions (Zhang and Sennrich 2019).

    Arguments as `layer_norm`; ``eps=None`` is the spacing of x's dtype at 1, as in torch.
    """
    found = _core.plain_rms_norm(x, normalized_shape, weight, eps, out)
    if found is not None:
        return found
    view, scale = real_arrays("rms_norm", x=x, weight=weight)
    cols = _columns("rms_norm", view, normalized_shape, weight=scale)
    eps = float(np.finfo(view.dtype).eps if eps is None else eps)
    result = out_array(out, view.shape, view, "rms_norm")
    if view.size:
        fields = (
            result, None, dense(view, beside=result), _dense(scale, result), view.size // cols, cols, eps
        )  # fmt: skip
        launch("rms_norm_fwd", view.dtype, fields, view.size * _NS_NORM)
    return returned(result, x, out)


def embedding(ids: Any, weight: Any, *, out: Any = None) -> Any:
    """The rows ``weight[ids]``: (*ids.shape, dim) of weight's dtype and kind.

    Args: ids: integers in [0, vocab); weight: (vocab, dim). Raises `LabelError` with the first id out of range.
    """
    (table,) = real_arrays("embedding", weight=weight)
    if table.ndim != 2:
        raise ShapeError(f"[ops.embedding] weight must be (vocab, dim), got {table.shape}")
    vocab, dim = table.shape
    places = as_array(ids, "embedding", "ids")
    shape = places.shape
    numbers = indices(places, "embedding", "ids", below=vocab, beside=table)
    result = out_array(out, (*shape, dim), table, "embedding")
    if result.size:
        fields = (result, dense(table, beside=result), numbers, numbers.size, vocab, dim)
        launch("embedding_fwd", table.dtype, fields, result.size * _NS_COPY)
    return returned(result, weight, out)


def _columns(
    where: str, x: Array, normalized_shape: Union[int, Sequence[int]], **params: Array | None
) -> int:
    """Elements that are normalised together; x and the parameters are checked against them."""
    whole = (int, np.integer)
    given: Any = (normalized_shape,) if isinstance(normalized_shape, whole) else normalized_shape
    if not isinstance(given, Sequence) or not all(isinstance(d, whole) for d in given):
        raise TypeError(
            f"[ops.{where}] normalized_shape must be whole numbers, got {type(normalized_shape).__name__}; give "
            f"{x.shape[-1] if x.ndim else 1} for the last dimension"
        )
    dims = tuple(given)
    if not dims or x.shape[-len(dims) :] != dims:
        raise ShapeError(f"[ops.{where}] x must end in the dimensions {dims}, got {x.shape}")
    for name, param in params.items():
        if param is not None and param.shape != dims:
            raise ShapeError(f"[ops.{where}] {name} must be {dims}, got {param.shape}")
    return int(np.prod(dims))


def _dense(x: Array | None, beside: Array) -> Array | None:
    return None if x is None else dense(x, beside=beside)
