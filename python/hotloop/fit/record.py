# SPDX-License-Identifier: Apache-2.0
"""Where a run stands: what, beside the model's memory, it needs to go on as if it had never stopped.

Plain data with a JSON form, to which a field may be added if its absence means its default. Shuffles and dropout need nothing but the position, because both are functions of
it; the sums behind the metrics of the epoch in hand are the only ones that cannot be computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, cast

import numpy as np
import numpy.typing as npt

from hotloop.history import History

#: Why a run has nothing left to do. Any other end leaves one that can go on.
Ended = Literal["epochs", "early_stopping"]
_ENDS = (None, "epochs", "early_stopping")


@dataclass(frozen=True)
class RunRecord:
    """The position of a run, and what it remembers.

    run          its number, which keys shuffles and dropout
    epoch        whole epochs done; ``batch`` batches of the next one are done too, ``step`` in all
    totals       the sums behind the metrics of the epoch in hand, float64 (n,)
    ended        why there is nothing left to do, or None
    seconds      wall-clock time so far
    history      of the whole epochs
    best, patience, plateau   the states of `BestEpoch`, `Patience` and `PlateauTracker`
    kept_epoch   the epoch of the snapshot to roll back to; 0 the start of the run
    callbacks    the states that callbacks want to have kept, see `Hooks.stored`
    best_step    the step that the best epoch so far ended with, or None
    buffers      what `RunBuffers` holds
    """

    run: int
    epoch: int
    batch: int
    step: int
    totals: npt.NDArray[np.float64]
    ended: Union[Ended, None]
    seconds: float
    history: History
    best: Mapping[str, Any]
    patience: Union[Mapping[str, Any], None]
    plateau: Union[Mapping[str, Any], None]
    kept_epoch: int
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    best_step: int | None = None
    buffers: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without ``totals`` and ``buffers``."""
        arrays = ("totals", "buffers", "history")
        plain = {name: value for name, value in vars(self).items() if name not in arrays}
        return {**plain, "history": self.history.to_dict()}

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        totals: npt.NDArray[np.float64],
        buffers: Mapping[str, npt.NDArray[Any]],
    ) -> RunRecord:
        """Raises `ValueError`, `KeyError` or `TypeError` for data that `to_dict` did not give."""
        counts = {name: int(data[name]) for name in ("run", "epoch", "batch", "step", "kept_epoch")}
        history = History.from_dict(data["history"])
        if data["ended"] not in _ENDS or min(counts.values()) < 0 or history.epochs != counts["epoch"]:
            raise ValueError(f"[RunRecord] impossible position {counts}, ended {data['ended']!r}")
        return cls(
            **counts,
            totals=totals,
            buffers=buffers,
            ended=cast(Union[Ended, None], data["ended"]),
            seconds=float(data["seconds"]),
            history=history,
            best=dict(data["best"]),
            patience=data["patience"] and dict(data["patience"]),
            plateau=data["plateau"] and dict(data["plateau"]),
            callbacks=[
                {"name": str(c["name"]), "index": int(c["index"]), "state": dict(c["state"])}
                for c in data.get("callbacks", [])
            ],
            best_step=None if data.get("best_step") is None else int(data["best_step"]),
        )
