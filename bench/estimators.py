# SPDX-License-Identifier: Apache-2.0
"""The estimators beside scikit-learn's networks: python -m bench.estimators [--save]

Whole fits at the same settings, of data sets that scikit-learn brings along. Everybody draws the same weights from the
same seed; before anything is timed, the losses after five epochs must agree to 2 %, as the batches are drawn in another
order. Contestants take turns, scikit-learn with the threads of its BLAS and with one; the ratio is the median over rounds of
the ratio within a round, to the faster of its two.
Target: at least 15 times faster on digits.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from sklearn import datasets, model_selection, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale
from threadpoolctl import threadpool_limits

import hotloop as hl
from bench._harness import Row, machine, save, settle, table
from hotloop.benchmarks.harness import measure_limits

ROUNDS = 7
TARGETS = {"digits": 15.0}
BASE = "scikit-learn"


@dataclass(frozen=True)
class Setting:
    """One data set and the options of both estimators."""

    name: str
    data: str
    options: dict[str, Any] = field(default_factory=dict)
    folds: bool = False  # cross-validated instead of fitted once

    def load(self) -> tuple[Any, Any]:
        """X as it comes, but standardised for regression; y (n,)."""
        X, y = getattr(datasets, f"load_{self.data}")(return_X_y=True)
        return (scale(X), scale(y)) if self.data == "diabetes" else (X, y)

    def estimators(self, **options: Any) -> dict[str, Any]:
        """The contestants, not fitted."""
        kind = "MLPRegressor" if self.data == "diabetes" else "MLPClassifier"
        given = {"random_state": 0, **self.options, **options}
        ours, theirs = getattr(hl, kind), getattr(neural_network, kind)
        return {"hotloop": ours(**given), "hotloop, 1 thread": ours(n_jobs=1, **given), BASE: theirs(**given)}


SETTINGS = (
    Setting("digits", "digits"),
    Setting("digits, sgd", "digits", {"solver": "sgd", "learning_rate_init": 0.01}),
    Setting("digits, lbfgs", "digits", {"solver": "lbfgs"}),
    Setting("digits, early stopping", "digits", {"early_stopping": True}),
    Setting("digits, 256-128", "digits", {"hidden_layer_sizes": (256, 128)}),
    Setting("iris", "iris"),
    Setting("iris, lbfgs", "iris", {"solver": "lbfgs"}),
    Setting("diabetes", "diabetes"),
    Setting("digits, 5 folds", "digits", folds=True),
)


def check(setting: Setting, X: Any, y: Any) -> None:
    """Equal results first: the losses after five epochs, or after SciPy's own stopping."""
    options = {} if setting.options.get("solver") == "lbfgs" else {"max_iter": 5}
    losses = {name: model.fit(X, y).loss_ for name, model in setting.estimators(**options).items()}
    if options and abs(losses["hotloop"] / losses[BASE] - 1) > 0.02:
        raise SystemExit(f"[bench] {setting.name}: the losses differ: {losses}")


def works(setting: Setting, X: Any, y: Any) -> dict[str, Callable[[], Any]]:
    """What each contestant is timed at."""
    models = setting.estimators()

    def alone(work: Callable[[], Any]) -> Any:
        with threadpool_limits(1):
            return work()

    if setting.folds:
        ours, theirs = models["hotloop"], models[BASE]
        todo = {
            "hotloop": partial(hl.cross_validate, ours, X, y),
            "hotloop, 1 thread": partial(hl.cross_validate, ours, X, y, n_jobs=1),
            BASE: partial(model_selection.cross_validate, theirs, X, y, n_jobs=2),
        }
        one = partial(model_selection.cross_validate, theirs, X, y)
    else:
        todo = {name: partial(model.fit, X, y) for name, model in models.items()}
        one = partial(models[BASE].fit, X, y)
    return {**todo, f"{BASE}, 1 thread": partial(alone, one)}


def measure(setting: Setting) -> list[Row]:
    """Seconds of a whole fit, for each contestant in turn."""
    X, y = setting.load()
    check(setting, X, y)
    todo = works(setting, X, y)
    seconds: dict[str, list[float]] = {name: [] for name in todo}
    done: dict[str, Any] = {}
    for turn in range(ROUNDS + 1):  # the first one warms up
        for name, work in todo.items():
            settle()
            begin = time.perf_counter()
            done[name] = work()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    best = [min(pair) for pair in zip(seconds[BASE], seconds[f"{BASE}, 1 thread"], strict=True)]
    epochs = {n: getattr(model, "n_iter_", None) for n, model in done.items()}
    return [
        Row(setting.name, name, tuple(times), {
            "epochs": epochs[name],
            "times_faster": round(statistics.median(b / a for a, b in zip(times, best, strict=True)), 2),
        })
        for name, times in seconds.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-estimators.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows, lines = [], []
    for setting in SETTINGS:
        found = measure(setting)
        rows += found
        by_name = {row.contestant: row for row in found}
        ratios = [by_name[name].extra["times_faster"] for name in ("hotloop", "hotloop, 1 thread")]
        missed = setting.name in TARGETS and max(ratios) < TARGETS[setting.name]
        ms = [f"{row.median * 1e3:.1f}" for row in found]
        lines.append([setting.name, *ms, *(f"{r:.1f}" for r in ratios), "missed" if missed else ""])
        print(lines[-1], flush=True)
    header = ["fit", "ms", "ms, 1 thread", "ms, scikit-learn", "its 1 thread", "x", "x, 1 thread", "target"]
    print(table(header, lines))
    if arguments.save:
        print(f"saved {save('estimators', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
