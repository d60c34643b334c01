# SPDX-License-Identifier: Apache-2.0
"""Losses of arrays, each with its gradient in the same pass over the predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from hotloop import _core
from hotloop.arguments import number
from hotloop.errors import ShapeError
from hotloop.ops.arrays import Array, dense, filled, indices, mean, new, out_array, real_arrays, returned
from hotloop.ops.launch import launch, team_for

_NS_EXP, _NS_MOVE = 0.8, 0.3  # of one thread, per element


def cross_entropy(
    logits: Any, labels: Any, *, return_grad: bool = False, label_smoothing: float = 0.0, out: Any = None
) -> Any:
    """The mean over rows of softmax cross-entropy, as ``torch.nn.functional.cross_entropy``.

    Args:
        logits: (rows, classes), float32 or float64.
        labels: (rows,) integers in [0, classes).
        return_grad: also give the gradient with respect to logits.
        label_smoothing: in [0, 1]: that share of each target is spread over all classes.
        out: with return_grad: where the gradient goes; may be logits itself.

    Returns the loss, a float, or (loss, gradient), the gradient of logits' shape, dtype and kind. Raises
    `ShapeError`, `DTypeError`, `LabelError` with the first bad row, or `ValueError`.

    >>> import numpy as np, hotloop as hl
    >>> loss, grad = hl.ops.cross_entropy(np.zeros((2, 4), np.float32), np.array([0, 3]), return_grad=True)
    >>> round(loss, 4), grad[0].tolist()
    (1.3863, [-0.375, 0.125, 0.125, 0.125])
    """
    smoothing = number("ops.cross_entropy", "label_smoothing", label_smoothing, low=0, high=1)
    if out is None and type(logits) is np.ndarray:
        filled = np.empty_like(logits) if return_grad else None
        found = _core.plain_cross_entropy(
            logits, labels, smoothing, None, filled, team_for(logits.size * _NS_EXP)
        )
        if found is not None:
            return (found, filled) if return_grad else found
    (view,) = real_arrays("cross_entropy", logits=logits)
    if view.ndim != 2 or not view.size:
        raise ShapeError(f"[ops.cross_entropy] logits must be (rows, classes), neither 0, got {view.shape}")
    rows, classes = view.shape
    numbers = indices(labels, "cross_entropy", "labels", below=classes, beside=view)
    if numbers.shape != (rows,):
        raise ShapeError(f"[ops.cross_entropy] labels must be ({rows},), got {numbers.shape}")
    per_row, grad, share = _outputs("cross_entropy", view, return_grad, out)
    # the gradient of a row is written while its logits are read
    fields = (per_row, grad, dense(view, beside=grad), numbers, None, share, rows, classes, smoothing)
    launch("cross_entropy", view.dtype, fields, view.size * _NS_EXP)
    return _result(per_row, grad, logits, out)


def mse(prediction: Any, target: Any, *, return_grad: bool = False, out: Any = None) -> Any:
    """The mean of ``(prediction - target)^2`` over all elements; both of one shape and dtype.

    ``out``, with return_grad, is where the gradient goes; it may be prediction or target itself.
    Returns the loss, a float, or (loss, gradient with respect to prediction). Raises `ShapeError`, `DTypeError`.

    >>> import numpy as np, hotloop as hl
    >>> hl.ops.mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    2.0
    """
    return _loss("mse", prediction, target, return_grad, out)


def mae(prediction: Any, target: Any, *, return_grad: bool = False, out: Any = None) -> Any:
    """The mean of ``|prediction - target|``; as `mse`."""
    return _loss("mae", prediction, target, return_grad, out)


def huber(
    prediction: Any, target: Any, *, delta: float = 1.0, return_grad: bool = False, out: Any = None
) -> Any:
    """The mean of ``d^2 / 2`` where ``|d| <= delta``, else ``delta (|d| - delta / 2)`` (Huber 1964); as `mse`."""
    delta = number("ops.huber", "delta", delta, low=0)
    if delta == 0:
        raise ValueError("[ops.huber] delta must be > 0, got 0")
    return _loss("huber", prediction, target, return_grad, out, p0=delta)


def bce_with_logits(prediction: Any, target: Any, *, return_grad: bool = False, out: Any = None) -> Any:
    """The mean of ``log(1 + exp(p)) - t p`` for logits p and targets t in [0, 1]; as `mse`."""
    return _loss("bce_with_logits", prediction, target, return_grad, out)


def _loss(name: str, prediction: Any, target: Any, return_grad: bool, out: Any, *, p0: float = 0.0) -> Any:
    view, wanted = real_arrays(name, prediction=prediction, target=target)
    if view.shape != wanted.shape or not view.size:
        raise ShapeError(
            f"[ops.{name}] prediction and target must have one shape and some elements, got {view.shape} and "
            f"{wanted.shape}"
        )
    rows = view.shape[0] if view.ndim else 1
    per_row, grad, share = _outputs(name, view, return_grad, out)
    sources = dense(view, beside=grad), dense(wanted, beside=grad)
    fields = (per_row, grad, *sources, None, share, rows, view.size // rows, p0)
    launch(name, view.dtype, fields, view.size * _NS_MOVE)
    return _result(per_row, grad, prediction, out)


def _outputs(
    where: str, view: Array, return_grad: bool, out: Any
) -> tuple[Array, Array | None, Array | None]:
    """(loss of each row, gradient, share of each row in the mean): the last two only if asked for."""
    rows = view.shape[0] if view.ndim else 1
    if out is not None and not return_grad:
        raise ValueError(f"[ops.{where}] out is where the gradient goes; ask for it with return_grad=True")
    if not return_grad:
        return new(view, (rows,)), None, None
    grad = out_array(out, view.shape, view, where)
    return new(view, (rows,)), grad, filled(view, rows, 1 / rows)


def _result(per_row: Array, grad: Array | None, like: Any, out: Any) -> Any:
    loss = mean(per_row)
    return loss if grad is None else (loss, returned(grad, like, out))
