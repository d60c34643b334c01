# SPDX-License-Identifier: Apache-2.0
"""The command ``hotloop``: train on a table, predict, evaluate, inspect, benchmark.

Every command is a plain function; cyclopts (the extra ``cli``) turns its signature and docstring into options
and help. Exit codes: 0 done, 2 bad input (one line on stderr), 130 Ctrl-C (an interrupted training still
reports and saves its best epoch).
"""

from __future__ import annotations

import csv
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from hotloop.data.preprocess import Preprocessor
from hotloop.data.split import Part, Split, split
from hotloop.data.tables import Table, read_table
from hotloop.errors import HotloopError, HotloopWarning
from hotloop.progress import Silent, make_progress
from hotloop.report_text import classification_report, regression_report

BAD_INPUT, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own arguments) and return its exit code.

    >>> main(["info"])  # doctest: +SKIP
    0
    """
    try:
        import cyclopts
    except ImportError:
        return _fail("the command line needs cyclopts; install the extra: pip install 'hotloop[cli]'")
    with warnings.catch_warnings():
        warnings.simplefilter("always", HotloopWarning)
        warnings.showwarning = _show_warning
        try:
            app = cyclopts.App(name="hotloop", help="Train neural networks at the speed of the hardware.")
            for command in (train, predict, evaluate, info):
                app.command(command)
            app.command(_bench(cyclopts))
            tokens = list(sys.argv[1:] if argv is None else argv)
            run, bound, _ = app.parse_args(tokens, print_error=False, exit_on_error=False)
            code = int(run(*bound.args, **bound.kwargs) or 0)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # the reader, such as head, has enough; what is left has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            return _fail("interrupted", INTERRUPTED)
        except (cyclopts.CycloptsError, HotloopError, ValueError, OSError, ImportError) as error:
            return _fail(str(error))


def train(
    data: str,
    *,
    target: str | None = None,
    task: Literal["auto", "classification", "regression"] = "auto",
    epochs: int = 200,
    patience: int = 15,
    batch_size: int = 32,
    hidden: str = "128",
    dropout: float = 0.0,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    threads: int | None = None,
    out: str | None = None,
    progress: bool | None = None,
    report: str | None = None,
) -> int:
    """Train a network on a table, report on rows held back, and write the model.

    The rows are split 70/15/15 into training, validation and test, evenly by class. Training ends when the
    validation loss has not improved for PATIENCE epochs, and the best epoch's weights are kept.

    Parameters
    ----------
    data
        A .csv, .tsv or .npz file, or digits, iris, wine, breast_cancer, diabetes.
    target
        The column to learn; needed for CSV.
    task
        What the target is; auto decides by its values.
    epochs
        At most this many passes over the training rows.
    patience
        Epochs without improvement before training ends.
    batch_size
        Rows per step.
    hidden
        Widths of the hidden layers, such as 256,256.
    dropout
        Share of hidden values dropped in training, in [0, 1).
    lr
        AdamW's learning rate.
    weight_decay
        AdamW's weight decay.
    seed
        Decides the split, the initial weights, the shuffles and the dropout.
    threads
        Threads to use; by default as many as the size of the model is worth.
    out
        The model file, or a folder for it; default: hotloop-model/.
    progress
        Show the training's progress; by default on a terminal.
    report
        Write a page about the run to this file: curves, mistakes on the validation rows, cost, settings.
    """
    page = None if report is None else _page_path(report)
    table = read_table(data, target=target, task=None if task == "auto" else task)
    parts = split(table.features, table.target, stratify=table.task == "classification", seed=seed)
    path = _model_path(out, table.name)
    trainer = _trainer(
        table, parts.train, _widths(hidden), dropout, patience, lr=lr, weight_decay=weight_decay, seed=seed,
        threads=threads, progress="auto" if progress is None else progress,
    )  # fmt: skip
    trainer.split = parts.info
    _print_plan(table, parts, trainer, batch_size)
    prepare = trainer.preprocessor
    x, y = prepare.transform(parts.train.X), prepare.transform_target(parts.train.y)
    x_val, y_val = prepare.transform(parts.validation.X), prepare.transform_target(parts.validation.y)
    run = trainer.fit(x, y, validation=(x_val, y_val), epochs=epochs, batch_size=batch_size)
    if run.best_epoch is None:
        return _nothing_learnt(run.stop_reason)
    print(
        f"ended by {run.stop_reason.replace('_', ' ')} after {run.epochs} epochs, {run.seconds:.2f} s; "
        f"best epoch {run.best_epoch}, validation loss {run.history['val_loss'][run.best_epoch - 1]:.4g}"
    )
    if type(make_progress(trainer.progress)) is Silent and run.diagnosis.main:  # else it has just been shown
        print(run.diagnosis.main)
    x_test, y_test = parts.test.open("final report")
    print(f"\nTest report ({len(y_test)} rows)\n{_report(trainer, x_test, y_test)}\n")
    trainer.save(path)
    print(f"model written to {path}")
    if page is not None:
        print(f"report written to {run.report(page)}")
    return INTERRUPTED if run.stop_reason == "interrupt" else 0


def predict(model: str, data: str, *, out: str | None = None) -> int:
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
    trainer = _load(model)
    prepare: Preprocessor = trainer.preprocessor
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
        return 0
    with Path(out).open("w", encoding="utf-8", newline="") as file:
        _write_csv(file, columns)
    print(f"{len(x)} predictions written to {out}")
    return 0


def evaluate(model: str, data: str, *, target: str | None = None) -> int:
    """Report how well a trained model predicts the rows of a table.

    Parameters
    ----------
    model
        A file that hotloop train wrote.
    data
        A table with the model's feature columns and the target.
    target
        The target's column; default: the one the model was trained on.
    """
    trainer = _load(model)
    prepare: Preprocessor = trainer.preprocessor
    name = target or prepare.target_name
    table = read_table(data, target=name, features=prepare.feature_names, task=prepare.task)
    assert table.target is not None
    y = table.target
    if prepare.task == "classification":
        y = prepare.labels_of([table.class_names[label] for label in y])
    print(f"{table.name}: {len(y)} rows\n{_report(trainer, table.features, y)}")
    return 0


def info(model: str | None = None) -> int:
    """Show this installation (version, kernels, threads, devices), or what a model file holds.

    Parameters
    ----------
    model
        A file that hotloop wrote, or a folder of checkpoints.
    """
    import hotloop

    if model is None:
        hotloop.show_config()
        return 0
    print(f"{model}: {hotloop.load(model).info}")
    return 0


# --- parts of the commands ------------------------------------------------------------------------


def _trainer(
    table: Table, rows: Part, widths: Sequence[int], dropout: float, patience: int,
    *, lr: float, weight_decay: float, **options: Any,
) -> Any:  # fmt: skip
    """A trainer for a ReLU network of these widths, with the preprocessing learnt from ``rows``."""
    import hotloop as hl

    assert table.task is not None
    classes = table.task == "classification"
    layers: list[Any] = []
    n_in = table.features.shape[1]
    for width in widths:
        layers += [hl.nn.Linear(n_in, width), hl.nn.ReLU(), *([hl.nn.Dropout(dropout)] if dropout else [])]
        n_in = width
    layers.append(hl.nn.Linear(n_in, len(table.class_names) if classes else 1))
    trainer = hl.Trainer(
        hl.nn.Sequential(*layers),
        loss="cross_entropy" if classes else "mse",
        optimizer=hl.optim.AdamW(lr, weight_decay=weight_decay),
        early_stopping=hl.EarlyStopping(patience=patience),
        **options,
    )
    trainer.preprocessor = Preprocessor.fit(
        rows.X, rows.y, task=table.task, class_names=table.class_names,
        feature_names=table.feature_names, target_name=table.target_name,
    )  # fmt: skip
    return trainer


def _print_plan(table: Table, parts: Split, trainer: Any, batch_size: int) -> None:
    train_rows, validation_rows, test_rows = map(len, parts.rows)
    what = f"{len(table.class_names)} classes" if table.task == "classification" else "regression"
    print(
        f"{table.name}: {len(table.features)} rows, {table.features.shape[1]} features, {what} "
        f"({train_rows} train, {validation_rows} validation, {test_rows} test)"
    )
    size = sum(value.size for value in trainer.model.state_dict().values())
    print(f"model: {size:,} parameters, AdamW, batches of {batch_size}")


def _bench(cyclopts: Any) -> Any:
    """The group ``bench``; its libraries are imported by the workers, not here."""
    from hotloop.benchmarks import commands

    group = cyclopts.App(name="bench", help="Time training or kernels on this machine.")
    group.command(commands.train, name="train")
    group.command(commands.time_kernels, name="kernels")
    return group


def _nothing_learnt(stop_reason: str) -> int:
    """The exit code of a training that ended before its first epoch did; there is no model to keep."""
    if stop_reason == "interrupt":
        return _fail("interrupted before the first epoch ended; no model was written", INTERRUPTED)
    return _fail("no epoch ended with a finite validation loss; no model was written: try a smaller --lr")


def _report(trainer: Any, features: Any, target: Any) -> str:
    prepare: Preprocessor = trainer.preprocessor
    x = prepare.transform(features)
    if prepare.task == "classification":
        predicted = np.asarray(trainer.predict_label(x), np.int64)
        return classification_report(np.asarray(target, np.int64), predicted, prepare.class_names)
    return regression_report(np.asarray(target, np.float64), prepare.inverse_target(trainer.predict(x)))


def _load(model: str) -> Any:
    import hotloop

    trainer = hotloop.load(model)
    if trainer.preprocessor is None:
        raise ValueError(
            f"[cli] {model} holds no preprocessing; it was not written by hotloop train: use hl.load in Python"
        )
    return trainer


def _widths(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text.replace(" ", "")):
        raise ValueError(f"[cli] --hidden takes widths such as 128 or 256,256, got {text!r}")
    return [int(width) for width in text.split(",")]


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


def _write_csv(file: TextIO, columns: dict[str, list[str]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def _fail(message: str, code: int = BAD_INPUT) -> int:
    print(f"hotloop: {' '.join(message.split())}", file=sys.stderr)
    return code


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    print(f"hotloop: warning: {' '.join(str(message).split())}", file=sys.stderr)
