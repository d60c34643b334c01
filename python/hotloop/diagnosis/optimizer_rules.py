# SPDX-License-Identifier: Apache-2.0
"""Rules about the descent: divergence, learning rates, and gradients and units that do not work."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hotloop.diagnosis.finding import Finding, Numbers
from hotloop.diagnosis.view import View, percent
from hotloop.evidence import Activation

#: Oscillation: mean change of the loss between epochs, of a guess's loss, and the share of epochs that rise.
OSCILLATION, RISES = 0.08, 0.3
#: A training loss this many times a guess's is worse than knowing nothing; a loss of classes, which begins
#: at a guess's, has been thrown far off at twice as much.
WORSE_THAN_GUESS, THROWN_OFF = 1.1, 2.0
#: Learning rates that are large whatever the model (SGD's over 1 - momentum): there, less of a swing tells,
#: and dead units are the rate's doing.
LARGE_RATE, LARGE_SGD_RATE, LARGE_RATE_OSCILLATION = 0.03, 1.0, 0.03
CLASS_LOSSES = ("cross_entropy", "bce_with_logits")
#: Too low: the loss falls along a line this straight, by less than this share of a guess's loss per epoch.
STRAIGHT, SLOW = 0.95, 0.02
#: A layer with this share of units that are 0 on every row looked at.
DEAD, MOSTLY_DEAD = 0.5, 0.9
#: Ratio between the largest and the smallest relative gradient of two layers, and a gradient of this many
#: times its weights.
LAYER_RATIO, HUGE_GRADIENT = 1e3, 1e3


def diverged(v: View) -> Finding | None:
    """The loss or a parameter became infinite or NaN."""
    if v.history.stop_reason != "divergence":
        return None
    place = None if v.evidence is None else v.evidence.divergence
    numbers: Numbers = {}
    if place is None:
        reason = f"the loss or a parameter became infinite or NaN in epoch {v.epochs + 1}"
    else:
        back = {None: "nothing was put back", 0: "the start was put back"}
        restored = back.get(place.restored, f"epoch {place.restored} was put back")
        where = f"epoch {place.epoch}, step {place.step} of {place.steps}"
        reason = f"{place.what} became {place.value} in {where}; {restored}"
        numbers = {"epoch": place.epoch, "step": place.step, "steps": place.steps}
    clipped = v.setup is not None and v.setup.clip_norm is not None
    later = v.epochs >= 3 and bool((v.explained > 0.25).any())
    step = f"lower the learning rate tenfold: {v.optimizer_with(0.1)}"
    if later and not clipped:  # it had learnt, so the rate is right as a rule: keep one step from undoing it
        step = "limit single steps: hl.Trainer(..., clip_norm=1.0)"
    return Finding("diverged", "error", reason, step, numbers)


def learning_rate_too_high(v: View) -> Finding | None:
    """The loss jumps, is thrown far off, rises, or a large rate has killed half of a layer's units."""
    if v.history.stop_reason == "divergence" or v.epochs < 3 or not np.isfinite(v.loss).all():
        return None
    guess, last = v.unit, float(np.median(v.loss[-3:]))
    changes = np.diff(v.loss[v.epochs // 3 :])
    rises, swing = float(np.mean(changes > 0)), float(np.mean(np.abs(changes)) / guess)
    worst, start = int(v.loss.argmax()), _start(v, guess)
    dead = _most_dead(v)
    if v.setup and v.setup.loss in CLASS_LOSSES and v.loss[worst] > THROWN_OFF * start:
        reason = (
            f"the training loss was thrown to {v.loss[worst]:.4g} in epoch {worst + 1}, where an untrained model "
            f"has about {start:.4g}"
        )
    elif last > WORSE_THAN_GUESS * guess and rises >= RISES:
        reason = f"the training loss ended at {last:.4g}, above a constant guess ({guess:.4g})"
    elif last > 1.1 * v.loss[0] and last - v.loss.min() > OSCILLATION * guess:
        reason = f"the training loss rose from {v.loss.min():.4g} in epoch {int(v.loss.argmin()) + 1} to {last:.4g}"
    elif rises >= RISES and swing >= (LARGE_RATE_OSCILLATION if _large_rate(v) else OSCILLATION):
        reason = (
            f"the training loss jumps: it rose in {percent(rises)} of the epochs and changes by "
            f"{percent(swing)} of a constant guess's loss from one to the next"
        )
    elif dead is not None and dead.dead >= DEAD and _large_rate(v):
        reason = (
            f"it has killed {round(dead.dead * dead.units)} of the {dead.units} ReLUs behind layer {dead.layer!r}, "
            f"and the training loss ended at {last:.4g}"
        )
    else:
        return None
    numbers: Numbers = {"swing": swing, "rises": rises, "last": last, "guess": guess}
    step = f"lower the learning rate: {v.optimizer_with(0.1)}"
    useless = last > 0.9 * guess
    return Finding("learning_rate_too_high", "error" if useless else "warning", reason, step, numbers)


def _start(v: View, guess: float) -> float:
    """About the loss of a model that holds all classes for equally likely."""
    classes = v.train_set.classes if v.train_set else None
    return max(guess, math.log(max(len(classes or ()), 2)))


def learning_rate_too_low(v: View) -> Finding | None:
    """The training loss falls along a straight line, and hardly."""
    if v.epochs < 4 or not np.isfinite(v.loss).all():
        return None
    epochs = np.arange(v.epochs)
    fall, guess = float(v.loss[0] - v.loss[-1]), v.unit
    if fall <= 0 or np.ptp(v.loss) == 0:
        return None
    straight = float(np.corrcoef(epochs, v.loss)[0, 1] ** 2)
    per_epoch = fall / (v.epochs - 1) / max(guess, float(v.loss[0]))
    # a curve that bends has done its work; one that has explained half of the loss is on its way
    if straight < STRAIGHT or per_epoch > SLOW or v.loss[-1] < 0.5 * guess:
        return None
    reason = f"the training loss fell from {v.loss[0]:.5g} to only {v.loss[-1]:.5g} in {v.epochs} epochs, along a straight line"
    numbers: Numbers = {"fall": fall, "straight": straight, "loss": float(v.loss[-1])}
    step = f"raise the learning rate tenfold: {v.optimizer_with(10)}"
    return Finding("learning_rate_too_low", "warning", reason, step, numbers)


def dead_relus(v: View) -> Finding | None:
    """Half of a layer's units are 0 whatever comes in, and get no gradient any more."""
    worst = _most_dead(v)
    if worst is None or worst.dead < DEAD:
        return None
    assert v.evidence is not None and v.evidence.look is not None  # where it comes from
    look = v.evidence.look
    others = sum(a.op == "relu" and a.dead >= DEAD for a in look.activations) - 1
    also = f", and in {others} more layer{'s' * (others > 1)} over half" if others else ""
    reason = (
        f"{round(worst.dead * worst.units)} of the {worst.units} ReLUs behind layer {worst.layer!r} are 0 on all "
        f"{look.rows} training rows looked at{also}"
    )
    numbers: Numbers = {"layer": worst.layer, "dead": worst.dead, "units": worst.units, "rows": look.rows}
    step = "use hl.nn.LeakyReLU() or hl.nn.GELU() in place of hl.nn.ReLU(): they cannot die"
    return Finding("dead_relus", "error" if worst.dead >= MOSTLY_DEAD else "warning", reason, step, numbers)


def _most_dead(v: View) -> Activation | None:
    """The ReLU layer with the largest share of dead units."""
    look = None if v.evidence is None else v.evidence.look
    relus = [] if look is None else [a for a in look.activations if a.op == "relu"]
    return max(relus, key=lambda a: a.dead, default=None)


def _large_rate(v: View) -> bool:
    setup = v.setup
    if setup is None:
        return False
    if setup.optimizer == "SGD":
        return setup.lr >= LARGE_SGD_RATE * (1 - setup.momentum)
    return setup.lr >= LARGE_RATE


def vanishing_gradients(v: View) -> Finding | None:
    """An early layer learns a thousand times slower than a later one, for its size."""
    return _uneven(v, early=True)


def exploding_gradients(v: View) -> Finding | None:
    """Gradients grow a thousandfold on their way back, or dwarf the weights."""
    return _uneven(v, early=False)


def _uneven(v: View, *, early: bool) -> Finding | None:
    ratios = relative_gradients(v)
    if ratios is None:
        return None
    names, table = ratios
    typical = np.exp(np.median(np.log(table), axis=0))  # over the sampled epochs
    low, high = int(typical.argmin()), int(typical.argmax())
    ratio = float(typical[high] / typical[low])
    if early:
        if low > high or ratio < LAYER_RATIO:
            return None
        reason = (
            f"relative to its weights, the gradient of {names[low]!r} is {ratio:.2g} times smaller than that of "
            f"{names[high]!r} (median over {len(table)} epochs)"
        )
        step = "use hl.nn.ReLU() or hl.nn.GELU() with hl.nn.LayerNorm between the layers, or fewer layers"
        numbers: Numbers = {"layer": names[low], "ratio": ratio}
        return Finding("vanishing_gradients", "warning", reason, step, numbers)
    if not (high < low and ratio >= LAYER_RATIO) and typical[high] < HUGE_GRADIENT:
        return None
    if _large_rate(v):  # which throws the weights to where gradients are like that
        return None
    reason = (
        f"the gradient of {names[high]!r} is {typical[high]:.3g} times its weights, and {ratio:.2g} times that of "
        f"{names[low]!r} (median over {len(table)} epochs)"
    )
    numbers = {"layer": names[high], "ratio": ratio, "relative": float(typical[high])}
    clipped = v.setup is not None and v.setup.clip_norm is not None
    step = (
        "put hl.nn.LayerNorm between the layers" if clipped else "clip them: hl.Trainer(..., clip_norm=1.0)"
    )
    return Finding("exploding_gradients", "warning", reason, step, numbers)


def relative_gradients(v: View) -> tuple[list[str], Any] | None:
    """|gradient| / |weights| of the matrices of linear layers: their names, and (epochs, layers). None where
    too little is known. Exact zeros tell of frozen layers or dead units, not of vanishing."""
    if v.evidence is None or not v.evidence.norms:
        return None
    parameters = v.evidence.parameters
    which = [i for i, p in enumerate(parameters) if p.matrix and p.op in ("linear", "matmul")]
    rows = []
    for sample in v.evidence.norms:
        pairs = [(sample.gradients[i], sample.weights[i]) for i in which]
        rows.append([g / w if g and w else np.nan for g, w in pairs])
    table = np.array(rows, np.float64).reshape(len(rows), len(which))
    kept = np.flatnonzero(np.isfinite(table).all(axis=0))
    return ([parameters[which[i]].name for i in kept], table[:, kept]) if kept.size else None
