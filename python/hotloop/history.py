# SPDX-License-Identifier: Apache-2.0
"""What happened in a run: one list per metric, one number per whole epoch, and why the run ended.

Plain data with a JSON form, because it travels in model files; everything that judges it is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from hotloop.diagnosis import Diagnosis
    from hotloop.evidence import Evidence, Look
    from hotloop.probes.dry_result import DryRun
    from hotloop.storage.files import Path as FilePath

StopReason = Literal["epochs", "early_stopping", "time", "interrupt", "divergence", "callback", "dry_run"]


@dataclass
class History:
    """The record of one `Trainer.fit`.

    history      metric name -> one float per whole epoch: "loss", "val_loss", "lr" (of the epoch's last
                 step), "accuracy", "val_accuracy", ...
    best_epoch   1-based; the best by the monitored metric, None if no epoch ended with a finite one
    stop_reason  "epochs" | "early_stopping" | "time" | "interrupt" | "divergence" | "callback"; "dry_run" of
                 a run that was only tried
    seconds      wall-clock time of the run
    epochs       whole epochs that ran; an epoch cut short leaves no entry
    dry_run      what ``fit(..., dry_run=True)`` found out, else None; not stored in files
    evidence     what else the run left for those who judge it; None in files of older versions
    epoch_seconds  of training in each whole epoch, without validation; since the resume in one that was resumed
    about        JSON data for readers: "configuration", "environment" and "cost" of the run; may be empty
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    stop_reason: StopReason = "epochs"
    seconds: float = 0.0
    monitor: str = "val_loss"
    epochs: int = 0
    dry_run: DryRun | None = None
    evidence: Evidence | None = None
    epoch_seconds: list[float] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    #: The run's model and validation data for `report`, as long as they are at hand; see fit/context.py.
    _context: Any = field(default=None, init=False, repr=False, compare=False)
    _witness: Callable[[], Look | None] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def diagnosis(self) -> Diagnosis:
        """What went wrong in the run, if anything, and what to do next; see `hotloop.diagnosis`.

        >>> import numpy as np, hotloop as hl
        >>> X = np.linspace(-1, 1, 200).reshape(100, 2)
        >>> run = hl.Trainer(hl.nn.Linear(2, 1), "mse", optimizer=hl.optim.SGD(1e-6)).fit(X, X[:, 0])
        >>> print(run.diagnosis.main.rule)
        learning_rate_too_low
        """
        from hotloop.diagnosis import diagnose

        self.complete()
        return diagnose(self)

    def complete(self) -> None:
        """Take the look at the finished model that the run left for later, if the model is still the same."""
        if self._witness is None or self.evidence is None:
            return
        look = self._witness()
        if look is not None:
            self.evidence, self._witness = replace(self.evidence, look=look), None

    def await_look(self, witness: Callable[[], Look | None]) -> None:
        """From now on ``witness`` gives the evidence's look, or None if that is not possible any more."""
        self._witness = witness

    def __getstate__(self) -> dict[str, Any]:
        # a copy stands alone: it does not hold on to the model
        return {**vars(self), "_witness": None, "_context": None}

    def append(self, metrics: Mapping[str, float], seconds: float | None = None) -> None:
        """Add the metrics of one more whole epoch, and how long its training took."""
        if seconds is not None:
            self.epoch_seconds.append(float(seconds))
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(float(value))
        self.epochs += 1

    def __repr__(self) -> str:
        if self.dry_run is not None:
            return f"History(dry run)\n{self.dry_run}"
        head = f"History({self.epochs} epochs in {self.seconds:.3g} s, stop_reason={self.stop_reason!r}"
        if self.best_epoch is not None and self.monitor in self.history:
            value = self.history[self.monitor][self.best_epoch - 1]
            head += f", best epoch {self.best_epoch} with {self.monitor} {value:.6g}"
        return head + ")"

    def summary(self) -> str:
        """The run in one line, and, if something went wrong, the main finding and its next step."""
        main = self.diagnosis.main
        return repr(self) if main is None else f"{self!r}\n{main}"

    def plot(self, path: FilePath | None = None) -> Any:
        """The curves of the run (loss, metrics, learning rate; the best epoch marked) as a matplotlib
        `Figure`, which notebooks show. Written to ``path`` if given, in the format of its suffix.

        Raises `ImportError` without matplotlib (the extra ``plot``), `ValueError` if no epoch ended, `OSError`.
        """
        from hotloop import report

        return report.plot(self, path)

    def report(self, path: FilePath = "run.html", data: Any = None) -> str:
        """Write one page about the run: curves, what the model gets wrong, norms, cost, settings.

        The page is one file without scripts, which loads nothing; see docs/report.md. What it says about
        predictions is taken from the first validation set while the model is as the run left it, or from
        ``data``: (X, y) or the sealed test set. Returns the path.

        Raises `ImportError` without matplotlib and jinja2 (the extra ``plot``), what `Trainer.evaluate` raises
        for ``data``, and `OSError`.

        >>> import pathlib, tempfile, numpy as np, hotloop as hl
        >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
        >>> run = hl.Trainer(hl.nn.Linear(1, 1), "mse").fit(X, 2 * X, validation=0.25, epochs=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = run.report(f"{folder}/run.html")
        ...     pathlib.Path(path).read_text(encoding="utf-8")[:15]
        '<!doctype html>'
        """
        from hotloop import report

        return report.write(self, path, data)

    def _repr_html_(self) -> str | None:
        """For notebooks: the summary and the curves; None, which means the text, without matplotlib."""
        from hotloop import report

        return report.notebook_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` gives an equal History back."""
        return {
            "history": {name: list(values) for name, values in self.history.items()},
            "best_epoch": self.best_epoch,
            "stop_reason": self.stop_reason,
            "seconds": self.seconds,
            "monitor": self.monitor,
            "epochs": self.epochs,
            "evidence": self.evidence and self.evidence.to_dict(),
            "epoch_seconds": list(self.epoch_seconds),
            "about": self.about,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> History:
        """Raises `ValueError`, `KeyError` or `TypeError` for data that `to_dict` did not give."""
        if data["stop_reason"] not in get_args(StopReason):
            raise ValueError(f"[History] unknown stop reason {data['stop_reason']!r}")
        from hotloop.evidence import Evidence  # many classes, which importing a trainer does not need

        return cls(
            history={str(name): [float(v) for v in values] for name, values in data["history"].items()},
            best_epoch=None if data["best_epoch"] is None else int(data["best_epoch"]),
            stop_reason=data["stop_reason"],
            seconds=float(data["seconds"]),
            monitor=str(data["monitor"]),
            epochs=int(data["epochs"]),
            evidence=None if data.get("evidence") is None else Evidence.from_dict(data["evidence"]),
            # absent in the first files
            epoch_seconds=[float(v) for v in data.get("epoch_seconds", ())],
            about=dict(data.get("about", {})),
        )
