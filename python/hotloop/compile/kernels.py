# SPDX-License-Identifier: Apache-2.0
"""What the compiler knows of kernels beyond the names of their fields: args.h's comments as tables.

Which numbers are attributes and which are sizes, which kernels may write over an input, and how many
elements each operand spans. Tests compare the names with the kernels' own schema.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Union

from hotloop.compile.plan import FieldValue, Operand, Step
from hotloop.graph import Affine
from hotloop.rules.elementwise import UNARY

#: Fields that are attributes; every other number of a step is a size or stride.
INT_FIELDS = frozenset(
    {"b_packed", "activation", "dropout", "mean", "group", "decoupled", "nesterov", "top_k"}
)
REAL_FIELDS = frozenset(
    {
        "p0",
        "p1",
        "value",
        "lo",
        "hi",
        "eps",
        "momentum",
        "label_smoothing",
        "clip_norm",
        "beta1",
        "beta2",
        "alpha",
        "beta",
        "decay",
    }
)

#: Kernels that share one argument struct, by the name their rows below use.
FAMILY: dict[str, str] = {
    **{f"{name}_fwd": "unary_fwd" for name in UNARY},
    **{f"{name}_bwd": "unary_bwd" for name in UNARY},
    **dict.fromkeys(("add", "sub", "mul", "div"), "binary"),
    **dict.fromkeys(("mse", "mae", "huber", "bce_with_logits"), "loss"),
    "log_softmax_fwd": "softmax_fwd",
    "log_softmax_bwd": "softmax_bwd",
}

PANEL = 16
SQUARE_SUM_RUN = 8192

Dims = Mapping[str, int]
Extent = Union[str, Callable[[Dims], int]]


def family(kernel: str) -> str:
    return FAMILY.get(kernel, kernel)


def _strided(*pairs: tuple[str, str]) -> Callable[[Dims], int]:
    """Elements from the first to the last that strides reach: 1 + sum of (size - 1) * stride; 0 if empty."""

    def extent(d: Dims) -> int:
        sizes = [d[size] for size, _ in pairs]
        if 0 in sizes:
            return 0
        return 1 + sum(
            (n - 1) * (1 if stride == "1" else d[stride]) for n, (_, stride) in zip(sizes, pairs, strict=True)
        )

    return extent


def _panels(d: Dims) -> int:
    return -(-d["n"] // PANEL) * PANEL * d["k"]


def _matmul_b(d: Dims) -> int:
    return _panels(d) if d["b_packed"] else _strided(("k", "b_stride_k"), ("n", "b_stride_n"))(d)


def _four(letter: str) -> Callable[[Dims], int]:
    return _strided(*((f"d{i}", f"{letter}{i}") for i in range(4)))


def _elements(product: str) -> Callable[[Dims], int]:
    factors = product.split("*")
    return lambda d: math.prod(int(f) if f.isdigit() else d[f] for f in factors)


#: family -> {operands: elements}. A string is a product of sizes.
_EXTENTS: dict[str, dict[str, Extent]] = {
    "pack_panels": {"out": _panels, "x": _strided(("k", "stride_k"), ("n", "stride_n"))},
    "matmul": {
        "out saved gate residual": _strided(("m", "out_stride"), ("n", "1")),
        "row_sum": "m",
        "bias": "n",
        "a": _strided(("m", "a_stride_m"), ("k", "a_stride_k")),
        "b": _matmul_b,
    },
    "matmul_parts": {"out": "parts*m*n", "row_sum": "parts*m", "a": "k*m", "b": "k*n"},
    "unary_fwd": {"y x": "n"},
    "unary_bwd": {"dx dy saved": "n"},
    "binary": {"out": "d0*d1*d2*d3", "a": _four("a"), "b": _four("b")},
    "dropout": {"y x": "n"},
    "copy": {"out": _four("o"), "x": _four("x")},
    "fill": {"out": "n"},
    "clamp": {"x": "n"},
    "reduce_sum": {"out": "outer*inner", "x": "outer*reduce*inner"},
    "reduce_max_fwd": {"out": "outer*inner", "x": "outer*reduce*inner"},
    "reduce_max_bwd": {"dx x": "outer*reduce*inner", "dout out": "outer*inner"},
    "softmax_fwd": {"y x": "rows*cols"},
    "softmax_bwd": {"dx dy y": "rows*cols"},
    "layer_norm_fwd": {"y x": "rows*cols", "mean rstd": "rows", "weight bias": "cols"},
    "layer_norm_bwd": {"dx dy x residual": "rows*cols", "mean rstd": "rows", "weight": "cols"},
    "layer_norm_param_bwd": {"dweight dbias": "cols", "dy x": "rows*cols", "mean rstd": "rows"},
    "layer_norm_both_bwd": {
        "dx dy x": "rows*cols",
        "partial": lambda d: -(-d["rows"] // 64) * 2 * d["cols"],
        "mean rstd": "rows",
        "weight": "cols",
    },
    "rms_norm_fwd": {"y x": "rows*cols", "rstd": "rows", "weight": "cols"},
    "rms_norm_bwd": {"dx dy x residual": "rows*cols", "rstd": "rows", "weight": "cols"},
    "rms_norm_param_bwd": {"dweight": "cols", "dy x": "rows*cols", "rstd": "rows"},
    "batch_norm_fwd": {"y x": "rows*cols", "mean rstd running_mean running_var weight bias": "cols"},
    "batch_norm_eval": {"y x": "rows*cols", "running_mean running_var weight bias": "cols"},
    "batch_norm_bwd": {"dx dy x": "rows*cols", "dweight dbias mean rstd weight": "cols"},
    "embedding_fwd": {"y": "n*dim", "weight": "vocab*dim", "ids": "n"},
    "embedding_bwd": {"dweight": "vocab*dim", "dy": "n*dim", "ids": "n"},
    # how many class weights there are is the loss's affair: this kernel does not know
    "row_weight": {"weight drow sample_weight labels": "rows", "total class_weight": "1"},
    "cross_entropy": {"row_loss drow labels": "rows", "dlogits logits probs": "rows*cols"},
    "loss": {"row_loss drow": "rows", "dpred pred target": "rows*cols", "pos_weight": "cols"},
    "loss_stats": {"loss": "1", "totals": "2", "row_loss weight": "rows"},
    "accuracy": {"totals": "2", "labels": "rows", "logits probs": "rows*cols"},
    "top_k_accuracy": {"totals": "2", "labels": "rows", "logits": "rows*cols"},
    "binary_accuracy": {"totals": "2", "logits target": "rows*cols"},
    "regression_stats": {"totals": lambda d: 1 + 4 * d["cols"], "pred target": "rows*cols"},
    "accumulate_begin": {"scalars": "4", "tally": "2", "total": "1"},
    "accumulate": {"sum grad": "n", "scalars": "4"},
    "square_sum": {"partial": lambda d: -(-d["n"] // SQUARE_SUM_RUN), "x": "n"},
    "optimizer_begin": {"scalars": "8", "counter": "n_counter", "total": "1", "partial": "n_partial"},
    "adam": {"param exp_avg exp_avg_sq grad": "n", "scalars": "8"},
    "sgd": {"param momentum_buffer grad": "n", "scalars": "8"},
    "rmsprop": {"param square_avg momentum_buffer grad": "n", "scalars": "8"},
    "ema_begin": {"scalars counter total": "1"},
    "ema": {"average param": "n", "scalars": "1"},
}

EXTENTS: dict[str, dict[str, Callable[[Dims], int]]] = {
    name: {
        operand: _elements(extent) if isinstance(extent, str) else extent
        for operands, extent in rows.items()
        for operand in operands.split()
    }
    for name, rows in _EXTENTS.items()
}

#: family -> the size that counts rows, outermost in every operand; other families mix rows, or none does
_ROWS: dict[str, str] = {
    **dict.fromkeys(("unary_fwd", "unary_bwd", "dropout", "fill", "clamp", "embedding_fwd"), "n"),
    **dict.fromkeys(("reduce_sum", "reduce_max_fwd", "reduce_max_bwd"), "outer"),
    **dict.fromkeys(("softmax_fwd", "softmax_bwd", "layer_norm_fwd", "layer_norm_bwd"), "rows"),
    **dict.fromkeys(("rms_norm_fwd", "rms_norm_bwd", "batch_norm_eval", "cross_entropy", "loss"), "rows"),
    "matmul": "m",
}


def rows_field(step: Step) -> str | None:
    """The size of a step that counts rows, if its kernel treats each row alone."""
    name = family(step.kernel)
    if name not in ("binary", "copy"):
        return _ROWS.get(name)
    sizes = dict(step.fields)
    return next((d for d in ("d0", "d1", "d2", "d3") if sizes[d] != Affine(0, 1)), None)


#: family -> (output, inputs that it may be written over exactly)
_IN_PLACE: dict[str, tuple[str, tuple[str, ...]]] = {
    "unary_fwd": ("y", ("x",)),
    "unary_bwd": ("dx", ("dy", "saved")),
    "dropout": ("y", ("x",)),
    "binary": ("out", ("a", "b")),
}


def in_place(step: Step) -> tuple[Operand, list[Operand]] | None:
    """The output of a step and the inputs it may overwrite exactly; None if the kernel allows none."""
    rule = _IN_PLACE.get(family(step.kernel))
    if rule is None:
        return None
    fields = dict(step.fields)
    out = fields[rule[0]]
    assert isinstance(out, Operand)
    names = [n for n in rule[1] if family(step.kernel) != "binary" or _is_dense(fields, n)]
    return out, [operand for n in names if isinstance(operand := fields[n], Operand)]


def _is_dense(fields: Mapping[str, FieldValue], letter: str) -> bool:
    """Whether an operand of a binary kernel is read element for element, as the dense output is written."""
    expected: Affine | None = Affine(0, 1)
    for axis in range(3, -1, -1):
        size, stride = fields[f"d{axis}"], fields[f"{letter}{axis}"]
        assert isinstance(size, Affine)
        if size == Affine(0, 1):
            continue
        if expected is None or stride != expected:
            return False
        # only one size follows the batch, so the product stays affine
        if size.per_row and expected.per_row:
            expected = None
        else:
            expected = Affine(
                size.per_row * expected.const + expected.per_row * size.const, size.const * expected.const
            )
    return True
