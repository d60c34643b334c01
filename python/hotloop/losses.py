# SPDX-License-Identifier: Apache-2.0
"""Losses as data: which kernel, with which numbers. Formulas are torch's.

The loss of a batch is ``sum(w_i l_i) / sum(w_i)`` over its rows, with ``w_i = sample_weight_i *
class_weight[y_i]``; l_i is the mean over a row's outputs. A Python function ``(prediction, target) -> (loss
per row, gradient per row)`` works too, but runs between two native calls: the slow path.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Union, cast

import numpy as np
import numpy.typing as npt

from hotloop.arguments import function_name, number
from hotloop.compile.plan import LossSpec
from hotloop.errors import DTypeError, LabelError, ShapeError

Array = npt.NDArray[Any]
LossFunction = Callable[[Array, Array], tuple[Any, Any]]
Weights = tuple[float, ...]
#: As given: one weight per class, {class: weight} (others 1), or "balanced".
ClassWeight = Union[npt.ArrayLike, Mapping[int, float], Literal["balanced"], None]


class Loss:
    """What every loss offers. Not to be made itself: choose one of the losses below."""

    kind: ClassVar[str]

    def spec(self, y: Array | None = None, *, n_outputs: int | None = None) -> LossSpec:
        """What the compiler needs. ``y`` are the training labels, ``n_outputs`` the model's output columns:
        both only for losses that depend on them, else `ValueError`."""
        return LossSpec(self.kind)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Softmax cross-entropy of logits (n, C), for labels (n,) or probabilities (n, C).

    ``l = -sum_c q_c log softmax(z)_c`` with ``q = (1 - s) target + s/C``, s the label smoothing.

    Args:
        label_smoothing: in [0, 1].
        class_weight: C weights >= 0, a dict {class: weight} (others 1), or "balanced":
            ``n / (classes present * rows of the class)``, as in scikit-learn. Only for labels.

    >>> CrossEntropy(class_weight={1: 2.0}).spec(n_outputs=3).class_weight
    (1.0, 2.0, 1.0)
    """

    kind: ClassVar[str] = "cross_entropy"
    label_smoothing: float = 0.0
    class_weight: Any = None  # a ClassWeight; kept as tuple of floats, tuple of pairs, "balanced" or None

    def __post_init__(self) -> None:
        smoothing = number("CrossEntropy", "label_smoothing", self.label_smoothing, low=0, high=1)
        object.__setattr__(self, "label_smoothing", smoothing)
        object.__setattr__(self, "class_weight", _checked_class_weight(self.class_weight))

    def spec(self, y: Array | None = None, *, n_outputs: int | None = None) -> LossSpec:
        weights = _class_weights(self.class_weight, y, n_outputs)
        return LossSpec(self.kind, label_smoothing=self.label_smoothing, class_weight=weights)


@dataclass(frozen=True)
class MSE(Loss):
    """Mean squared error: ``l = mean_j (p_j - t_j)^2``."""

    kind: ClassVar[str] = "mse"


@dataclass(frozen=True)
class MAE(Loss):
    """Mean absolute error: ``l = mean_j |p_j - t_j|``; its gradient at 0 is 0."""

    kind: ClassVar[str] = "mae"


@dataclass(frozen=True)
class Huber(Loss):
    """Squared near 0, absolute beyond ``delta`` > 0: with ``e = |p - t|``,
    ``l = mean_j (e^2/2 if e <= delta else delta (e - delta/2))``.

    >>> Huber(0.5).spec().delta
    0.5
    """

    kind: ClassVar[str] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        delta = number("Huber", "delta", self.delta, low=0)
        if delta == 0:
            raise ValueError("[Huber] delta must be > 0, got 0; hl.losses.MAE() is the limit")
        object.__setattr__(self, "delta", delta)

    def spec(self, y: Array | None = None, *, n_outputs: int | None = None) -> LossSpec:
        return LossSpec(self.kind, delta=self.delta)


@dataclass(frozen=True)
class BCEWithLogits(Loss):
    """Binary cross-entropy of logits, one per output:
    ``l = mean_j -(w_j t_j log s(z_j) + (1 - t_j) log(1 - s(z_j)))`` with the sigmoid s.

    ``pos_weight`` w is one number >= 0 for all outputs, or one for each.

    >>> BCEWithLogits(pos_weight=3).spec(n_outputs=2).pos_weight
    (3.0, 3.0)
    """

    kind: ClassVar[str] = "bce_with_logits"
    pos_weight: Any = None  # a number or array-like; kept as tuple of floats or None

    def __post_init__(self) -> None:
        if self.pos_weight is not None:
            weights = np.atleast_1d(np.asarray(self.pos_weight))
            object.__setattr__(self, "pos_weight", _weights("BCEWithLogits", "pos_weight", weights))

    def spec(self, y: Array | None = None, *, n_outputs: int | None = None) -> LossSpec:
        weights: Weights | None = self.pos_weight
        if weights is not None and n_outputs is not None and len(weights) != n_outputs:
            if len(weights) != 1:
                raise ShapeError(
                    f"[BCEWithLogits] pos_weight has {len(weights)} numbers for {n_outputs} outputs; "
                    "give one, or one for each output"
                )
            weights = weights * n_outputs
        return LossSpec(self.kind, pos_weight=weights)


@dataclass(frozen=True)
class CallableLoss:
    """A Python function as loss: ``function(prediction, target) -> (loss (n,), gradient)``.

    The gradient has the prediction's shape: row i holds the gradient of row i's loss, not yet divided by
    the number of rows. Files keep the function's name only.

    >>> squared = CallableLoss(lambda p, t: (((p - t) ** 2).mean(axis=1), 2 * (p - t) / p.shape[1]))
    >>> squared(np.ones((2, 1)), np.zeros((2, 1)))[0]
    array([1., 1.])
    """

    function: LossFunction
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", function_name(self.function))

    def __call__(self, prediction: Array, target: Array) -> tuple[npt.NDArray[np.float64], Array]:
        """Loss per row, float64 (n,), and gradient in the prediction's shape and dtype.

        Raises `TypeError` unless the function returns a pair, `ShapeError` for other shapes.
        """
        result: Any = self.function(prediction, target)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise TypeError(
                f"[loss] {self.name} must return (loss per row, gradient per row), got {type(result).__name__}"
            )
        row_loss = np.asarray(result[0], np.float64)
        gradient = np.ascontiguousarray(result[1], prediction.dtype)
        if row_loss.shape != prediction.shape[:1]:
            raise ShapeError(
                f"[loss] {self.name} must return one loss per row, shape {prediction.shape[:1]}, "
                f"got {row_loss.shape}; do not average over rows"
            )
        if gradient.shape != prediction.shape:
            raise ShapeError(
                f"[loss] {self.name} must return a gradient of shape {prediction.shape}, got {gradient.shape}"
            )
        return row_loss, gradient


_KINDS: dict[str, Any] = {cls.kind: cls for cls in (CrossEntropy, MSE, MAE, Huber, BCEWithLogits)}


def resolve(loss: object, y: Any = None, *, n_outputs: int | None = None) -> Union[LossSpec, CallableLoss]:
    """What a user gave as loss, in the compiler's terms.

    ``loss`` is an object from hl.losses, a name, a function, or "auto": cross-entropy for an integer ``y``,
    mean squared error for a floating one. Raises `ValueError` for other names, `TypeError` for other
    objects, `DTypeError` if "auto" cannot tell, and what `Loss.spec` raises.

    >>> resolve("auto", np.array([0, 2, 1])).kind
    'cross_entropy'
    """
    target = None if y is None else np.asarray(y)
    if isinstance(loss, (LossSpec, CallableLoss)):
        return loss
    if isinstance(loss, str):
        loss = _by_name(loss, target)
    if isinstance(loss, Loss):
        return loss.spec(target, n_outputs=n_outputs)
    if isinstance(loss, type) or not callable(loss):
        hint = f"; write hl.losses.{loss.__name__}()" if isinstance(loss, type) else ""
        raise TypeError(
            "[losses] a loss is an object from hl.losses, a name or a function (prediction, target) -> "
            f"(loss per row, gradient per row), got {loss!r:.80}{hint}"
        )
    return CallableLoss(cast(LossFunction, loss))


def check(loss: object) -> None:
    """Raises what `resolve` would raise for ``loss`` itself, before any data are known."""
    if loss != "auto" if isinstance(loss, str) else not isinstance(loss, Loss):
        resolve(loss)


def to_dict(loss: Union[LossSpec, CallableLoss]) -> dict[str, Any]:
    """Plain JSON data; `from_dict` gives an equal loss back (a function keeps its name only)."""
    if isinstance(loss, CallableLoss):
        return {"kind": "callable", "name": loss.name}
    return dataclasses.asdict(loss)


def from_dict(data: Mapping[str, Any]) -> Union[LossSpec, CallableLoss]:
    """What `to_dict` described; a function becomes one that raises `RuntimeError` when it is needed.

    Raises `ValueError` or `TypeError` for bad data.
    """
    fields = dict(data)
    kind = fields.get("kind")
    if kind == "callable":
        return CallableLoss(_missing(str(fields.get("name"))), str(fields.get("name")))
    if kind not in _KINDS:
        raise ValueError(f"[losses] unknown loss {kind!r}; allowed: {', '.join(_KINDS)}")
    for name in ("class_weight", "pos_weight"):
        if fields.get(name) is not None:
            fields[name] = tuple(float(weight) for weight in fields[name])
    return LossSpec(**fields)


def _missing(name: str) -> LossFunction:
    def missing(prediction: Array, target: Array) -> tuple[Any, Any]:
        raise RuntimeError(f"[losses] the file names the loss function {name} only; give it as loss=")

    return missing


def _by_name(name: str, y: Array | None) -> Loss:
    if name == "auto":
        return _for_target(y)
    if name not in _KINDS:
        raise ValueError(f"[losses] unknown loss {name!r}; allowed: auto, {', '.join(_KINDS)}")
    return cast(Loss, _KINDS[name]())


def _for_target(y: Array | None) -> Loss:
    if y is None:
        raise ValueError("[losses] loss='auto' needs the target; name the loss instead, such as 'mse'")
    if y.dtype.kind in "iub":
        return CrossEntropy()
    if y.dtype.kind == "f":
        return MSE()
    raise DTypeError(
        f"[losses] loss='auto' takes integer labels or floating targets, got dtype {y.dtype}; number the classes "
        "first: classes, y = numpy.unique(y, return_inverse=True)"
    )


# --- class weights --------------------------------------------------------------------------------


def _weights(where: str, name: str, values: Array) -> Weights:
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iuf":
        raise ShapeError(f"[{where}] {name} must be a list of numbers, got {values.dtype} {values.shape}")
    weights = tuple(number(where, f"{name}[{i}]", value, low=0) for i, value in enumerate(values))
    if not any(weights):
        raise ValueError(f"[{where}] {name} must hold a weight > 0, got only zeros")
    return weights


def _checked_class_weight(value: ClassWeight) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        if value != "balanced":
            raise ValueError(
                f"[CrossEntropy] class_weight must be 'balanced', a dict or a list, got {value!r}"
            )
        return value
    if isinstance(value, Mapping):
        labels = tuple(sorted(value))
        bad = [
            label for label in labels if isinstance(label, bool) or not isinstance(label, (int, np.integer))
        ]
        if bad or not labels or labels[0] < 0:
            raise LabelError(
                f"[CrossEntropy] class_weight maps classes 0, 1, ... to weights, got {value!r:.80}"
            )
        weights = _weights("CrossEntropy", "class_weight", np.array([value[label] for label in labels]))
        return tuple(zip(map(int, labels), weights, strict=True))
    array = np.asarray(value)
    if array.ndim == 2 and array.shape[1] == 2 and isinstance(value, tuple):  # pairs, as kept for a dict
        return _checked_class_weight({int(label): float(weight) for label, weight in array})
    return _weights("CrossEntropy", "class_weight", array)


def _class_weights(kept: Any, y: Array | None, n_classes: int | None) -> Weights | None:
    """One weight per class from what `_checked_class_weight` kept."""
    if kept is None:
        return None
    if kept == "balanced":
        return _balanced(y, n_classes)
    if not isinstance(kept[0], tuple):
        if n_classes is not None and len(kept) != n_classes:
            raise ShapeError(f"[CrossEntropy] class_weight has {len(kept)} weights for {n_classes} classes")
        return cast(Weights, kept)
    size = n_classes if n_classes is not None else kept[-1][0] + 1
    if kept[-1][0] >= size:
        raise LabelError(
            f"[CrossEntropy] class_weight names class {kept[-1][0]}, but there are {size} classes"
        )
    given = dict(kept)
    return tuple(given.get(label, 1.0) for label in range(size))


def _balanced(y: Any, n_classes: int | None) -> Weights:
    y = y if y is None else np.asarray(y)
    if y is None or y.ndim != 1 or y.dtype.kind not in "iu" or not len(y):
        found = "none" if y is None else f"{y.dtype} {y.shape}"
        raise ValueError(f"[CrossEntropy] class_weight='balanced' needs integer labels (n,), got {found}")
    if y.min() < 0:
        raise LabelError(f"[CrossEntropy] y[{int(y.argmin())}] = {y.min()} is not a class index")
    rows = np.bincount(y.astype(np.int64), minlength=n_classes or 0)
    share = len(y) / (np.count_nonzero(rows) * np.maximum(rows, 1))
    return tuple(float(weight) if n else 1.0 for weight, n in zip(share, rows, strict=True))
