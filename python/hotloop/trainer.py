# SPDX-License-Identifier: Apache-2.0
"""`Trainer`: fit, evaluate, predict, save.

It holds what was chosen (loss, optimiser, schedule, rules of stopping) and one session, which holds the
numbers. Every argument is checked before anything changes; then whole epochs run natively, see fit_loop.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Union

from hotloop import classes, losses, optim, schedules
from hotloop import metrics as metrics_
from hotloop.arguments import choice, count, number
from hotloop.callbacks import CallbackLike, as_callbacks
from hotloop.checkpoint import Checkpoint
from hotloop.compile.plan import LossSpec
from hotloop.data import border
from hotloop.data.split import SealedData
from hotloop.early_stopping import EarlyStopping
from hotloop.engine import NativeEngine, predict_any
from hotloop.fit_job import FitJob
from hotloop.fit_loop import run_fit
from hotloop.fit_setup import (
    ResolvedLoss,
    Validation,
    check_batches,
    check_data,
    check_loss,
    check_validation,
    make_engine,
    resolve_monitor,
    run_factors,
)
from hotloop.history import History
from hotloop.progress import ProgressOption, check_progress, make_progress
from hotloop.session import Session
from hotloop.threads import check_device, check_threads

if TYPE_CHECKING:
    from hotloop.checkpoint_file import StoredRun
    from hotloop.cost import CostPlan
    from hotloop.data.preprocess import Preprocessor
    from hotloop.files import Path as FilePath
    from hotloop.nn import Module


class Trainer:
    """Trains a model; whole epochs run in native code with the GIL released.

    Args:
        model: a `hl.nn.Module`. Training changes its parameters in place.
        loss: a loss from `hl.losses`, its name, "auto" (by the target), or a callable
            ``(prediction, target) -> (per-row loss, per-row gradient)``, which is slow.
        optimizer: an optimiser from `hl.optim` or its name.
        schedule: of the learning rate, from `hl.schedules`; evaluated per step.
        metrics: "auto", a name or names: accuracy for classes; mse, mae, r2 for numbers.
        monitor: the name in the history that decides on the best epoch.
        restore_best: end on the best epoch whenever there is validation data, whatever ended the run.
        early_stopping: a `hl.EarlyStopping`.
        callbacks: `hl.Callback` objects, or callables ``(state)`` for epoch ends.
        clip_norm, clip_value: limits of the gradient's norm, and of each of its elements.
        on_divergence: "stop" (with a warning) or "raise" (`DivergenceError`).
        device: "auto" or "cpu".
        threads: None decides by the model's cost; a number is obeyed. Results do not depend on it.
        seed: of initialisation, shuffles, dropout, and the split of a validation fraction.
        progress: True, False, or "auto": only on a terminal.

    Raises `ValueError`, `TypeError` or `DeviceError` for arguments that cannot work.

    >>> import numpy as np, hotloop as hl
    >>> X = np.linspace(-1, 1, 200).reshape(100, 2)
    >>> y = (X[:, 0] > 0).astype(np.int64)
    >>> model = hl.nn.Sequential(hl.nn.Linear(2, 16), hl.nn.ReLU(), hl.nn.Linear(16, 2))
    >>> trainer = hl.Trainer(model, optimizer=hl.optim.AdamW(0.02), early_stopping=hl.EarlyStopping(5))
    >>> run = trainer.fit(X, y, validation=0.2, epochs=50)
    >>> trainer.evaluate(X, y)["accuracy"] > 0.9
    True
    """

    def __init__(
        self,
        model: Module,
        loss: Any = "auto",
        *,
        optimizer: Union[optim.Optimizer, str] = "adamw",
        schedule: Union[schedules.Schedule, schedules.FactorFunction, str, None] = None,
        metrics: Union[str, Iterable[str], None] = "auto",
        monitor: str = "val_loss",
        restore_best: bool = True,
        early_stopping: EarlyStopping | None = None,
        callbacks: Iterable[CallbackLike] = (),
        clip_norm: float | None = None,
        clip_value: float | None = None,
        on_divergence: Literal["stop", "raise"] = "stop",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int | None = None,
        seed: int = 0,
        progress: ProgressOption = "auto",
    ) -> None:
        check_device(device, "Trainer")
        choice("Trainer", "on_divergence", on_divergence, ("stop", "raise"))
        check_loss(loss)
        if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
            raise TypeError(
                f"[Trainer] early_stopping must be an hl.EarlyStopping, got {early_stopping!r:.80}"
            )
        self.model = model
        self.loss = loss
        self.optimizer = optim.resolve(optimizer)
        self.schedule = schedules.resolve(schedule)
        self.metrics = metrics if metrics is None or isinstance(metrics, str) else tuple(metrics)
        self.monitor = monitor
        self.restore_best = bool(restore_best)
        self.early_stopping = early_stopping
        self.callbacks = as_callbacks(callbacks)
        self.clip_norm = _positive("clip_norm", clip_norm)
        self.clip_value = _positive("clip_value", clip_value)
        self.on_divergence = on_divergence
        self.seed = count("Trainer", "seed", seed)
        self.progress = check_progress(progress)
        #: The record of the last run; None before the first.
        self.history: History | None = None
        #: What turns raw columns into X, if this model has one; it travels in the model's file.
        self.preprocessor: Preprocessor | None = None
        self._runs = 0
        self._training = False
        self._resolved: tuple[Any, ResolvedLoss] | None = None  # a loss as given, and what it was in fit
        threads = check_threads(threads, "Trainer")
        self._session = Session(model, self.optimizer, seed=self.seed, threads=threads)

    # --- training ---

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation: Validation = None,
        epochs: int = 10,
        batch_size: int = 32,
        sample_weight: Any = None,
        shuffle: bool = True,
        max_time: float | None = None,
        reset_optimizer: bool = True,
        dry_run: bool = False,
        checkpoint: Checkpoint | None = None,
        resume: FilePath | None = None,
    ) -> History:
        """Train for at most ``epochs`` epochs from the present weights; a new run each time.

        Args:
            X: (n, ...) array-like or a mapping of named ones; float64 becomes float32, uint8 is converted
                batch by batch.
            y: (n,) integer labels, (n, C) probabilities, or numbers of the output's shape; (n,) stands for
                (n, 1).
            validation: None, a fraction (even over classes, seeded), (X, y), (X, y, weight), or a mapping
                of named sets, of which the first is monitored.
            sample_weight: (n,) finite numbers >= 0.
            shuffle: a new order of the rows in each epoch.
            max_time: seconds after which the run ends, after the step in hand; counted from this call.
            reset_optimizer: begin with zero moments and step counts.
            dry_run: check and compile everything, train nothing, return an empty History.
            checkpoint: an `hl.Checkpoint`, which writes the state of the run to its folder.
            resume: a checkpoint's file, or a folder (its newest), to go on from: model, optimiser, history and
                everything else come from it, and the run ends on the bits of an uninterrupted one. The other
                arguments must be those of the run; only ``threads``, ``callbacks``, ``progress``,
                ``on_divergence``, ``max_time`` and ``checkpoint`` may differ.

        The first Ctrl-C ends the run after the step in hand; the second raises `KeyboardInterrupt`. However
        the run ends, the best epoch is restored (see `restore_best`). Raises `ShapeError`, `DTypeError`,
        `LabelError`, `NonFiniteError` or `ValueError` before anything changes, `CheckpointError` if the
        checkpoint is damaged or of another run; `RuntimeError` if the model is in use elsewhere; `OSError`.
        """
        epochs = count("fit", "epochs", epochs, low=1)
        if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
            raise TypeError(f"[fit] checkpoint must be an hl.Checkpoint, got {checkpoint!r:.80}")
        batch_size = count("fit", "batch_size", batch_size, low=1)
        max_time = None if max_time is None else number("fit", "max_time", max_time, low=0)
        with self._session.entered("fit"):
            if self._training:
                raise RuntimeError("[fit] a callback may not call fit of the trainer that called it")
            stored = None if resume is None else _checkpoint_file().read(resume)
            run = self._runs if stored is None else stored.record.run
            job = self._job(X, y, validation, sample_weight, epochs, batch_size, bool(shuffle), max_time, run)
            if checkpoint is not None or stored is not None:
                job = self._recorded(job, checkpoint, stored, dry_run)
            if dry_run:
                return job.history
            if reset_optimizer and stored is None:
                self._session.memory.reset_optimizer()
            self.history = job.history
            self._runs = run + 1
            self._training = True
            try:
                run_fit(job)
            finally:
                self._training = False
        return job.history

    def _job(
        self, X: Any, y: Any, validation: Validation, weight: Any, epochs: int, batch_size: int,
        shuffle: bool, max_time: float | None, run: int,
    ) -> FitJob:  # fmt: skip
        session = self._session
        train, graph, loss = check_data(session, X, y, weight, self.loss, where="fit")
        train, sets = check_validation(session, validation, train, graph, loss, self.seed)
        names = metrics_.resolve(self.metrics, loss, y)
        monitor = resolve_monitor(self.monitor, names, tuple(sets), needed=self.early_stopping is not None)
        batch_size = min(batch_size, train.rows)
        check_batches(graph, train.rows, batch_size)
        factors = run_factors(self.schedule, self.optimizer.lr, epochs, -(-train.rows // batch_size))
        engine = make_engine(session, graph, loss, names, self.clip_norm, self.clip_value)
        train_pass = engine.prepare(train, batch_size, shuffle=shuffle, run=run)
        self._resolved = (self.loss, loss)
        return FitJob(
            session=session, graph=graph, engine=engine, train_pass=train_pass, train=train, validation=sets,
            epochs=epochs, batch_size=batch_size, shuffle=shuffle, run=run, max_time=max_time,
            schedule=self.schedule, factors=factors, monitor=monitor, restore_best=self.restore_best,
            early_stopping=self.early_stopping, callbacks=self.callbacks, on_divergence=self.on_divergence,
            progress=make_progress(self.progress), history=History(monitor=monitor),
        )  # fmt: skip

    def _recorded(
        self, job: FitJob, checkpoint: Checkpoint | None, stored: StoredRun | None, dry_run: bool
    ) -> FitJob:
        """The job with its checkpoints, and with the run that it goes on from. The model stays as it is."""
        file = _checkpoint_file()
        settings = file.settings_of(self, job)
        if stored is not None:
            resumed = stored.resumed(job, settings)
            job = replace(job, resumed=resumed, history=job.history if dry_run else resumed.record.history)
        if checkpoint is not None:
            recorder = file.FolderRecorder(self, checkpoint, settings)
            if not dry_run:
                recorder.open(job.run, None if stored is None else stored.path)
            job = replace(job, recorder=recorder)
        return job

    def optimizer_state(self) -> dict[str, border.Array]:
        """Copies of the optimiser's state: "{param}.exp_avg", "{param}.exp_avg_sq", "{param}.step"."""
        with self._session.entered("optimizer_state"):
            return self._session.memory.optimizer_state()

    # --- using the model ---

    def evaluate(self, X: Any, y: Any = None, *, sample_weight: Any = None) -> dict[str, float]:
        """The loss and metrics on a data set, in evaluation mode. The sealed test set of `hl.split` may
        stand for X and y; each such look is counted. Raises as `fit`."""
        if isinstance(X, SealedData):
            if y is not None:
                raise TypeError("[evaluate] the sealed test set holds its own y; call evaluate(split.test)")
            X, y = X.open("Trainer.evaluate")
        with self._session.entered("evaluate"):
            data, graph, loss = check_data(
                self._session, X, y, sample_weight, self._known_loss(), where="evaluate"
            )
            names = metrics_.resolve(self.metrics, loss, y)
            return make_engine(self._session, graph, loss, names).evaluate(data).metrics

    def predict(self, X: Any) -> border.Array:
        """Raw outputs of the model, float32 (n, ...), in evaluation mode; n may be 0."""
        with self._session.entered("predict"):
            return predict_any(self._session, X, "predict")

    def predict_proba(self, X: Any) -> border.Array:
        """Class probabilities, float32 (n, C); two columns for a binary model of one output, and one per
        label (n, L) for several. Raises `ValueError` if the loss is not one of classes."""
        kind = self._class_loss("predict_proba")
        return classes.probabilities(self.predict(X), kind)

    def predict_label(self, X: Any) -> border.Array:
        """The most likely class of each row, int64 (n,); for several binary outputs 0 or 1 each, (n, L)."""
        kind = self._class_loss("predict_label")
        return classes.labels(self.predict(X), kind)

    def _known_loss(self) -> Any:
        """The loss as the last fit resolved it, unless another was set since."""
        if self._resolved is not None and self._resolved[0] is self.loss:
            return self._resolved[1]
        return self.loss

    def _class_loss(self, where: str) -> str:
        loss = self._known_loss()
        if loss == "auto":
            raise RuntimeError(f"[{where}] the loss is not known yet; call fit first, or name it: loss=...")
        loss = losses.resolve(loss)
        if isinstance(loss, LossSpec) and loss.kind in ("cross_entropy", "bce_with_logits"):
            return loss.kind
        name = loss.kind if isinstance(loss, LossSpec) else loss.name
        raise ValueError(f"[{where}] a model with the loss {name!r} predicts no classes; use predict")

    # --- cost and files ---

    def plan(self, X: Any, y: Any, batch_size: int = 32) -> CostPlan:
        """What training on this data costs (FLOPs, bytes, seconds per epoch), and the compiled steps. The
        model is left as it is. Raises as `fit`, and `ValueError` for a callable loss."""
        batch_size = count("plan", "batch_size", batch_size, low=1)
        with self._session.entered("plan"):
            data, graph, loss = check_data(self._session, X, y, None, self.loss, where="plan")
            names = metrics_.resolve(self.metrics, loss, y)
            engine = make_engine(self._session, graph, loss, names, self.clip_norm, self.clip_value)
            if not isinstance(engine, NativeEngine):
                raise ValueError("[plan] a callable loss runs outside the plan; its cost is not known")
            from hotloop import cost

            return cost.cost_plan(engine, data, min(batch_size, data.rows), keeps_epochs=self.restore_best)

    def save(self, path: FilePath) -> None:
        """Write everything to one file: parameters, state, moments, counters, history, preprocessor.

        The file is replaced in one step and verified on loading. Python callables are stored by name.
        Raises `RuntimeError` if the model has not seen data yet, and `OSError`.
        """
        with self._session.entered("save"):
            from hotloop import model_file  # with hashing and safetensors, which training does not need

            model_file.save(self, path)


def _checkpoint_file() -> Any:
    from hotloop import checkpoint_file  # with hashing and safetensors, which training does not need

    return checkpoint_file


def _positive(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    result = number("Trainer", name, value, low=0)
    if result == 0:
        raise ValueError(f"[Trainer] {name} must be > 0 or None, got 0")
    return result
