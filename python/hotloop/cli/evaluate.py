# SPDX-License-Identifier: Apache-2.0
"""``hotloop evaluate``: how well a trained model predicts the rows of a table."""

from __future__ import annotations

import sys

from hotloop.cli import console, models, reports
from hotloop.cli.console import Result
from hotloop.cli.options import COMMON, Common
from hotloop.data.tables import read_table

EXAMPLES = """Examples:
  hotloop evaluate penguins.safetensors new.csv
  hotloop evaluate price.safetensors sales.parquet --target list_price --json"""


def evaluate(model: str, data: str, *, target: str | None = None, common: Common = COMMON) -> Result:
    """Report how well a trained model predicts the rows of a table.

    Classification gives precision, recall and F1 per class and the confusion matrix, regression RMSE, MAE and
    R2 in the target's unit.

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
    table = read_table(data, target=name, features=prepare.feature_names, task=prepare.task)
    assert table.target is not None
    y = table.target
    if prepare.task == "classification":
        y = prepare.labels_of([table.class_names[label] for label in y])
    scores = reports.score(trainer, table.features, y)
    text = scores.text(console.width(sys.stdout), confusion=True)
    return Result(
        f"{table.name}: {scores.rows} rows\n{text}",
        {"model": model, "data": data, "task": prepare.task, "target": name, **scores.to_dict()},
    )
