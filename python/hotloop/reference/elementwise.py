# SPDX-License-Identifier: Apache-2.0
"""Element-wise functions and their gradients, as formulas. The tables are in the order of unary.def and
binary.def: a function's place is the number by which matmul names its activation."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from hotloop.reference import Context, element_index, reference
from hotloop.reference.dropout import drop

#: A float64 array (float32 where the tests ask how much rounding is usual).
Array = Any

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
GELU_BETA = math.sqrt(2 / math.pi)
_erf: Any = np.frompyfunc(math.erf, 1, 1)


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))`` without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def normal_cdf(x: Array) -> Array:
    return (1 + _erf(x * math.sqrt(0.5)).astype(x.dtype)) / 2


def _elu(x: Array, alpha: float, _: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(x))


def _selu(x: Array, *_: float) -> Array:
    return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(x))


def _gelu_grad(x: Array, dy: Array, *_: float) -> Array:
    return dy * (normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi))


def _gelu_tanh(x: Array, *_: float) -> Array:
    """``x/2 (1 + tanh(u))``, as ``x sigmoid(2u)``: the sum cancels far to the left, in float64 as well."""
    return x * sigmoid(2 * GELU_BETA * (x + 0.044715 * x**3))


def _gelu_tanh_grad(x: Array, dy: Array, *_: float) -> Array:
    s = sigmoid(2 * GELU_BETA * (x + 0.044715 * x**3))
    return dy * (s + x * s * (1 - s) * 2 * GELU_BETA * (1 + 3 * 0.044715 * x * x))


def _silu_grad(x: Array, dy: Array, *_: float) -> Array:
    s = sigmoid(x)
    return dy * s * (1 + x * (1 - s))


def _mish_grad(x: Array, dy: Array, *_: float) -> Array:
    t = np.tanh(softplus(x))
    return dy * (t + x * sigmoid(x) * (1 - t * t))


def _softplus(x: Array, beta: float, threshold: float) -> Array:
    return np.where(beta * x > threshold, x, softplus(beta * x) / beta)


def _softplus_grad(x: Array, dy: Array, beta: float, threshold: float) -> Array:
    return np.where(beta * x > threshold, dy, dy * sigmoid(beta * x))


class Unary(NamedTuple):
    """value(x, p0, p1) and grad(saved, dy, p0, p1); saved is y where ``reads_output``, else x."""

    value: Callable[[Array, float, float], Array]
    grad: Callable[[Array, Array, float, float], Array]
    reads_output: bool


UNARY: dict[str, Unary] = {
    "relu": Unary(lambda x, *_: np.maximum(x, 0), lambda y, dy, *_: np.where(y <= 0, 0, dy), True),
    "leaky_relu": Unary(
        lambda x, p0, _: np.where(x > 0, x, p0 * x),
        lambda y, dy, p0, _: np.where(y > 0, dy, p0 * dy),
        True,
    ),
    "elu": Unary(_elu, lambda y, dy, p0, _: np.where(y > 0, dy, dy * (y + p0)), True),
    "selu": Unary(
        _selu, lambda y, dy, *_: dy * np.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA), True
    ),
    "gelu": Unary(lambda x, *_: x * normal_cdf(x), _gelu_grad, False),
    "gelu_tanh": Unary(_gelu_tanh, _gelu_tanh_grad, False),
    "silu": Unary(lambda x, *_: x * sigmoid(x), _silu_grad, False),
    "mish": Unary(lambda x, *_: x * np.tanh(softplus(x)), _mish_grad, False),
    "tanh": Unary(lambda x, *_: np.tanh(x), lambda y, dy, *_: dy * (1 - y * y), True),
    "sigmoid": Unary(lambda x, *_: sigmoid(x), lambda y, dy, *_: dy * y * (1 - y), True),
    "softplus": Unary(_softplus, _softplus_grad, False),
    "exp": Unary(lambda x, *_: np.exp(x), lambda y, dy, *_: dy * y, True),
    "log": Unary(lambda x, *_: np.log(x), lambda x, dy, *_: dy / x, False),
    "sqrt": Unary(lambda x, *_: np.sqrt(x), lambda y, dy, *_: dy / (2 * y), True),
    "square": Unary(lambda x, *_: x * x, lambda x, dy, *_: dy * 2 * x, False),
    "abs": Unary(lambda x, *_: np.abs(x), lambda x, dy, *_: dy * np.sign(x), False),
    "reciprocal": Unary(lambda x, *_: 1 / x, lambda y, dy, *_: -dy * y * y, True),
    "affine": Unary(lambda x, p0, p1: p0 * x + p1, lambda x, dy, p0, _: dy * p0, False),
}
ACTIVATIONS = list(UNARY)

BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
}


def _register_unary(name: str, function: Unary) -> None:
    @reference(f"{name}_fwd")
    def forward(a: SimpleNamespace, ctx: Context) -> None:
        a.y[: a.n] = function.value(a.x[: a.n], a.p0, a.p1)

    @reference(f"{name}_bwd")
    def backward(a: SimpleNamespace, ctx: Context) -> None:
        dy = drop(a.dy[: a.n], ctx, a.dropout, a.dropout_row)
        a.dx[: a.n] = function.grad(a.saved[: a.n], dy, a.p0, a.p1)


def _register_binary(name: str, function: Callable[[Array, Array], Array]) -> None:
    @reference(name)
    def binary(a: SimpleNamespace, ctx: Context) -> None:
        shape = (a.d0, a.d1, a.d2, a.d3)
        left = a.a[element_index(shape, (a.a0, a.a1, a.a2, a.a3))]
        right = a.b[element_index(shape, (a.b0, a.b1, a.b2, a.b3))]
        a.out[: math.prod(shape)] = function(left, right).ravel()


for _name, _unary in UNARY.items():
    _register_unary(_name, _unary)
for _name, _binary in BINARY.items():
    _register_binary(_name, _binary)


@reference("copy")
def copy(a: SimpleNamespace, ctx: Context) -> None:
    shape = (a.d0, a.d1, a.d2, a.d3)
    values = a.x[element_index(shape, (a.x0, a.x1, a.x2, a.x3))]
    a.out[element_index(shape, (a.o0, a.o1, a.o2, a.o3))] = values


@reference("fill")
def fill(a: SimpleNamespace, ctx: Context) -> None:
    a.out[: a.n] = a.value


@reference("clamp")
def clamp(a: SimpleNamespace, ctx: Context) -> None:
    a.x[: a.n] = np.minimum(np.maximum(a.x[: a.n], a.lo), a.hi)
