# SPDX-License-Identifier: Apache-2.0
"""The operators without torch's dispatcher, whose Python layers take 13 us forward and 50 us backward.

Where nobody looks at what is dispatched (no compiler, no tracing, no transform, plain tensors), `functional` comes
here: the same kernels below an autograd.Function. Second derivatives raise, as they do there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hotloop.torch import kernels


def direct(*tensors: Tensor | None) -> bool:
    """Whether nothing but autograd would see a dispatch of these."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    if torch._C._are_functorch_transforms_active() or torch.jit.is_tracing():
        return False
    return all(x is None or type(x) in kernels.READABLE for x in tensors)


def records(*tensors: Tensor | None) -> bool:
    """Whether autograd will ask for a gradient."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _some(gradients: Any, need: list[bool]) -> list[Tensor | None]:
    return [gradient if needed else None for gradient, needed in zip(gradients, need, strict=True)]


class LinearGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tanh: bool) -> Tensor:
        out, z = kernels.linear_gelu(x, weight, bias, tanh, True)
        ctx.save_for_backward(x, weight, z)
        ctx.tanh = tanh
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, z = ctx.saved_tensors
        need = list(ctx.needs_input_grad[:3])
        return *_some(kernels.linear_gelu_backward(dy, x, weight, z, ctx.tanh, need), need), None


class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float, ignored: int
    ) -> Tensor:
        ctx.save_for_backward(logits, target, weight)
        ctx.options = smoothing, ignored
        return kernels.cross_entropy(logits, target, weight, smoothing, ignored)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> Any:
        grad = kernels.cross_entropy_backward(dloss, *ctx.saved_tensors, *ctx.options)
        return grad, None, None, None, None


class LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dims: int, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        y, mean, rstd = kernels.layer_norm(x, dims, weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight)
        ctx.dims = dims
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, mean, rstd, weight = ctx.saved_tensors
        need = [ctx.needs_input_grad[i] for i in (0, 2, 3)]
        dx, dw, db = _some(kernels.layer_norm_backward(dy, x, mean, rstd, ctx.dims, weight, need), need)
        return dx, None, dw, db, None


class Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int) -> Tensor:
        ctx.mask = p, seed
        return kernels.dropped(x, p, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        return kernels.dropped(dy, *ctx.mask), None, None
