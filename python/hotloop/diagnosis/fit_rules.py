# SPDX-License-Identifier: Apache-2.0
"""Rules about how well the run fits: too much, too little, ended too soon, or judged on too few rows.

Each is a pure function of the view; thresholds are explained in docs/diagnosis.md.
"""

from __future__ import annotations

import math

import numpy as np

from hotloop.diagnosis.finding import Finding, Numbers
from hotloop.diagnosis.view import Z95, Gap, View, percent, wilson

#: A gap between training and validation: in accuracy, or as a share of the loss of a guess. It counts once
#: the validation loss has risen by so much from its least. Twice as wide counts before that too, and where
#: the rollback left a model from before the gap.
ACCURACY_GAP, LOSS_GAP, TURNED = 0.10, 0.25, 1.1
#: Training explains less than this of the loss of a guess; of classes rather this, and less than this of the
#: accuracy that a guess lacks.
UNDERFIT_LOSS, UNDERFIT_CLASSES, UNDERFIT_ACCURACY = 0.25, 0.35, 0.5
#: Still improving: the loss fell by this share of itself, and of a guess's, over the last fifth of the run.
IMPROVING_SELF, IMPROVING_GUESS = 0.10, 0.03
#: Patience up to this counts as small; the training loss must still fall by this share while it runs out.
#: and validation may have slipped by this share of its best.
SMALL_PATIENCE, STILL_FALLING, SETBACK = 5, 0.05, 0.15
#: A 95 % interval of the validation accuracy this wide, or of a squared error this wide on either side.
WIDE_ACCURACY, WIDE_LOSS = 0.30, 0.6


def overfitting(v: View) -> Finding | None:
    """Training is much better than validation in the last epoch, and validation gained nothing by it."""
    if v.epochs < 3 or not len(v.val_loss):
        return None
    last, at_best = v.gap(v.epochs - 1), v.gap(v.best)
    if last is None or at_best is None or not _large(last, v):
        return None
    turn = int(np.nanargmin(v.val_loss)) if np.isfinite(v.val_loss).any() else v.epochs - 1
    turned = v.val_loss[-1] >= TURNED * v.val_loss[turn]
    if not turned and not (_large(at_best, v) and last.distance >= 2 * _least(v)):
        return None
    kept = v.kept_best and not _large(at_best, v)
    if kept and last.distance < 2 * _least(v):
        return None  # the rollback has dealt with it
    onset = turn + 1 if turned else _streak(v)
    score = percent if v.has_accuracy else (lambda loss: f"loss {loss:.4g}")
    reason = (
        f"training reached {score(last.train)}, validation {score(last.val)} in epoch {v.epochs}; "
        f"it set in at epoch {onset + 1}"
    )
    if turned:
        reason += (
            f", after which the validation loss rose from {v.val_loss[turn]:.4g} to {v.val_loss[-1]:.4g}"
        )
    if kept:
        reason += f"; the model was put back to epoch {v.best + 1}"
    numbers: Numbers = {"train": last.train, "validation": last.val, "onset": onset + 1, "epochs": v.epochs}
    step = _against_overfitting(v, kept)
    return Finding("overfitting", "advice" if kept else "warning", reason, step, numbers)


def _least(v: View) -> float:
    return ACCURACY_GAP if v.has_accuracy else LOSS_GAP


def _large(gap: Gap, v: View) -> bool:
    return gap.certain and gap.distance >= _least(v)


def _streak(v: View) -> int:
    """Index of the first epoch from which on the gap stays large."""
    epoch = v.epochs - 1
    while epoch > 0:
        gap = v.gap(epoch - 1)
        if gap is None or not _large(gap, v):
            break
        epoch -= 1
    return epoch


def _against_overfitting(v: View, kept: bool) -> str:
    setup = v.setup
    if kept and (setup is None or setup.patience is None):
        return "save the later epochs with early_stopping=hl.EarlyStopping(patience=10)"
    if setup is None or (setup.dropout == 0 and _layers(v) > 1):
        return "put hl.nn.Dropout(0.3) behind each activation"
    decay = 0.1 if setup.optimizer == "AdamW" else 1e-3  # others add it to the gradient, where less does much
    if setup.weight_decay < decay:
        return f"decay the weights more: optimizer=hl.optim.{setup.optimizer}({setup.lr:g}, weight_decay={decay:g})"
    return (
        "halve the widths of the hidden layers"
        if _layers(v) > 1
        else "leave out inputs, or collect more rows"
    )


def _layers(v: View) -> int:
    """How many matrices the model multiplies by."""
    assert v.evidence is not None  # whoever asks has seen its setup
    return sum(p.matrix and p.op in ("linear", "matmul") for p in v.evidence.parameters)


def underfitting(v: View) -> Finding | None:
    """Training itself is hardly better than a guess that does not look at the inputs."""
    if v.epochs < 3 or not len(v.explained) or v.baseline is None or not np.isfinite(v.explained).any():
        return None
    at = int(np.nanargmax(v.explained))
    explained = float(v.explained[at])
    guess = v.train_set.majority if v.train_set else None
    weighted = v.setup is not None and v.setup.class_weight  # then accuracy is not what is sought
    classes = v.has_accuracy and guess is not None and guess < 1 and not weighted
    if explained >= (UNDERFIT_CLASSES if classes else UNDERFIT_LOSS):
        return None
    numbers: Numbers = {"loss": float(v.loss[at]), "guess": v.baseline, "explained": explained}
    reason = f"the training loss is {v.loss[at]:.4g} at best, and a constant guess has {v.baseline:.4g}"
    if classes and guess is not None:
        accuracy = float(np.nanmax(v.values("accuracy")))
        if (accuracy - guess) / (1 - guess) >= UNDERFIT_ACCURACY:
            return None
        reason += f"; training accuracy {percent(accuracy)}, the most frequent class has {percent(guess)}"
        numbers = {**numbers, "accuracy": accuracy, "majority": guess}
    return Finding("underfitting", "warning", reason, _against_underfitting(v), numbers)


def _against_underfitting(v: View) -> str:
    assert v.evidence is not None  # there is a baseline
    if v.evidence.setup.dropout > 0.3:
        return "lower the dropout to hl.nn.Dropout(0.1)"
    if v.evidence.setup.weight_decay > 0.1:
        return f"decay the weights less: weight_decay=0.01 instead of {v.evidence.setup.weight_decay:g}"
    if _layers(v) < 2:
        return "give the model a hidden layer: hl.nn.Linear(inputs, 128), hl.nn.ReLU(), ..."
    return "double the widths of the hidden layers; if the training loss stays, the inputs lack the answer"


def stopped_too_early(v: View) -> Finding | None:
    """Patience ran out while the model was still getting better."""
    setup = v.setup
    if v.history.stop_reason != "early_stopping" or setup is None or setup.patience is None or v.epochs < 3:
        return None
    name, values, sign = v.monitored()
    numbers: Numbers = {"patience": setup.patience, "epochs": v.epochs, "asked": setup.epochs}
    if v.best == v.epochs - 1 and (setup.min_delta or setup.baseline):
        what = f"min_delta={setup.min_delta:g}" if setup.min_delta else "the baseline"
        step = "use early_stopping=hl.EarlyStopping with a " + (
            f"smaller min_delta, such as {setup.min_delta / 100:.2g}"
            if setup.min_delta
            else "baseline in reach"
        )
        reason = f"the run ended in epoch {v.epochs}, its best by {name}, because {what} asks too much"
        return Finding("stopped_too_early", "warning", reason, step, numbers)
    span = min(max(setup.patience, 3), v.epochs - 1)
    before, now = float(v.loss[-1 - span]), float(v.loss[-1])
    falling = before - now >= STILL_FALLING * abs(before) and _matters(before - now, v)
    gap = v.gap(v.epochs - 1)
    if setup.patience > SMALL_PATIENCE or not falling or gap is None or _large(gap, v):
        return None
    if len(values) and sign * (values[-1] - values[v.best]) < -SETBACK * abs(values[v.best]):
        return None  # it had clearly turned
    reason = (
        f"patience {setup.patience} ended the run at epoch {v.epochs} of {setup.epochs}, while the training loss "
        f"still fell ({before:.4g} to {now:.4g} in the last {span} epochs) and {name} had only paused"
    )
    step = f"wait longer: early_stopping=hl.EarlyStopping(patience={max(10, 4 * setup.patience)})"
    return Finding("stopped_too_early", "warning", reason, step, numbers)


def still_improving(v: View) -> Finding | None:
    """The last epochs were the best so far, by far enough to matter."""
    if v.history.stop_reason not in ("epochs", "time") or v.epochs < 3:
        return None
    losses = v.val_loss if len(v.val_loss) else v.loss
    tail = max(v.epochs // 5, 1)
    before, now = float(losses[:-tail].min()), float(losses[-tail:].min())  # least of each, for they jump
    if not before - now >= IMPROVING_SELF * abs(before) or not _matters(before - now, v):
        return None
    what = "validation" if len(v.val_loss) else "training"
    reason = (
        f"the {what} loss still fell from {before:.4g} to {now:.4g} over the last {tail} of {v.epochs} epochs"
    )
    step = f"train longer: epochs={_more(v.epochs)}"
    if v.history.stop_reason == "time":
        step = "train longer: raise max_time, or go on with fit(..., reset_optimizer=False)"
    numbers: Numbers = {"before": before, "now": now, "over_epochs": tail, "epochs": v.epochs}
    return Finding("still_improving", "advice", reason, step, numbers)


def _matters(fall: float, v: View) -> bool:
    """Whether a fall of the loss is worth anything, measured by the loss of a guess."""
    return fall >= IMPROVING_GUESS * v.unit


def _more(epochs: int) -> int:
    """Three times as many, as a round number."""
    size = int(10 ** max(int(math.log10(3 * epochs)) - 1, 0))
    return -(-3 * epochs // size) * size


def validation_too_small(v: View) -> Finding | None:
    """Epochs differ on the validation set by less than its size lets one tell."""
    rows = v.val_set.rows if v.val_set else 0
    if not rows or v.epochs < 4:
        return None
    accuracy = v.values(f"{v.val_name}_accuracy")
    later = slice(v.epochs // 2, None)
    if len(accuracy):
        low, high = wilson(float(accuracy[v.best]), rows)
        spread = float(np.ptp(accuracy[later]))
        if high - low < WIDE_ACCURACY or spread > high - low:
            return None
        reason = (
            f"{rows} validation rows: an accuracy of {percent(accuracy[v.best])} means {percent(low)} to "
            f"{percent(high)} (95 % interval), and the epochs differ by {percent(spread)}"
        )
        numbers: Numbers = {"rows": rows, "low": low, "high": high, "spread": spread}
    else:
        half = Z95 * math.sqrt(2 / rows)
        losses = v.val_loss[later]
        spread = float(np.ptp(losses) / losses.min()) if len(losses) and losses.min() > 0 else 0.0
        if half < WIDE_LOSS or spread > 2 * half:
            return None
        reason = (
            f"{rows} validation rows: their loss is known to +-{percent(half)} (95 % interval), and the later "
            f"epochs differ by {percent(spread)}"
        )
        numbers = {"rows": rows, "relative_error": half, "spread": spread}
    step = "hold out more rows (validation=0.2 or 0.3), or judge by cross-validation"
    return Finding("validation_too_small", "advice", reason, step, numbers)


def more_data(v: View) -> Finding | None:
    """The learning curve, where one was made, still falls at its end."""
    if v.curve is None or len(v.curve.points) < 2:
        return None
    before, last = v.curve.points[-2:]
    gain = 1 - last.val_loss / before.val_loss if before.val_loss > 0 else 0.0
    doubled = v.curve.predict(2 * last.rows)
    if doubled is None or gain < 0.05 or last.val_loss < 1.1 * last.train_loss:
        return None
    if last.val_loss - doubled < max(0.05 * last.val_loss, IMPROVING_GUESS * (v.baseline or last.val_loss)):
        return None
    reason = (
        f"from {before.rows} to {last.rows} rows the validation loss fell from {before.val_loss:.4g} to "
        f"{last.val_loss:.4g}; the power law through the curve gives {doubled:.4g} at {2 * last.rows}"
    )
    numbers: Numbers = {
        "rows": last.rows, "val_loss": last.val_loss, "gain": gain, "predicted_val_loss": doubled,
    }  # fmt: skip
    step = f"collect more rows: {2 * last.rows} in all are worth as much as the curve says"
    return Finding("more_data", "advice", reason, step, numbers)
