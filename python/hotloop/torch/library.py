# SPDX-License-Identifier: Apache-2.0
"""The operators ``torch.ops.hotloop.*``: schema, kernel, shapes for the compiler, and gradients.

Registered with torch.library, so that torch.compile keeps each as one node of its graph and autograd, fake tensors
and export know it. The library object is kept: with it the operators would go.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hotloop.torch import kernels

_library = torch.library.Library("hotloop", "DEF")


def _register(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for place in ("CPU", "CUDA"):
        _library.impl(name, kernel, place)
    torch.library.register_fake(f"hotloop::{name}", fake, lib=_library)


def _first_only(ctx: Any, *gradients: Any) -> Any:
    raise RuntimeError(
        "[torch] the second derivative of hotloop's operators is not there; use torch's own function"
    )


def _register_gradient(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """An operator that a gradient is made of: differentiated once more it raises, and is not silently constant."""
    _register(schema, kernel, fake)
    torch.library.register_autograd(f"hotloop::{schema.partition('(')[0]}", _first_only, lib=_library)


def _needed(gradient: Tensor, need: bool) -> Tensor | None:
    return gradient if need else None


# --- linear_gelu ----------------------------------------------------------------------------------


def _linear_gelu_fake(x: Any, weight: Any, bias: Any, tanh: bool, save: bool) -> Any:
    out = x.new_empty((*x.shape[:-1], weight.shape[0]))
    return out, torch.empty_like(out) if save else x.new_empty(0)


def _linear_gelu_backward_fake(dy: Any, x: Any, weight: Any, z: Any, tanh: bool, need: list[bool]) -> Any:
    dx = x.new_empty(x.shape if need[0] else 0)
    dw = x.new_empty(weight.shape if need[1] else 0)
    return dx, dw, x.new_empty(weight.shape[0] if need[1] or need[2] else 0)


def _linear_gelu_setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, _, ctx.tanh, _ = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.set_materialize_grads(False)


def _linear_gelu_grad(ctx: Any, dy: Any, dz: Any) -> Any:
    if dy is None:
        return (None,) * 5
    need = list(ctx.needs_input_grad[:3])
    found = torch.ops.hotloop.linear_gelu_backward(dy, *ctx.saved_tensors, ctx.tanh, need)
    return (*map(_needed, found, need), None, None)


_register(
    "linear_gelu(Tensor x, Tensor weight, Tensor? bias, bool tanh, bool save) -> (Tensor, Tensor)",
    kernels.linear_gelu,
    _linear_gelu_fake,
)
_register_gradient(
    "linear_gelu_backward(Tensor dy, Tensor x, Tensor weight, Tensor z, bool tanh, bool[3] need)"
    " -> (Tensor, Tensor, Tensor)",
    kernels.linear_gelu_backward,
    _linear_gelu_backward_fake,
)
torch.library.register_autograd(
    "hotloop::linear_gelu", _linear_gelu_grad, setup_context=_linear_gelu_setup, lib=_library
)


# --- cross_entropy --------------------------------------------------------------------------------


def _cross_entropy_setup(ctx: Any, inputs: Any, output: Any) -> None:
    logits, target, weight, ctx.smoothing, ctx.ignored = inputs
    ctx.save_for_backward(logits, target, weight)


def _cross_entropy_grad(ctx: Any, dloss: Any) -> Any:
    saved = ctx.saved_tensors
    grad = torch.ops.hotloop.cross_entropy_backward(dloss, *saved, ctx.smoothing, ctx.ignored)
    return grad, None, None, None, None


_register(
    "cross_entropy(Tensor logits, Tensor target, Tensor? weight, float smoothing, int ignored) -> Tensor",
    kernels.cross_entropy,
    lambda logits, target, weight, smoothing, ignored: logits.new_empty(()),
)
_register_gradient(
    "cross_entropy_backward(Tensor dloss, Tensor logits, Tensor target, Tensor? weight, float smoothing,"
    " int ignored) -> Tensor",
    kernels.cross_entropy_backward,
    lambda dloss, logits, *rest: logits.new_empty(logits.shape),
)
torch.library.register_autograd(
    "hotloop::cross_entropy", _cross_entropy_grad, setup_context=_cross_entropy_setup, lib=_library
)


# --- layer_norm -----------------------------------------------------------------------------------


def _layer_norm_fake(x: Any, dims: int, weight: Any, bias: Any, eps: float) -> Any:
    rows = math.prod(x.shape[: x.ndim - dims])
    return x.new_empty(x.shape), x.new_empty(rows), x.new_empty(rows)


def _layer_norm_backward_fake(
    dy: Any, x: Any, mean: Any, rstd: Any, dims: int, weight: Any, need: list[bool]
) -> Any:
    shape = x.shape[x.ndim - dims :]
    return tuple(
        x.new_empty(s if wanted else 0) for s, wanted in zip((x.shape, shape, shape), need, strict=True)
    )


def _layer_norm_setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, ctx.dims, weight, _, _ = inputs
    ctx.save_for_backward(x, output[1], output[2], weight)
    ctx.set_materialize_grads(False)


def _layer_norm_grad(ctx: Any, dy: Any, dmean: Any, drstd: Any) -> Any:
    if dy is None:
        return (None,) * 5
    x, mean, rstd, weight = ctx.saved_tensors
    need = [ctx.needs_input_grad[i] for i in (0, 2, 3)]
    found = torch.ops.hotloop.layer_norm_backward(dy, x, mean, rstd, ctx.dims, weight, need)
    dx, dw, db = map(_needed, found, need)
    return dx, None, dw, db, None


_register(
    "layer_norm(Tensor x, int dims, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)",
    kernels.layer_norm,
    _layer_norm_fake,
)
_register_gradient(
    "layer_norm_backward(Tensor dy, Tensor x, Tensor mean, Tensor rstd, int dims, Tensor? weight, bool[3] need)"
    " -> (Tensor, Tensor, Tensor)",
    kernels.layer_norm_backward,
    _layer_norm_backward_fake,
)
torch.library.register_autograd(
    "hotloop::layer_norm", _layer_norm_grad, setup_context=_layer_norm_setup, lib=_library
)


# --- dropout --------------------------------------------------------------------------------------


def _dropout_setup(ctx: Any, inputs: Any, output: Any) -> None:
    _, ctx.p, seed = inputs
    ctx.save_for_backward(seed)


def _dropout_grad(ctx: Any, dy: Any) -> Any:
    (seed,) = ctx.saved_tensors
    return torch.ops.hotloop.dropout(dy, ctx.p, seed), None, None


_register(
    "dropout(Tensor x, float p, Tensor seed) -> Tensor",
    kernels.dropout,
    lambda x, p, seed: x.new_empty(x.shape),
)
torch.library.register_autograd("hotloop::dropout", _dropout_grad, setup_context=_dropout_setup, lib=_library)
