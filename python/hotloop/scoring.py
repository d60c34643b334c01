# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's scorers by name, fed with predictions that are already there.

A scorer wants a fitted estimator and asks it for labels, probabilities or decisions; ours answers from the raw
outputs that stand in place of X. So every scorer keeps its own rules, and larger is better for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hotloop import classes

Array = NDArray[Any]
#: How outputs are read: as logits of either kind, as classes without probabilities, or as they are.
Task = Literal["cross_entropy", "bce_with_logits", "labels", "regression"]


def _module() -> Any:
    from sklearn import metrics  # an extra, and slow to import: only for those who name a scorer

    return metrics


def check_name(name: str, native: Sequence[str]) -> None:
    """Raises `ValueError` unless scikit-learn has such a scorer, with the nearest names there are, and
    `ImportError` without scikit-learn. ``native`` are the names that need none."""
    ours = ", ".join(native)
    try:
        names = list(_module().get_scorer_names())
    except ImportError:
        raise ImportError(
            f"[metrics] {name!r} is none of ours ({ours}), and scikit-learn, whose scorers have names too, is not "
            "installed; correct the name, or: pip install 'hotloop[sklearn]'"
        ) from None
    if name not in names:
        import difflib

        near = difflib.get_close_matches(name, {*native, *names}, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "sklearn.metrics.get_scorer_names() has all"
        raise ValueError(
            f"[metrics] unknown metric {name!r}; allowed: auto, {ours}, and scikit-learn's scorers; {hint}"
        )


def score(
    names: Iterable[str], task: Task, outputs: Array, target: Array, weight: Array | None
) -> dict[str, float | Exception]:
    """Each scorer's value for raw outputs (n, ...), targets and row weights (n,), or why there is none.

    Targets that are probabilities count as their most likely class, (n, 1) as (n,). Scorers that take no
    weights get none.
    """
    estimator = _ESTIMATORS[task](task, outputs)
    y = _target(target, task)
    found: dict[str, float | Exception] = {}
    for name in names:
        scorer = _module().get_scorer(name)
        try:
            found[name] = float(_call(scorer, estimator, outputs, y, weight))
        except (AttributeError, TypeError, ValueError) as error:  # no such predictions, or not of such data
            found[name] = error
    return found


def _call(scorer: Any, estimator: Any, outputs: Array, y: Array, weight: Array | None) -> Any:
    if weight is not None:
        try:
            return scorer(estimator, outputs, y, sample_weight=weight)
        except TypeError:  # the way that scikit-learn says that it takes no weights
            pass
    return scorer(estimator, outputs, y)


def _target(target: Array, task: Task) -> Array:
    if task == "cross_entropy" and target.ndim == 2:
        return np.asarray(target.argmax(axis=1))
    y = target[:, 0] if target.ndim == 2 and target.shape[1] == 1 else target
    if task == "bce_with_logits" and np.isin(y, (0, 1)).all():
        return np.asarray(y, np.int64)
    return y


class _Classifier:
    """Labels from raw outputs (n, ...)."""

    def __init__(self, task: Task, outputs: Array) -> None:
        columns = outputs.shape[1] if outputs.ndim == 2 else 1
        if task == "labels":
            task = "bce_with_logits" if columns == 1 else "cross_entropy"
        self._kind = task
        self._decides = task == "bce_with_logits" or columns == 2
        several = task == "bce_with_logits" and columns > 1  # labels of their own, 0 or 1 each
        #: One per class, as scikit-learn has it; for several labels, those of each.
        self.classes_: Any = [np.arange(2)] * columns if several else np.arange(max(columns, 2))

    def __sklearn_tags__(self) -> Any:
        return _tags("classifier")

    def predict(self, outputs: Array) -> Array:
        return classes.labels(outputs, self._kind)


class _Probabilistic(_Classifier):
    """The same, with probabilities, and where a class has a logit of its own, that as decision: it does not
    round to 1 as a probability does. (Of several exclusive classes only differences of logits mean something.)
    """

    def predict_proba(self, outputs: Array) -> Array:
        return classes.probabilities(outputs, self._kind)

    @property
    def decision_function(self) -> Callable[[Array], Array]:
        if not self._decides:
            raise AttributeError("decision_function")

        def decision_function(outputs: Array) -> Array:
            z = outputs.astype(np.float64)
            if self._kind == "cross_entropy":
                return np.asarray(z[:, 1] - z[:, 0])
            return z.ravel() if z.size == len(z) else z

        return decision_function


class _Regressor:
    """The outputs themselves; (n, 1) as (n,)."""

    def __init__(self, task: Task, outputs: Array) -> None:
        pass

    def __sklearn_tags__(self) -> Any:
        return _tags("regressor")

    def predict(self, outputs: Array) -> Array:
        return outputs[:, 0] if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs


@functools.cache
def _tags(kind: str) -> Any:
    from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags

    own = {
        "classifier": {"classifier_tags": ClassifierTags()},
        "regressor": {"regressor_tags": RegressorTags()},
    }
    return Tags(estimator_type=kind, target_tags=TargetTags(required=True), **own[kind])


_ESTIMATORS: dict[Task, Any] = {
    "cross_entropy": _Probabilistic,
    "bce_with_logits": _Probabilistic,
    "labels": _Classifier,
    "regression": _Regressor,
}
