# SPDX-License-Identifier: Apache-2.0
"""The learning-rate finder: short runs of a replica whose rate grows in every step (Smith 2017).

The loss of a batch says more about the batch than about the rate. Therefore each batch is also passed with a
rate of 0, and what counts is the difference: the same rows, the same dropout, trained or not. It is 0 as long
as the rate is too small to matter, and several replicas in other orders are averaged.
"""

from __future__ import annotations

import numpy as np

from hotloop.engine.native import Data, Engine
from hotloop.probes.lr_result import LrFind
from hotloop.probes.replica import Replica, batch_losses
from hotloop.runtime.session import Doubles

#: The running mean over steps, corrected for its start as Adam's moments are (fastai smooths so as well, with
#: 0.98: over a hundred steps that lags behind by a power of ten).
_SMOOTHING = 0.9
#: A run ends when its loss is this many times its least (fastai), and above where it began.
_DIVERGED = 4.0
#: A fall smaller than this part of the loss, or than so many of its standard errors, is none.
_LEAST_FALL, _SIGMAS = 0.01, 3.0
_RULE = "a tenth of the rate with the least smoothed loss"


def find_lr(
    engine: Engine, data: Data, *, batch_size: int, start: float, end: float, steps: int, replicas: int, run: int
) -> LrFind:  # fmt: skip
    """The range test of Smith; the model stays as it is. ``run`` numbers the first order of the rows."""
    lrs = np.geomspace(start, end, steps)
    replica = Replica(engine)
    idle, changes = np.empty((replicas, steps)), []
    for i in range(replicas):
        untrained = _losses(replica, data, batch_size, np.zeros(steps), run + i)
        if not np.isfinite(untrained).all():
            return _failed(lrs, f"the loss is {untrained[~np.isfinite(untrained)][0]} without any training")
        idle[i] = untrained
        trained = _losses(replica, data, batch_size, lrs, run + i)
        changes.append(trained - untrained[: len(trained)])
    level = float(idle.mean())
    n = min(_end(level, change) for change in changes)
    if n < 2:
        return _failed(lrs, f"the loss diverges at once; give a smaller start, got {start:g}")
    change = np.stack([change[:n] for change in changes])
    smoothed = _smooth(change.mean(axis=0))
    suggestion, reason = _suggest(lrs, level, change, smoothed)
    return LrFind(lrs[:n], level + smoothed, level + change, suggestion, reason, diverged=n < steps)


def _losses(replica: Replica, data: Data, batch_size: int, rates: Doubles, run: int) -> Doubles:
    """The loss of each batch, (at most len(rates),), of a fresh start with these rates."""
    replica.restart()
    train = replica.prepare(data, batch_size, shuffle=True, run=run)
    return np.array(list(batch_losses(train, replica.params(train, rates), -(-data.rows // batch_size))))


def _smooth(values: Doubles) -> Doubles:
    """Running mean ``m = b m + (1 - b) v``, divided by ``1 - b**t``; (n,) of the same length."""
    out, mean = np.empty(len(values)), 0.0
    for i, value in enumerate(values):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * value
        out[i] = mean / (1 - _SMOOTHING ** (i + 1))
    return out


def _end(level: float, change: Doubles) -> int:
    """How many steps a run makes before it diverges."""
    loss = level + _smooth(change)
    least = np.fmin.accumulate(loss)
    gone = ~np.isfinite(loss) | ((loss > level) & (loss - least > (_DIVERGED - 1) * np.abs(least)))
    return int(np.argmax(gone)) if gone.any() else len(loss)


def _suggest(lrs: Doubles, level: float, change: Doubles, smoothed: Doubles) -> tuple[float | None, str]:
    """The rate, and why: the least smoothed loss lies where training is about to fail, and a tenth of that
    rate is as large as is safe (the rule "minimum" of fastai's finder)."""
    at = int(np.argmin(smoothed))
    fall = -float(smoothed[at])
    # Batches that went into the smoothed value: of a running mean (1 + b) / (1 - b), in every replica.
    window = int((1 + _SMOOTHING) / (1 - _SMOOTHING))
    near = change[:, max(0, at + 1 - window) : at + 1]
    error = float(near.std()) / np.sqrt(near.size)
    if fall <= _LEAST_FALL * abs(level) or fall <= _SIGMAS * error:
        return None, (
            f"the loss hardly falls at any rate: from {level:.4g} by {max(fall, 0):.2g}, and its noise is "
            f"{error:.2g}; check loss and data with overfit_batch, or try a larger end, more steps or replicas"
        )
    if at == len(smoothed) - 1 and lrs[at] == lrs[-1] and len(smoothed) == len(lrs):
        return float(lrs[at]) / 10, f"{_RULE}; it still falls at the last one, so try a larger end"
    return float(lrs[at]) / 10, _RULE


def _failed(lrs: Doubles, reason: str) -> LrFind:
    return LrFind(lrs[:0], np.empty(0), np.empty((0, 0)), None, reason, diverged=True)
