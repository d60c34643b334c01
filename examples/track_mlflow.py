# SPDX-License-Identifier: Apache-2.0
# needs: mlflow (pip install mlflow-skinny)
"""Runs in MLflow: a callback of twenty lines logs settings, every epoch and the model file.

The store is a folder here; in earnest, set_tracking_uri("http://...") names a server.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")

import mlflow
from sklearn.datasets import load_digits

import hotloop as hl


class MLflow(hl.Callback):
    """One MLflow run per fit; its id travels in checkpoints, so that a resumed fit goes on in its run."""

    def __init__(self, **settings: object) -> None:
        self.settings = settings
        self.run_id: str | None = None

    def state_dict(self) -> dict[str, str | None]:
        return {"run_id": self.run_id}

    def load_state_dict(self, state: dict[str, str | None]) -> None:
        self.run_id = state["run_id"]

    def on_fit_start(self, state: hl.FitState) -> None:
        self.run_id = mlflow.start_run(run_id=self.run_id).info.run_id
        mlflow.log_params({**self.settings, "epochs": state.epochs})

    def on_epoch_end(self, state: hl.FitState) -> None:
        mlflow.log_metrics(dict(state.metrics), step=state.epoch)

    def on_fit_end(self, state: hl.FitState) -> None:
        mlflow.end_run()


X, y = load_digits(return_X_y=True)
data = hl.split(X / 16, y)
model = hl.nn.Sequential(hl.nn.Linear(64, 64), hl.nn.ReLU(), hl.nn.Linear(64, 10))
with tempfile.TemporaryDirectory() as folder:
    mlflow.set_tracking_uri(Path(folder).as_uri())
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("digits"))
    tracker = MLflow(lr=3e-3, hidden=64)
    trainer = hl.Trainer(model, optimizer=hl.optim.AdamW(3e-3), callbacks=[tracker])
    run = trainer.fit(*data.train, validation=data.validation, epochs=10)
    stored = mlflow.MlflowClient().get_metric_history(tracker.run_id, "val_accuracy")

assert [metric.value for metric in stored] == run.history["val_accuracy"]
print(f"{len(stored)} epochs in MLflow, the last with val_accuracy {stored[-1].value:.3f}")
