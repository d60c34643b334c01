# SPDX-License-Identifier: Apache-2.0
"""Element-wise functions of one array, under torch's names. ``out`` may be the argument itself.

Each is the kernel that models train with. float32 results are within 2.5 units in the last place (gelu of negative
numbers: of 1, times x); NaN gives NaN.
"""

from __future__ import annotations

from typing import Any, Literal

from hotloop import _core
from hotloop.ops.arrays import dense, out_array, real_arrays, returned
from hotloop.ops.launch import launch, number_of

#: One thread's time per element: of what only moves memory, and of what evaluates a polynomial.
_NS_MOVE, _NS_COMPUTE = 0.15, 0.5


def _apply(name: str, x: Any, out: Any, p0: float = 0.0, p1: float = 0.0, *, ns: float = _NS_COMPUTE) -> Any:
    found = _core.plain_unary(number_of(f"{name}_fwd"), x, out, p0, p1)
    if found is not None:
        return found
    where = name.replace("gelu_tanh", "gelu")
    (view,) = real_arrays(where, x=x)
    result = out_array(out, view.shape, view, where)
    source = dense(view, beside=result, in_place=True)
    launch(f"{name}_fwd", result.dtype, (result, source, result.size, p0, p1), result.size * ns)
    return returned(result, x, out)


def relu(x: Any, *, out: Any = None) -> Any:
    """max(x, 0): an array of x's shape, dtype and kind."""
    return _apply("relu", x, out, ns=_NS_MOVE)


def leaky_relu(x: Any, negative_slope: float = 0.01, *, out: Any = None) -> Any:
    """x if x > 0, else negative_slope * x: an array of x's shape, dtype and kind."""
    return _apply("leaky_relu", x, out, float(negative_slope), ns=_NS_MOVE)


def elu(x: Any, alpha: float = 1.0, *, out: Any = None) -> Any:
    """x if x > 0, else alpha * (exp(x) - 1) (Clevert, Unterthiner and Hochreiter 2016): an array of x's shape, dtype and kind."""
    return _apply("elu", x, out, float(alpha))


def selu(x: Any, *, out: Any = None) -> Any:
    """scale * elu(x, alpha) with the constants of Klambauer et al. (2017): an array of x's shape, dtype and kind."""
    return _apply("selu", x, out)


def gelu(x: Any, approximate: Literal["none", "tanh"] = "none", *, out: Any = None) -> Any:
    """x * Phi(x), exactly or by the tanh formula (Hendrycks and Gimpel 2016): an array of x's shape, dtype and kind."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"[ops.gelu] approximate must be 'none' or 'tanh', got {approximate!r}")
    return _apply("gelu" if approximate == "none" else "gelu_tanh", x, out)


def silu(x: Any, *, out: Any = None) -> Any:
    """x * sigmoid(x): an array of x's shape, dtype and kind."""
    return _apply("silu", x, out)


def mish(x: Any, *, out: Any = None) -> Any:
    """x * tanh(softplus(x)) (Misra 2020): an array of x's shape, dtype and kind."""
    return _apply("mish", x, out)


def tanh(x: Any, *, out: Any = None) -> Any:
    """The hyperbolic tangent: an array of x's shape, dtype and kind."""
    return _apply("tanh", x, out)


def sigmoid(x: Any, *, out: Any = None) -> Any:
    """1 / (1 + exp(-x)): an array of x's shape, dtype and kind."""
    return _apply("sigmoid", x, out)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0, *, out: Any = None) -> Any:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x > threshold: an array of x's shape, dtype and kind."""
    if not beta > 0:
        raise ValueError(f"[ops.softplus] beta must be greater than 0, got {beta!r}")
    return _apply("softplus", x, out, float(beta), float(threshold))


def exp(x: Any, *, out: Any = None) -> Any:
    """e ** x: an array of x's shape, dtype and kind."""
    return _apply("exp", x, out)


def log(x: Any, *, out: Any = None) -> Any:
    """The natural logarithm; -inf for 0, NaN below it: an array of x's shape, dtype and kind."""
    return _apply("log", x, out)


def sqrt(x: Any, *, out: Any = None) -> Any:
    """The square root; NaN below 0: an array of x's shape, dtype and kind."""
    return _apply("sqrt", x, out, ns=_NS_MOVE)
