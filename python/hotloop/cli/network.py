# SPDX-License-Identifier: Apache-2.0
"""The trainer that the options of ``hotloop train`` ask for."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from hotloop.cli.options import DataOptions, ModelOptions, TrainingOptions
from hotloop.cli.source import TrainingTable
from hotloop.data.preprocess import Preprocessor
from hotloop.data.split import Split


def make_trainer(
    table: TrainingTable, parts: Split, options: DataOptions, model: ModelOptions, training: TrainingOptions,
    *, progress: bool | None,
) -> Any:  # fmt: skip
    """A trainer whose preprocessing has learnt from the training rows, and nothing else has yet."""
    import hotloop as hl
    from hotloop.nn.tabular import tabular_model

    prepare = preprocessor(table, parts, options)
    network = tabular_model(
        prepare, hidden=_widths(model.hidden), dropout=model.dropout, activation=model.activation
    )
    trainer = hl.Trainer(
        network,
        loss=_loss(table.task, training),
        optimizer=_optimizer(training),
        schedule=_schedule(training),
        early_stopping=hl.EarlyStopping(patience=training.patience),
        clip_norm=training.clip_norm,
        ema=training.ema,
        seed=training.seed,
        device=training.device,
        precision=training.precision,
        threads=training.threads,
        progress="auto" if progress is None else progress,
    )
    trainer.preprocessor = prepare
    trainer.split = parts.info
    return trainer


def preprocessor(table: TrainingTable, parts: Split, options: DataOptions) -> Preprocessor:
    """Learnt from the training rows; but the classes are those of all rows."""
    target = table.target
    fitted = Preprocessor.fit(
        parts.train.X, parts.train.y, task=target.task or "auto", target_name=target.name,
        class_names=target.class_names, missing=options.missing, text=options.text, scale=options.scale,
        clip=options.clip,
    )  # fmt: skip
    return dataclasses.replace(fitted, target=target) if target.class_names else fitted


def _optimizer(training: TrainingOptions) -> Any:
    from hotloop import optim

    options: dict[str, float] = {"lr": training.lr}
    if training.weight_decay is not None:
        options["weight_decay"] = training.weight_decay
    if training.momentum:
        if training.optimizer not in ("sgd", "rmsprop"):
            raise ValueError(
                f"[cli] --momentum is for sgd and rmsprop, got --optimizer {training.optimizer}; leave it out"
            )
        options["momentum"] = training.momentum
    return dataclasses.replace(optim.resolve(training.optimizer), **options)  # type: ignore[type-var]


def _schedule(training: TrainingOptions) -> Any:
    from hotloop import schedules

    schedule: Any = schedules.resolve(training.schedule)
    return dataclasses.replace(schedule, warmup=training.warmup) if training.warmup else schedule


def _loss(task: str, training: TrainingOptions) -> Any:
    from hotloop import losses

    classes = task == "classification"
    name = training.loss if training.loss != "auto" else "cross_entropy" if classes else "mse"
    if (name == "cross_entropy") != classes:
        fitting = "cross_entropy" if classes else "mse, mae, huber"
        raise ValueError(f"[cli] --loss {name} does not suit a {task}; allowed: {fitting}")
    balanced = training.class_weight == "balanced"
    if classes:
        return losses.CrossEntropy(training.label_smoothing, "balanced" if balanced else None)
    for option, given in (("label-smoothing", training.label_smoothing), ("class-weight", balanced)):
        if given:
            raise ValueError(
                f"[cli] --{option} is for classes, and the target holds numbers; leave it out, or say "
                "--task classification"
            )
    return name


def _widths(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text.replace(" ", "")):
        raise ValueError(f"[cli] --hidden takes widths such as 128 or 256,256, got {text!r}")
    return [int(width) for width in text.split(",")]
