# SPDX-License-Identifier: Apache-2.0
"""Functions for use inside `forward`, under torch.nn.functional's names.

They take and give symbolic tensors; for arrays see ``hotloop.ops``. Dropout is a layer only
(`hotloop.nn.Dropout`): each use has a random stream of its own, which belongs to a place in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hotloop.errors import GraphError, ShapeError
from hotloop.nn.checks import check_real
from hotloop.trace.tensor import Operand, Tensor

#: torch's default of rms_norm: the gap between 1 and the next float32.
FLOAT32_EPS = float(np.finfo(np.float32).eps)


def _tensor(x: Operand) -> Tensor:
    if not isinstance(x, Operand):
        raise GraphError(
            f"[functional] expected a symbolic tensor, got {type(x).__name__}; these functions are for "
            "inside of forward, and hotloop.ops is for arrays"
        )
    return x.symbol()


def relu(x: Operand) -> Tensor:
    """max(x, 0)"""
    return _tensor(x).emit("relu")


def leaky_relu(x: Operand, negative_slope: float = 0.01) -> Tensor:
    """x if x > 0, else negative_slope * x"""
    # the gradient knows x by the sign of y
    check_real("leaky_relu", at_least=0.0, negative_slope=negative_slope)
    return _tensor(x).emit("leaky_relu", p0=float(negative_slope))


def elu(x: Operand, alpha: float = 1.0) -> Tensor:
    """x if x > 0, else alpha * (exp(x) - 1)"""
    check_real("elu", at_least=0.0, alpha=alpha)
    return _tensor(x).emit("elu", p0=float(alpha))


def selu(x: Operand) -> Tensor:
    """scale * elu(x, alpha) with the constants of Klambauer et al. (NIPS 2017)"""
    return _tensor(x).emit("selu")


def gelu(x: Operand, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """x * Phi(x), exactly or by the tanh formula"""
    names = {"none": "gelu", "tanh": "gelu_tanh"}
    if approximate not in names:
        raise GraphError(f"[gelu] approximate must be 'none' or 'tanh', got {approximate!r}")
    return _tensor(x).emit(names[approximate])


def silu(x: Operand) -> Tensor:
    """x * sigmoid(x)"""
    return _tensor(x).emit("silu")


def mish(x: Operand) -> Tensor:
    """x * tanh(softplus(x))"""
    return _tensor(x).emit("mish")


def tanh(x: Operand) -> Tensor:
    """tanh(x)"""
    return _tensor(x).emit("tanh")


def sigmoid(x: Operand) -> Tensor:
    """1 / (1 + exp(-x))"""
    return _tensor(x).emit("sigmoid")


def softplus(x: Operand, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold"""
    if not beta > 0:
        raise GraphError(f"[softplus] beta must be greater than 0, got {beta!r}")
    return _tensor(x).emit("softplus", p0=float(beta), p1=float(threshold))


def exp(x: Operand) -> Tensor:
    """e ** x"""
    return _tensor(x).emit("exp")


def log(x: Operand) -> Tensor:
    """Natural logarithm"""
    return _tensor(x).emit("log")


def sqrt(x: Operand) -> Tensor:
    """Square root"""
    return _tensor(x).emit("sqrt")


def square(x: Operand) -> Tensor:
    """x * x"""
    return _tensor(x).emit("square")


def abs(x: Operand) -> Tensor:  # torch's name
    """|x|; the gradient at 0 is 0"""
    return _tensor(x).emit("abs")


def softmax(x: Operand, dim: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) over one axis, which cannot be the batch"""
    return _over_last("softmax", x, dim)


def log_softmax(x: Operand, dim: int = -1) -> Tensor:
    """x - log(sum(exp(x))) over one axis, which cannot be the batch"""
    return _over_last("log_softmax", x, dim)


def _over_last(op: str, x: Operand, dim: int) -> Tensor:
    t = _tensor(x)
    axis = t.axis(dim)
    if axis == t.ndim - 1:
        return t.emit(op)
    return t.transpose(axis, -1).emit(op).transpose(axis, -1)


def linear(x: Operand, weight: Operand, bias: Operand | None = None) -> Tensor:
    """x (..., in) @ weight (out, in)^T + bias (out)"""
    t = _tensor(x)
    return t.emit("linear", _tensor(weight), None if bias is None else _tensor(bias))


def embedding(ids: Operand, weight: Operand) -> Tensor:
    """Rows of weight (entries, dim) at integer ids (...): (..., dim)"""
    return _tensor(weight).emit("embedding", _tensor(ids))


def layer_norm(
    x: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, which are ``normalized_shape``"""
    t, n_axes = _normalized("layer_norm", x, normalized_shape)
    parameters = [None if p is None else _tensor(p) for p in (weight, bias)]
    return t.emit("layer_norm", *parameters, eps=float(eps), n_axes=n_axes)


def rms_norm(
    x: Operand, normalized_shape: int | Sequence[int], weight: Operand | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes, which are ``normalized_shape``"""
    t, n_axes = _normalized("rms_norm", x, normalized_shape)
    eps = FLOAT32_EPS if eps is None else float(eps)
    return t.emit("rms_norm", None if weight is None else _tensor(weight), eps=eps, n_axes=n_axes)


def _normalized(name: str, x: Operand, shape: int | Sequence[int]) -> tuple[Tensor, int]:
    t = _tensor(x)
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    if not dims or t.ndim < len(dims) or t.shape[t.ndim - len(dims) :] != dims:
        raise ShapeError(
            f"[{name}] the input must end in {dims}, got {t.shape}; change normalized_shape or reshape"
        )
    return t, len(dims)


def concat(tensors: Sequence[Operand], dim: int = 0) -> Tensor:
    """The tensors side by side along an axis, which cannot be the batch"""
    parts = [_tensor(t) for t in tensors]
    if not parts:
        raise GraphError("[concat] at least one tensor is needed")
    if len(parts) == 1:
        return parts[0]
    return parts[0].emit("concat", *parts[1:], axis=parts[0].axis(dim))


cat = concat


def flatten(x: Operand, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes ``start_dim..end_dim`` as one"""
    return _tensor(x).flatten(start_dim, end_dim)
