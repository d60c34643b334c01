# SPDX-License-Identifier: Apache-2.0
"""The trainer that the options of ``hotloop train`` ask for."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from hotloop.cli.options import DataOptions, ModelOptions, TrainingOptions
from hotloop.data.preprocess import Preprocessor


def make_trainer(
    table: Any, parts: Any, columns: DataOptions, model: ModelOptions, training: TrainingOptions,
    *, progress: bool | None,
) -> Any:  # fmt: skip
    """A trainer whose preprocessing has learnt from the training rows, and nothing else has yet."""
    import hotloop as hl

    prepare = Preprocessor.fit(
        parts.train.X, parts.train.y, task=table.task, class_names=table.class_names,
        feature_names=table.feature_names, target_name=table.target_name,
    )  # fmt: skip
    widths = _widths(model.hidden)
    layers: list[Any] = []
    n_in = table.n_features
    for width in widths:
        layers += [hl.nn.Linear(n_in, width), _activation(model.activation)]
        layers += [hl.nn.Dropout(model.dropout)] if model.dropout else []
        n_in = width
    layers.append(hl.nn.Linear(n_in, len(table.class_names) or 1))
    trainer = hl.Trainer(
        hl.nn.Sequential(*layers),
        loss=_loss(table.task, training),
        optimizer=_optimizer(training),
        schedule=_schedule(training),
        early_stopping=hl.EarlyStopping(patience=training.patience),
        clip_norm=training.clip_norm,
        ema=training.ema,
        seed=training.seed,
        threads=training.threads,
        progress="auto" if progress is None else progress,
    )
    trainer.preprocessor = prepare
    trainer.split = parts.info
    return trainer


def _activation(name: str) -> Any:
    from hotloop import nn

    return {
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "mish": nn.Mish,
        "selu": nn.SELU,
        "tanh": nn.Tanh,
    }[name]()


def _optimizer(training: TrainingOptions) -> Any:
    from hotloop import optim

    kind = {"adamw": optim.AdamW, "adam": optim.Adam, "sgd": optim.SGD, "rmsprop": optim.RMSprop}[
        training.optimizer
    ]
    options: dict[str, float] = {}
    if training.weight_decay is not None:
        options["weight_decay"] = training.weight_decay
    if training.momentum:
        if training.optimizer not in ("sgd", "rmsprop"):
            raise ValueError(
                f"[cli] --momentum is for sgd and rmsprop, got --optimizer {training.optimizer}; leave it out"
            )
        options["momentum"] = training.momentum
    return kind(training.lr, **options)


def _schedule(training: TrainingOptions) -> Any:
    from hotloop import schedules

    schedule: Any = schedules.resolve(training.schedule)
    return dataclasses.replace(schedule, warmup=training.warmup) if training.warmup else schedule


def _loss(task: str, training: TrainingOptions) -> Any:
    from hotloop import losses

    name = (
        training.loss if training.loss != "auto" else "cross_entropy" if task == "classification" else "mse"
    )
    if (name == "cross_entropy") != (task == "classification"):
        fitting = "cross_entropy" if task == "classification" else "mse, mae, huber"
        raise ValueError(f"[cli] --loss {name} does not suit a {task}; allowed: {fitting}")
    if name == "cross_entropy":
        weight = "balanced" if training.class_weight == "balanced" else None
        return losses.CrossEntropy(training.label_smoothing, weight)
    for option, given in (
        ("label-smoothing", training.label_smoothing),
        ("class-weight", training.class_weight != "none"),
    ):
        if given:
            raise ValueError(
                f"[cli] --{option} is for classes, and the target holds numbers; leave it out, or say --task classification"
            )
    return name


def _widths(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text.replace(" ", "")):
        raise ValueError(f"[cli] --hidden takes widths such as 128 or 256,256, got {text!r}")
    return [int(width) for width in text.split(",")]
