# SPDX-License-Identifier: Apache-2.0
"""The one-batch check: a model that cannot learn a few rows by heart will not learn a data set.

A copy of the model trains on one batch again and again, without dropout, which works against memory. Judged is
what a constant output cannot reach: every row's class, or the spread of the targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hotloop.data import border
from hotloop.engine.native import Data, Engine, row_weights
from hotloop.probes.replica import Replica, batch_losses

#: The part of the targets' spread that a memory must explain; the part of the loss where R2 has no meaning.
_R2, _LOSS_LEFT = 0.95, 0.05
#: Less than this part of the loss is no movement; what still falls in the last tenth of the steps.
_STILL, _FALLING = 1e-3, 0.01


@dataclass(frozen=True)
class OverfitCheck:
    """The result of `Trainer.overfit_batch`.

    passed      whether the model can memorise one batch
    verdict     that in words, with the reason where it cannot, and what to do next
    first_loss, last_loss   on the batch, before and after, in evaluation mode
    metric, value           the metric that decided ("accuracy" or "r2"), after the last step
    losses      the loss of each step, before its update
    rows        of the batch
    """

    passed: bool
    verdict: str
    first_loss: float
    last_loss: float
    metric: str
    value: float
    losses: tuple[float, ...]
    rows: int

    def __repr__(self) -> str:
        seen = f"loss {self.first_loss:.4g} to {self.last_loss:.4g}, {self.metric} {self.value:.4g}"
        return f"OverfitCheck({self.verdict}; {seen} on {self.rows} rows in {len(self.losses)} steps)"


def draw(data: Data, batch_size: int, seed: int) -> border.Array:
    """The numbers of ``batch_size`` rows of the data, or of all there are, that have a weight; (n,) int64."""
    rows = np.flatnonzero(row_weights(data, slice(None)) > 0)
    random = np.random.Generator(np.random.Philox(seed))
    return np.sort(random.choice(rows, min(batch_size, len(rows)), replace=False))


def overfit_batch(engine: Engine, data: Data, rows: border.Array, *, lr: float, steps: int) -> OverfitCheck:
    """Train a copy of the engine's model on these ``rows`` of the data, (n,) numbers, at a constant rate."""
    batch = Data(border.take(data.arrays, rows), data.kind)
    replica = Replica(engine)
    train = replica.prepare(batch, batch.rows, shuffle=False, run=0)
    params = replica.params(train, np.full(steps, lr))
    params[:, 2 * train.executable.plan.n_groups :] = 0.0  # the dropout rates
    first = replica.engine.evaluate(batch).metrics
    losses = tuple(batch_losses(train, params, 1))
    last = replica.engine.evaluate(batch).metrics
    metric = "accuracy" if "accuracy" in last else "r2"
    diverged = len(losses) < steps or not replica.memory.is_finite() or not np.isfinite(last["loss"])
    same = _same(batch.arrays["target"])
    if diverged:
        passed, verdict = (
            False,
            f"cannot: the loss diverged in step {len(losses)}; try a smaller lr, as of lr_find",
        )
    elif _memorised(metric, last[metric], first["loss"], last["loss"], constant=same):
        trivial = ", but all its targets are the same, which says little: give other rows"
        passed, verdict = True, "can memorise one batch" + (trivial if same else "")
    else:
        reason = _reason(batch, rows, lr, losses, first["loss"], last["loss"])
        passed, verdict = False, f"cannot: {reason}"
    return OverfitCheck(
        passed, verdict, first["loss"], last["loss"], metric, last[metric], losses, batch.rows
    )  # fmt: skip


def _memorised(metric: str, value: float, first: float, last: float, *, constant: bool) -> bool:
    if metric == "accuracy":
        return value == 1.0
    return last <= _LOSS_LEFT * first if constant else value >= _R2


def _same(target: border.Array) -> bool:
    return bool((target == target[:1]).all())


def _reason(
    batch: Data, rows: border.Array, lr: float, losses: tuple[float, ...], first: float, last: float
) -> str:
    """Why the batch was not memorised: the first of the usual causes that fits."""
    if lr == 0:
        return "the optimizer's learning rate is 0; give one > 0"
    twins = _contradiction(batch)
    if twins is not None:
        i, j = (int(rows[k]) for k in twins)
        return f"rows {i} and {j} of X have the same inputs and different targets; check how X is made"
    if abs(first - last) <= _STILL * abs(first):
        return (
            "the loss does not move; the learning rate may be too small (see lr_find), units dead, or the output "
            "not depend on the parameters"
        )
    tenth = max(len(losses) // 10, 1)
    before, end = np.mean(losses[-2 * tenth : -tenth]), np.mean(losses[-tenth:])
    if before - end > _FALLING * abs(before):
        return "the loss still falls after the last step; give more steps, or a larger lr (see lr_find)"
    return (
        "the loss no longer falls; the model may be too small, or the learning rate too large (see lr_find)"
    )


def _contradiction(batch: Data) -> tuple[int, int] | None:
    """Two rows of the batch with the same inputs and different targets."""
    inputs = [a for name, a in batch.arrays.items() if name not in ("target", "sample_weight")]
    target, seen = batch.arrays["target"], dict[bytes, int]()
    for i in range(batch.rows):
        key = b"".join(np.ascontiguousarray(a[i]).tobytes() for a in inputs)
        j = seen.setdefault(key, i)
        if (target[i] != target[j]).any():
            return j, i
    return None
