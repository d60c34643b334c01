# SPDX-License-Identifier: Apache-2.0
"""Preprocessor: what stands between a table and a network, learnt from the training rows alone.

Features are standardised, a regression target too; class names are kept. Arithmetic is float64 and rounds
to float32 once, at the end. It travels in the model file, so that predicting applies the very same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hotloop.errors import CheckpointError, DTypeError, LabelError, NonFiniteError, ShapeError

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
Task = Literal["classification", "regression"]

_ARRAYS = ("mean", "scale", "target_mean", "target_scale")


@dataclass(frozen=True, eq=False)
class Preprocessor:
    """The numbers and names of a fitted preprocessing; made by `fit` or `from_stored`.

    ``transform`` gives ``(x - mean) / scale`` per feature. A feature that is constant in the training rows
    (up to rounding) has scale 0 and always gives 0: it carries nothing that could be learnt.
    """

    task: Task
    feature_names: tuple[str, ...]
    target_name: str
    class_names: tuple[str, ...]  # classification only: the name of each label
    mean: Float64  # (features,)
    scale: Float64  # (features,); 0: constant
    target_mean: Float64  # (); regression only
    target_scale: Float64  # ()

    @classmethod
    def fit(
        cls,
        features: npt.ArrayLike,
        target: npt.ArrayLike,
        *,
        task: Task,
        class_names: Sequence[str] = (),
        feature_names: Sequence[str] | None = None,
        target_name: str = "target",
    ) -> Preprocessor:
        """Learn from the training rows: ``features`` (n, d), ``target`` (n,) labels or values.

        Raises `ShapeError`, `NonFiniteError`, `DTypeError`, or `LabelError` for a label without a name.

        >>> p = Preprocessor.fit([[1.0, 7.0], [3.0, 7.0]], [10.0, 30.0], task="regression")
        >>> p.transform([[3.0, 8.0]]).tolist()
        [[1.0, 0.0]]
        >>> p.inverse_target([[0.5]]).tolist()
        [25.0]
        """
        x = _matrix(features)
        names = (
            tuple(feature_names) if feature_names is not None else tuple(f"x{i}" for i in range(x.shape[1]))
        )
        if len(x) == 0:
            raise ShapeError("[Preprocessor.fit] features has no rows; at least one is needed")
        if len(names) != x.shape[1]:
            raise ShapeError(f"[Preprocessor.fit] {len(names)} feature names for {x.shape[1]} features")
        y = np.asarray(target)
        if y.shape != (len(x),):
            raise ShapeError(f"[Preprocessor.fit] target must have shape ({len(x)},), got {y.shape}")
        mean, scale = _statistics(x)
        target_mean, target_scale = np.zeros(()), np.ones(())
        if task == "regression":
            target_mean, target_scale = (s.reshape(()) for s in _statistics(_matrix(y.reshape(-1, 1))))
            if target_scale == 0:
                target_scale = np.ones(())  # the target is a constant: learn it as 0, give it back exactly
        else:
            _check_labels(y, len(class_names))
        return cls(task, names, target_name, tuple(class_names), mean, scale, target_mean, target_scale)

    def transform(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Standardised features: (n, d) of any real dtype to float32 (n, d).

        Raises `ShapeError` for another number of features, `NonFiniteError` for NaN, infinity or a value so
        far out that float32 cannot hold it, `DTypeError` for what is not a number.
        """
        x = _matrix(features)
        if x.shape[1] != len(self.mean):
            raise ShapeError(
                f"[Preprocessor.transform] features has {x.shape[1]} columns; "
                f"the model was trained with {len(self.mean)}"
            )
        constant = self.scale == 0
        with np.errstate(over="ignore"):  # reported below, with the value's place
            z = np.where(constant, 0.0, (x - self.mean) / np.where(constant, 1.0, self.scale))
        bad = np.argwhere(np.abs(z) > np.finfo(np.float32).max)
        if len(bad):
            row, column = bad[0]
            raise NonFiniteError(
                f"[Preprocessor.transform] features[{row}, {column}] = {x[row, column]:g} "
                f"({self.feature_names[column]!r}) overflows float32 once standardised"
            )
        return z.astype(np.float32)

    def transform_target(self, target: npt.ArrayLike) -> Array:
        """What the network is trained on: labels int64 (n,), or standardised values float32 (n,)."""
        y = np.asarray(target)
        if self.task == "classification":
            _check_labels(y, len(self.class_names))
            return y.astype(np.int64)
        if y.ndim != 1:
            raise ShapeError(f"[Preprocessor] target must have shape (n,), got {y.shape}")
        values = _matrix(y.reshape(-1, 1))[:, 0]
        return ((values - self.target_mean) / self.target_scale).astype(np.float32)

    def inverse_target(self, prediction: npt.ArrayLike) -> Float64:
        """Predictions (n,) or (n, 1) of a regression in the target's own unit, float64 (n,)."""
        values = np.asarray(prediction, np.float64).reshape(-1)
        return np.asarray(values * self.target_scale + self.target_mean, np.float64)

    def labels_of(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """The labels (n,) of class names (n,). Raises `LabelError` for a name not seen in training.

        >>> p = Preprocessor.fit([[1.0], [2.0]], [0, 1], task="classification", class_names=["no", "yes"])
        >>> p.labels_of(["yes", "no"]).tolist()
        [1, 0]
        """
        number = {name: label for label, name in enumerate(self.class_names)}
        for row, name in enumerate(names):
            if name not in number:
                raise LabelError(
                    f"[Preprocessor] row {row} has class {name!r}, which the model does not know; "
                    f"allowed: {', '.join(self.class_names)[:200]}"
                )
        return np.array([number[name] for name in names], np.int64)

    def stored(self) -> tuple[dict[str, Float64], str]:
        """The arrays and the JSON text that `from_stored` takes: what a model file keeps."""
        text = {
            "task": self.task,
            "feature_names": self.feature_names,
            "target_name": self.target_name,
            "class_names": self.class_names,
        }
        return {name: getattr(self, name) for name in _ARRAYS}, json.dumps(text)

    @classmethod
    def from_stored(cls, arrays: Mapping[str, Array], text: str) -> Preprocessor:
        """The preprocessor that `stored` described, to the bit. Raises `CheckpointError` if it cannot be.

        >>> p = Preprocessor.fit([[1.0], [2.0]], [0.0, 1.0], task="regression")
        >>> Preprocessor.from_stored(*p.stored()).mean
        array([1.5])
        """
        try:
            data = json.loads(text)
            values: dict[str, Any] = {name: np.asarray(arrays[name], np.float64) for name in _ARRAYS}
            restored = cls(
                task=data["task"],
                feature_names=tuple(str(name) for name in data["feature_names"]),
                target_name=str(data["target_name"]),
                class_names=tuple(str(name) for name in data["class_names"]),
                **values,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"[Preprocessor] the stored preprocessing is incomplete ({error})"
            ) from None
        if (
            restored.mean.shape != (len(restored.feature_names),)
            or restored.scale.shape != restored.mean.shape
        ):
            raise CheckpointError(
                "[Preprocessor] the stored preprocessing has numbers and names that do not match"
            )
        return restored


def _matrix(features: npt.ArrayLike) -> Float64:
    """float64 (n, d), finite."""
    x = np.asarray(features)
    if x.ndim != 2:
        raise ShapeError(f"[Preprocessor] features must have shape (rows, features), got {x.shape}")
    if x.dtype.kind not in "iufb":
        raise DTypeError(f"[Preprocessor] features must be real numbers, got dtype {x.dtype}")
    x = x.astype(np.float64)
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        raise NonFiniteError(
            f"[Preprocessor] features[{bad[0][0]}, {bad[0][1]}] = {x[tuple(bad[0])]} ({len(bad)} bad values); "
            "fill in or drop missing values first"
        )
    return x


def _statistics(x: Float64) -> tuple[Float64, Float64]:
    """Mean and standard deviation (of the population) of each column; 0 where a column is constant.

    Measured from the first row and in units of the largest deviation, so that a constant column gives exact
    zeros and neither sums nor squares leave the range of float64.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = x - x[0]
        mean = x[0] + shifted.mean(axis=0)
        deviation = x - mean
        spread = np.abs(deviation).max(axis=0)
        unit = np.where(spread == 0, 1.0, spread)
        scale = spread * np.sqrt(np.mean((deviation / unit) ** 2, axis=0))
    bad = np.flatnonzero(~np.isfinite(scale))
    if len(bad):
        raise NonFiniteError(f"[Preprocessor.fit] column {bad[0]} spreads beyond float64; rescale it")
    # What differs by a few units in the last place only is a constant that was computed.
    constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(x).max(axis=0)
    return np.where(constant, x[0], mean), np.where(constant, 0.0, scale)


def _check_labels(y: Array, n_classes: int) -> None:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DTypeError(f"[Preprocessor] labels must be integers (n,), got {y.dtype} {y.shape}")
    bad = np.flatnonzero((y < 0) | (y >= n_classes))
    if len(bad):
        raise LabelError(
            f"[Preprocessor] target[{bad[0]}] = {y[bad[0]]} is not a class index "
            f"(expected 0 <= label < {n_classes}; {len(bad)} bad values in {len(y)})"
        )
