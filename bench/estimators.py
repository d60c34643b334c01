# SPDX-License-Identifier: Apache-2.0
"""The estimators beside scikit-learn's networks: python -m bench.estimators [--save]

Whole fits at the same settings, of data sets that scikit-learn brings along. Everybody draws the same weights from the
same seed; before anything is timed, the losses after five epochs in the order of the rows must agree to 0.1 %.
Contestants take turns, scikit-learn with one thread and with all that its BLAS takes, unless five epochs took half as
long again with those. The ratio is the median over rounds of the ratio within a round, to the faster of its two; that
of processor seconds, one thread against one, is what a busy machine changes least.
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
from bench._harness import Row, machine, save, settle, table, timed
from hotloop.benchmarks.harness import measure_limits

ROUNDS = 7
TARGETS = {"digits": 15.0}
BASE, BASE_ONE = "scikit-learn", "scikit-learn, 1 thread"


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
    Setting("digits sgd", "digits", {"solver": "sgd", "learning_rate_init": 0.01}),
    Setting("digits lbfgs", "digits", {"solver": "lbfgs"}),
    Setting("digits early stopping", "digits", {"early_stopping": True}),
    Setting("digits 256-128", "digits", {"hidden_layer_sizes": (256, 128)}),
    Setting("iris", "iris"),
    Setting("iris lbfgs", "iris", {"solver": "lbfgs"}),
    Setting("diabetes", "diabetes"),
    Setting("digits 5 folds", "digits", folds=True),
)


def check(setting: Setting, X: Any, y: Any) -> bool:
    """Equal results first: the losses after five epochs over the rows in order. Whether scikit-learn gains nothing from
    the threads of its BLAS."""
    options = {"max_iter": 5, "shuffle": False, "early_stopping": False}
    models = setting.estimators(**options)
    losses = {name: model.fit(X, y).loss_ for name, model in models.items()}
    if abs(losses["hotloop"] / losses[BASE] - 1) > 1e-3:
        raise SystemExit(f"[bench] {setting.name}: the losses differ: {losses}")
    settle()
    free = timed(lambda: models[BASE].fit(X, y))
    with threadpool_limits(1):
        return timed(lambda: models[BASE].fit(X, y)) < free / 1.5


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
    return {**todo, BASE_ONE: partial(alone, one)}


def measure(setting: Setting, rounds: int) -> list[Row]:
    """Seconds of a whole fit, for each contestant in turn."""
    X, y = setting.load()
    alone = check(setting, X, y)
    todo = works(setting, X, y)
    if alone and not setting.folds:
        del todo[BASE]
    walls: dict[str, list[float]] = {name: [] for name in todo}
    cpus: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(rounds + 1):  # the first one warms up
        for name, work in todo.items():
            settle()
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            walls[name].append(time.perf_counter() - wall)
            cpus[name].append(time.process_time() - cpu)
    rows = []
    for name in todo:
        best = [
            min(times) for times in zip(*(walls[n][1:] for n in (BASE, BASE_ONE) if n in todo), strict=True)
        ]
        extra = {
            "cpu_seconds": [round(s, 6) for s in cpus[name][1:]],
            "times_faster": paired(best, walls[name][1:]),
            "cpu_ratio": paired(cpus[BASE_ONE][1:], cpus[name][1:]),
        }
        rows.append(Row(setting.name, name, tuple(walls[name][1:]), extra))
    return rows


def paired(theirs: list[float], ours: list[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-estimators.json")
    parser.add_argument("--fits", help="names such as digits,iris; all by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    chosen = arguments.fits.split(",") if arguments.fits else [setting.name for setting in SETTINGS]
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows, lines = [], []
    for setting in (s for s in SETTINGS if s.name in chosen):
        found = measure(setting, arguments.rounds)
        rows += found
        by_name = {row.contestant: row for row in found}
        ours = by_name["hotloop"], by_name["hotloop, 1 thread"]
        faster = max(row.extra["times_faster"] for row in ours)
        limit = TARGETS.get(setting.name, 0.0)
        ms = [f"{row.median * 1e3:.1f}" for row in (*ours, by_name[BASE_ONE])]
        ms.append(f"{by_name[BASE].median * 1e3:.1f}" if BASE in by_name else "slower")
        cpu = ours[1].extra["cpu_ratio"]
        lines.append([setting.name, *ms, f"{faster:.1f}", f"{cpu:.1f}", "missed" if faster < limit else ""])
        print(*lines[-1], flush=True)
    header = ["fit", "ms", "ms, 1 thread", "scikit-learn, 1", "all", "x", "cpu x, 1", "target"]
    print(table(header, lines))
    if arguments.save:
        print(f"saved {save('estimators', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
