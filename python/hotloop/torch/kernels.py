# SPDX-License-Identifier: Apache-2.0
"""What the operators of `hotloop.torch` do with tensors: allocate as torch does, and run our kernels where they lie.

Here nothing is recorded, and nothing checked but labels, which have to be read for it. `library` registers these
functions, `functional` checks the rest for them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hotloop import _core
from hotloop.errors import LabelError
from hotloop.ops.launch import launch, team_for
from hotloop.ops.linear import into
from hotloop.torch import cuda

_NS_EXP, _NS_NORM, _NS_DROPOUT = 0.6, 0.3, 0.4  # of one thread, per element
#: Types that the native side reads by itself: none before torch 2.10. Subclasses may stand for something else.
READABLE = frozenset(kind for kind in (torch.Tensor, torch.nn.Parameter) if _core.introduce_type(kind))
_NAMES = {torch.float32: "float32", torch.float64: "float64"}


def _run(kernel: str, like: Tensor, fields: tuple[object, ...], work_ns: float, **context: object) -> None:
    if cuda.is_there(like):
        cuda.run(kernel, f"torch.{kernel}", fields, **context)
        return
    fields = tuple(
        f.detach().numpy() if isinstance(f, torch.Tensor) and type(f) not in READABLE else f for f in fields
    )
    launch(kernel, _NAMES[like.dtype], fields, work_ns, **context)


def _empty(like: Tensor) -> Tensor:
    return like.new_empty(0)


def _dense(x: Any) -> Any:
    """In row-major order, with the signs that torch reads (an imaginary part may lie there with the other)."""
    return None if x is None else x.detach().contiguous().resolve_neg()


# --- gelu(x W^T + b) ------------------------------------------------------------------------------


def linear_gelu(
    x: Tensor, weight: Tensor, bias: Tensor | None, tanh: bool, save: bool
) -> tuple[Tensor, Tensor]:
    """(gelu(z), z) with z = x W^T + b; z is empty unless ``save``."""
    shape = (*x.shape[:-1], weight.shape[0])
    out = x.new_empty(shape)
    z = x.new_empty(shape) if save else _empty(x)
    gelu = "gelu_tanh" if tanh else "gelu"
    _multiply(out, x, weight.t(), bias=bias, activation=gelu, saved=z if save else None)
    return out, z


def linear_gelu_backward(
    dy: Tensor, x: Tensor, weight: Tensor, z: Tensor, tanh: bool, need: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias that are needed; others are empty."""
    n, k = weight.shape
    dz = torch.empty_like(z)
    size = z.numel()
    kernel = "gelu_tanh_bwd" if tanh else "gelu_bwd"
    if size:
        _run(kernel, z, (dz, _dense(dy), z, size, 0, -1, 0.0, 0.0), size * _NS_EXP)
    flat_x, flat_dz = x.detach().reshape(-1, k), dz.view(-1, n)
    dx, dw, db = _empty(x), _empty(x), _empty(x)
    if need[0]:
        dx = x.new_empty(x.shape)
        _multiply(dx.view(-1, k), flat_dz, weight)
    if need[1]:
        dw = x.new_empty(n, k)
        db = x.new_empty(n)  # the product sums its rows on the way
        _multiply(dw, flat_dz.t(), flat_x, row_sum=db)
    elif need[2]:
        db = flat_dz.sum(0)
    return dx, dw, db


def _multiply(
    out: Tensor, a: Tensor, b: Tensor, *, bias: Tensor | None = None, activation: str | None = None,
    saved: Tensor | None = None, row_sum: Tensor | None = None,
) -> None:  # fmt: skip
    """``out (..., n) = activation(a (..., k) @ b (k, n) + bias)``; ``saved``, ``row_sum`` as in `ops.linear.into`."""
    if cuda.is_there(out):
        n, k = out.shape[-1], a.shape[-1]
        rows = a if a.ndim == 2 else a.reshape(-1, k)
        number = -1 if activation is None else _core.activation_index(activation)
        wide = None if saved is None else saved.view(-1, n)
        cuda.multiply(out.view(-1, n), rows, b, bias=bias, activation=number, saved=wide, row_sum=row_sum)
        return
    into(
        out.numpy(), a.detach().resolve_neg().numpy(), b.detach().resolve_neg().numpy(),
        bias=None if bias is None else bias.detach().resolve_neg().numpy(), activation=activation,
        saved=None if saved is None else saved.numpy(), row_sum=None if row_sum is None else row_sum.numpy(),
    )  # fmt: skip


# --- cross-entropy --------------------------------------------------------------------------------


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignored: int,
    dloss: Tensor | None,
) -> Tensor:
    """The mean loss, or with the gradient of the loss that of the logits."""
    rows, classes = logits.shape
    logits = _dense(logits)
    work = logits.numel() * _NS_EXP
    plain = weight is None and not 0 <= ignored < classes and type(target) in READABLE
    if plain and not cuda.is_there(logits):
        # most losses: labels that are out of range, ignored ones among them, give None
        grad = None if dloss is None else torch.empty_like(logits)
        found = _core.plain_cross_entropy(
            logits, target, smoothing, None if dloss is None else dloss.item(), grad, team_for(work)
        )
        if found is not None:
            return logits.new_tensor(found) if grad is None else grad
    labels, probs, row_weight, total = _targets(logits, target, weight, smoothing, ignored)
    smoothing = smoothing if probs is None else 0.0
    if dloss is None:
        per_row = logits.new_empty(rows)
        fields = (per_row, None, logits, labels, probs, None, rows, classes, smoothing)
        _run("cross_entropy", logits, fields, work)
        if row_weight is None:
            return per_row.mean()
        return torch.dot(torch.where(row_weight == 0, 0, per_row), row_weight) / total
    grad = torch.empty_like(logits)
    if row_weight is None:
        share = (dloss.detach() / rows).expand(rows).contiguous()
    else:
        share = torch.where(row_weight == 0, 0, row_weight * (dloss.detach() / total))
    fields = (None, grad, logits, labels, probs, share, rows, classes, smoothing)
    _run("cross_entropy", logits, fields, work)
    return grad


def _targets(
    logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float, ignored: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | float]:
    """(labels, or probabilities; weights of rows, or None where all are 1; the sum of weights)"""
    rows, classes = logits.shape
    if target.is_floating_point():
        probs = target.detach()
        if weight is not None:
            probs = torch.lerp(probs, probs.new_tensor(1 / classes), smoothing) * weight.detach()
        elif smoothing:
            probs = torch.lerp(probs, probs.new_tensor(1 / classes), smoothing)
        return None, _dense(probs), None, float(rows)
    _check_labels(target, classes, ignored)
    labels = target.to(torch.int32).contiguous()
    if weight is None:
        kept = target != ignored
        if bool(kept.all()):
            return labels, None, None, float(rows)
        row_weight = kept.to(logits.dtype)
    else:
        row_weight = torch.where(target == ignored, 0, weight.detach()[target.clamp(0, classes - 1)])
    labels = torch.where(target == ignored, 0, labels).contiguous()
    if weight is None or not smoothing:
        return labels, None, row_weight, row_weight.sum()
    # each class counts by its weight, also where smoothing has put its share (as torch does)
    probs = torch.full_like(logits, smoothing / classes)
    probs.scatter_add_(1, labels.long()[:, None], torch.full_like(probs[:, :1], 1 - smoothing))
    probs *= weight.detach()
    return None, probs, (target != ignored).to(logits.dtype), row_weight.sum()


def _check_labels(target: Tensor, classes: int, ignored: int) -> None:
    bad = ((target < 0) | (target >= classes)) & (target != ignored)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise LabelError(
            f"[torch.cross_entropy] target[{row}] is {int(target[row])}; allowed 0 to {classes - 1}, or "
            f"ignore_index {ignored}"
        )


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float, ignored: int
) -> Tensor:
    """The mean loss, ()."""
    return _cross_entropy(logits, target, weight, smoothing, ignored, None)


def cross_entropy_backward(
    dloss: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, smoothing: float, ignored: int
) -> Tensor:
    """The gradient of the logits. It goes over them once more, which takes less than keeping it would."""
    return _cross_entropy(logits, target, weight, smoothing, ignored, dloss)


# --- layer norm -----------------------------------------------------------------------------------


def layer_norm(
    x: Tensor, dims: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, 1 / standard deviation) over the last ``dims`` dimensions; the latter two (rows,)."""
    cols = math.prod(x.shape[x.ndim - dims :])
    rows = x.numel() // cols if cols else 0
    x = _dense(x)
    y, mean, rstd = torch.empty_like(x), x.new_empty(rows), x.new_empty(rows)
    fields = (y, mean, rstd, x, _dense(weight), _dense(bias), rows, cols, eps)
    _run("layer_norm_fwd", x, fields, x.numel() * _NS_NORM)
    return y, mean, rstd


def layer_norm_backward(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, dims: int, weight: Tensor | None, need: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias that are needed; others are empty."""
    shape = x.shape[x.ndim - dims :]
    rows, cols = mean.numel(), math.prod(shape)
    x, dy = _dense(x), _dense(dy)
    dx = torch.empty_like(x) if need[0] else _empty(x)
    dw = x.new_empty(shape) if need[1] else _empty(x)
    db = x.new_empty(shape) if need[2] else _empty(x)
    if need[0] and (need[1] or need[2]):  # both in one pass over the data
        runs = -(-rows // 64)
        partial, total = x.new_empty(runs, 2, cols), x.new_empty(2, cols)
        fields = (dx, partial, dy, x, mean, rstd, _dense(weight), rows, cols)
        _run("layer_norm_both_bwd", x, fields, x.numel() * 2 * _NS_NORM)
        _run("reduce_sum", x, (total, partial, 1, runs, 2 * cols, 0), partial.numel() * _NS_NORM)
        for wanted, out, found in zip(need[1:], (dw, db), total, strict=True):
            if wanted:
                out.copy_(found.view(shape))
    elif need[0]:
        fields = (dx, dy, x, mean, rstd, _dense(weight), None, rows, cols)
        _run("layer_norm_bwd", x, fields, x.numel() * _NS_NORM)
    else:
        sums = (dw if need[1] else None, db if need[2] else None, dy, x, mean, rstd, rows, cols)
        _run("layer_norm_param_bwd", x, sums, x.numel() * _NS_NORM)
    return dx, dw, db


# --- dropout --------------------------------------------------------------------------------------


def dropout(x: Tensor, p: float, seed: Tensor) -> Tensor:
    """x kept and scaled, or 0, by the numbers that the seed () gives; the gradient is the same of the gradient."""
    return dropped(x, p, int(seed.item()))


def dropped(x: Tensor, p: float, seed: int) -> Tensor:
    """`dropout`, the seed being a number."""
    x = _dense(x)
    y = torch.empty_like(x)
    n = x.numel()
    _run("dropout", x, (y, x, n, n, 0), n * _NS_DROPOUT, seed=seed, dropout=[p])
    return y
