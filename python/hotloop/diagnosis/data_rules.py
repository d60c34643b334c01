# SPDX-License-Identifier: Apache-2.0
"""Rules about what the model was given: the scale of inputs, constant columns, uneven classes."""

from __future__ import annotations

from hotloop.diagnosis.finding import Finding, Numbers
from hotloop.diagnosis.view import View, percent

#: A column's |mean| or standard deviation above this, or all standard deviations below that.
LARGE_SCALE, SMALL_SCALE = 20.0, 0.01
#: Share of columns that may be constant 0, as the borders of images are.
CONSTANT_ZEROS = 0.5
#: A class this rare, with this few hits among at least so many rows, is ignored.
RARE, IGNORED, MIN_SEEN = 1 / 3, 0.1, 5


def inputs_not_scaled(v: View) -> Finding | None:
    """A column that is far from mean 0 and deviation 1 rules the first layer."""
    for scale in () if v.evidence is None else v.evidence.inputs:
        large = max(scale.mean, scale.std_max) > LARGE_SCALE
        small = 0 < scale.std_max < SMALL_SCALE
        if scale.normalized or not (large or small):
            continue
        reason = (
            f"input {scale.name!r} has columns with means up to {scale.mean:.3g} and standard deviations from "
            f"{scale.std_min:.3g} to {scale.std_max:.3g}, most in column {scale.worst}; networks expect 0 and 1"
        )
        numbers: Numbers = {
            "input": scale.name, "mean": scale.mean, "std_min": scale.std_min, "std_max": scale.std_max,
            "column": scale.worst,
        }  # fmt: skip
        step = "standardise: X = (X - X_train.mean(0)) / X_train.std(0), or let hl.data.Preprocessor do it"
        return Finding("inputs_not_scaled", "warning", reason, step, numbers)
    return None


def constant_columns(v: View) -> Finding | None:
    """Columns that tell nothing: a constant that is not 0, or zeros in most columns."""
    for scale in () if v.evidence is None else v.evidence.inputs:
        many = scale.constant > CONSTANT_ZEROS * scale.columns
        if scale.columns < 2 or not (scale.constant_nonzero or many):
            continue
        reason = (
            f"{scale.constant} of the {scale.columns} columns of input {scale.name!r} are constant in the "
            f"training rows, the first is column {scale.first_constant}"
        )
        numbers: Numbers = {"input": scale.name, "constant": scale.constant, "columns": scale.columns}
        step = "leave them out: X = X[:, X_train.std(0) > 0]"
        return Finding("constant_columns", "advice", reason, step, numbers)
    return None


def class_ignored(v: View) -> Finding | None:
    """A rare class that the model hardly ever predicts, because the frequent ones outweigh it."""
    evidence = v.evidence
    if evidence is None or evidence.train.classes is None or evidence.look is None:
        return None
    counts, hits, seen = evidence.train.classes, evidence.look.hits, evidence.look.seen
    if hits is None or seen is None:
        return None
    most = max(counts)
    rare = [c for c, n in enumerate(counts) if 0 < n <= RARE * most and seen[c] >= MIN_SEEN]
    ignored = [c for c in rare if hits[c] <= IGNORED * seen[c]]
    if not ignored:
        return None
    worst = min(ignored, key=lambda c: counts[c])
    reason = (
        f"class {worst} has {counts[worst]} of {evidence.train.rows} training rows "
        f"({percent(counts[worst] / evidence.train.rows)}), and the model finds {hits[worst]} of the {seen[worst]} "
        f"of them looked at"
    )
    if len(ignored) > 1:
        reason += f"; likewise {len(ignored) - 1} more"
    numbers: Numbers = {"class": worst, "rows": counts[worst], "hits": hits[worst], "seen": seen[worst]}
    return Finding("class_ignored", "warning", reason, _weights(v, counts), numbers)


def _weights(v: View, counts: tuple[int, ...]) -> str:
    assert v.setup is not None  # there is evidence
    if v.setup.class_weight:
        return "give its rows a larger sample_weight in fit, or collect more of them"
    if v.setup.loss == "bce_with_logits":
        weight = counts[0] / max(counts[1], 1)
        return f"weigh it up: loss=hl.losses.BCEWithLogits(pos_weight={weight:.3g})"
    return 'weigh the classes: loss=hl.losses.CrossEntropy(class_weight="balanced")'
