# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind for those who judge it: sizes, scales, norms and a look at the trained model.

Plain frozen data with a JSON form; it travels in the history, so that a run can be judged years later from
its file alone. fit/evidence.py gathers it while the run runs, fit/witness.py looks at the model afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, Union

Number = Union[float, None]  # None: not finite, or not known


@dataclass(frozen=True)
class Setup:
    """How the run was set up; ``lr`` is the optimiser's, before the schedule.

    ``loss`` is a kind ("cross_entropy", ...) or a callable's name, ``schedule`` a class name,
    ``dropout`` the largest probability in the model, ``patience`` and ``min_delta`` of early stopping (None
    without it), ``baseline`` whether that had one.
    """

    loss: str = ""
    optimizer: str = ""
    lr: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "Constant"
    batch_size: int = 1
    epochs: int = 0
    steps_per_epoch: int = 1
    patience: int | None = None
    min_delta: float = 0.0
    baseline: bool = False
    clip_norm: float | None = None
    dropout: float = 0.0
    class_weight: bool = False
    restore_best: bool = True


@dataclass(frozen=True)
class DataSet:
    """A data set: its rows, and how far one gets with it without looking at the inputs.

    ``baseline`` is the loss of the best constant prediction, ``majority`` the accuracy of the most frequent
    class; ``classes`` the rows of each class. What does not apply is None.
    """

    name: str = "train"
    rows: int = 0
    baseline: Number = None
    majority: Number = None
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class InputScale:
    """The scale of one input of numbers, over ``rows`` training rows (at most 1 000).

    ``mean`` is the largest |mean| of a column; ``std_min`` and ``std_max`` are over the columns that vary;
    ``worst`` is the column with the largest of all these.
    ``constant`` columns do not, in all rows (at most 65 536); ``constant_nonzero`` of them hold another number
    than 0, the first is ``first_constant``. ``normalized``: the model begins with a norm, which takes any scale.
    """

    name: str = ""
    columns: int = 0
    rows: int = 0
    mean: float = 0.0
    std_min: float = 0.0
    std_max: float = 0.0
    worst: int = 0
    constant: int = 0
    constant_nonzero: int = 0
    first_constant: int | None = None
    normalized: bool = False


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model; ``op`` is what reads it first ("linear", "embedding", ...)."""

    name: str = ""
    size: int = 0
    op: str = ""
    matrix: bool = False


@dataclass(frozen=True)
class NormSample:
    """Euclidean norms at the end of an epoch (1-based), one per parameter: of the last batch's gradient, and
    of the weights."""

    epoch: int = 0
    gradients: tuple[Number, ...] = ()
    weights: tuple[Number, ...] = ()


@dataclass(frozen=True)
class Activation:
    """One activation: ``op`` ("relu", ...) behind ``layer``, its units, the share of them that is 0 on every
    row, and the root mean square of its output."""

    layer: str = ""
    op: str = ""
    units: int = 0
    dead: float = 0.0
    scale: Number = None


@dataclass(frozen=True)
class Look:
    """What the finished model does on a few training rows; ``hits`` and ``seen`` count right predictions and
    rows by class (None for numbers)."""

    rows: int = 0
    activations: tuple[Activation, ...] = ()
    hits: tuple[int, ...] | None = None
    seen: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Divergence:
    """Where a run diverged: after ``step`` of the ``steps`` of an epoch (1-based); ``what`` ("the loss", "a
    parameter") became ``value``; ``restored`` is the epoch that was put back, 0 for the start, None for nothing.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    what: str = "the loss"
    value: str = "infinite or NaN"
    restored: int | None = None


@dataclass(frozen=True)
class Evidence:
    """All of it. ``look`` is None until somebody asks for it, or if it could not be taken any more."""

    setup: Setup = Setup()
    train: DataSet = DataSet()
    validation: tuple[DataSet, ...] = ()
    inputs: tuple[InputScale, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    norms: tuple[NormSample, ...] = ()
    look: Look | None = None
    divergence: Divergence | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` gives an equal Evidence back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evidence:
        """What is absent has its default, so that older files can be read. Raises `ValueError` or
        `TypeError` for data that `to_dict` did not give.

        >>> Evidence.from_dict({"train": {"rows": 7}}).train.rows
        7
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"[Evidence] must be a mapping, got {data!r:.80}")
        one = {"setup": Setup, "train": DataSet, "look": Look, "divergence": Divergence}
        many = {"validation": DataSet, "inputs": InputScale, "parameters": Parameter, "norms": NormSample}
        parts: dict[str, Any] = {}
        for name, kind in one.items():
            if data.get(name) is not None:
                parts[name] = _read(kind, data[name])
        for name, kind in many.items():
            parts[name] = tuple(_read(kind, item) for item in data.get(name, ()))
        if parts.get("look") is not None:
            found = tuple(_read(Activation, item) for item in parts["look"].activations)
            parts["look"] = dataclasses.replace(parts["look"], activations=found)
        return cls(**parts)


_T = TypeVar("_T")


def _read(kind: type[_T], data: Any) -> _T:
    """A dataclass from a mapping; fields of a newer version are passed over."""
    if not isinstance(data, Mapping):
        raise TypeError(f"[Evidence] {kind.__name__} must be a mapping, got {data!r:.80}")
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: _frozen(data[name]) for name in names if name in data})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
