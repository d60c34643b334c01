# SPDX-License-Identifier: Apache-2.0
"""One realistic setting per kernel: its sizes, attributes, and how long each operand is.

Names come from the kernel list itself; a kernel without a setting fails the registry test. Operands that a
setting leaves out are absent (null).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hotloop import _core

DTYPES = {"real": np.float32, "index": np.int32, "double": np.float64, "int64": np.int64}

N = 1 << 18  # element-wise: 1 MB an operand
ROWS, COLS = 256, 1024  # a batch of a wide layer
CLASSES = 10
VOCAB, DIM = 4096, 64
PARAMETERS = 1 << 20  # an optimiser's segment
PANEL = 16


@dataclass(frozen=True)
class Setting:
    """``numbers``: sizes and attributes; ``lengths``: elements of each operand that is present.

    ``values``: contents of operands for which random numbers would be wrong. ``flops``: only where the
    arithmetic is the limit; otherwise memory is, and the rate is that of all operands' bytes.
    """

    numbers: Mapping[str, float]
    lengths: Mapping[str, int]
    values: Mapping[str, Any] = field(default_factory=dict)
    flops: float = 0.0


def matmul(m: int, n: int, k: int) -> Setting:
    numbers = {"m": m, "n": n, "k": k, "a_stride_m": k, "a_stride_k": 1, "b_stride_k": n, "out_stride": n}
    lengths = {"out": m * n, "a": m * k, "b": k * n, "bias": n}
    return Setting({**numbers, "activation": -1, "dropout": -1}, lengths, flops=2.0 * m * n * k)


def row_wise(
    operands: str, *, per_column: str = "", per_row: str = "", rows: int = ROWS, cols: int = COLS
) -> Setting:
    """Operands of (rows, cols), of (cols) and of (rows), each a list of names."""
    lengths = dict.fromkeys(operands.split(), rows * cols)
    lengths |= dict.fromkeys(per_column.split(), cols)
    lengths |= dict.fromkeys(per_row.split(), rows)
    return Setting({"rows": rows, "cols": cols, "eps": 1e-5, "momentum": 0.1}, lengths)


def element_wise(operands: str, *, n: int = N, **numbers: float) -> Setting:
    return Setting({"n": n, "dropout": -1, **numbers}, dict.fromkeys(operands.split(), n))


def strided(prefixes: str, operands: str) -> Setting:
    """Dense (1, 1, ROWS, COLS); ``prefixes``: the operands whose strides are given."""
    numbers = {"d0": 1, "d1": 1, "d2": ROWS, "d3": COLS}
    strides = (ROWS * COLS, ROWS * COLS, COLS, 1)
    numbers |= {
        f"{prefix}{axis}": stride for prefix in prefixes.split() for axis, stride in enumerate(strides)
    }
    return Setting(numbers, dict.fromkeys(operands.split(), ROWS * COLS))


def optimizer(operands: str) -> Setting:
    """Learning rate 1e-3, no clipping, the tenth step; scalars as optimizer_begin leaves them."""
    lengths = {**dict.fromkeys(operands.split(), PARAMETERS), "scalars": 8}
    scalars = np.array([0.0, 1e-3, 1e-2, 1.0, 1 - 0.9**10, np.sqrt(1 - 0.999**10), 10.0, 1.0])
    numbers = {"n": PARAMETERS, "decoupled": 1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    return Setting({**numbers, "momentum": 0.9, "alpha": 0.99}, lengths, {"scalars": scalars})


def with_labels(setting: Setting, classes: int = CLASSES) -> Setting:
    rows = int(setting.numbers["rows"])
    labels = (np.arange(rows) % classes).astype(np.int32)
    return Setting(setting.numbers, {**setting.lengths, "labels": rows}, {"labels": labels})


def _settings() -> dict[str, Setting]:
    ids = (np.arange(N // DIM, dtype=np.int64) * 2654435761 % VOCAB).astype(np.int32)
    embedding = {"n": len(ids), "vocab": VOCAB, "dim": DIM}
    panels = -(-COLS // PANEL) * ROWS * PANEL
    heads = {"rows": 4096, "cols": CLASSES}
    inner = {"outer": 1, "reduce": ROWS, "inner": COLS, "mean": 0}
    pack = {"k": ROWS, "n": COLS, "stride_k": 1, "stride_n": ROWS}
    table = {
        "pack_panels": Setting(pack, {"x": ROWS * COLS, "out": panels}),
        "matmul": matmul(128, 512, 784),
        "dropout": element_wise("y x", dropout=0),
        "copy": strided("o x", "out x"),
        "fill": element_wise("out", value=1.0),
        "clamp": element_wise("x", lo=-1.0, hi=1.0),
        "reduce_sum": Setting(inner, {"x": ROWS * COLS, "out": COLS}),
        "reduce_max_fwd": Setting(inner, {"x": ROWS * COLS, "out": COLS}),
        "reduce_max_bwd": Setting(inner, {"x": ROWS * COLS, "dx": ROWS * COLS, "out": COLS, "dout": COLS}),
        "layer_norm_fwd": row_wise("y x", per_column="weight bias", per_row="mean rstd"),
        "layer_norm_bwd": row_wise("dx dy x", per_column="weight", per_row="mean rstd"),
        "layer_norm_param_bwd": row_wise("dy x", per_column="dweight dbias", per_row="mean rstd"),
        "rms_norm_fwd": row_wise("y x", per_column="weight", per_row="rstd"),
        "rms_norm_bwd": row_wise("dx dy x", per_column="weight", per_row="rstd"),
        "rms_norm_param_bwd": row_wise("dy x", per_column="dweight", per_row="rstd"),
        "batch_norm_fwd": row_wise("y x", per_column="mean rstd running_mean running_var weight bias"),
        "batch_norm_eval": row_wise("y x", per_column="running_mean running_var weight bias"),
        "batch_norm_bwd": row_wise("dx dy x", per_column="dweight dbias mean rstd weight"),
        "embedding_fwd": Setting(embedding, {"y": N, "weight": VOCAB * DIM, "ids": len(ids)}, {"ids": ids}),
        "embedding_bwd": Setting(embedding, {"dy": N, "dweight": VOCAB * DIM, "ids": len(ids)}, {"ids": ids}),
        "row_weight": Setting(heads, {"weight": 4096, "drow": 4096, "total": 1, "sample_weight": 4096}),
        "cross_entropy": with_labels(
            row_wise("dlogits logits", per_row="row_loss drow", rows=4096, cols=CLASSES)
        ),
        "loss_stats": Setting(heads, {"loss": 1, "totals": 2, "row_loss": 4096, "weight": 4096}),
        "accuracy": with_labels(Setting(heads, {"totals": 2, "logits": 4096 * CLASSES})),
        "binary_accuracy": Setting(heads, {"totals": 2, "logits": 4096 * CLASSES, "target": 4096 * CLASSES}),
        "regression_stats": Setting(
            heads, {"totals": 1 + 4 * CLASSES, "pred": 4096 * CLASSES, "target": 4096 * CLASSES}
        ),
        "square_sum": Setting({"n": PARAMETERS}, {"partial": -(-PARAMETERS // 8192), "x": PARAMETERS}),
        "optimizer_begin": Setting({"beta1": 0.9, "beta2": 0.999}, {"scalars": 8, "counter": 1}),
        "adam": optimizer("param exp_avg exp_avg_sq grad"),
        "sgd": optimizer("param momentum_buffer grad"),
        "rmsprop": optimizer("param square_avg grad"),
    }
    for name in ("softmax", "log_softmax"):
        table[f"{name}_fwd"] = row_wise("y x")
        table[f"{name}_bwd"] = row_wise("dx dy y")
    # Families that share one argument list, whatever their members are called.
    for name, schema in _core.kernels().items():
        names = [entry[0] for entry in schema]
        if names == ["y", "x", "n", "p0", "p1"]:
            table[name] = element_wise("y x", p0=1.0, p1=1.0)
        elif names == ["dx", "dy", "saved", "n", "dropout", "p0", "p1"]:
            table[name] = element_wise("dx dy saved", p0=1.0, p1=1.0)
        elif names[:4] == ["out", "a", "b", "d0"]:
            table[name] = strided("a b", "out a b")
        elif names[:4] == ["row_loss", "dpred", "pred", "target"]:
            table[name] = Setting(
                {**heads, "p0": 1.0},
                {
                    "row_loss": 4096,
                    "drow": 4096,
                    **dict.fromkeys(("dpred", "pred", "target"), 4096 * CLASSES),
                },
            )
    return table


SETTINGS = _settings()


def fields_of(kernel: str, rng: np.random.Generator) -> tuple[dict[str, Any], int]:
    """The fields that `_core.run_kernel` takes, and the bytes of all operands together."""
    setting = SETTINGS[kernel]
    found: dict[str, Any] = {}
    total = 0
    for name, kind, dtype in _core.kernels()[kernel]:
        if kind in ("Dim", "Int"):
            found[name] = int(setting.numbers.get(name, 0))
        elif kind == "Real":
            found[name] = float(setting.numbers.get(name, 0.0))
        elif name in setting.lengths:
            value = setting.values.get(name)
            if value is None:  # positive and below one: in the domain of every function
                value = rng.uniform(0.05, 0.95, setting.lengths[name])
            found[name] = np.array(value, dtype=DTYPES[dtype])
            total += found[name].nbytes
        else:
            found[name] = None
    return found, total
