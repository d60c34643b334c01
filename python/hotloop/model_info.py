# SPDX-License-Identifier: Apache-2.0
"""`ModelInfo`: what a trained model says of itself, as data and as text for people.

A view of what the trainer and its file hold anyway; nothing is computed and nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hotloop.compile.plan import LossSpec
from hotloop.data.split import SplitInfo
from hotloop.fit.provenance import Provenance
from hotloop.history import History
from hotloop.losses import CallableLoss

if TYPE_CHECKING:
    from hotloop.trainer import Trainer

#: Rows of the table of curves, names in a list: as much as an eye takes in.
_CURVE_ROWS, _NAMES = 8, 12


@dataclass(frozen=True)
class ModelInfo:
    """Of a trainer; ``str`` gives it as text.

    tensors        name -> shape, of parameters and state
    parameters     how many numbers are trained
    loss, optimizer, schedule   as they would be written in Python
    task, target, features, classes   of the preprocessing; None and () without one
    history        of the last run, with its curves; None before the first
    provenance     when it was trained, on what, with which versions; None before the first run
    split          how the data was split, if the trainer was told (`Trainer.split`)
    runs           how often it was fitted
    """

    tensors: Mapping[str, tuple[int, ...]]
    parameters: int
    loss: str
    optimizer: str
    schedule: str
    task: str | None
    target: str | None
    features: tuple[str, ...]
    classes: tuple[str, ...]
    history: History | None
    provenance: Provenance | None
    split: SplitInfo | None
    runs: int

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def model_info(trainer: Trainer) -> ModelInfo:
    """What is known of a trainer now."""
    prepare = trainer.preprocessor
    owners = [*trainer.model.named_parameters(), *trainer.model.named_buffers()]
    return ModelInfo(
        tensors={name: tuple(owner.shape) for name, owner in owners},
        parameters=sum(_size(owner.shape) for _, owner in trainer.model.named_parameters()),
        loss=_loss_text(trainer._known_loss()),
        optimizer=repr(trainer.optimizer),
        schedule=repr(trainer.schedule),
        task=None if prepare is None else prepare.task,
        target=None if prepare is None else prepare.target_name,
        features=() if prepare is None else prepare.feature_names,
        classes=() if prepare is None else prepare.class_names,
        history=trainer.history,
        provenance=trainer.provenance,
        split=trainer.split,
        runs=trainer._runs,
    )


def _size(shape: Sequence[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _loss_text(loss: Any) -> str:
    if isinstance(loss, LossSpec):
        return loss.kind
    if isinstance(loss, CallableLoss):
        return loss.name
    return str(getattr(loss, "__qualname__", loss))


# --- as text --------------------------------------------------------------------------------------


def _lines(info: ModelInfo) -> list[str]:
    lines = [f"{info.parameters:,} parameters"]
    lines += [f"  {name:<32} {shape}" for name, shape in info.tensors.items()]
    if info.task is not None:
        lines += _row("task", f"{info.task} of {info.target!r} from {len(info.features)} features")
        lines += _row("features", _some(info.features))
        lines += _row("classes", _some(info.classes)) if info.classes else []
    for name in ("loss", "optimizer", "schedule"):
        lines += _row(name, getattr(info, name))
    if info.provenance is not None:
        lines += _origin(info.provenance)
    if info.split is not None:
        lines += _row("split", str(info.split))
        lines += _row("test rows", info.split.looks_text()) if info.split.looks else []
    if info.history is not None:
        what = repr(info.history).removeprefix("History(").removesuffix(")")
        lines += _row("trained", what + (f"; run {info.runs}" if info.runs > 1 else ""))
        lines += _curves(info.history)
    return lines


def _row(name: str, text: str) -> list[str]:
    return [f"{name:<11} {text}"]


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _origin(origin: Provenance) -> list[str]:
    lines = _row("fitted", f"{origin.fitted.replace('T', ' ').replace('Z', ' UTC')}, seed {origin.seed}")
    lines += _row("data", str(origin.data))
    if origin.held_out is not None:
        lines += _row("", f"{origin.held_out:g} of the rows held out for validation")
    for name, record in origin.validation.items():
        lines += _row("validation", f"{name}: {record}")
    versions = origin.versions
    kernels = f"{versions.get('isa', '?')} kernels on {versions.get('platform', '?')}"
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("hotloop", "numpy", "python") if name in versions
    )
    return lines + _row("versions", f"{named}; {kernels}")


def _curves(history: History) -> list[str]:
    """A table with the first, the best, the last epoch and some between; the best has a star."""
    if not history.epochs:
        return []
    steps = min(_CURVE_ROWS, history.epochs)
    shown = {1 + round(i * (history.epochs - 1) / max(steps - 1, 1)) for i in range(steps)}
    shown |= {history.best_epoch} if history.best_epoch else set()
    table = [["epoch", *history.history]]
    for epoch in sorted(shown):
        mark = "*" if epoch == history.best_epoch else ""
        table.append([f"{epoch}{mark}", *(f"{values[epoch - 1]:.4g}" for values in history.history.values())])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in table]
