# SPDX-License-Identifier: Apache-2.0
"""`LrFind`: what a learning-rate finder saw, what it suggests, and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LrFind:
    """The result of `Trainer.lr_find`.

    lrs           (n,) float64, the learning rates that were tried, growing
    losses        (n,) the smoothed loss of a batch at each, mean over replicas
    batch_losses  (replicas, n) the same without smoothing
    suggestion    a tenth of the rate with the least smoothed loss, or None
    reason        how the suggestion was found, or why there is none
    diverged      whether the runs ended before the last rate, because the loss exploded
    """

    lrs: Doubles
    losses: Doubles
    batch_losses: Doubles
    suggestion: float | None
    reason: str
    diverged: bool

    def __repr__(self) -> str:
        what = "no suggestion" if self.suggestion is None else f"suggestion={self.suggestion:.2g}"
        if not len(self.lrs):
            return f"LrFind({what}: {self.reason})"
        end = ", where the loss diverged" if self.diverged else ""
        tried = f"{len(self.lrs)} rates from {self.lrs[0]:.2g} to {self.lrs[-1]:.2g}{end}"
        return f"LrFind({what}: {self.reason}; {tried})"

    def plot(self, ax: Any = None) -> Any:
        """Draw loss over learning rate, with the suggestion; into ``ax`` if one is given. Returns the
        matplotlib Axes. Needs matplotlib (the extra ``plot``); raises `ImportError` without it.

        >>> import numpy as np, hotloop as hl
        >>> X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(-1, 1)
        >>> found = hl.Trainer(hl.nn.Linear(1, 1), "mse").lr_find(X, 3 * X)
        >>> ax = found.plot()  # doctest: +SKIP
        """
        ax = _axes() if ax is None else ax
        for i, losses in enumerate(self.batch_losses):
            label = "batches" if i == 0 else None
            ax.plot(self.lrs, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label=label)
        ax.plot(self.lrs, self.losses, color="tab:blue", linewidth=2, label="smoothed mean")
        if self.suggestion is not None:
            loss = np.interp(np.log(self.suggestion), np.log(self.lrs), self.losses)
            ax.axvline(self.suggestion, color="tab:red", linewidth=1, linestyle="--")
            ax.plot(
                [self.suggestion], [loss], "o", color="tab:red", label=f"suggestion {self.suggestion:.2g}"
            )
        if len(self.losses):
            low, high = float(self.losses.min()), float(self.losses[0])
            room = max(high - low, 1e-12)
            bottom = max(float(np.nanmin(self.batch_losses)), low - room)
            ax.set_ylim(bottom - 0.1 * room, high + 0.5 * room)  # the explosion would flatten everything else
            ax.legend()
        ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        return ax


def _axes() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(
            "[LrFind] a plot needs matplotlib; install the extra: pip install 'hotloop[plot]'"
        ) from None
    return pyplot.subplots(figsize=(7, 4), layout="constrained")[1]
