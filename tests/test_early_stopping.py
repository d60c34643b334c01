# SPDX-License-Identifier: Apache-2.0
"""When runs stop: tables of metrics against the epoch after which Keras would stop.

Against Keras itself, on random sequences: tests/interop/test_early_stopping.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from hotloop.early_stopping import BestEpoch, EarlyStopping, Patience, direction, improves

NAN, INF = float("nan"), float("inf")


def stops_after(rule: EarlyStopping, values: list[float], monitor: str = "val_loss") -> int | None:
    patience = Patience(rule, monitor)
    for epoch, value in enumerate(values, start=1):
        if patience.should_stop(epoch, value):
            return epoch
    return None


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        ({"patience": 2}, [3, 2, 2.5, 2.5, 2.5], 4),
        ({"patience": 2}, [3, 2, 2.5, 1.9, 2.5, 2.5], 6),
        ({"patience": 2}, [3, 2, 1, 0.5], None),
        ({"patience": 0}, [3, 2, 2], 3),
        ({"patience": 0}, [NAN, NAN], 2),  # never after the first epoch
        ({"patience": 1}, [3, 3], 2),  # equal is not better
        ({"patience": 2, "min_delta": 0.5}, [3, 2.8, 2.6], 3),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.4, 2.2, 1.8], None),
        ({"patience": 2, "mode": "max"}, [1, 2, 3, 2.9, 2.9], 5),
        # Improvements above the baseline do not renew patience, but no improving epoch is the last.
        ({"patience": 2, "baseline": 1.0}, [3, 2, 1.5, 1.6], 4),
        ({"patience": 2, "baseline": 2.5}, [3, 2, 2.1, 2.1], 4),
        ({"patience": 1, "start_from_epoch": 3}, [1, 2, 3, 4, 5], 5),
        ({"patience": 2}, [NAN, 1, NAN, NAN], 4),
        ({"patience": 2}, [-INF, 1, 0.5, 0.4], None),  # an infinite value is never the best
        ({"patience": 2}, [1, -INF, -INF], 3),
        ({"patience": 2}, [NAN, NAN, NAN, NAN], 3),  # the first epoch that counts is not waited for
        ({"patience": 2, "start_from_epoch": 2}, [1, 1, NAN, NAN, NAN], 5),
        ({"patience": 2, "baseline": 1.0}, [NAN, NAN, NAN], 2),  # but here, since it misses the baseline
    ],
)  # fmt: skip
def test_stops_like_keras(rule: dict[str, Any], values: list[float], expected: int | None) -> None:
    assert stops_after(EarlyStopping(**rule), values) == expected


def test_direction_follows_the_metric() -> None:
    assert direction("val_accuracy") == "max"
    assert direction("val_r2") == "max"
    assert direction("val_loss") == "min"
    assert direction("mae") == "min"
    assert direction("test_loss") == "min"
    for scorer in ("val_f1_macro", "val_neg_log_loss", "val_neg_mean_squared_error", "val_top5_accuracy"):
        assert direction(scorer) == "max"
    assert direction("val_loss", "max") == "max"
    assert stops_after(EarlyStopping(patience=1), [0.5, 0.6, 0.6], "val_accuracy") == 3


def test_best_epoch_is_the_first_of_equals_and_never_nan() -> None:
    best = BestEpoch("val_loss")
    updates = [
        best.update(epoch, value) for epoch, value in enumerate([NAN, 2.0, 1.0, 1.0, NAN, INF], start=1)
    ]
    assert updates == [False, True, True, False, False, False]
    assert (best.epoch, best.value) == (3, 1.0)


def test_improves_needs_more_than_min_delta() -> None:
    assert not improves(1.5, 2.0, "min", 0.5)
    assert improves(1.49, 2.0, "min", 0.5)
    assert improves(2.51, 2.0, "max", 0.5)
    assert not improves(NAN, None, "min")


@pytest.mark.parametrize(
    "bad",
    [
        {"patience": -1}, {"patience": 1.5}, {"patience": True}, {"min_delta": -0.1}, {"min_delta": NAN},
        {"mode": "up"}, {"baseline": INF}, {"start_from_epoch": -1},
    ],
)  # fmt: skip
def test_bad_arguments(bad: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"\[EarlyStopping\] {next(iter(bad))}"):
        EarlyStopping(**bad)
