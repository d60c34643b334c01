# SPDX-License-Identifier: Apache-2.0
"""``hotloop predict``."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TextIO

import numpy as np

from hotloop.cli import models
from hotloop.cli.console import Result
from hotloop.cli.options import COMMON, Common
from hotloop.data.tables import read_table

EXAMPLES = ""


def predict(model: str, data: str, *, out: str | None = None, common: Common = COMMON) -> Result:
    """Predict every row of a table with a trained model, as CSV.

    Classification gives the class and its probability, regression the value in the target's unit.

    Parameters
    ----------
    model
        A file that hotloop train wrote.
    data
        A table with the model's feature columns; others are ignored.
    out
        The CSV to write; default: standard output.
    """
    trainer = models.load(model)
    prepare = trainer.preprocessor
    table = read_table(data, features=prepare.feature_names, need_target=False)
    x = prepare.transform(table.features)
    if prepare.task == "classification":
        probability = trainer.predict_proba(x)
        labels = probability.argmax(axis=1)
        shares = probability[np.arange(len(labels)), labels]
        columns = {
            "prediction": [prepare.class_names[label] for label in labels],
            "probability": [f"{share:.6g}" for share in shares],
        }
    else:
        columns = {"prediction": [f"{value:.9g}" for value in prepare.inverse_target(trainer.predict(x))]}
    if out is None:
        _write_csv(sys.stdout, columns)
        return Result()
    with Path(out).open("w", encoding="utf-8", newline="") as file:
        _write_csv(file, columns)
    return Result(f"{len(x)} predictions written to {out}")


def _write_csv(file: TextIO, columns: dict[str, list[str]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
