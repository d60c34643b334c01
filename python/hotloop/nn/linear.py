# SPDX-License-Identifier: Apache-2.0
"""Linear and Identity."""

from __future__ import annotations

import math

from hotloop.nn import functional
from hotloop.nn.base import Module
from hotloop.nn.checks import check_positive
from hotloop.nn.init import Uniform
from hotloop.nn.parameter import Parameter
from hotloop.trace import Tensor


class Linear(Module):
    """y = x W^T + b.

    Shapes: x (..., in_features) -> (..., out_features); weight (out_features, in_features), bias
    (out_features). Both begin as U(-1/sqrt(in_features), 1/sqrt(in_features)), as in torch.

    Raises:
        ShapeError: a size below 1, or an input with another last dimension.

    Example:
        >>> Linear(64, 10).state_dict()["weight"].shape
        (10, 64)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        check_positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features = int(in_features)
        self.out_features = int(out_features)
        init = Uniform(1.0 / math.sqrt(in_features))
        self.weight = Parameter((out_features, in_features), init)
        self.bias = Parameter((out_features,), init) if bias else None

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight, self.bias)

    def _holds_head(self) -> bool:
        return True

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )


class Identity(Module):
    """y = x. Takes and ignores any arguments, to stand in for another layer."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input
