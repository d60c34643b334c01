# SPDX-License-Identifier: Apache-2.0
"""What a history holds on to, so that a report can ask the model that the run left what it predicts.

A handle, not data: it is in no file, a copy does not have it, and the next fit of the trainer takes it away.
It answers only while the model still gives the very loss that the run wrote down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hotloop import classes
from hotloop.compile.plan import LossSpec
from hotloop.data.split import SealedData
from hotloop.engine.native import Data, Engine, NativeEngine, predict
from hotloop.engine.scored import ScoredEngine
from hotloop.fit import cost
from hotloop.fit.setup import check_data
from hotloop.inputs.frames import ready_pair
from hotloop.losses import resolve as resolve_loss
from hotloop.report.predictions import Predictions, Unavailable
from hotloop.runtime.session import Session

if TYPE_CHECKING:
    from hotloop.fit.job import FitJob
    from hotloop.history import History
    from hotloop.trainer import Trainer

#: A history must not hold on to much: validation data up to this size are kept, and training data, on which
#: the plan is timed.
_VALIDATION_BYTES, _TRAIN_BYTES = 1 << 28, 1 << 26


@dataclass(eq=False)
class RunContext:
    """The session, loss and preprocessor of a run, and of a run in this process also its data."""

    session: Session
    loss: Any
    preprocessor: Any = None
    engine: Engine | None = None
    name: str = ""  # of the validation set
    validation: Data | None = None
    train: Data | None = None
    batch_size: int = 1
    restored: bool = True

    def predictions(self, history: History, data: Any = None) -> Predictions:
        """What the model predicts for ``data``, or else for the first validation set.

        Raises `Unavailable` with a reason for readers, and for bad ``data`` what `Trainer.evaluate` raises.
        """
        with self.session.entered("report"):
            checked = self._check_model(history)
            if data is None:
                if self.validation is None:
                    raise Unavailable(
                        "The run had no validation data, or they are not at hand any more; give some: "
                        "report(path, data=(X, y))."
                    )
                return self._predict(self.validation, f"validation set {self.name!r}")
            X, y = data.open("History.report") if isinstance(data, SealedData) else _pair(data)
            X, y = ready_pair(self, X, y, "report")
            given, _, _ = check_data(self.session, X, y, None, self.loss, where="report")
            found = self._predict(given, "data given to the report")
            return replace(found, checked=checked)

    def seconds_per_epoch(self, history: History) -> float | None:
        """What the plan predicts for this run, timed on its data; None if they are not at hand."""
        if self.train is None or not isinstance(self.engine, NativeEngine):
            return None
        with self.session.entered("report"):
            plan = cost.cost_plan(self.engine, self.train, self.batch_size, keeps_epochs=self.restored)
        return plan.seconds_per_epoch

    def _check_model(self, history: History) -> bool:
        """Whether that could be checked: the model is what the run left, its validation loss the recorded one.
        Raises `Unavailable` if it is not."""
        if self.engine is None or self.validation is None:
            return False
        recorded = history.history.get(f"{self.name}_loss", [])
        epoch = history.best_epoch if self.restored and history.best_epoch else history.epochs
        if not 1 <= epoch <= len(recorded):
            raise Unavailable("No epoch of the run ended, so there is nothing to show.")
        now = self.engine.evaluate(self.validation).metrics["loss"]
        if now != recorded[epoch - 1]:
            raise Unavailable(
                f"The model is not any more what the run left: its loss on {self.name!r} is {now:.6g}, "
                f"epoch {epoch} had {recorded[epoch - 1]:.6g}. Report before the model changes, or save it."
            )
        return True

    def _predict(self, data: Data, source: str) -> Predictions:
        arrays = {name: a for name, a in data.arrays.items() if name not in ("target", "sample_weight")}
        outputs = predict(self.session, self.session.graph_for(arrays, "report"), arrays)
        outputs, target = (a.reshape(len(a), -1) for a in (outputs, data.arrays["target"]))
        loss = resolve_loss(self.loss)
        kind = loss.kind if isinstance(loss, LossSpec) else "callable"
        if kind in ("cross_entropy", "bce_with_logits"):
            return self._of_classes(outputs, target, kind, source)
        if data.kind == "index":
            raise Unavailable("What the outputs mean for classes is known to the run's own loss only.")
        return self._of_numbers(outputs, target, source)

    def _of_classes(self, outputs: Any, target: Any, kind: str, source: str) -> Predictions:
        if kind == "bce_with_logits" and outputs.shape[1] > 1:
            raise Unavailable("Several yes-or-no outputs have no confusion matrix in common.")
        if target.shape[1] > 1:
            label = target.argmax(axis=1)  # probabilities: their largest
        else:
            label = target[:, 0] > 0.5 if kind == "bce_with_logits" else target[:, 0]
        names = () if self.preprocessor is None else tuple(self.preprocessor.class_names)
        probability = classes.probabilities(outputs, kind)
        return Predictions(source, np.asarray(label, np.int64), probability=probability, class_names=names)

    def _of_numbers(self, outputs: Any, target: Any, source: str) -> Predictions:
        prepare, unit = self.preprocessor, ""
        if prepare is not None and prepare.task == "regression" and outputs.shape[1] == 1:
            outputs, target = (prepare.inverse_target(v).reshape(-1, 1) for v in (outputs, target))
            unit = prepare.target_name
        values = np.asarray(outputs, np.float64)
        return Predictions(source, np.asarray(target, np.float64), predicted=values, unit=unit)


def remember(trainer: Trainer, job: FitJob) -> None:
    """Give the job's history its handle, and take the older history's away."""
    if trainer.history is not None:
        trainer.history._context = None
    name, validation = next(iter(job.validation.items()), ("", None))
    engine = job.engine.engine if isinstance(job.engine, ScoredEngine) else job.engine  # the loss is enough
    job.history._context = RunContext(
        job.session, job.engine.loss, trainer.preprocessor, engine, name,
        _kept(validation, _VALIDATION_BYTES), _kept(job.train, _TRAIN_BYTES), job.batch_size, job.restore_best,
    )  # fmt: skip


def _kept(data: Data | None, most: int) -> Data | None:
    if data is None or data.sample is not data or sum(a.nbytes for a in data.arrays.values()) > most:
        return None
    return data


def remember_loaded(trainer: Trainer) -> None:
    """The handle of a history that came from a file: a model, but no data."""
    if trainer.history is not None and trainer.loss != "auto":
        trainer.history._context = RunContext(trainer._session, trainer.loss, trainer.preprocessor)


def _pair(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(
            f"[report] data must be (X, y) or a sealed test set, got {type(data).__name__}; give data=(X, y)"
        )
    return data[0], data[1]
