# SPDX-License-Identifier: Apache-2.0
"""LayerNorm, RMSNorm, BatchNorm1d, with torch's arguments, names and defaults."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hotloop.errors import GraphError, ShapeError
from hotloop.nn import functional
from hotloop.nn.base import Module
from hotloop.nn.checks import check_positive, check_real
from hotloop.nn.init import Constant
from hotloop.nn.parameter import Buffer, Parameter
from hotloop.trace import Tensor


def _shape(where: str, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    dims = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not dims:
        raise ShapeError(f"[{where}] normalized_shape must name at least one dimension, got ()")
    for dim in dims:
        check_positive(where, normalized_shape=dim)
    return tuple(int(d) for d in dims)


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, with the biased variance.

    Shapes: x (..., *normalized_shape), weight and bias ``normalized_shape``; they begin as 1 and 0.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        check_real("LayerNorm", at_least=0.0, eps=eps)
        self.normalized_shape = _shape("LayerNorm", normalized_shape)
        self.eps = float(eps)
        self.weight = Parameter(self.normalized_shape, Constant(1.0)) if elementwise_affine else None
        self.bias = Parameter(self.normalized_shape) if elementwise_affine and bias else None

    def forward(self, input: Tensor) -> Tensor:
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axes; eps None is float32's epsilon.

    Shapes: x (..., *normalized_shape), weight ``normalized_shape``, which begins as 1.
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None, elementwise_affine: bool = True
    ) -> None:
        if eps is not None:
            check_real("RMSNorm", at_least=0.0, eps=eps)
        self.normalized_shape = _shape("RMSNorm", normalized_shape)
        self.eps = eps
        self.weight = Parameter(self.normalized_shape, Constant(1.0)) if elementwise_affine else None

    def forward(self, input: Tensor) -> Tensor:
        return functional.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


class BatchNorm1d(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias per channel, over the rows of the batch.

    Training uses the batch's own statistics and moves ``running_mean`` and ``running_var`` (unbiased) towards
    them by ``momentum``; evaluation uses the running ones. Shapes: x (rows, num_features) or
    (rows, num_features, length).

    Raises:
        ShapeError: num_features below 1, or an input of another rank or number of channels.
        GraphError: ``momentum=None`` or ``track_running_stats=False``, which are not available.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        check_positive("BatchNorm1d", num_features=num_features)
        check_real("BatchNorm1d", at_least=0.0, eps=eps)
        if momentum is None or not 0.0 <= momentum <= 1.0:
            raise GraphError(
                f"[BatchNorm1d] momentum must lie in 0..1, got {momentum!r}; "
                "cumulative averages (None) are not available"
            )
        if not track_running_stats:
            raise GraphError(
                "[BatchNorm1d] track_running_stats=False is not available; use LayerNorm instead"
            )
        self.num_features = int(num_features)
        self.eps = float(eps)
        self.momentum = float(momentum)
        self.affine = bool(affine)
        self.weight = Parameter((num_features,), Constant(1.0)) if affine else None
        self.bias = Parameter((num_features,)) if affine else None
        self.running_mean = Buffer(np.zeros(num_features, np.float32))
        self.running_var = Buffer(np.ones(num_features, np.float32))
        self.num_batches_tracked = Buffer(np.array(0, np.int64))

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (2, 3) or input.shape[1] != self.num_features:
            raise ShapeError(
                f"[BatchNorm1d] the input must be (rows, {self.num_features}) or "
                f"(rows, {self.num_features}, length), got {input.shape}"
            )
        if input.ndim == 2:
            return self._normalize(input)
        rows, channels, length = input.shape
        flat = input.transpose(1, 2).reshape(-1, channels)  # (rows * length, channels)
        return self._normalize(flat).reshape(rows, length, channels).transpose(1, 2)

    def _normalize(self, x: Tensor) -> Tensor:
        affine = [None if p is None else p.symbol() for p in (self.weight, self.bias)]
        statistics = (self.running_mean.symbol(), self.running_var.symbol())
        return x.emit("batch_norm", *affine, *statistics, eps=self.eps, momentum=self.momentum)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
