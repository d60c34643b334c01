# SPDX-License-Identifier: Apache-2.0
"""Fused functions of tensors for torch's autograd and compiler: names, order and meaning are torch's.

Each is one operator of ``torch.ops.hotloop`` (see `library`): float32 and float64 on the CPU, float32 on a CUDA device,
any shape and layout that torch's own takes. First derivatives only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Union

import torch
from torch import Tensor

from hotloop.arguments import choice, count, number
from hotloop.errors import DeviceError, DTypeError, ShapeError
from hotloop.torch import cuda, eager, kernels
from hotloop.torch import library as library  # registers the operators

_REAL = (torch.float32, torch.float64)
_ops = torch.ops.hotloop


def linear_gelu(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, approximate: Literal["none", "tanh"] = "none"
) -> Tensor:
    """``gelu(x W^T + b)``, the activation applied while a block of the product is in cache.

    Args:
        x: (..., in_features).
        weight: (out_features, in_features); bias: (out_features,) or None; both of x's dtype.
        approximate: "none" (exact) or "tanh" (Hendrycks and Gimpel 2016), as in ``torch.nn.functional.gelu``.

    Returns (..., out_features). Raises `ShapeError`, `DTypeError` or `DeviceError`.

    >>> import torch, hotloop.torch
    >>> hotloop.torch.linear_gelu(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([-2.0]))
    tensor([[0.]])
    """
    _check("linear_gelu", x=x, weight=weight, bias=bias)
    if approximate not in ("none", "tanh"):
        choice("torch.linear_gelu", "approximate", approximate, ("none", "tanh"))
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"[torch.linear_gelu] x must be (..., in) and weight (out, in), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"[torch.linear_gelu] bias must be ({weight.shape[0]},), got {tuple(bias.shape)}")
    save, tanh = eager.records(x, weight, bias), approximate == "tanh"
    if eager.direct(x, weight, bias):
        if save:
            return _apply(eager.LinearGelu, x, weight, bias, tanh)
        return kernels.linear_gelu(x, weight, bias, tanh, False)[0]
    out: Tensor = _ops.linear_gelu(x, weight, bias, tanh, save)[0]
    return out


def cross_entropy(
    logits: Tensor, target: Tensor, label_smoothing: float = 0.0, weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:  # fmt: skip
    """The mean over rows of softmax cross-entropy, as ``torch.nn.functional.cross_entropy``.

    Args:
        logits: (rows, classes).
        target: (rows,) integers in [0, classes), or probabilities (rows, classes) of logits' dtype.
        label_smoothing: in [0, 1].
        weight: (classes,): of each class in the mean.
        ignore_index: rows with this label do not count.

    Returns a tensor of no dimensions, differentiable by the logits alone. Raises `ShapeError`, `DTypeError`,
    `DeviceError`, `LabelError` for a label out of range, or `ValueError`.

    >>> import torch, hotloop.torch
    >>> round(hotloop.torch.cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3])).item(), 4)
    1.3863
    """
    _check("cross_entropy", logits=logits, weight=weight)
    number("torch.cross_entropy", "label_smoothing", label_smoothing, low=0, high=1)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ShapeError(
            f"[torch.cross_entropy] logits must be (rows, classes), got {tuple(logits.shape)}; classes of other "
            "layouts go last: movedim(1, -1).flatten(0, -2)"
        )
    rows, classes = logits.shape
    if weight is not None and weight.shape != (classes,):
        raise ShapeError(f"[torch.cross_entropy] weight must be ({classes},), got {tuple(weight.shape)}")
    for name, fixed in (("target", target), ("weight", weight)):
        if fixed is not None and fixed.requires_grad:
            raise ValueError(f"[torch.cross_entropy] {name} requires grad, which is not computed; detach it")
    if target.is_floating_point():
        _check("cross_entropy", logits=logits, target=target)
        wanted: tuple[Any, ...] = (rows, classes)
    else:
        wanted = (rows,)
        if target.dtype not in (torch.int64, torch.int32):
            raise DTypeError(
                f"[torch.cross_entropy] target must be int64, got {target.dtype}; use target.long()"
            )
    _beside("cross_entropy", "target", target, logits.device)
    if target.shape != wanted:
        raise ShapeError(f"[torch.cross_entropy] target must be {wanted}, got {tuple(target.shape)}")
    fixed_options = float(label_smoothing), ignore_index
    if eager.direct(logits, target, weight):
        if eager.records(logits):
            return _apply(eager.CrossEntropy, logits, target, weight, *fixed_options)
        return kernels.cross_entropy(logits, target, weight, *fixed_options)
    loss: Tensor = _ops.cross_entropy(logits, target, weight, *fixed_options)
    return loss


def layer_norm(
    x: Tensor, shape: Union[int, Sequence[int]], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions (Ba, Kiros and Hinton 2016).

    Args: x: (..., *shape); weight, bias: (*shape,) of x's dtype, or None; eps: added to the biased variance.

    Returns x's shape. Raises `ShapeError`, `DTypeError` or `DeviceError`.

    >>> import torch, hotloop.torch
    >>> hotloop.torch.layer_norm(torch.tensor([[1.0, 3.0]]), 2, eps=0.0)
    tensor([[-1.,  1.]])
    """
    _check("layer_norm", x=x, weight=weight, bias=bias)
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    if not dims or tuple(x.shape[-len(dims) :]) != dims:
        raise ShapeError(f"[torch.layer_norm] x must end in the dimensions {dims}, got {tuple(x.shape)}")
    for name, param in (("weight", weight), ("bias", bias)):
        if param is not None and tuple(param.shape) != dims:
            raise ShapeError(f"[torch.layer_norm] {name} must be {dims}, got {tuple(param.shape)}")
    if eager.direct(x, weight, bias):
        if eager.records(x, weight, bias):
            return _apply(eager.LayerNorm, x, len(dims), weight, bias, float(eps))
        return kernels.layer_norm(x, len(dims), weight, bias, float(eps))[0]
    y: Tensor = _ops.layer_norm(x, len(dims), weight, bias, float(eps))[0]
    return y


def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, seed: Union[int, Tensor, None] = None
) -> Tensor:
    """Each element 0 with probability p, else divided by the probability of staying.

    Args:
        x: any shape.
        p: in [0, 1], rounded to a multiple of 2**-16.
        training: False gives x itself.
        seed: what chooses the random numbers (Philox4x32-10, Salmon et al. 2011): the same seed gives the same
            mask for the same number of elements. None draws it from torch's generator, in compiled code anew
            at every run.

    Raises `ValueError`, `DTypeError` or `DeviceError`.

    >>> import torch, hotloop.torch
    >>> sorted(set(hotloop.torch.dropout(torch.ones(1000), 0.5, seed=1).tolist()))
    [0.0, 2.0]
    """
    _check("dropout", x=x)
    p = number("torch.dropout", "p", p, low=0, high=1)
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0
    if isinstance(seed, Tensor):
        drawn = seed
    elif seed is None:
        drawn = torch.randint(1 << 62, (), dtype=torch.int64)
    else:
        drawn = torch.tensor(count("torch.dropout", "seed", seed), dtype=torch.int64)
    if eager.direct(x, drawn):
        if eager.records(x):
            return _apply(eager.Dropout, x, p, int(drawn.item()))
        return kernels.dropout(x, p, drawn)
    y: Tensor = _ops.dropout(x, p, drawn)
    return y


def _apply(function: Any, *args: Any) -> Tensor:
    result: Tensor = function.apply(*args)
    return result


def _check(where: str, **tensors: Tensor | None) -> None:
    """All are on one device, the CPU or CUDA's, and of one floating-point dtype, the first one's."""
    dtype = device = None
    for name, x in tensors.items():
        if x is None:
            continue
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"[torch.{where}] {name} must be a tensor, got {type(x).__name__}")
        if x.device.type not in ("cpu", "meta", "cuda"):
            raise DeviceError(
                f"[torch.{where}] {name} is on {x.device}; allowed: cpu and cuda; use torch's own function there"
            )
        if x.dtype not in _REAL or (dtype is not None and x.dtype != dtype):
            beside = f" beside {dtype}" if x.dtype in _REAL else ""
            raise DTypeError(
                f"[torch.{where}] {name} is {x.dtype}{beside}; allowed torch.float32 or torch.float64, one for "
                f"all; write {name}.float(), and under torch.autocast leave the call out of it"
            )
        _beside(where, name, x, device)
        dtype, device = x.dtype, x.device
        if cuda.is_there(x):
            cuda.check(where, **{name: x})


def _beside(where: str, name: str, x: Tensor, device: torch.device | None) -> None:
    if device is not None and x.device != device:
        raise DeviceError(
            f"[torch.{where}] {name} is on {x.device} beside {device}; move all to one of the two"
        )
