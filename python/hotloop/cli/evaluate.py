# SPDX-License-Identifier: Apache-2.0
"""``hotloop evaluate``: how well a trained model predicts the rows of a table."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from hotloop.cli import console, models, reports, source
from hotloop.cli.console import Result
from hotloop.cli.options import COMMON, Common
from hotloop.data.columns import Columns
from hotloop.data.preprocess.align import as_text
from hotloop.data.preprocess.target import read as read_target

EXAMPLES = """Examples:
  hotloop evaluate penguins.safetensors new.csv
  hotloop evaluate price.safetensors sales.parquet --json
  hotloop evaluate price.safetensors sales.parquet --target list_price"""


def evaluate(model: str, data: str, *, target: str | None = None, common: Common = COMMON) -> Result:
    """Report how well a trained model predicts the rows of a table.

    Classification gives precision, recall and F1 per class and the confusion matrix, regression RMSE, MAE and
    R2 in the target's unit. The table may be larger than memory.

    Parameters
    ----------
    model
        A file that hotloop train wrote.
    data
        A table with the model's feature columns and the target.
    target
        The target's column; default: the one the model was trained on.
    """
    trainer = models.load(model)
    prepare = trainer.preprocessor
    name = target or prepare.target_name
    if name in prepare.feature_names:
        raise ValueError(
            f"[evaluate] --target {name} is a feature of the model; name the column to compare with"
        )
    numbers = prepare.task == "regression" or prepare.target.class_values is not None
    true, predicted = [], []
    for start, block in source.blocks(data, prepare, {name: "number" if numbers else "text"}):

        def work(rows: Columns) -> tuple[Any, Any]:
            return _true(prepare, rows, name), reports.predict(trainer, prepare.transform(rows.drop(name)))

        y, said = source.located(work, block, data, start)
        true.append(y)
        predicted.append(said)
    scores = reports.Scores(np.concatenate(true), np.concatenate(predicted), prepare.class_names)
    text = scores.text(console.width(sys.stdout), confusion=True)
    about = {"model": model, "data": data, "task": prepare.task, "target": name}
    return Result(f"{data}: {scores.rows} rows\n{text}", {**about, **scores.to_dict()})


def _true(prepare: Any, rows: Columns, name: str) -> Any:
    """The target as labels, or as values in its own unit."""
    column = read_target(rows[name], name, where="evaluate")
    if prepare.task == "regression":
        return column.values
    if prepare.target.class_values is not None:
        return prepare.transform_target(column)
    return prepare.labels_of(
        [text.strip() for text in as_text(column)]
    )  # a number is a name here, not an index
