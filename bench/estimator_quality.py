# SPDX-License-Identifier: Apache-2.0
"""Cross-validated scores beside scikit-learn's networks: python -m bench.estimator_quality [--save]

At the same settings the mean score lies within one standard error of scikit-learn's, on every data set that it brings
along; with early stopping, which holds out other rows (evenly over all classes), it is no lower than that. Features are
standardised within each fold. tests/sklearn_/test_quality.py asks the same.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

import hotloop as hl
from bench._harness import Row, machine, save, table
from hotloop.benchmarks.harness import measure_limits

DATA = ("iris", "wine", "breast_cancer", "digits", "diabetes")
SOLVERS: dict[str, dict[str, Any]] = {
    "adam": {},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05},
    "lbfgs": {"solver": "lbfgs"},
    "adam, early stopping": {"early_stopping": True, "learning_rate_init": 0.01},
}
FOLDS = 10


def scores(data: str, options: dict[str, Any], *, folds: int = FOLDS) -> list[Row]:
    """Our row and scikit-learn's: seconds of each fold's fit, and the scores."""
    X, y = getattr(datasets, f"load_{data}")(return_X_y=True)
    regression = data == "diabetes"
    kind = "MLPRegressor" if regression else "MLPClassifier"
    y = scale(y) if regression else y
    cv = (KFold if regression else StratifiedKFold)(folds, shuffle=True, random_state=0)
    rows = []
    for name, home in (("hotloop", hl), ("scikit-learn", neural_network)):
        model = make_pipeline(StandardScaler(), getattr(home, kind)(random_state=0, **options))
        found = cross_validate(model, X, y, cv=cv)
        values = found["test_score"]
        extra = {
            "scores": [round(float(v), 5) for v in values], "mean": float(values.mean()),
            "standard_error": float(values.std(ddof=1) / np.sqrt(folds)),
        }  # fmt: skip
        rows.append(Row(data, name, tuple(found["fit_time"]), extra))
    return rows


def distance(rows: list[Row]) -> float:
    """How far our mean score lies above scikit-learn's, in standard errors of its own."""
    ours, theirs = (row.extra for row in rows)
    gap = ours["mean"] - theirs["mean"]
    return 0.0 if gap == 0 else float(gap / max(theirs["standard_error"], 1e-12))


def is_as_good(solver: str, off: float) -> bool:
    """Whether a `distance` is what it should be."""
    return off >= -1 and (off <= 1 or "early stopping" in solver)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--save", action="store_true", help="write bench/results/<date>-estimator_quality.json"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows, lines = [], []
    for data in DATA:
        for solver, options in SOLVERS.items():
            found = scores(data, options)
            off = distance(found)
            means = [f"{row.extra['mean']:.4f}" for row in found]
            error = f"{found[1].extra['standard_error']:.4f}"
            lines.append(
                [data, solver, *means, error, f"{off:+.2f}", "" if is_as_good(solver, off) else "missed"]
            )
            print(lines[-1], flush=True)
            rows += [
                Row(f"{data}, {solver}", r.contestant, r.seconds, {**r.extra, "distance": round(off, 3)})
                for r in found
            ]
    print(table(["data", "solver", "hotloop", "scikit-learn", "its error", "off by", "target"], lines))
    if arguments.save:
        print(f"saved {save('estimator_quality', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
