# SPDX-License-Identifier: Apache-2.0
"""One converter per op of the registry: how it is said in ONNX. What has none is named, with the reason.

A converter gets the conversion in progress and a node, and returns the name of the node's first output; further
outputs (a norm's statistics) are read by gradients only, which no exported graph holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hotloop.graph import Node, Rows
from hotloop.rules.dims import Shape, shape_from_attr

if TYPE_CHECKING:
    from hotloop.export.convert import Conversion

Converter = Callable[["Conversion", Node], str]
CONVERTERS: dict[str, Converter] = {}

_TRAINING = "belongs to the loss, its weights or the statistics of training"
_GRADIENT = "is made by differentiation only"
#: Ops that no exported graph holds, each with the reason.
NOT_EXPORTED: dict[str, str] = {
    **dict.fromkeys(("cross_entropy", "mse", "mae", "huber", "bce_with_logits", "row_weight"), _TRAINING),
    **dict.fromkeys(("loss_stats", "accuracy", "top_k_accuracy", "binary_accuracy"), _TRAINING),
    "regression_stats": _TRAINING,
    "batch_norm": "is batch_norm_eval once the mode is fixed",
    "batch_norm_train": "is batch_norm_eval once the mode is fixed",
    "dropout": "does nothing in evaluation",
    "copy": "is the value itself, which simplifying sees",
    "linear_fused": "is made by fusion only, which comes after",
    **dict.fromkeys(("linear_grad_input", "linear_grad_weight", "inverse_size"), _GRADIENT),
}


def why_not(op: str) -> str | None:
    """Why an op has no converter; None for one that has, or should have."""
    if op.endswith(("_grad", "_grad_fused")) or op.removesuffix("_fused") in NOT_EXPORTED:
        return NOT_EXPORTED.get(op, _GRADIENT)
    return NOT_EXPORTED.get(op)


def converter(*ops: str) -> Callable[[Converter], Converter]:
    """Enter a function into the table under these names."""

    def enter(function: Converter) -> Converter:
        CONVERTERS.update(dict.fromkeys(ops, function))
        return function

    return enter


def _plain(kind: str) -> Converter:
    """An op that ONNX has under another name: the same inputs, no attributes."""

    def convert(c: Conversion, node: Node) -> str:
        return c.op(kind, *(c.name(value) for value in node.inputs))

    return convert


_SAME = {
    "relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "abs": "Abs", "reciprocal": "Reciprocal", "selu": "Selu",
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "matmul": "MatMul",
}  # fmt: skip
CONVERTERS.update({op: _plain(kind) for op, kind in _SAME.items()})


# ---- element by element


@converter("leaky_relu", "elu")
def _with_slope(c: Conversion, node: Node) -> str:
    kind = {"leaky_relu": "LeakyRelu", "elu": "Elu"}[node.op]
    return c.op(kind, c.first(node), alpha=float(node.attr["p0"]))


@converter("square")
def _square(c: Conversion, node: Node) -> str:
    return c.op("Mul", c.first(node), c.first(node))


@converter("affine")
def _affine(c: Conversion, node: Node) -> str:
    return c.affine(c.first(node), node.attr["p0"], node.attr["p1"])


@converter("gelu")
def _gelu(c: Conversion, node: Node) -> str:
    # x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2; onnxruntime knows the pattern and runs it as one op
    x = c.first(node)
    inside = c.op("Erf", c.affine(x, math.sqrt(0.5), 0.0))
    return c.op("Mul", x, c.affine(inside, 0.5, 0.5))


@converter("gelu_tanh")
def _gelu_tanh(c: Conversion, node: Node) -> str:
    # x (1 + tanh(sqrt(2 / pi) x (1 + 0.044715 x^2))) / 2
    x = c.first(node)
    scale = math.sqrt(2 / math.pi)
    inside = c.op("Mul", x, c.affine(c.op("Mul", x, x), scale * 0.044715, scale))
    return c.op("Mul", x, c.affine(c.op("Tanh", inside), 0.5, 0.5))


@converter("silu")
def _silu(c: Conversion, node: Node) -> str:
    return c.op("Mul", c.first(node), c.op("Sigmoid", c.first(node)))


@converter("mish")
def _mish(c: Conversion, node: Node) -> str:
    return c.op("Mul", c.first(node), c.op("Tanh", c.op("Softplus", c.first(node))))


@converter("softplus")
def _softplus(c: Conversion, node: Node) -> str:
    x, beta, threshold = c.first(node), float(node.attr["p0"]), float(node.attr["p1"])
    z = c.affine(x, beta, 0.0)
    soft = c.affine(c.op("Softplus", z), 1.0 / beta, 0.0)
    return c.op("Where", c.op("Greater", z, c.constant(threshold)), x, soft)


# ---- products, rows


@converter("linear")
def _linear(c: Conversion, node: Node) -> str:
    x, weight, bias = node.inputs
    assert x is not None
    if c.type(x).rank == 2:
        operands = [c.name(value) for value in (x, weight, bias) if value is not None]
        return c.op("Gemm", *operands, transB=1)
    out = c.op("MatMul", c.name(x), c.op("Transpose", c.name(weight), perm=[1, 0]))
    return out if bias is None else c.op("Add", out, c.name(bias))


@converter("embedding")
def _embedding(c: Conversion, node: Node) -> str:
    weight, ids = node.inputs
    return c.op("Gather", c.name(weight), c.name(ids), axis=0)


@converter("softmax", "log_softmax")
def _softmax(c: Conversion, node: Node) -> str:
    return c.op({"softmax": "Softmax", "log_softmax": "LogSoftmax"}[node.op], c.first(node), axis=-1)


@converter("layer_norm")
def _layer_norm(c: Conversion, node: Node) -> str:
    x, weight, bias = node.inputs
    n_axes = node.attr["n_axes"]
    operands = [
        c.name(x),
        c.name(weight) if weight is not None else c.constant(np.ones(c.columns(x, n_axes))),
    ]
    if bias is not None:
        operands.append(c.name(bias))
    return c.op("LayerNormalization", *operands, axis=-n_axes, epsilon=float(node.attr["eps"]))


@converter("rms_norm")
def _rms_norm(c: Conversion, node: Node) -> str:
    # x / sqrt(mean(x^2) + eps) * weight
    weight, x = node.inputs[1], c.first(node)
    axes = c.constant(range(-node.attr["n_axes"], 0), np.int64)
    mean = c.op("ReduceMean", c.op("Mul", x, x), axes, keepdims=1)
    out = c.op("Div", x, c.op("Sqrt", c.affine(mean, 1.0, node.attr["eps"])))
    return out if weight is None else c.op("Mul", out, c.name(weight))


@converter("batch_norm_eval")
def _batch_norm_eval(c: Conversion, node: Node) -> str:
    x, weight, bias, mean, var = node.inputs
    cols = c.columns(x, 1)
    scale = c.constant(np.ones(cols)) if weight is None else c.name(weight)
    shift = c.constant(np.zeros(cols)) if bias is None else c.name(bias)
    statistics = (c.name(mean), c.name(var))
    return c.op("BatchNormalization", c.name(x), scale, shift, *statistics, epsilon=float(node.attr["eps"]))


# ---- reductions


@converter("sum", "mean", "max")
def _reduce(c: Conversion, node: Node) -> str:
    kind = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax"}[node.op]
    axes = node.attr["axes"]
    if not axes:  # for ONNX no axes would be all of them
        return c.op("Identity", c.first(node))
    return c.op(kind, c.first(node), c.constant(axes, np.int64), keepdims=int(node.attr["keepdim"]))


# ---- moving elements


@converter("reshape")
def _reshape(c: Conversion, node: Node) -> str:
    # the batch is in at most one dimension, which ONNX finds by itself
    dims = [-1 if isinstance(d, Rows) else d for d in shape_from_attr(node.attr["shape"])]
    return c.op("Reshape", c.first(node), c.constant(dims, np.int64))


@converter("transpose")
def _transpose(c: Conversion, node: Node) -> str:
    return c.op("Transpose", c.first(node), perm=list(node.attr["perm"]))


@converter("slice")
def _slice(c: Conversion, node: Node) -> str:
    ranges = zip(node.attr["starts"], node.attr["stops"], strict=True)
    cut = [(axis, start, stop) for axis, (start, stop) in enumerate(ranges) if stop is not None]
    if not cut:
        return c.op("Identity", c.first(node))
    axes, starts, stops = (c.constant(part, np.int64) for part in zip(*cut, strict=True))
    return c.op("Slice", c.first(node), starts, stops, axes)


@converter("pad")
def _pad(c: Conversion, node: Node) -> str:
    pads = c.constant((*node.attr["before"], *node.attr["after"]), np.int64)
    return c.op("Pad", c.first(node), pads, c.constant(0.0))


@converter("concat")
def _concat(c: Conversion, node: Node) -> str:
    return c.op("Concat", *(c.name(value) for value in node.inputs), axis=node.attr["axis"])


@converter("broadcast_to")
def _broadcast_to(c: Conversion, node: Node) -> str:
    (x,) = node.inputs
    assert x is not None
    own, target = c.type(x).shape, shape_from_attr(node.attr["shape"])
    padded: Shape = (1,) * (len(target) - len(own)) + own
    # a 1 leaves a dimension of x as it is: the rows are asked for only where x does not have them
    dims = tuple(1 if dim == had else dim for dim, had in zip(target, padded, strict=True))
    return c.op("Expand", c.name(x), c.shape(dims))


@converter("fill")
def _fill(c: Conversion, node: Node) -> str:
    value = c.constant(node.attr["value"])
    return c.op("Expand", value, c.shape(shape_from_attr(node.attr["shape"])))


@converter("constant")
def _constant(c: Conversion, node: Node) -> str:
    shape = tuple(d for d in shape_from_attr(node.attr["shape"]) if isinstance(d, int))
    return c.constant(np.reshape(np.asarray(node.attr["values"], np.float32), shape))
