# SPDX-License-Identifier: Apache-2.0
# needs: wandb
"""Runs in Weights & Biases: a callback of fifteen lines logs settings, every epoch and every 20th batch.

The run is offline here, in a folder; in earnest, leave out mode= and dir=, and it is on the web.
"""

from __future__ import annotations

import tempfile

import wandb
from sklearn.datasets import load_digits

import hotloop as hl


class WandB(hl.Callback):
    """One W&B run per fit, over the step of the run."""

    every_n_batches = 20

    def __init__(self, **options: object) -> None:
        self.options = options

    def on_fit_start(self, state: hl.FitState) -> None:
        self.run = wandb.init(**self.options)

    def on_batch_end(self, state: hl.FitState) -> None:
        self.run.log({"batch/loss": state.metrics["loss"], "batch/lr": state.lr}, step=state.step)

    def on_epoch_end(self, state: hl.FitState) -> None:
        self.run.log(dict(state.metrics), step=state.step, commit=True)

    def on_fit_end(self, state: hl.FitState) -> None:
        self.summary = dict(self.run.summary)
        self.run.finish()


X, y = load_digits(return_X_y=True)
data = hl.split(X / 16, y)
model = hl.nn.Sequential(hl.nn.Linear(64, 64), hl.nn.ReLU(), hl.nn.Linear(64, 10))
with tempfile.TemporaryDirectory() as folder:
    tracker = WandB(
        project="digits", config={"lr": 3e-3, "hidden": 64}, mode="offline", dir=folder,
        settings=wandb.Settings(silent=True),
    )  # fmt: skip
    trainer = hl.Trainer(model, optimizer=hl.optim.AdamW(3e-3), callbacks=[tracker], progress=False)
    run = trainer.fit(*data.train, validation=data.validation, epochs=10)

assert tracker.summary["val_loss"] == run.history["val_loss"][-1]
print(f"{run.epochs} epochs in W&B, the last with val_accuracy {tracker.summary['val_accuracy']:.3f}")
