# SPDX-License-Identifier: Apache-2.0
"""`Trainer`: fit, evaluate, predict, save.

It holds what was chosen (loss, optimiser, schedule, rules of stopping) and one session, which holds the
numbers. Every argument is checked before anything changes; then whole epochs run natively, see fit/loop.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Union

from hotloop import freeze_plan, optim
from hotloop.arguments import choice, count, number, positive
from hotloop.callbacks import CallbackLike, as_callbacks
from hotloop.data import border
from hotloop.early_stopping import EarlyStopping
from hotloop.fit import hyper_schedules
from hotloop.fit.hyper_schedules import ScheduleLike
from hotloop.fit.job import FitJob
from hotloop.fit.loop import run_fit
from hotloop.fit.prepare import make_job
from hotloop.fit.setup import ResolvedLoss, Validation, check_decay, check_loss
from hotloop.freeze_plan import FreezePlan
from hotloop.history import History
from hotloop.predictor import Predictor
from hotloop.probes.methods import Probes
from hotloop.progress import ProgressOption, check_progress
from hotloop.runtime.device import PRECISIONS, Precision, check_device, first_kind
from hotloop.runtime.session import Session
from hotloop.runtime.threads import check_threads
from hotloop.setting import Setting
from hotloop.storage.checkpoint import Checkpoint

if TYPE_CHECKING:
    from hotloop.data.preprocess import Preprocessor
    from hotloop.data.split import SplitInfo
    from hotloop.model_info import ModelInfo
    from hotloop.nn import Module
    from hotloop.probes.learning_curve import LearningCurve
    from hotloop.storage.files import Path as FilePath


class Trainer(Predictor, Probes):
    """Trains a model; whole epochs run in native code with the GIL released.

    Args:
        model: a `hl.nn.Module`. Training changes its parameters in place.
        loss: a loss from `hl.losses`, its name, "auto" (by the target), or a callable
            ``(prediction, target) -> (per-row loss, per-row gradient)``, which is slow.
        optimizer: an optimiser from `hl.optim` or its name.
        schedule: of the learning rate, from `hl.schedules`; evaluated per step. A mapping with any of "lr",
            "weight_decay" and "dropout" schedules those, each a factor on what optimiser or layer says.
        metrics: "auto", a name or names: accuracy and top3_accuracy (any k) for classes; mse, mae, r2 for
            numbers; and scikit-learn's scorers by name, such as f1_macro, on validation data (docs/metrics.md).
        monitor: the name in the history that decides on the best epoch.
        restore_best: end on the best epoch whenever there is validation data, whatever ended the run.
        early_stopping: a `hl.EarlyStopping`.
        callbacks: `hl.Callback` objects, or callables ``(state)`` for epoch ends.
        freeze: a `hl.FreezePlan`: which layers are frozen until when, and the rates at which they learn.
        clip_norm, clip_value: limits of the gradient's norm, and of each of its elements.
        accumulate: batches that share an update: that of one batch of all their rows (docs/updates.md).
        ema: decay of an exponential moving average of the weights, such as 0.999, which validation, rollback
            and the model at the end of the run use.
        on_divergence: "stop" (with a warning) or "raise" (`DivergenceError`).
        device: "cpu", "cuda", or "auto": by what a run will cost (docs/cuda.md); `History.about` says which.
        precision: of products on a GPU: "float32", or faster and coarser "tf32" or "bf16". A CPU has float32.
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

    #: These may be set between two runs, to whatever the argument of the name takes.
    optimizer = Setting(optim.resolve, lambda trainer, new: trainer._take_optimizer(new))
    schedule = Setting(hyper_schedules.resolve)
    freeze = Setting(freeze_plan.resolve)

    def __init__(
        self,
        model: Module,
        loss: Any = "auto",
        *,
        optimizer: Union[optim.Optimizer, str] = "adamw",
        schedule: ScheduleLike = None,
        metrics: Union[str, Iterable[str], None] = "auto",
        monitor: str = "val_loss",
        restore_best: bool = True,
        early_stopping: EarlyStopping | None = None,
        callbacks: Iterable[CallbackLike] = (),
        freeze: Union[FreezePlan, Mapping[str, Mapping[str, Any]], None] = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        ema: float | None = None,
        on_divergence: Literal["stop", "raise"] = "stop",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Precision = "float32",
        threads: int | None = None,
        seed: int = 0,
        progress: ProgressOption = "auto",
    ) -> None:
        check_device(device, "Trainer")
        choice("Trainer", "precision", precision, PRECISIONS)
        choice("Trainer", "on_divergence", on_divergence, ("stop", "raise"))
        check_loss(loss)
        if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
            raise TypeError(
                f"[Trainer] early_stopping must be an hl.EarlyStopping, got {early_stopping!r:.80}"
            )
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.freeze = freeze
        self.metrics = metrics if metrics is None or isinstance(metrics, str) else tuple(metrics)
        self.monitor = monitor
        self.restore_best = bool(restore_best)
        self.early_stopping = early_stopping
        self.callbacks = as_callbacks(callbacks)
        self.clip_norm = positive("Trainer", "clip_norm", clip_norm)
        self.clip_value = positive("Trainer", "clip_value", clip_value)
        self.accumulate = count("Trainer", "accumulate", accumulate, low=1)
        self.ema = check_decay(ema)
        self.on_divergence = on_divergence
        self.seed = count("Trainer", "seed", seed)
        self.device = device
        self.progress = check_progress(progress)
        #: The record of the last run; None before the first.
        self.history: History | None = None
        #: What turns raw columns into X, if this model has one; it travels in the model's file.
        self.preprocessor: Preprocessor | None = None
        #: How the data was split (`hl.Split.info`), if you say so; it travels in the model's file.
        self.split: SplitInfo | None = None
        self.provenance, self.feature_names = None, {}
        self._runs = 0
        self._training = False
        self._resolved: tuple[Any, ResolvedLoss] | None = None  # a loss as given, and what it was in fit
        threads = check_threads(threads, "Trainer")
        self._session = Session(
            model, self.optimizer, seed=self.seed, threads=threads, may_move=True, precision=precision,
            where=first_kind(device),
        )  # fmt: skip

    # --- training ---

    def fit(
        self,
        X: Any,
        y: Any = None,
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
            X: (n, ...) array, frame, tensor, sparse matrix or list, or a mapping of named ones; float64 becomes
                float32, uint8 is converted batch by batch. Without y: a stream of blocks, such as an
                `hl.data.Stream` or a torch `DataLoader`. docs/data.md lists the kinds and what each costs.
            y: (n,) integer labels, (n, C) probabilities, or numbers of the output's shape; (n,) stands for
                (n, 1). With `preprocessor`, what stands in the table, if X is a frame.
            validation: None, a fraction (even over classes, seeded), (X, y), (X, y, weight), a stream, or a
                mapping of named sets, of which the first is monitored.
            sample_weight: (n,) finite numbers >= 0.
            shuffle: a new order of the rows in each epoch; of a stream, of the rows of each block.
            max_time: seconds after which the run ends, after the step in hand; counted from this call.
            reset_optimizer: begin with zero moments and step counts.
            dry_run: do everything once on two batches of a copy of the model (checks, compilation, training,
                validation, a file in the checkpoints' folder) except callbacks, and change nothing. The
                History has no epochs, stop_reason "dry_run", and a `DryRun` as its ``dry_run``: print it.
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
            job = make_job(
                self, X, y, validation=validation, weight=sample_weight, epochs=epochs, batch_size=batch_size,
                shuffle=bool(shuffle), max_time=max_time, run=run,
            )  # fmt: skip
            if checkpoint is not None or stored is not None:
                job = _checkpoint_file().recorded(self, job, checkpoint, stored, dry_run=dry_run)
            if dry_run:
                return _dry(job, keep_moments=not reset_optimizer)
            if reset_optimizer and stored is None:
                self._session.memory.reset_optimizer()
            from hotloop.fit import context

            context.remember(self, job)
            self.history, self.provenance = job.history, job.provenance
            self.feature_names = job.feature_names
            self._runs = run + 1
            self._training, self._session.may_move = True, False
            try:
                run_fit(job)
            finally:
                self._training, self._session.may_move = False, True
        return job.history

    def _take_optimizer(self, optimizer: optim.Optimizer) -> None:
        with self._session.entered("optimizer"):
            if self._training:
                raise RuntimeError("[optimizer] a callback may not replace the optimizer of the run it is in")
            self._session.set_optimizer(optimizer)

    def optimizer_state(self) -> dict[str, border.Array]:
        """Copies of the optimiser's state: "{param}.exp_avg", "{param}.exp_avg_sq", "{param}.step"."""
        with self._session.entered("optimizer_state"):
            return self._session.memory.optimizer_state()

    # --- more data, and files ---

    def learning_curve(
        self,
        X: Any,
        y: Any,
        *,
        validation: Validation = 0.2,
        fractions: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
        epochs: int = 10,
        batch_size: int = 32,
        sample_weight: Any = None,
    ) -> LearningCurve:
        """Whether more rows would help: what the model reaches on these shares of the training rows.

        Copies that begin with the weights of `seed` (of a loaded model: with those of its file) train on each
        share, all against the same validation set, for as many steps as ``epochs`` of all rows are; this
        model is left as it is. ``diagnose(run, curve)`` judges the result. Raises as `fit`.
        """
        from hotloop.probes import learning_curve

        return learning_curve.measure(
            self, X, y, validation=validation, fractions=fractions, epochs=epochs, batch_size=batch_size,
            sample_weight=sample_weight,
        )  # fmt: skip

    @property
    def info(self) -> ModelInfo:
        """What the model says of itself: tensors, settings, data, date, versions, curves. ``print`` it."""
        from hotloop.model_info import model_info

        return model_info(self)

    def save(self, path: FilePath) -> None:
        """Write everything to one file: parameters, state, moments, counters, history, preprocessor, and where
        the model comes from (`info`).

        The file is replaced in one step and verified on loading. Python callables are stored by name.
        Raises `RuntimeError` if the model has not seen data yet, and `OSError`.
        """
        with self._session.entered("save"):
            from hotloop.storage import model_file

            model_file.save(self, path)


def _dry(job: FitJob, *, keep_moments: bool) -> History:
    from hotloop.probes import dry

    return dry.run_dry(job, keep_moments=keep_moments)


def _checkpoint_file() -> Any:
    from hotloop.storage import checkpoint_file

    return checkpoint_file
