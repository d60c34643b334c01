# SPDX-License-Identifier: Apache-2.0
"""Preprocessor: what stands between a table and a network, learnt from the training rows alone.

Arithmetic is float64 and rounds to float32 once, at the end. It travels in the model file, so that predicting
applies the very same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

import numpy as np
from numpy.typing import NDArray

from hotloop.data.preprocess import fit as fitting
from hotloop.data.preprocess import stored as storing
from hotloop.data.preprocess.align import Aligned, aligned
from hotloop.data.preprocess.fit import Fitted, Options
from hotloop.data.preprocess.numbers import Missing, Scale
from hotloop.data.preprocess.report import Finding, Report, quoted, share
from hotloop.data.preprocess.target import Task
from hotloop.errors import NonFiniteError

Array = NDArray[Any]
#: What a network gets: numbers alone, or numbers "num" and ids "cat".
Inputs = Union[NDArray[np.float32], dict[str, Array]]


@dataclass(frozen=True, eq=False)
class Preprocessor(Fitted):
    """The numbers and names of a fitted preprocessing; made by `fit` or `from_stored`.

    Columns of numbers are filled in, centred and scaled; text becomes one-hot columns or ids for an
    embedding. A column that is constant in the training rows always gives 0: it carries nothing that could be
    learnt. ``report`` says what was found in the training rows and what was done about it.

    feature_names, kinds (d): the columns of the table, and what they hold: "number", "text", "empty".
    numbers, texts, target: what was learnt about each kind; see `hotloop.data.preprocess`.
    """

    @classmethod
    def fit(
        cls,
        features: Any,
        target: Any = None,
        *,
        task: Task | Literal["auto"] = "auto",
        missing: Missing = "median",
        indicator: bool = True,
        text: Literal["auto", "onehot", "embedding"] = "auto",
        scale: Scale = "standard",
        clip: float | None = None,
        rare: int | float | None = None,
        max_onehot: int = 8,
        scale_target: Scale = "standard",
        feature_names: Sequence[str] | None = None,
        target_name: str = "target",
        class_names: Sequence[str] = (),
    ) -> Preprocessor:
        """Learn from the training rows.

        Args:
            features: n rows: a frame, a mapping of names to columns or a 2-D array; see
                `hotloop.data.columns.as_columns`.
            target: (n,) numbers, booleans or text, or None. Rows without a target are refused.
            task: "auto" takes text, booleans and few distinct whole numbers as classes, else as quantities.
            missing: what stands for a missing number: "median" or "mean" of the column, a number, or
                "refuse". Columns that miss nothing in training are filled alike, if they do later.
            indicator: a further column says where a number was missing, if any was in training; missing
                text is a category of its own. Without it, missing text counts as the most frequent.
            text: "onehot", "embedding", or by the number of categories (``max_onehot``; the default is that
                of RealMLP, arXiv 2407.04491).
            scale: "standard" (mean and standard deviation), "robust" (median and interquartile range) or None.
            clip: bounds scaled numbers smoothly, ``z / sqrt(1 + (z / clip)^2)``; RealMLP uses 3.
            rare: categories in fewer rows than this, or than this share of them, become "other". Default:
                1 % of the rows, at most 5.
            scale_target: as ``scale``, for the target of a regression.
            feature_names: names for the columns of an array, or which columns of a frame to use.
            class_names: the name of each label, where the target is labels from 0; or the order of classes.

        Raises `ShapeError`, `NonFiniteError`, `DTypeError`, `LabelError` for a label without a name, and
        `ValueError` for an option that does not exist.

        >>> p = Preprocessor.fit([[1.0, 7.0], [3.0, 7.0]], [10.5, 30.5], scale="standard")
        >>> p.transform([[3.0, 8.0]]).tolist()
        [[1.0, 0.0]]
        >>> p.inverse_target([[0.5]]).tolist()
        [25.5]
        >>> p = Preprocessor.fit({"size": [1, None, 3], "color": ["Red", " red", "blue"]}, ["a", "b", "a"])
        >>> p.num_names
        ('size', 'size missing', 'color=blue', 'color=Red')
        >>> print(p.report.of_kind("missing")[0])
        size: 1 of 3 (33 %) missing; filled with the median 2, and a column of its own says where
        """
        fitted = fitting.fit(
            features, target, options=Options(missing, indicator, text, scale, clip, rare, max_onehot),
            task=task, scale_target=scale_target, feature_names=feature_names, target_name=target_name,
            class_names=class_names,
        )  # fmt: skip
        return cls(**vars(fitted))

    # ---- what it gives

    @property
    def task(self) -> Task | None:
        """What the target is; None if it was fitted without one."""
        return self.target.task

    @property
    def target_name(self) -> str:
        """The name of the target."""
        return self.target.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label of a classification."""
        return self.target.class_names

    @property
    def num_names(self) -> tuple[str, ...]:
        """The columns of numbers that `transform` gives: features, "... missing", "feature=category"."""
        names = [n for n, kind in zip(self.feature_names, self.kinds, strict=True) if kind != "text"]
        flags = [f"{n} missing" for n, flag in zip(names, self.numbers.indicator, strict=True) if flag]
        texts = zip(self._text_names, self.texts, strict=True)
        return (*names, *flags, *(label for name, t in texts for label in t.labels(name)))

    @property
    def cat_names(self) -> tuple[str, ...]:
        """The features that `transform` gives as ids."""
        texts = zip(self._text_names, self.texts, strict=True)
        return tuple(name for name, t in texts if t.encoding == "embedding")

    @property
    def cat_sizes(self) -> tuple[int, ...]:
        """How many ids each of `cat_names` has. They follow one another in one table: the ids of column j
        begin at ``sum(cat_sizes[:j])`` with "other"."""
        return tuple(t.size + 1 for t in self.texts if t.encoding == "embedding")

    @property
    def _text_names(self) -> list[str]:
        return [n for n, kind in zip(self.feature_names, self.kinds, strict=True) if kind == "text"]

    # ---- what it does

    def transform(self, features: Any, *, strict: bool = True) -> Inputs:
        """The rows (n) as a network gets them.

        Returns float32 (n, d), whose columns are `num_names`; or where columns are embedded ``{"num":
        float32 (n, d), "cat": int32 (n, k)}``, ids into one table of ``sum(cat_sizes)`` rows, without "num" if
        there are no such columns. The columns of a
        frame or mapping are found by name; those that training did not have are refused unless ``strict`` is
        False. Arrays go by position. Categories that training did not have are "other", never an error.

        Raises `ShapeError` with the first column that differs, `NonFiniteError` for infinity or a value so
        far out that float32 cannot hold it, `DTypeError` for text in a column of numbers.

        >>> p = Preprocessor.fit({"a": [0.0, 2.0], "b": ["x", "y"]})
        >>> p.transform({"b": ["new", "y"], "a": [2.0, None]}).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
        """
        where = "Preprocessor.transform"
        table = aligned(features, self.feature_names, self.kinds, where=where, strict=strict)
        num = np.zeros((table.rows, len(self.num_names)), np.float32)
        ids = np.empty((table.rows, len(self.cat_sizes)), np.int32)
        self.numbers.transform(table.numbers, num, lambda *reason: self._refused(where, *reason))
        start, k, offset = self.numbers.width, 0, 0
        for categories, values in zip(self.texts, table.texts, strict=True):
            if categories.encoding == "embedding":
                ids[:, k] = categories.slots(values) + offset
                k, offset = k + 1, offset + categories.size + 1
            else:
                categories.onehot(values, num[:, start : start + categories.width])
                start += categories.width
        if not k:
            return num
        return {"num": num, "cat": ids} if num.shape[1] else {"cat": ids}

    def inspect(self, features: Any, *, strict: bool = True) -> Report:
        """What `transform` would meet in these rows that training did not have: unseen categories, and missing
        values in columns that missed none. Raises as `transform` does for other columns.

        >>> p = Preprocessor.fit({"a": [0.0, 2.0], "b": ["x", "y"]})
        >>> print(p.inspect({"a": [None, 1.0], "b": ["new", "y"]}))
        a: 1 of 2 (50 %) missing, none was in training; filled with 1
        b: 1 of 2 (50 %) in categories that training did not have: 'new'; taken as 'other'
        """
        where = "Preprocessor.inspect"
        table = aligned(features, self.feature_names, self.kinds, where=where, strict=strict)
        return Report((*self._inspect_numbers(table), *self._inspect_texts(table)))

    def transform_target(self, target: Any) -> Array:
        """What the network is trained on: labels int64 (n,), or scaled values float32 (n,).

        A classification takes the values or names of its classes; where ``class_names`` were given to `fit`,
        also labels from 0. Raises `LabelError`, `DTypeError`, `NonFiniteError`, `ShapeError`, and `ValueError`
        if it was fitted without a target.

        >>> Preprocessor.fit([[1], [2], [3]], ["no", "yes", "no"]).transform_target(["yes", "no"]).tolist()
        [1, 0]
        """
        return self.target.transform(target)

    def inverse_target(self, prediction: Any) -> NDArray[np.float64]:
        """Predictions (n,) or (n, 1) of a regression in the target's own unit, float64 (n,)."""
        return self.target.inverse(prediction)

    def labels_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The labels (n,) of class names (n,). Raises `LabelError` for a name not seen in training.

        >>> p = Preprocessor.fit([[1.0], [2.0]], [0, 1], task="classification", class_names=["no", "yes"])
        >>> p.labels_of(["yes", "no"]).tolist()
        [1, 0]
        """
        return self.target.labels_of(names)

    # ---- in files

    def stored(self) -> tuple[dict[str, Array], str]:
        """The arrays and the JSON text that `from_stored` takes: what a model file keeps."""
        return storing.stored(self)

    @classmethod
    def from_stored(cls, arrays: Mapping[str, Array], text: str) -> Preprocessor:
        """The preprocessor that `stored` described, to the bit, by this version or an earlier one. Raises
        `CheckpointError` if it cannot be.

        >>> p = Preprocessor.fit([[1.0], [2.0]], [0.0, 1.0], task="regression")
        >>> Preprocessor.from_stored(*p.stored()).numbers.center
        array([1.5])
        """
        return cls(**vars(storing.restored(arrays, text)))

    # ---- details

    def _number_name(self, column: int) -> tuple[int, str]:
        """Position and name among the features of a column of numbers."""
        found = [i for i, kind in enumerate(self.kinds) if kind != "text"]
        return found[column], self.feature_names[found[column]]

    def _refused(
        self, where: str, kind: str, row: int, column: int, value: float, count: int
    ) -> NonFiniteError:
        position, name = self._number_name(column)
        cell = f"[{where}] features[{row}, {position}]"
        if kind == "missing":
            return NonFiniteError(
                f"{cell} ({name!r}) is missing ({count} bad values), and the model was fitted with rows that miss "
                "nothing; fill it in or drop the row"
            )
        if kind == "infinite":
            return NonFiniteError(
                f"{cell} = {value:g} ({name!r}; {count} bad values); use NaN for what is missing"
            )
        return NonFiniteError(
            f"{cell} = {value:g} ({name!r}) overflows float32 once scaled; correct the value"
        )

    def _inspect_numbers(self, table: Aligned) -> list[Finding]:
        source = table.numbers
        columns = source.T if isinstance(source, np.ndarray) else source
        found = []
        for j, values in enumerate(columns):
            name = self._number_name(j)[1]
            count = int(np.count_nonzero(np.isnan(values)))
            if count and not self.numbers.indicator[j]:
                fill = self.numbers.fill[j]
                done = "refused" if np.isnan(fill) else f"filled with {fill:.6g}"
                text = f"{share(count, table.rows)} missing, none was in training; {done}"
                found.append(Finding("missing", name, count, table.rows, text))
        return found

    def _inspect_texts(self, table: Aligned) -> list[Finding]:
        found = []
        for name, categories, values in zip(self._text_names, self.texts, table.texts, strict=True):
            unknown = categories.unknown(values)
            count = sum(unknown.values())
            if count:
                rare = ", or had rarely" if categories.pooled else ""
                text = (
                    f"{share(count, table.rows)} in categories that training did not have{rare}: "
                    f"{quoted(tuple(unknown))}; taken as 'other'"
                )
                found.append(Finding("unseen", name, count, table.rows, text))
        return found
