# SPDX-License-Identifier: Apache-2.0
"""A fitted preprocessor as ONNX nodes: from the table's own columns to what the network takes.

Numbers are float64 until they are scaled, as in `Preprocessor.transform`, and are then rounded once. Text goes
through a table of spellings, because ONNX has no op that folds case and blanks of any language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hotloop.data.preprocess import Preprocessor
from hotloop.data.preprocess.categories import Categories, clean
from hotloop.data.preprocess.numbers import Numbers
from hotloop.errors import ShapeError
from hotloop.export.builder import BATCH, Border, Builder
from hotloop.graph import Graph

#: The one input of a table without text.
FEATURES = "features"
_FLOAT, _ML = 1, "ai.onnx.ml"
#: Ways of writing a category that are known beside the commonest of the training rows.
_SPELLINGS: tuple[Callable[[str], str], ...] = (str.lower, str.upper, str.capitalize, str.title, str.strip)


def column_names(preprocessor: Preprocessor) -> tuple[str, ...]:
    """The names of the inputs: every column by its own if there is text, else `FEATURES` (batch, columns)."""
    return preprocessor.feature_names if preprocessor.texts else (FEATURES,)


def add_columns(
    builder: Builder, preprocessor: Preprocessor, graph: Graph, names: Mapping[str, str]
) -> dict[str, str]:
    """Append inputs and preprocessing; the ONNX value that feeds each input of the graph.

    ``names``: what each of `column_names` is called in the file. Raises `ShapeError` if the model does not take
    what the preprocessor gives.
    """
    if preprocessor.texts:
        numbers, texts = _separate_inputs(builder, preprocessor, names)
    else:
        width = len(preprocessor.feature_names)
        builder.inputs.append(Border(names[FEATURES], "float64", (BATCH, width)))
        numbers, texts = names[FEATURES], []
    parts = [_scaled(builder, preprocessor.numbers, numbers)] if numbers else []
    parts += _indicators(builder, preprocessor.numbers, numbers) if numbers else []
    ids, offset = [], 0
    for categories, text in zip(preprocessor.texts, texts, strict=True):
        slots = _slots(builder, categories, text)
        if categories.encoding == "embedding":
            if offset:
                slots = builder.op("Add", slots, builder.constant(offset, np.int64))
            ids.append(builder.op("Unsqueeze", slots, builder.constant([1], np.int64)))
            offset += categories.size + 1
        else:
            parts.append(builder.op("Gather", _onehot_rows(builder, categories), slots, axis=0))
    given = {"num": _joined(builder, parts)} if parts else {}
    if ids:
        given["cat"] = _joined(builder, ids)
    return _fed(preprocessor, graph, given)


def _separate_inputs(
    builder: Builder, preprocessor: Preprocessor, names: Mapping[str, str]
) -> tuple[str, list[str]]:
    """One input a column, (batch,) each: the numbers side by side ("" if there are none), and each text."""
    numbers, texts = [], []
    for feature, kind in zip(preprocessor.feature_names, preprocessor.kinds, strict=True):
        name = names[feature]
        builder.inputs.append(Border(name, "str" if kind == "text" else "float64", (BATCH,)))
        if kind == "text":
            texts.append(name)
        else:
            numbers.append(builder.op("Unsqueeze", name, builder.constant([1], np.int64)))
    return _joined(builder, numbers) if numbers else "", texts


def _joined(builder: Builder, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else builder.op("Concat", *parts, axis=1)


def _scaled(builder: Builder, numbers: Numbers, x: str) -> str:
    """``z = (x - center) / scale``, what is missing filled in and clipped smoothly; 0 for constant columns."""
    op = builder.op
    constant = numbers.scale == 0
    # a constant column is 0 whatever is filled in
    fill = builder.constant(np.where(constant, 0.0, numbers.fill), np.float64, "fill")
    filled = op("Where", op("IsNaN", x), fill, x)
    z = op("Sub", filled, builder.constant(numbers.center, np.float64, "center"))
    z = op("Div", z, builder.constant(np.where(constant, 1.0, numbers.scale), np.float64, "scale"))
    if numbers.clip is not None:
        ratio = op("Div", z, builder.constant(numbers.clip, np.float64))
        root = op("Sqrt", op("Add", op("Mul", ratio, ratio), builder.constant(1.0, np.float64)))
        z = op("Div", z, root)
    if constant.any():
        z = op("Where", builder.constant(constant, np.bool_), builder.constant(0.0, np.float64), z)
    return op("Cast", z, to=_FLOAT)


def _indicators(builder: Builder, numbers: Numbers, x: str) -> list[str]:
    """1 where a value is missing, for the columns that missed any in training."""
    flagged = np.flatnonzero(numbers.indicator)
    if not len(flagged):
        return []
    missing = builder.op("Cast", builder.op("IsNaN", x), to=_FLOAT)
    return [builder.op("Gather", missing, builder.constant(flagged, np.int64), axis=1)]


def _slots(builder: Builder, categories: Categories, text: str) -> str:
    """The slot of each text: "" is missing, and what is in no known spelling is "other"."""
    known: dict[str, int] = {"": categories.missing}
    for slot, (key, name) in enumerate(zip(categories.keys, categories.names, strict=True), 1):
        for spelling in (name, key, *(way(name) for way in _SPELLINGS)):
            if clean(spelling) == key:
                known.setdefault(spelling, slot)
    return builder.op(
        "LabelEncoder", text, domain=_ML, keys_strings=list(known), values_int64s=list(known.values()),
        default_int64=0,
    )  # fmt: skip


def _onehot_rows(builder: Builder, categories: Categories) -> str:
    """What `Categories.onehot` writes for each slot: a table (size + 1, width)."""
    table = np.zeros((categories.size + 1, categories.width), np.float32)
    if categories.encoding == "onehot":
        slots = np.arange(1, categories.size + 1)
        table[slots, slots - 1] = 1
        if categories.pooled:
            table[0, categories.size] = 1
    return builder.constant(table, np.float32, "categories")


def _fed(preprocessor: Preprocessor, graph: Graph, given: Mapping[str, str]) -> dict[str, str]:
    """Which input of the graph gets which value: by name, or the only one to the only one."""
    wanted = {name: graph.types[value] for name, value in graph.inputs}
    if len(given) == len(wanted) == 1:
        given = dict(zip(wanted, given.values(), strict=True))
    widths = {"num": len(preprocessor.num_names), "cat": len(preprocessor.cat_sizes)}
    sizes = {name: widths["cat" if type_.dtype == "index" else "num"] for name, type_ in wanted.items()}
    if given.keys() != wanted.keys() or any(t.rank != 2 or t.shape[1] != sizes[n] for n, t in wanted.items()):
        takes = ", ".join(f"{name} {type_!r}" for name, type_ in wanted.items())
        raise ShapeError(
            f"[export_onnx] the preprocessor gives {widths['num']} numbers and {widths['cat']} ids, and the model "
            f"takes {takes}; export what stands behind it with preprocessing=False"
        )
    return dict(given)


def add_quantity(builder: Builder, output: str, preprocessor: Preprocessor, name: str) -> None:
    """Append a regression's prediction in the unit of its target, float64 (batch,)."""
    op, target = builder.op, preprocessor.target
    wide = op("Reshape", op("Cast", output, to=11), builder.constant([-1], np.int64))  # 11: DOUBLE
    scaled = op("Mul", wide, builder.constant(target.scale, np.float64))
    value = op("Add", scaled, builder.constant(target.center, np.float64))
    builder.finish(value, Border(name, "float64", (BATCH,)))
