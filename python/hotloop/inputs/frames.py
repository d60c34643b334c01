# SPDX-License-Identifier: Apache-2.0
"""Frames on their way to a trainer, and its answers back: the order of columns, and the preprocessor.

A frame says what its columns are, so that it can be put in order and, with `Trainer.preprocessor`, may hold what
no network takes. An array says nothing: it is taken as what the network sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hotloop.data import border, frame_arrays, stream
from hotloop.engine.native import predict_any
from hotloop.errors import ShapeError

if TYPE_CHECKING:
    from hotloop.data.preprocess import Preprocessor
    from hotloop.predictor import Predictor

#: Input ("x" for X itself) -> the columns of the frame that it was.
Names = dict[str, tuple[str, ...]]


class Owner(Protocol):
    """Whoever may have a preprocessor."""

    preprocessor: Preprocessor | None


def is_raw(owner: Owner, X: Any) -> bool:
    """Whether the preprocessor has to do with X."""
    return owner.preprocessor is not None and frame_arrays.is_frame(X)


def names_of(owner: Owner, X: Any, where: str) -> Names:
    """The columns of a frame, or of frames among named inputs, that no preprocessor takes."""
    if isinstance(X, Mapping):
        return {
            key: frame_arrays.names_of(value, where)
            for key, value in X.items()
            if frame_arrays.is_frame(value)
        }
    if frame_arrays.is_frame(X) and not is_raw(owner, X):
        return {"x": frame_arrays.names_of(X, where)}
    return {}


def ready(owner: Owner, X: Any, where: str, *, expected: Names, name: str = "X") -> Any:
    """X for the border: a frame preprocessed, or its columns in the order ``expected``.

    Raises `ShapeError` with the first difference for other columns, and what `Preprocessor.transform` raises.
    """
    if type(X) is np.ndarray and X.dtype.names is None:
        return X
    if isinstance(X, Mapping):
        frames = [key for key, value in X.items() if frame_arrays.is_frame(value)]
        ordered = {key: _in_order(X[key], expected.get(key), where, f"{name}[{key!r}]") for key in frames}
        return {**X, **ordered} if frames else X
    if not frame_arrays.is_frame(X):
        return X
    if owner.preprocessor is not None:
        return owner.preprocessor.transform(X)
    return _in_order(X, expected.get("x"), where, name)


def ready_pair(
    owner: Owner, X: Any, y: Any, where: str, *, expected: Names | None = None, name: str = ""
) -> tuple[Any, Any]:
    """X and y for the border. The target of a frame is as raw as the frame."""
    prefix = f"{name} " if name else ""
    if y is not None and is_raw(owner, X):
        assert owner.preprocessor is not None
        y = owner.preprocessor.transform_target(y)
    return ready(owner, X, where, expected=expected or {}, name=f"{prefix}X"), y


def ready_sets(owner: Owner, validation: Any, expected: Names) -> Any:
    """What was given as validation data, its frames ready; what is none is left to the checks."""
    if isinstance(validation, Mapping):
        return {name: _ready_set(owner, parts, expected, str(name)) for name, parts in validation.items()}
    return _ready_set(owner, validation, expected, "val")


def _ready_set(owner: Owner, parts: Any, expected: Names, name: str) -> Any:
    if not isinstance(parts, (tuple, list)) or len(parts) not in (2, 3):
        return parts
    X, y = ready_pair(owner, parts[0], parts[1], "fit", expected=expected, name=name)
    return (X, y, *parts[2:])


def _in_order(frame: Any, expected: tuple[str, ...] | None, where: str, name: str) -> Any:
    if expected is None:
        return frame
    order = frame_arrays.order_of(frame_arrays.names_of(frame, where), expected, where=where, name=name)
    return frame if order is None else border.as_array(frame, name, where=where)[:, order]


# --- answers --------------------------------------------------------------------------------------


def predict(owner: Predictor, X: Any) -> border.Array:
    """`Predictor.predict` of what is no plain array."""
    if stream.is_stream(X):
        return _joined([owner.predict(stream.features(block)) for block in stream.as_stream(X).open()])
    raw = is_raw(owner, X)
    X = ready(owner, X, "predict", expected=owner.feature_names)
    with owner._session.entered("predict"):
        outputs = predict_any(owner._session, X, "predict")
    if raw and owner.preprocessor is not None and owner.preprocessor.task == "regression":
        return owner.preprocessor.inverse_target(outputs)
    return outputs


def labels(owner: Predictor, X: Any) -> border.Array | None:
    """The names of the predicted classes where the preprocessor knows them; None: they are numbers."""
    if stream.is_stream(X):
        return _joined([owner.predict_label(stream.features(block)) for block in stream.as_stream(X).open()])
    if not is_raw(owner, X) or owner.preprocessor is None or not owner.preprocessor.class_names:
        return None
    numbers = owner.predict_label(owner.preprocessor.transform(X))
    return np.array(owner.preprocessor.class_names)[numbers] if numbers.ndim == 1 else numbers


def _joined(answers: list[border.Array]) -> border.Array:
    if not answers:
        raise ShapeError("[predict] the stream gave no block; at least one is needed")
    return np.concatenate(answers)
