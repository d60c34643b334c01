# SPDX-License-Identifier: Apache-2.0
"""Pieces of work that others can do as well: the same operands for NumPy, torch, BLIS, oneDNN, libxsmm and us.

Each contestant is called in its own best way: results go into memory that is there where the library allows
it, torch records nothing where no gradient is asked for. Who is not installed does not take part.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hotloop import ops
from hotloop.benchmarks import blas
from hotloop.ops.launch import launch

Call = Callable[[], Any]
LINE = 16  # floats of a cache line
ROWS, COLS = 4096, 1024  # of element-wise works: 16 MB, more than a level-2 cache


@dataclass(frozen=True)
class Work:
    """``make()``: contestant -> a call that gives arrays to compare. ``flops`` is 0 where memory is the limit;
    ``n_bytes``: what has to be read and written at least. ``target``: a peer's time over ours, by the peer."""

    name: str
    make: Callable[[], Mapping[str, Call]]
    n_bytes: float
    flops: float = 0.0
    target: Mapping[str, float] | None = None


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _empty(*shape: int) -> np.ndarray[Any, Any]:
    """Memory from the beginning of a cache line on, as torch's own: malloc's, 16 bytes later, costs anybody's
    kernels up to a fifth, and would cost only those whose results are not torch's."""
    size = math.prod(shape)
    raw = np.empty(size + LINE, np.float32)
    begin = -raw.ctypes.data % (4 * LINE) // 4
    return raw[begin : begin + size].reshape(shape)


def _normal(*shape: int) -> np.ndarray[Any, Any]:
    array = _empty(*shape)
    array[...] = np.random.default_rng(0).standard_normal(shape)
    return array


# --- products -------------------------------------------------------------------------------------


def product(m: int, n: int, k: int, form: str = "NN", **target: float) -> Work:
    """``(m, n) = A (m, k) B (k, n)``; T in ``form`` says that an operand is stored transposed."""
    left, right = form[0] == "T", form[1] == "T"

    def make() -> Mapping[str, Call]:
        a, b = _normal(*((k, m) if left else (m, k))), _normal(*((n, k) if right else (k, n)))
        calls: dict[str, Call] = {}
        out = {name: _empty(m, n) for name in ("hotloop", "numpy", "torch", "blis")}
        calls["hotloop"] = lambda: ops.matmul(a, b, transpose_a=left, transpose_b=right, out=out["hotloop"])
        A, B = a.T if left else a, b.T if right else b
        calls["numpy"] = lambda: np.matmul(A, B, out=out["numpy"])
        if torch := _library("torch"):
            tensors = [torch.from_numpy(x) for x in (a, b, out["torch"])]
            ta, tb = tensors[0].T if left else tensors[0], tensors[1].T if right else tensors[1]
            calls["torch"] = lambda: torch.mm(ta, tb, out=tensors[2])
        if blis := _library("blis.py"):
            calls["blis"] = lambda: blis.gemm(a, b, out=out["blis"], trans1=left, trans2=right, beta=0.0)
        for name, multiply in blas.products(m, n, k, transposed=left or right).items():
            calls[name] = _into(_empty(m, n), a, b, multiply, left, right)
        return calls

    name = f"matmul {m}x{n}x{k}" + ("" if form == "NN" else f" {form}")
    return Work(name, make, 4.0 * (m * k + k * n + m * n), 2.0 * m * n * k, target)


def _into(out: blas.Matrix, a: Any, b: Any, multiply: blas.Product, left: bool, right: bool) -> Call:
    def call() -> Any:
        multiply(a, b, out, left, right)
        return out

    return call


def linear_gelu(rows: int, width: int, **target: float) -> Work:
    """``gelu(x W^T + b)``"""

    def make() -> Mapping[str, Call]:
        x, weight, bias = _normal(rows, width), _normal(width, width), _normal(width)
        weight /= width**0.5
        out = _empty(rows, width)
        calls: dict[str, Call] = {
            "hotloop": lambda: ops.matmul(x, weight, bias=bias, activation="gelu", transpose_b=True, out=out)
        }
        if torch := _library("torch"):
            functions = torch.nn.functional
            tx, tw, tb = (torch.from_numpy(array) for array in (x, weight, bias))

            def layer(x: Any) -> Any:
                return functions.gelu(functions.linear(x, tw, tb))

            calls["torch"] = lambda: layer(tx)
            calls["torch compiled"] = _compiled(torch, layer, tx)
        return calls

    size = rows * width
    return Work(
        f"linear+bias+gelu {rows}x{width}", make, 4.0 * (2 * size + width**2), 2.0 * size * width, target
    )


def _compiled(torch: Any, function: Callable[..., Any], *args: Any) -> Call:
    compiled = torch.compile(function)
    return lambda: compiled(*args)


# --- element by element, and over rows ------------------------------------------------------------


def elementwise(
    name: str, aten: str, *, ours: Callable[..., Any], args: Mapping[str, Any], **target: float
) -> Work:
    """A function of 4096 x 1024 elements, written beside them."""

    def make() -> Mapping[str, Call]:
        x, out = _normal(ROWS, COLS), _empty(ROWS, COLS)
        calls: dict[str, Call] = {"hotloop": lambda: ours(x, out=out)}
        if torch := _library("torch"):
            tx = torch.from_numpy(x)
            result = torch.empty_like(tx)
            function = getattr(torch.ops.aten, aten).out
            calls["torch"] = lambda: function(tx, **args, out=result)
        return calls

    return Work(f"{name} {ROWS}x{COLS}", make, 8.0 * ROWS * COLS, target=target)


def dropout(**target: float) -> Work:
    """Random, so that nothing is compared but the share of zeros."""

    def make() -> Mapping[str, Call]:
        x, out = _empty(ROWS, COLS), _empty(ROWS, COLS)
        x[...] = 1.0
        calls: dict[str, Call] = {"hotloop": lambda: _kept(ops.dropout(x, 0.1, seed=0, out=out))}
        if torch := _library("torch"):
            tx = torch.from_numpy(x)
            calls["torch"] = lambda: _kept(torch.nn.functional.dropout(tx, 0.1))
        return calls

    return Work(f"dropout {ROWS}x{COLS}", make, 8.0 * ROWS * COLS, target=target)


class _kept:
    """Stands for a random result; it is looked at only when results are compared."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        return np.array([round(float((np.asarray(self.result) == 0).mean()), 2)])


def cross_entropy(rows: int, classes: int, **target: float) -> Work:
    """The mean loss and its gradient."""

    def make() -> Mapping[str, Call]:
        x, y = _normal(rows, classes), np.arange(rows) * 7 % classes
        calls: dict[str, Call] = {"hotloop": lambda: ops.cross_entropy(x, y, return_grad=True)[1]}
        if torch := _library("torch"):
            ty = torch.from_numpy(y)

            def both() -> Any:
                leaf = torch.from_numpy(x).requires_grad_()
                torch.nn.functional.cross_entropy(leaf, ty).backward()
                return leaf.grad

            calls["torch"] = both
        return calls

    return Work(f"cross-entropy+grad {rows}x{classes}", make, 8.0 * rows * classes, target=target)


def layer_norm(**target: float) -> Work:
    """Forward, and the gradients of input, weight and bias."""

    def make() -> Mapping[str, Call]:
        x, dy, weight, bias = _normal(ROWS, COLS), _empty(ROWS, COLS), _normal(COLS), _normal(COLS)
        dy[...] = x[::-1]
        calls: dict[str, Call] = {"hotloop": _our_layer_norm(x, dy, weight, bias)}
        if torch := _library("torch"):
            tx, tdy, tw, tb = (torch.from_numpy(array) for array in (x, dy, weight, bias))
            leaves = [tensor.requires_grad_() for tensor in (tx.clone(), tw.clone(), tb.clone())]

            def both() -> Any:
                for leaf in leaves:
                    leaf.grad = None
                torch.nn.functional.layer_norm(leaves[0], (COLS,), *leaves[1:]).backward(tdy)
                return leaves[0].grad

            calls["torch"] = both
        return calls

    return Work(f"layer_norm+grad {ROWS}x{COLS}", make, 4.0 * 5 * ROWS * COLS, target=target)


def _our_layer_norm(x: Any, dy: Any, weight: Any, bias: Any) -> Call:
    y, dx = _empty(ROWS, COLS), _empty(ROWS, COLS)
    partial, sums = _empty(ROWS // 64, 2, COLS), _empty(2, COLS)
    mean, rstd = _empty(ROWS), _empty(ROWS)
    ns = 0.3 * x.size

    def both() -> Any:
        launch("layer_norm_fwd", x.dtype, (y, mean, rstd, x, weight, bias, ROWS, COLS, 1e-5), ns)
        launch("layer_norm_both_bwd", x.dtype, (dx, partial, dy, x, mean, rstd, weight, ROWS, COLS), ns)
        launch("reduce_sum", x.dtype, (sums, partial, 1, ROWS // 64, 2 * COLS, 0), partial.size)
        return dx

    return both


# --- optimisers -----------------------------------------------------------------------------------


def adamw(sizes: tuple[int, ...], name: str, **target: float) -> Work:
    """One step over tensors of these sizes. torch's is the fused one."""

    def make() -> Mapping[str, Call]:
        grads = [_normal(size) for size in sizes]
        params = [_normal(size) for size in sizes]
        averages = [[np.multiply(g, 0.0, out=_empty(g.size)) for g in grads] for _ in range(2)]
        count = iter(range(1, 1 << 40))

        def step() -> Any:
            t = next(count)
            ops.adamw_(params, grads, *averages, step=t, lr=1e-3)
            return params[0][:0]  # the steps add up: what is compared is the tests' business

        calls: dict[str, Call] = {"hotloop": step}
        if torch := _library("torch"):
            leaves = [torch.from_numpy(p).clone().requires_grad_() for p in params]
            for leaf, g in zip(leaves, grads, strict=True):
                leaf.grad = torch.from_numpy(g)
            rule = torch.optim.AdamW(leaves, lr=1e-3, fused=True)

            def fused() -> Any:
                rule.step()
                return leaves[0].detach()[:0]

            calls["torch"] = fused
        return calls

    return Work(f"adamw {name}", make, 28.0 * sum(sizes), target=target)


def works() -> Iterator[Work]:
    """All of them, with what is aimed at."""
    yield product(1024, 1024, 1024, numpy=1.02, torch=1.0)
    yield product(2048, 2048, 2048, numpy=1.02, torch=1.0)
    yield product(128, 512, 784, numpy=1.1, torch=1.1)
    yield product(784, 512, 128, "TN", numpy=1.1, torch=1.1)
    yield product(128, 512, 512, "NT", numpy=1.1, torch=1.1)
    yield product(32, 128, 64, numpy=1.3, torch=1.3)
    yield product(64, 64, 64, numpy=1.3, torch=1.3)
    yield product(96, 96, 96, numpy=1.3, torch=1.3)
    yield product(6, 512, 512, numpy=4)
    yield product(8, 512, 512, numpy=4)
    yield product(128, 10, 512, numpy=1.1, torch=1.1)
    yield product(4096, 64, 64, numpy=1.03, torch=1.03)
    yield product(512, 4096, 1024, numpy=1.03, torch=1.03)
    yield linear_gelu(128, 768, torch=1.2)
    yield linear_gelu(128, 128, torch=3)
    yield adamw((1 << 20,), "1 M", torch=1.1)
    yield adamw((1 << 24,), "16 M", torch=1.0)
    yield adamw((100_000 // 64,) * 64, "64 tensors, 100 k", torch=10)
    yield cross_entropy(4096, 1000, torch=2.5)
    yield cross_entropy(1024, 32000, torch=2.5)
    yield cross_entropy(128, 10, torch=10)
    yield elementwise("gelu", "gelu", ours=ops.gelu, args={"approximate": "none"}, torch=2)
    yield elementwise("silu", "silu", ours=ops.silu, args={}, torch=2)
    yield elementwise("tanh", "tanh", ours=ops.tanh, args={}, torch=5)
    yield elementwise(
        "gelu(tanh)",
        "gelu",
        ours=lambda x, out: ops.gelu(x, "tanh", out=out),
        args={"approximate": "tanh"},
        torch=5,
    )
    yield dropout(torch=5)
    yield layer_norm(torch=1.5)
