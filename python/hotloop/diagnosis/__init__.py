# SPDX-License-Identifier: Apache-2.0
"""Diagnosis: what went wrong in a run, with a reason in figures and one thing to do next.

Pure functions of the `History` and the evidence in it: a rule looks at a `View` and gives a `Finding` or
None. docs/diagnosis.md explains each rule and its thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hotloop.diagnosis import data_rules, fit_rules, optimizer_rules
from hotloop.diagnosis.finding import Diagnosis, Finding, Severity
from hotloop.diagnosis.view import View

if TYPE_CHECKING:
    from hotloop.history import History
    from hotloop.probes.learning_curve import LearningCurve

__all__ = ["RULES", "Diagnosis", "Finding", "Severity", "View", "diagnose"]

Rule = Callable[[View], "Finding | None"]

#: Every rule, causes before what they cause: of two equally severe findings the earlier one comes first.
RULES: tuple[Rule, ...] = (
    optimizer_rules.diverged,
    data_rules.inputs_not_scaled,
    optimizer_rules.exploding_gradients,
    optimizer_rules.learning_rate_too_high,
    optimizer_rules.vanishing_gradients,
    optimizer_rules.dead_relus,
    optimizer_rules.learning_rate_too_low,
    data_rules.class_ignored,
    fit_rules.overfitting,
    fit_rules.stopped_too_early,
    fit_rules.still_improving,
    fit_rules.underfitting,
    fit_rules.validation_too_small,
    fit_rules.more_data,
    data_rules.constant_columns,
)

#: What a finding explains, so that nobody is told to cure the symptom. All of it stands later in `RULES`.
EXPLAINS: dict[str, frozenset[str]] = {
    "diverged": frozenset(
        {"exploding_gradients", "learning_rate_too_high", "dead_relus", "class_ignored", "overfitting",
         "still_improving", "underfitting", "validation_too_small"}
    ),
    "inputs_not_scaled": frozenset(
        {"exploding_gradients", "learning_rate_too_high", "dead_relus", "learning_rate_too_low", "underfitting"}
    ),
    "exploding_gradients": frozenset({"learning_rate_too_high", "dead_relus", "underfitting"}),
    "learning_rate_too_high": frozenset(
        {"dead_relus", "class_ignored", "overfitting", "stopped_too_early", "underfitting",
         "validation_too_small"}
    ),
    "vanishing_gradients": frozenset({"learning_rate_too_low", "class_ignored", "underfitting"}),
    "dead_relus": frozenset({"learning_rate_too_low", "underfitting"}),
    "learning_rate_too_low": frozenset({"class_ignored", "still_improving", "underfitting"}),
    "class_ignored": frozenset({"underfitting"}),
    "stopped_too_early": frozenset({"underfitting"}),
    "still_improving": frozenset({"underfitting"}),
}  # fmt: skip

_ORDER = {"error": 0, "warning": 1, "advice": 2}


def diagnose(history: History, curve: LearningCurve | None = None) -> Diagnosis:
    """What went wrong in a run; an empty diagnosis if nothing did.

    Pure: ``history`` is only read. (`History.diagnosis` has a look at the finished model first, for which its
    evidence may be waiting; `History.complete` is that alone.) ``curve`` is what `Trainer.learning_curve`
    gave, if it should count.

    >>> from hotloop import History
    >>> print(diagnose(History({"loss": [1.0, 0.5]}, epochs=2)).main)
    None
    """
    view = View(history, curve)
    kept: list[Finding] = []
    explained: set[str] = set()
    for rule in RULES:
        with np.errstate(all="ignore"):  # an odd curve gives NaN, and NaN passes no threshold
            finding = rule(view)
        if finding is not None and finding.rule not in explained:
            kept.append(finding)
            explained |= EXPLAINS.get(finding.rule, frozenset())
    looked_at, missing = _coverage(view)
    return Diagnosis(tuple(sorted(kept, key=lambda f: _ORDER[f.severity])), looked_at, missing)


def _coverage(v: View) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What there was to look at, and what there was not."""
    looked_at: list[str] = []
    missing: list[str] = []

    def note(there: object, text: str, otherwise: str) -> None:
        (looked_at if there else missing).append(text if there else otherwise)

    enough = v.epochs >= 3
    note(enough, f"the curves of {v.epochs} epochs", f"trends, which take 3 epochs (here {v.epochs})")
    rows = f" ({v.val_set.rows} rows)" if v.val_set else ""
    note(v.val_name, f"validation set {v.val_name!r}{rows}", "overfitting, for want of validation data")
    evidence = v.evidence
    norms = 0 if evidence is None else len(evidence.norms)
    note(norms, f"gradients in {norms} epochs", "gradients, which were not recorded")
    note(evidence and evidence.inputs, "the scale of the inputs", "the scale of inputs, not recorded")
    look = None if evidence is None else evidence.look
    note(
        look,
        f"activations on {look.rows if look else 0} rows",
        "activations and classes, which nobody looked at while the model was as the run left it",
    )
    note(v.curve, "the learning curve", "the worth of more data; see Trainer.learning_curve")
    return tuple(looked_at), tuple(missing)
