# SPDX-License-Identifier: Apache-2.0
"""How much more data would help: the same model trained on growing parts of the training rows.

Replicas are trained and thrown away. Each part holds the ones before it and has every class in its share;
each replica begins with the weights that the seed draws and takes as many steps as the others, so that they
differ in nothing but rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hotloop.arguments import count, number
from hotloop.compile.plan import LossSpec
from hotloop.data import border
from hotloop.engine.native import Data
from hotloop.fit.setup import Validation, check_data, check_validation
from hotloop.fit.witness import class_places, labels_of
from hotloop.inputs import frames
from hotloop.runtime.session import Session

if TYPE_CHECKING:
    from hotloop.history import History
    from hotloop.nn import Module
    from hotloop.trainer import Trainer

_HERE, _SCORES = "learning_curve", ("accuracy", "r2")
#: Epochs of the smallest part, at most this many times those of the whole.
_MOST_EPOCHS = 20


@dataclass(frozen=True)
class CurvePoint:
    """What training on ``rows`` rows gave, at the best epoch: losses, and accuracy or R2 if it was measured."""

    rows: int
    epochs: int
    train_loss: float
    val_loss: float
    val_score: float | None = None


@dataclass(frozen=True)
class LearningCurve:
    """One point per part, from few rows to all; ``score`` names what ``val_score`` is.

    >>> curve = LearningCurve((CurvePoint(100, 8, 0.1, 0.4), CurvePoint(400, 8, 0.1, 0.2)))
    >>> round(curve.exponent, 3), round(curve.predict(1600), 3)
    (0.5, 0.1)
    """

    points: tuple[CurvePoint, ...]
    score: str | None = None

    @property
    def exponent(self) -> float | None:
        """b of ``loss = a rows^-b``, fitted by least squares to the logarithms; None below two points.

        Such a power law is what is found in practice over wide ranges of rows (Hestness et al. 2017).
        """
        fit = self._fit()
        return None if fit is None else fit[1]

    def predict(self, rows: int) -> float | None:
        """The validation loss that the power law gives for so many rows."""
        fit = self._fit()
        return None if fit is None else math.exp(fit[0] - fit[1] * math.log(rows))

    def _fit(self) -> tuple[float, float] | None:
        known = [(p.rows, p.val_loss) for p in self.points if p.val_loss > 0 and math.isfinite(p.val_loss)]
        if len({rows for rows, _ in known}) < 2:
            return None
        x, y = np.log(np.array(known, np.float64)).T
        slope, at_zero = np.polyfit(x, y, 1)
        return float(at_zero), float(-slope)

    def plot(self, ax: Any = None) -> Any:
        """Losses over rows on logarithmic axes, with the power law to twice the rows: a matplotlib Axes.

        Raises `ImportError` without matplotlib (the extra ``plot``).
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(6, 4), layout="constrained").subplots()
        rows = [p.rows for p in self.points]
        ax.plot(rows, [p.train_loss for p in self.points], "o-", label="training")
        ax.plot(rows, [p.val_loss for p in self.points], "o-", label="validation")
        if self.exponent is not None:
            ends = [rows[0], 2 * rows[-1]]
            ax.plot(ends, [self.predict(n) for n in ends], "k:", label=f"rows$^{{-{self.exponent:.2f}}}$")
        ax.set(xscale="log", yscale="log", xlabel="training rows", ylabel="loss", title="Learning curve")
        ax.set_xticks([*rows, 2 * rows[-1]], [f"{n:,}" for n in [*rows, 2 * rows[-1]]])
        ax.set_xticks([], minor=True)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")  # a curve often spans less than a decade
        ax.legend()
        return ax

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{'rows':>10} {'train loss':>12} {'val loss':>12}"
            + f" {f'val {self.score}':>14}" * bool(self.score)
        ]
        for p in self.points:
            score = "" if p.val_score is None else f" {p.val_score:>14.4g}"
            lines.append(f"{p.rows:>10} {p.train_loss:>12.4g} {p.val_loss:>12.4g}{score}")
        if self.exponent is not None:
            lines.append(f"validation loss ~ rows^{-self.exponent:.2f}")
        return "\n".join(lines)


def measure(
    trainer: Trainer, X: Any, y: Any, *, validation: Validation, fractions: Sequence[float], epochs: int,
    batch_size: int, sample_weight: Any,
) -> LearningCurve:  # fmt: skip
    """The curve of `Trainer.learning_curve`; the trainer and its model are only read."""
    parts = _checked_fractions(fractions)
    epochs, batch_size = count(_HERE, "epochs", epochs, low=1), count(_HERE, "batch_size", batch_size, low=1)
    if validation is None:
        raise ValueError(f"[{_HERE}] validation is None; give a fraction such as 0.2, or (X, y)")
    with trainer._session.entered(_HERE):
        model = copy.deepcopy(trainer.model)
    first = _replica(trainer, model)
    names = frames.names_of(trainer, X, _HERE)
    X, y = frames.ready_pair(trainer, X, y, _HERE, expected=names)
    validation = frames.ready_sets(trainer, validation, names)
    with first._session.entered(_HERE):
        train, graph, loss = check_data(first._session, X, y, sample_weight, trainer.loss, where=_HERE)
        train, sets = check_validation(first._session, validation, train, graph, loss, trainer.seed)
    held_out = _arguments(next(iter(sets.values())))
    order = nested_order(train, loss.kind if isinstance(loss, LossSpec) else "", trainer.seed)
    points = []
    for part in parts:
        rows = max(round(part * train.rows), 1)
        rows -= rows > 1 and rows % batch_size == 1  # BatchNorm has no use for a batch of one row
        longer = min(math.ceil(epochs * train.rows / rows), _MOST_EPOCHS * epochs)
        some = Data(border.take(train.arrays, np.sort(order[:rows])), train.kind)
        one = _replica(trainer, copy.deepcopy(model))
        one.loss = loss  # as all rows resolve it: class weights do not change from part to part
        X_part, y_part, weight = _arguments(some)
        run = one.fit(
            X_part, y_part, sample_weight=weight, validation={"val": held_out}, epochs=longer,
            batch_size=batch_size,
        )  # fmt: skip
        points.append(_point(run, rows))
    score = next((name for name in _SCORES if f"val_{name}" in run.history), None)
    return LearningCurve(tuple(points), score)


def _checked_fractions(fractions: Sequence[float]) -> list[float]:
    """Ascending, without repetition. Raises `ValueError` or `TypeError`."""
    if isinstance(fractions, (str, int, float)):
        raise TypeError(f"[{_HERE}] fractions must be numbers such as (0.25, 0.5, 1.0), got {fractions!r}")
    parts = sorted({number(_HERE, "fractions", f, low=0, high=1) for f in fractions})
    if len(parts) < 2 or parts[0] == 0:
        raise ValueError(
            f"[{_HERE}] fractions must be at least two numbers in (0, 1], got {tuple(fractions)!r:.80}"
        )
    return parts


def _replica(trainer: Trainer, model: Module) -> Trainer:
    """A trainer of the same choices for another model, which begins with the weights that the seed draws."""
    one = copy.copy(trainer)
    one.model = model.initialize(trainer.seed)
    one.callbacks, one.early_stopping, one.progress = (), None, False
    one.monitor, one.restore_best, one.on_divergence = "val_loss", True, "stop"
    one.history, one._runs, one._training, one._resolved = None, 0, False, None
    session = trainer._session
    one._session = Session(model, trainer.optimizer, seed=trainer.seed, threads=session.threads)
    return one


def _arguments(data: Data) -> tuple[dict[str, Any], Any, Any]:
    """X, y and weights of a checked data set, as `fit` takes them."""
    X = {name: array for name, array in data.arrays.items() if name not in ("target", "sample_weight")}
    return X, data.arrays["target"], data.arrays.get("sample_weight")


def _point(run: History, rows: int) -> CurvePoint:
    """The best epoch of a replica's run. Raises `RuntimeError` if it had none."""
    if run.best_epoch is None:
        raise RuntimeError(f"[{_HERE}] training on {rows} rows diverged at once; lower the learning rate")
    values = {name: curve[run.best_epoch - 1] for name, curve in run.history.items()}
    score = next((values[f"val_{name}"] for name in _SCORES if f"val_{name}" in values), None)
    return CurvePoint(rows, run.epochs, values["loss"], values["val_loss"], score)


def nested_order(data: Data, loss: str, seed: int) -> Any:
    """Row numbers (n,) of which every first part is random and has each class in its share."""
    noise = np.random.Generator(np.random.Philox(key=seed)).permutation(data.rows)
    labels = labels_of(data, loss)
    if labels is None:
        return noise
    by_class, place = class_places(labels[noise])
    sizes = np.bincount(labels)[labels[noise[by_class]]]
    return noise[by_class[np.argsort((place + 0.5) / sizes, kind="stable")]]
