# SPDX-License-Identifier: Apache-2.0
"""How good predictions are: per class with the confusion matrix, or RMSE, MAE and R2; as text and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hotloop.report.text import class_scores, classification_report, regression_report, regression_scores

Array = npt.NDArray[Any]
#: Rows of the list that stands for a matrix too wide for the terminal.
_MOST_CONFUSED = 10


@dataclass(frozen=True, eq=False)
class Scores:
    """True and predicted targets (n,): labels into ``class_names``, or values if there are none."""

    true: Array
    predicted: Array
    class_names: Sequence[str] = ()

    @property
    def rows(self) -> int:
        return len(self.true)

    def text(self, width: int, *, confusion: bool = False) -> str:
        """The report, with the confusion matrix if asked for, in ``width`` columns where that can be."""
        if not self.class_names:
            return regression_report(self.true, self.predicted)
        report = classification_report(self.true, self.predicted, self.class_names, width=width)
        return (
            f"{report}\n\n{confusion_text(self.confusion(), self.class_names, width)}"
            if confusion
            else report
        )

    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts (classes, classes): row the true class, column the predicted one."""
        n = len(self.class_names)
        return np.bincount(self.true * n + self.predicted, minlength=n * n).reshape(n, n)

    def to_dict(self) -> dict[str, Any]:
        """For --json; the fields are described in docs/command_line.md."""
        if not self.class_names:
            return {"rows": self.rows, **regression_scores(self.true, self.predicted)}
        scores = class_scores(self.true, self.predicted, len(self.class_names))
        columns = {name: getattr(scores, name) for name in ("precision", "recall", "f1", "support")}
        return {
            "rows": self.rows,
            "accuracy": scores.accuracy,
            "classes": [
                {"name": name, **{key: values[label] for key, values in columns.items()}}
                for label, name in enumerate(self.class_names)
            ],
            "confusion": self.confusion(),
        }


def predict(trainer: Any, inputs: Any) -> Array:
    """Labels int64 (n,), or values in the target's own unit, of what ``transform`` gave."""
    prepare = trainer.preprocessor
    if prepare.task == "classification":
        return np.asarray(trainer.predict_label(inputs), np.int64)
    return np.asarray(prepare.inverse_target(trainer.predict(inputs)), np.float64)


def confusion_text(counts: npt.NDArray[np.int64], names: Sequence[str], width: int) -> str:
    """The matrix, or, where that is wider than ``width``, the classes that are confused most often.

    >>> print(confusion_text(np.array([[3, 1], [0, 2]]), ["no", "yes"], 40))
    true \\ predicted
             no  yes
     no       3    1
    yes       0    2
    """
    shown = [name if len(name) <= 12 else name[:11] + "…" for name in names]
    head = max(map(len, shown))
    cell = max(len(str(counts.max(initial=0))), head) + 2
    if head + cell * len(shown) + 3 > width:
        return _most_confused(counts, names)
    rows = [[" " * head, *shown], *([name, *map(str, row)] for name, row in zip(shown, counts, strict=True))]
    lines = [f"{row[0]:>{head}}   " + "".join(f"{text:>{cell}}" for text in row[1:]) for row in rows]
    return "\n".join(["true \\ predicted", *lines])


def _most_confused(counts: npt.NDArray[np.int64], names: Sequence[str]) -> str:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = [divmod(int(i), len(names)) for i in order if wrong.flat[i]]
    if not pairs:
        return "no class is taken for another"
    lines = [f"{wrong[true, said]:>7}  {names[true]} taken for {names[said]}" for true, said in pairs]
    return "\n".join(["most often confused (rows)", *lines])
