# SPDX-License-Identifier: Apache-2.0
"""What a classifier gives beside its raw output: probabilities, and the label of the most likely class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from hotloop.errors import ShapeError
from hotloop.export.builder import BATCH, Border, Builder
from hotloop.graph import TensorType

Probabilities = Literal["softmax", "sigmoid"]
PROBABILITIES, LABEL = "probabilities", "label"


def check_head(output: TensorType, kind: str | None, class_names: Sequence[str]) -> tuple[str, ...]:
    """The class names as given. Raises `ValueError`, or `ShapeError` if the output has no such classes."""
    names = tuple(class_names)
    if kind is None:
        if names:
            raise ValueError(
                '[export_onnx] class_names need probabilities="softmax" or "sigmoid", got probabilities=None'
            )
        return names
    if kind not in get_args(Probabilities):
        raise ValueError(f"[export_onnx] probabilities must be 'softmax', 'sigmoid' or None, got {kind!r}")
    if output.rank != 2 or not isinstance(output.shape[1], int):
        raise ShapeError(
            f"[export_onnx] probabilities need an output (batch, classes), got {output!r}; use probabilities=None"
        )
    width = output.shape[1]
    classes = width if kind == "softmax" else 2 if width == 1 else 0
    if names and (len(names) != classes or not all(isinstance(n, str) for n in names)):
        raise ValueError(
            f"[export_onnx] class_names must be {classes} texts for this output, got {len(names)}: {names!r:.80}"
        )
    return names


def add_head(builder: Builder, output: str, type_: TensorType, kind: str, class_names: Sequence[str]) -> None:
    """Append the outputs `PROBABILITIES` and `LABEL`; both as `Trainer.predict_proba` and ``predict_label``."""
    op, width = builder.op, type_.shape[1]
    single = kind == "sigmoid" and width == 1
    if kind == "softmax":
        chances = op("Softmax", output, axis=-1)
        label = op("ArgMax", output, axis=1, keepdims=0)
    else:
        chances = op("Sigmoid", output)
        if single:  # s(-z) = 1 - s(z), without the rounding of the difference
            chances = op("Concat", op("Sigmoid", op("Neg", output)), chances, axis=1)
        label = op("Cast", op("Greater", output, builder.constant(0.0)), to=7)  # 7: INT64
        if single:
            label = op("Squeeze", label, builder.constant([1], np.int64))
    if class_names:
        label = op("Gather", builder.constant(list(class_names), object, "class_names"), label, axis=0)
    several = kind == "sigmoid" and not single
    columns = 2 if single else width
    assert isinstance(columns, int)
    builder.finish(chances, Border(PROBABILITIES, "float32", (BATCH, columns)))
    shape = (BATCH, columns) if several else (BATCH,)
    builder.finish(label, Border(LABEL, "str" if class_names else "int64", shape))
