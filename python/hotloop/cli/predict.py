# SPDX-License-Identifier: Apache-2.0
"""``hotloop predict``: every row of a table, block by block, in order, with bounded memory."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from hotloop.cli import models, source
from hotloop.cli.console import Result
from hotloop.cli.options import COMMON, Common, Several, Switch
from hotloop.cli.sinks import Block, CsvSink, JsonSink, Output, Sink, file_sink
from hotloop.data.columns import Columns

EXAMPLES = """Examples:
  hotloop predict penguins.safetensors new.csv > predictions.csv
  hotloop predict price.safetensors sales.parquet --out out.parquet
  hotloop predict penguins.safetensors new.csv --keep id --proba --json"""

#: Significant digits: of a float32 probability as far as it is worth reading, of a value all that float32 has.
_SHARE_DIGITS, _VALUE_DIGITS = 6, 9


def predict(
    model: str,
    data: str,
    *,
    out: str | None = None,
    proba: Annotated[bool, Switch] = False,
    keep: Annotated[tuple[str, ...], Several] = (),
    common: Common = COMMON,
) -> Result:
    """Predict every row of a table with a trained model, as CSV or Parquet.

    Classification gives the class and its probability, regression the value in the target's unit. The table
    may be larger than memory: it is read, predicted and written block by block, and OUT appears when the last
    row is written.

    Parameters
    ----------
    model
        A file that hotloop train wrote.
    data
        A table with the model's feature columns; others are ignored.
    out
        The .csv, .tsv or .parquet file to write; default: CSV on standard output.
    proba
        Write the probability of every class, in columns p_CLASS.
    keep
        Columns of the table to write before the predictions, such as id,day; may be repeated.
    """
    trainer = models.load(model)
    if proba and trainer.preprocessor.task != "classification":
        raise ValueError("[predict] --proba is for classes, and the model predicts numbers; leave it out")
    _check_out(out, model, data)
    about = {"model": model, "data": data, "out": out}
    blocks = _predicted(trainer, data, _kept(data, keep, trainer.preprocessor), proba=proba)
    if out is not None:
        with file_sink(out) as sink:
            rows = _drain(blocks, sink, show=sys.stderr.isatty())
        return Result(f"{rows} predictions written to {out}", {**about, "rows": rows})
    if common.json:
        document = JsonSink()
        with contextlib.ExitStack() as stack:
            stack.callback(document.file.close)
            rows = _drain(blocks, document)
            stack.pop_all()  # whoever writes the document closes the file
        return Result(data={**about, "rows": rows, "predictions": []}, rows=document.file)
    _drain(blocks, CsvSink(sys.stdout))
    return Result()


def _predicted(trainer: Any, data: str, kept: Mapping[str, str | None], *, proba: bool) -> Iterator[Block]:
    prepare = trainer.preprocessor
    for start, block in source.blocks(data, prepare, kept):

        def work(rows: Columns) -> tuple[Output, ...]:
            return _outputs(trainer, prepare.transform(rows.select(prepare.feature_names)), proba=proba)

        predicted = source.located(work, block, data, start)
        result = Block(block.select(kept).columns, predicted)
        twice = sorted({name for name in result.names if result.names.count(name) > 1})
        if twice:
            raise ValueError(
                f"[predict] --keep {twice[0]} has the name of a column of predictions; rename it"
            )
        yield result


def _outputs(trainer: Any, inputs: Any, *, proba: bool) -> tuple[Output, ...]:
    """The columns of predictions for rows that are ready for the network."""
    prepare = trainer.preprocessor
    if prepare.task != "classification":
        return (Output("prediction", prepare.inverse_target(trainer.predict(inputs)), _VALUE_DIGITS),)
    shares = trainer.predict_proba(inputs)
    labels = shares.argmax(axis=1)
    best = shares[np.arange(len(labels)), labels]
    found = (
        Output("prediction", np.array(prepare.class_names, object)[labels]),
        Output("probability", best, _SHARE_DIGITS),
    )
    if not proba:
        return found
    each = (Output(f"p_{name}", shares[:, i], _SHARE_DIGITS) for i, name in enumerate(prepare.class_names))
    return (*found, *each)


def _drain(blocks: Iterator[Block], sink: Sink, *, show: bool = False) -> int:
    """All blocks into the sink; the number of rows."""
    rows = 0
    with contextlib.ExitStack() as stack:
        if show:
            stack.callback(print, "\r\x1b[K", end="", file=sys.stderr, flush=True)
        for block in blocks:
            sink.write(block)
            rows += block.rows
            if show:
                print(f"\r{rows:,} rows", end="", file=sys.stderr, flush=True)
    return rows


def _kept(data: str, keep: tuple[str, ...], prepare: Any) -> dict[str, str | None]:
    """The columns to carry through. What is text in a CSV file stays text: 007 is no 7."""
    if not keep:
        return {}
    names = source.columns_of(data, keep)
    is_csv = Path(data).suffix.lower() in (".csv", ".tsv", ".txt")
    return dict.fromkeys(names, "text" if is_csv else None)


def _check_out(out: str | None, *read: str) -> None:
    """Before anything is read: the folder is there, and nothing that is read would be replaced."""
    if out is None:
        return
    path = Path(out)
    if path.exists() and any(path.samefile(name) for name in read if Path(name).exists()):
        raise ValueError(f"[predict] --out {out} is read, too; give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
