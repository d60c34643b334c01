# SPDX-License-Identifier: Apache-2.0
"""`DryRun`: what a dry run of `Trainer.fit` found out. Plain data, printed as a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DryRun:
    """The report of ``fit(..., dry_run=True)``.

    rows, batch_size, epochs, steps_per_epoch   of the run that was asked for
    inputs       name -> (shape of a batch, dtype), of the model's inputs and of "target"
    output       shape of the model's output for a batch
    parameters   trained numbers
    losses       of the batches that were tried, each before its update
    validation   name of a set -> its metrics over at most two batches, after those updates
    seconds_per_step, seconds_per_epoch   measured; an epoch with the evaluation of every validation set
    seconds      of the whole run, as predicted from these: all epochs, without callbacks and checkpoints
    peak_bytes   native memory of the run: model, optimiser, programs, and the copy for the rollback
    threads      how many may run it
    warnings     what is wrong, or would go wrong, each a sentence with a next step; empty if all is well
    """

    rows: int
    batch_size: int
    epochs: int
    steps_per_epoch: int
    inputs: Mapping[str, tuple[tuple[int, ...], str]]
    output: tuple[int, ...]
    parameters: int
    losses: tuple[float, ...]
    validation: Mapping[str, Mapping[str, float]]
    seconds_per_step: float
    seconds_per_epoch: float
    seconds: float
    peak_bytes: int
    threads: int
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        shapes = [f"{name} {_shape(shape)} {dtype}" for name, (shape, dtype) in self.inputs.items()]
        rows = [
            ("data", f"{self.rows} rows, {self.steps_per_epoch} steps of {self.batch_size} an epoch"),
            ("shapes", f"{', '.join(shapes)} -> {_shape(self.output)}"),
            (
                "model",
                f"{self.parameters} parameters, {self.peak_bytes / 2**20:.3g} MiB, threads {self.threads}",
            ),
            ("loss", " ".join(f"{loss:.4g}" for loss in self.losses) or "nothing left to train"),
        ]
        for name, metrics in self.validation.items():
            rows.append((name, " ".join(f"{key} {value:.4g}" for key, value in metrics.items())))
        each = f"{_seconds(self.seconds_per_step)} a step, {_seconds(self.seconds_per_epoch)} an epoch"
        rows.append(("time", f"{each}, about {_seconds(self.seconds)} for {self.epochs} epochs"))
        rows += [("warning", text) for text in self.warnings] or [("warnings", "none")]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _seconds(value: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} us"
