# SPDX-License-Identifier: Apache-2.0
"""Preprocessing a table beside scikit-learn's pipelines: python -m bench.preprocess [--save]

A million rows, 20 columns of numbers (1 % missing) or one of text (50 categories), fit and transform in
alternating rounds on one thread. Both give float32 (theirs after a cast, where it gives float64) and must
agree first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from bench._harness import Row, machine, save, table
from hotloop.benchmarks.harness import measure_limits
from hotloop.data import Preprocessor

ROWS, COLUMNS, CATEGORIES = 1_000_000, 20, 50
Calls = dict[str, Callable[[], Any]]


def numbers() -> tuple[str, Any, Any, Any]:
    """The setting, the table, and both ways to fit it."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (ROWS, COLUMNS))
    x[rng.random(x.shape) < 0.01] = np.nan
    return (
        f"{COLUMNS} columns of numbers",
        x,
        lambda: Preprocessor.fit(x, indicator=False),
        lambda: make_pipeline(SimpleImputer(strategy="median"), StandardScaler()).fit(x),
    )


def text() -> tuple[str, Any, Any, Any]:
    """As `numbers`, for one column of text."""
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(0)
    words = [f"category {i:02d}" for i in rng.integers(0, CATEGORIES, ROWS)]
    x = np.array(words, object).reshape(-1, 1)
    return (
        f"text, {CATEGORIES} categories, one-hot",
        x,
        lambda: Preprocessor.fit(x, text="onehot"),
        lambda: OneHotEncoder(sparse_output=False, dtype=np.float32).fit(x),
    )


def measure(setting: str, x: Any, ours: Any, theirs: Any, rounds: int) -> list[Row]:
    mine, other = ours(), theirs()
    np.testing.assert_allclose(mine.transform(x[:1000]), other.transform(x[:1000]), rtol=1e-6, atol=1e-6)
    calls: dict[str, Calls] = {
        "fit": {"hotloop": ours, "scikit-learn": theirs},
        "transform": {
            "hotloop": lambda: mine.transform(x),
            "scikit-learn": lambda: other.transform(x).astype(np.float32, copy=False),
        },
    }
    rows = []
    for what, contestants in calls.items():
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, call in contestants.items():
                begin = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begin)
        best = min(times["scikit-learn"])
        rows += [
            Row(f"{setting}: {what}", name, tuple(t), {"of_scikit_learn": min(t) / best})
            for name, t in times.items()
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-preprocess.json")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = [row for make in (numbers, text) for row in measure(*make(), arguments.rounds)]
    lines = [
        [row.setting, row.contestant, f"{row.best * 1e3:.0f}", f"{row.extra['of_scikit_learn']:.2f}"]
        for row in rows
    ]
    print(table([f"{ROWS:,} rows", "library", "ms", "of scikit-learn"], lines))
    if arguments.save:
        print(f"saved {save('preprocess', rows, machine(asdict(measure_limits())))}")


if __name__ == "__main__":
    main()
