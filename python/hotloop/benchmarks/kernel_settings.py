# SPDX-License-Identifier: Apache-2.0
"""One realistic setting per kernel: its sizes and attributes, and which optional operands it has.

How long an operand is follows from the compiler's table of extents. Names come from the kernel list itself;
a kernel without a setting fails the registry test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hotloop import _core
from hotloop.compile.kernels import EXTENTS, family

DTYPES = {"real": np.float32, "index": np.int32, "double": np.float64, "int64": np.int64}

N = 1 << 18  # element-wise: 1 MB an operand
ROWS, COLS = 256, 1024  # a batch of a wide layer
HEAD_ROWS, CLASSES = 4096, 10  # the output layer of a large batch
VOCAB, DIM = 4096, 64
PARAMETERS = 1 << 20  # an optimiser's segment


@dataclass(frozen=True)
class Setting:
    """``numbers``: sizes and attributes, 0 where not named; ``optional``: operands that are present though
    they need not be; ``values``: contents for which random numbers in (0, 1) would be wrong.

    ``flops``: only where arithmetic is the limit; otherwise memory is.
    """

    numbers: Mapping[str, float]
    optional: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    flops: float = 0.0


def matmul(m: int, n: int, k: int) -> Setting:
    sizes = {
        "m": m,
        "n": n,
        "k": k,
        "a_stride_m": k,
        "a_stride_k": 1,
        "b_stride_k": n,
        "b_stride_n": 1,
        "out_stride": n,
    }
    return Setting({**sizes, "activation": -1, "dropout": -1, "alpha": 1.0}, "bias", flops=2.0 * m * n * k)


def strided(prefixes: str) -> Setting:
    """Dense (1, 1, ROWS, COLS); ``prefixes``: the operands whose strides are given."""
    strides = (ROWS * COLS, ROWS * COLS, COLS, 1)
    numbers = {
        f"{prefix}{axis}": stride for prefix in prefixes.split() for axis, stride in enumerate(strides)
    }
    return Setting({"d0": 1, "d1": 1, "d2": ROWS, "d3": COLS, **numbers})


def optimizer(optional: str = "") -> Setting:
    """Learning rate 1e-3, no clipping, the tenth step; scalars as optimizer_begin leaves them."""
    scalars = np.array([0.0, 1e-3, 1e-2, 1.0, 1 - 0.9**10, np.sqrt(1 - 0.999**10), 10.0, 1.0])
    numbers = {"n": PARAMETERS, "decoupled": 1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    return Setting({**numbers, "momentum": 0.9, "alpha": 0.99}, optional, {"scalars": scalars})


ELEMENTS = Setting({"n": N, "dropout": -1, "p0": 1.0, "p1": 1.0, "value": 1.0, "lo": 0.25, "hi": 0.75})
MATRIX = Setting({"rows": ROWS, "cols": COLS, "eps": 1e-5, "momentum": 0.1})
AFFINE_NORM = replace(MATRIX, optional="weight bias mean rstd dweight dbias running_mean running_var")
REDUCTION = Setting({"outer": 1, "reduce": ROWS, "inner": COLS})
HEAD = Setting({"rows": HEAD_ROWS, "cols": CLASSES, "p0": 1.0}, "row_loss dpred dlogits drow sample_weight")
LABELLED = replace(
    HEAD,
    optional="row_loss dlogits drow labels",
    values={"labels": np.arange(HEAD_ROWS) % CLASSES},
)
EMBEDDING = Setting(
    {"n": N // DIM, "vocab": VOCAB, "dim": DIM},
    values={"ids": np.arange(N // DIM, dtype=np.int64) * 2654435761 % VOCAB},
)

SETTINGS = {
    "pack_panels": Setting({"k": ROWS, "n": COLS, "stride_k": 1, "stride_n": ROWS}),
    "matmul": matmul(128, 512, 784),
    "matmul_parts": Setting(
        {"parts": 8, "m": 128, "n": 64, "k": 8192, "depth": 1024}, flops=2.0 * 8192 * 128 * 64
    ),
    "dropout": Setting({"n": N, "dropout": 0}),
    "copy": strided("o x"),
    **dict.fromkeys(("fill", "clamp"), ELEMENTS),
    **dict.fromkeys(("reduce_sum", "reduce_max_fwd", "reduce_max_bwd"), REDUCTION),
    **dict.fromkeys(("softmax_fwd", "softmax_bwd", "log_softmax_fwd", "log_softmax_bwd"), MATRIX),
    **dict.fromkeys(("layer_norm_fwd", "layer_norm_bwd", "layer_norm_param_bwd"), AFFINE_NORM),
    "layer_norm_both_bwd": AFFINE_NORM,
    **dict.fromkeys(("rms_norm_fwd", "rms_norm_bwd", "rms_norm_param_bwd"), AFFINE_NORM),
    **dict.fromkeys(("batch_norm_fwd", "batch_norm_eval", "batch_norm_bwd"), AFFINE_NORM),
    **dict.fromkeys(("embedding_fwd", "embedding_bwd"), EMBEDDING),
    **dict.fromkeys(("cross_entropy", "accuracy"), LABELLED),
    **dict.fromkeys(("row_weight", "loss_stats", "binary_accuracy", "regression_stats"), HEAD),
    "top_k_accuracy": replace(LABELLED, numbers={**LABELLED.numbers, "top_k": 3}),
    "accumulate_begin": Setting({}),
    "accumulate": Setting({"n": PARAMETERS}, values={"scalars": np.array([1.0, 1.0, 0.0, 0.5])}),
    "square_sum": Setting({"n": PARAMETERS}),
    "optimizer_begin": Setting({"n_counter": 6, "beta1": 0.9, "beta2": 0.999}),
    "adam": optimizer(),
    "sgd": optimizer("momentum_buffer"),
    "rmsprop": optimizer(),
    "ema_begin": Setting({"decay": 0.999}),
    "ema": Setting({"n": PARAMETERS}, values={"scalars": np.array([0.001])}),
}
_FAMILIES = {"unary_fwd": ELEMENTS, "unary_bwd": ELEMENTS, "binary": strided("a b"), "loss": HEAD}
SETTINGS |= {name: _FAMILIES[family(name)] for name in _core.kernels() if family(name) in _FAMILIES}


def fields_of(
    kernel: str, rng: np.random.Generator, setting: Setting | None = None
) -> tuple[dict[str, Any], int]:
    """The fields that `_core.run_kernel` takes, and the bytes of all operands together.

    ``setting``: another one than the kernel's own of `SETTINGS`.
    """
    setting = setting or SETTINGS[kernel]
    schema = _core.kernels()[kernel]
    numbers = {
        name: setting.numbers.get(name, 0) for name, kind, _ in schema if kind in ("Dim", "Int", "Real")
    }
    sizes = {name: int(value) for name, value in numbers.items()}
    found: dict[str, Any] = {}
    for name, kind, dtype in schema:
        if name in numbers:
            found[name] = float(numbers[name]) if kind == "Real" else sizes[name]
        elif kind.endswith("Opt") and name not in setting.optional.split():
            found[name] = None
        else:
            value = setting.values.get(name)
            if value is None:  # positive and below one: in the domain of every function
                value = rng.uniform(0.05, 0.95, EXTENTS[family(kernel)][name](sizes))
            found[name] = np.array(value, dtype=DTYPES[dtype])
    return found, sum(value.nbytes for value in found.values() if isinstance(value, np.ndarray))
