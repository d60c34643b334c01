# SPDX-License-Identifier: Apache-2.0
"""Targets and row weights at the border: what each loss takes, and what is refused.

Labels are checked in one pass before anything runs, because a kernel indexes with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import DTypeLike

from hotloop.data import device_rows, lazy
from hotloop.data.border import Array, as_array, parts, refuse
from hotloop.errors import DTypeError, LabelError, ShapeError


@dataclass(frozen=True)
class Target:
    """A checked target: int32 (n,) class labels if ``kind`` is "index", else floats of the output's shape."""

    array: Array
    kind: Literal["index", "real"]


def as_target(
    y: Any, *, loss: str, output: tuple[int, ...], rows: int, where: str, name: str = "y",
    real: DTypeLike = np.float32, on: str = device_rows.CPU,
) -> Target:  # fmt: skip
    """The target of a loss kind for a model whose output has the row shape ``output``.

    cross_entropy takes integer labels (n,) or probabilities (n, C); every other loss the output's shape,
    or (n,) for an output (n, 1); "callable" takes any shape and keeps integers. Raises `LabelError`,
    `ShapeError`, `DTypeError` and `NonFiniteError`.
    """
    if isinstance(y, Mapping):
        if len(y) != 1:
            raise ShapeError(f"[{where}] {name} has {len(y)} named targets; a model has one output")
        y = next(iter(y.values()))
    # labels and columns are small beside X; what is as wide as X may be a file as large as X
    in_blocks = lazy.is_mapped(y) and y.ndim > 1 and y.dtype.kind == "f" and lazy.is_readable(y)
    array = as_array(y, name, where=where, real=real, in_blocks=in_blocks, on=on)
    if len(array) != rows:
        raise ShapeError(f"[{where}] X has {rows} rows and {name} has {len(array)}; they must be equal")
    if loss == "cross_entropy" and array.ndim == 1 and len(output) == 1:
        return Target(_as_labels(array, output[0], name, where), "index")
    if array.shape[1:] == () and output == (1,) and not (loss == "callable" and array.dtype.kind != "f"):
        array = array.reshape(-1, 1)
    if loss == "callable":  # its function knows what it takes
        return Target(array, "real")
    if array.shape[1:] != output:
        raise ShapeError(
            f"[{where}] {name} has shape {array.shape} and the model's output {(rows, *output)}; "
            f"they must be equal, nothing is broadcast{_target_hint(array, loss, output, name)}"
        )
    array = array if array.dtype.kind == "f" else array.astype(real)
    if loss in ("cross_entropy", "bce_with_logits"):
        for part, label in parts(array, name, 0, 1):
            bad = (part < 0) | (part > 1)
            refuse(bad, part, label, where, LabelError, "is not a probability (expected 0 <= y <= 1)")
    return Target(array, "real")


def target_range(loss: str, kind: str, output: tuple[int, ...]) -> tuple[float, float] | None:
    """The least and largest value that `as_target` allows; None for any finite number."""
    if kind == "index":
        return 0, output[0] - 1
    return (0, 1) if loss in ("cross_entropy", "bce_with_logits") else None


def _target_hint(array: Array, loss: str, output: tuple[int, ...], name: str) -> str:
    if loss == "cross_entropy" and array.shape[1:] == (1,):
        return f"; use {name}.ravel()"
    array = device_rows.on_host(array)
    if array.ndim == 1 and len(output) == 1 and (array == np.rint(array)).all():
        return f"; for class labels use loss='cross_entropy' and {name}.astype(np.int64)"
    return ""


def _as_labels(array: Array, classes: int, name: str, where: str) -> Array:
    if isinstance(array, device_rows.DeviceRows):
        if array.dtype.kind != "f" and array.first_outside(0, classes - 1) < 0:
            return cast(Array, array.astype(np.int32))
        array = array[:]  # to say what is wrong with it
    if array.dtype.kind == "f":
        whole = bool((array == np.rint(array)).all())
        shape = f"(n, {classes})"
        hint = f"use {name}.astype(np.int64)" if whole else f"pass probabilities {shape}, or loss='mse'"
        raise DTypeError(f"[{where}] {name} has a floating-point dtype; class labels are integers; {hint}")
    text = f"is not a class index (expected 0 <= {name} < {classes})"
    if int(array.min()) < 0 or int(array.max()) >= classes:
        bad = (array < 0) | (array >= classes)
        at, count = int(np.argmax(bad)), int(np.count_nonzero(bad))
        values = "value" if count == 1 else "values"
        # One parenthesis for range and count: this message is quoted in the documentation.
        tally = f"{count} bad {values} in {array.size}"
        raise LabelError(f"[{where}] {name}[{at}] = {array[at]} {text[:-1]}; {tally})")
    return array if array.dtype == np.int32 else array.astype(np.int32)


def as_weight(
    weight: Any, *, rows: int, where: str, name: str = "sample_weight", real: DTypeLike = np.float32,
    allow_zero: bool = False, on: str = device_rows.CPU,
) -> Array | None:  # fmt: skip
    """Row weights (n,): finite, none negative, not all zero unless that is allowed; None stays None."""
    if weight is None:
        return None
    array = as_array(weight, name, where=where, real=real, on=on)
    if array.shape != (rows,):
        raise ShapeError(f"[{where}] {name} has shape {array.shape}; allowed: {(rows,)}, one weight per row")
    array = array if array.dtype == np.dtype(real) else array.astype(real)
    for part, label in parts(array, name, 0, float(np.finfo(real).max)):
        refuse(part < 0, part, label, where, ValueError, "is negative")
    if not allow_zero and not _any(array):
        raise ValueError(f"[{where}] {name} is zero everywhere; at least one row must count")
    return array


def _any(array: Array) -> bool:
    """Whether any element is not zero."""
    if isinstance(array, device_rows.DeviceRows):
        return array.first_outside(0, 0) >= 0
    return bool(array.any())
