# SPDX-License-Identifier: Apache-2.0
"""Activations as layers, with torch's arguments.

``inplace`` is accepted and changes nothing: the memory plan already reuses what is no longer read.
"""

from __future__ import annotations

from typing import Literal

from hotloop.errors import GraphError
from hotloop.nn import functional
from hotloop.nn.base import Module
from hotloop.nn.checks import check_real
from hotloop.trace import Tensor


class ReLU(Module):
    """max(x, 0), element by element."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu(input)


class LeakyReLU(Module):
    """x if x > 0, else negative_slope * x; the slope is not negative, so that the sign of y is that of x."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        check_real("LeakyReLU", at_least=0.0, negative_slope=negative_slope)
        self.negative_slope = float(negative_slope)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return functional.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x if x > 0, else alpha * (exp(x) - 1); alpha is not negative."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        check_real("ELU", at_least=0.0, alpha=alpha)
        self.alpha = float(alpha)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return functional.elu(input, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class SELU(Module):
    """The self-normalizing ELU of Klambauer et al. (NIPS 2017)."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return functional.selu(input)


class GELU(Module):
    """x * Phi(x); ``approximate`` is "none" (erf) or "tanh"."""

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise GraphError(f"[GELU] approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate: Literal["none", "tanh"] = approximate

    def forward(self, input: Tensor) -> Tensor:
        return functional.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x * sigmoid(x)."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return functional.silu(input)


class Mish(Module):
    """x * tanh(softplus(x))."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return functional.mish(input)


class Tanh(Module):
    """tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.tanh(input)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.sigmoid(input)


class Softplus(Module):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        check_real("Softplus", beta=beta, threshold=threshold)
        if not beta > 0:
            raise GraphError(f"[Softplus] beta must be greater than 0, got {beta!r}")
        self.beta = float(beta)
        self.threshold = float(threshold)

    def forward(self, input: Tensor) -> Tensor:
        return functional.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """exp(x) / sum(exp(x)) over axis ``dim`` (None: the last).

    Do not put it before a cross-entropy loss, which has a softmax of its own.
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return functional.softmax(input, -1 if self.dim is None else self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """x - log(sum(exp(x))) over axis ``dim`` (None: the last)."""

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return functional.log_softmax(input, -1 if self.dim is None else self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
