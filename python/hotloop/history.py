# SPDX-License-Identifier: Apache-2.0
"""What happened in a run: one list per metric, one number per whole epoch, and why the run ended.

Plain data with a JSON form, because it travels in model files; everything that judges it is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from hotloop.evidence import Evidence, Look

if TYPE_CHECKING:
    from hotloop.diagnosis import Diagnosis

from hotloop.dry_run import DryRun

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
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    stop_reason: StopReason = "epochs"
    seconds: float = 0.0
    monitor: str = "val_loss"
    epochs: int = 0
    dry_run: DryRun | None = None
    evidence: Evidence | None = None
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
        return {**vars(self), "_witness": None}

    def append(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one more whole epoch."""
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
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> History:
        """Raises `ValueError`, `KeyError` or `TypeError` for data that `to_dict` did not give."""
        if data["stop_reason"] not in get_args(StopReason):
            raise ValueError(f"[History] unknown stop reason {data['stop_reason']!r}")
        return cls(
            history={str(name): [float(v) for v in values] for name, values in data["history"].items()},
            best_epoch=None if data["best_epoch"] is None else int(data["best_epoch"]),
            stop_reason=data["stop_reason"],
            seconds=float(data["seconds"]),
            monitor=str(data["monitor"]),
            epochs=int(data["epochs"]),
            evidence=None if data.get("evidence") is None else Evidence.from_dict(data["evidence"]),
        )
