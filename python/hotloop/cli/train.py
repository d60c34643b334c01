# SPDX-License-Identifier: Apache-2.0
"""``hotloop train``: split, preprocess, train, report on the rows held back, and write the model."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any

from hotloop.cli import check, config, console, network, reports, source
from hotloop.cli.console import INTERRUPTED, CommandError, Result, note
from hotloop.cli.options import (
    COMMON,
    DATA,
    MODEL,
    OUTPUT,
    TRAINING,
    Common,
    DataOptions,
    ModelOptions,
    OutputOptions,
    TrainingOptions,
)
from hotloop.progress import Silent, make_progress

EXAMPLES = """Examples:
  hotloop train digits
  hotloop train penguins.csv --target species --ignore year
  hotloop train sales.parquet --target price --split-by-time day
  hotloop train digits --hidden 256,256 --print-config > run.toml
  hotloop train --config run.toml --json"""


def train(
    data: str,
    *,
    columns: DataOptions = DATA,
    model: ModelOptions = MODEL,
    training: TrainingOptions = TRAINING,
    output: OutputOptions = OUTPUT,
    common: Common = COMMON,
) -> Result:
    """Train a network on a table, report on rows held back, and write the model.

    The rows are split 70/15/15 into training, validation and test, evenly by class. What the preprocessing
    learns, it learns from the training rows. Training ends when the validation loss has not improved for
    --patience epochs; the best epoch's weights are kept.

    Parameters
    ----------
    data
        A .csv, .tsv, .parquet or .npz file, or digits, iris, wine, breast_cancer, diabetes.
    """
    if output.print_config:
        return _effective(data, columns, model, training, output)
    page = None if output.report is None else _page_path(output.report)
    table = source.training_table(data, columns)
    parts = source.split_table(table, columns, seed=training.seed)
    path = _model_path(output.out, table.name)
    trainer = network.make_trainer(table, parts, columns, model, training, progress=output.progress)
    _note_plan(table, parts, trainer, training)
    found = check.note_check(table, data) if columns.check else None
    run = _fit(trainer, parts, training)
    if run.best_epoch is None:
        raise _nothing_learnt(run.stop_reason)
    x_test, y_test = parts.test.open("final report")
    scores = reports.Scores(
        y_test, reports.predict(trainer, trainer.preprocessor.transform(x_test)), table.class_names
    )
    trainer.save(path)
    written = {"model": str(path), "report": None if page is None else run.report(page)}
    code = INTERRUPTED if run.stop_reason == "interrupt" else console.DONE
    return Result(
        _text(trainer, run, scores, written),
        {**_data(table, parts, trainer, run, scores), **_issues(found), **written},
        code,
    )


# --- before and during ------------------------------------------------------------------------------


def _effective(data: str, *options: Any) -> Result:
    values: dict[str, Any] = {"data": data}
    for group in options:
        values.update(dataclasses.asdict(group))
    del values["print_config"]
    return Result(config.to_toml("train", values), {"train": values})


def _fit(trainer: Any, parts: Any, training: TrainingOptions) -> Any:
    """The run; what it shows goes to stderr."""
    import hotloop as hl

    prepare = trainer.preprocessor
    (x, y), (x_val, y_val) = (
        (prepare.transform(part.X), part.y if prepare.class_names else prepare.transform_target(part.y))
        for part in (parts.train, parts.validation)
    )
    checkpoint = None if training.checkpoint is None else hl.Checkpoint(training.checkpoint)
    with contextlib.redirect_stdout(sys.stderr):
        return trainer.fit(
            x, y, validation=(x_val, y_val), epochs=training.epochs, batch_size=training.batch_size,
            max_time=training.max_time, checkpoint=checkpoint, resume=training.resume,
        )  # fmt: skip


def _note_plan(table: Any, parts: Any, trainer: Any, training: TrainingOptions) -> None:
    train_rows, validation_rows, test_rows = map(len, parts.rows)
    what = f"{len(table.class_names)} classes" if table.task == "classification" else "regression"
    note(
        f"{table.name}: {len(table.y)} rows, {len(table.features.columns)} features, {what} "
        f"({train_rows} train, {validation_rows} validation, {test_rows} test)"
    )
    if parts.duplicates:
        note(f"{parts.info.duplicates_text()}")
    optimizer = type(trainer.optimizer).__name__
    note(f"model: {_size(trainer):,} parameters, {optimizer}, batches of {training.batch_size}")


def _issues(found: Any) -> dict[str, Any]:
    return {"check": None if found is None else found.to_dict()["issues"]}


def _size(trainer: Any) -> int:
    return sum(value.size for value in trainer.model.state_dict().values())


def _nothing_learnt(stop_reason: str) -> CommandError:
    """Of a training that ended before its first epoch did; there is no model to keep."""
    if stop_reason == "interrupt":
        return CommandError("interrupted before the first epoch ended; no model was written", INTERRUPTED)
    if stop_reason == "time":
        return CommandError("--max-time was over before the first epoch ended; no model was written")
    return CommandError(
        "no epoch ended with a finite validation loss; no model was written: try a smaller --lr"
    )


# --- afterwards -------------------------------------------------------------------------------------


def _text(trainer: Any, run: Any, scores: reports.Scores, written: dict[str, Any]) -> str:
    lines = []
    lines.append(
        f"ended by {run.stop_reason.replace('_', ' ')} after {run.epochs} epochs, {run.seconds:.2f} s; "
        f"best epoch {run.best_epoch}, validation loss {run.history['val_loss'][run.best_epoch - 1]:.4g}"
    )
    if type(make_progress(trainer.progress, sys.stderr)) is Silent and run.diagnosis.main:
        lines.append(str(run.diagnosis.main))  # else it has just been shown
    lines += ["", f"Test report ({scores.rows} rows)", scores.text(console.width(sys.stdout)), ""]
    return "\n".join(lines + [f"{what} written to {path}" for what, path in written.items() if path])


def _data(table: Any, parts: Any, trainer: Any, run: Any, scores: reports.Scores) -> dict[str, Any]:
    train_rows, validation_rows, test_rows = map(len, parts.rows)
    return {
        "data": {
            "name": table.name,
            "task": table.task,
            "target": table.target.name,
            "classes": list(table.class_names),
            "features": list(trainer.preprocessor.feature_names),
            "rows": {"train": train_rows, "validation": validation_rows, "test": test_rows},
        },
        "parameters": _size(trainer),
        "run": {
            "epochs": run.epochs,
            "best_epoch": run.best_epoch,
            "stop_reason": run.stop_reason,
            "seconds": run.seconds,
            "best": {name: values[run.best_epoch - 1] for name, values in run.history.items()},
        },
        "findings": run.diagnosis.to_dict()["findings"],
        "test": scores.to_dict(),
    }


def _model_path(out: str | None, name: str) -> Path:
    """Where the model goes; its folder exists afterwards, so that a bad path fails before the training."""
    path = Path("hotloop-model" if out is None else out)
    if path.is_dir() or not path.suffix:
        path = path / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _page_path(report: str) -> Path:
    """Where the report goes, checked before the training: its folder is made, its libraries are there."""
    from hotloop.report import check_installed

    check_installed("report", "matplotlib", "jinja2")
    path = Path(report)
    if path.is_dir():
        path = path / "run.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
