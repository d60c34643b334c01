# SPDX-License-Identifier: Apache-2.0
"""A preprocessor as arrays and a JSON text, and back to the bit; what earlier versions wrote is read too.

Version 1, without a number, knew standardised features alone: arrays "mean", "scale", "target_mean" and
"target_scale". The arrays of version 2 have other names, so that its files are refused where they cannot
be understood.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop.data.preprocess.categories import Categories
from hotloop.data.preprocess.fit import Fitted
from hotloop.data.preprocess.numbers import Numbers
from hotloop.data.preprocess.report import Report
from hotloop.data.preprocess.target import Target
from hotloop.errors import CheckpointError

VERSION = 2
Arrays = dict[str, NDArray[Any]]


def stored(fitted: Fitted) -> tuple[Arrays, str]:
    """See `Preprocessor.stored`."""
    numbers, target = fitted.numbers, fitted.target
    arrays: Arrays = {
        "fill": numbers.fill,
        "center": numbers.center,
        "spread": numbers.scale,
        "indicator": numbers.indicator.astype(np.uint8),
        "target": np.array([target.center, target.scale]),
    }
    if target.class_values is not None:
        arrays["class_values"] = target.class_values
    text = {
        "version": VERSION,
        "task": target.task,
        "feature_names": fitted.feature_names,
        "kinds": fitted.kinds,
        "target_name": target.name,
        "class_names": target.class_names,
        "clip": numbers.clip,
        "texts": [
            {
                "keys": t.keys, "names": t.names, "missing": t.missing, "pooled": t.pooled,
                "encoding": t.encoding,
            }
            for t in fitted.texts
        ],
        "report": fitted.report.to_list(),
    }  # fmt: skip
    return arrays, json.dumps(text)


def restored(arrays: Mapping[str, NDArray[Any]], text: str) -> Fitted:
    """See `Preprocessor.from_stored`."""
    try:
        data = json.loads(text)
        version = int(data.get("version", 1))
        if version > VERSION:
            raise CheckpointError(
                f"[Preprocessor] the stored preprocessing has version {version}; this hotloop reads {VERSION}: upgrade it"
            )
        fitted = _version_1(arrays, data) if version == 1 else _version_2(arrays, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"[Preprocessor] the stored preprocessing is incomplete ({error})") from None
    _check(fitted)
    return fitted


def _version_1(arrays: Mapping[str, NDArray[Any]], data: Mapping[str, Any]) -> Fitted:
    mean, scale = _floats(arrays["mean"]), _floats(arrays["scale"])
    names = _names(data["feature_names"])
    numbers = Numbers(np.full(len(mean), np.nan), mean, scale, np.zeros(len(mean), bool))
    center, spread = float(arrays["target_mean"]), float(arrays["target_scale"])
    target = Target(
        _task(data["task"]), str(data["target_name"]), _names(data["class_names"]), None, center, spread
    )
    kinds: tuple[Any, ...] = ("number",) * len(names)
    return Fitted(names, kinds, numbers, (), target, Report())


def _version_2(arrays: Mapping[str, NDArray[Any]], data: Mapping[str, Any]) -> Fitted:
    clip = data["clip"]
    numbers = Numbers(
        _floats(arrays["fill"]), _floats(arrays["center"]), _floats(arrays["spread"]),
        np.asarray(arrays["indicator"]).astype(bool), None if clip is None else float(clip),
    )  # fmt: skip
    texts = tuple(
        Categories(_names(t["keys"]), _names(t["names"]), int(t["missing"]), bool(t["pooled"]), t["encoding"])
        for t in data["texts"]
    )
    values = _floats(arrays["class_values"]) if "class_values" in arrays else None
    center, spread = _floats(arrays["target"]).tolist()
    target = Target(
        _task(data["task"]), str(data["target_name"]), _names(data["class_names"]), values, center, spread
    )
    kinds: tuple[Any, ...] = _names(data["kinds"])
    report = Report.from_list(data["report"])
    return Fitted(_names(data["feature_names"]), kinds, numbers, texts, target, report)


def _check(fitted: Fitted) -> None:
    """Raises `CheckpointError` unless the numbers and names belong together."""
    numbers, kinds = fitted.numbers, fitted.kinds
    d = sum(kind != "text" for kind in kinds)
    shapes = {a.shape for a in (numbers.fill, numbers.center, numbers.scale, numbers.indicator)}
    values = fitted.target.class_values
    if (
        len(kinds) != len(fitted.feature_names)
        or not set(kinds) <= {"number", "text", "empty"}
        or shapes != {(d,)}
        or len(fitted.texts) != len(kinds) - d
        or any(len(t.keys) != len(t.names) or not 0 <= t.missing <= len(t.keys) + 1 for t in fitted.texts)
        or any(t.encoding not in ("onehot", "embedding", "constant") for t in fitted.texts)
        or (values is not None and values.shape != (len(fitted.target.class_names),))
    ):
        raise CheckpointError(
            "[Preprocessor] the stored preprocessing has numbers and names that do not match"
        )


def _task(task: Any) -> Any:
    if task not in ("classification", "regression", None):
        raise ValueError(f"unknown task {task!r}")
    return task


def _names(names: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in names)


def _floats(array: Any) -> NDArray[np.float64]:
    return np.asarray(array, np.float64)
