# SPDX-License-Identifier: Apache-2.0
"""Splits: exact sizes, classes within one row of their share, the same rows for ever, and the seal."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotloop as hl
from hotloop.data.dealing import round_table
from hotloop.data.split import SealedData, Split, split
from hotloop.errors import HotloopWarning, ShapeError


def same(a: Split, b: Split) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.rows, b.rows, strict=True))


def test_sizes_are_exact_and_parts_disjoint() -> None:
    X = np.arange(1797 * 2).reshape(1797, 2)
    data = split(X, np.arange(1797) % 10)
    assert [len(part) for part in data.rows] == [1258, 270, 269]  # remainders .9, .55, .55 of 1797 rows
    assert np.array_equal(np.sort(np.concatenate(data.rows)), np.arange(1797))
    np.testing.assert_array_equal(data.train.X, X[data.rows[0]])
    np.testing.assert_array_equal(data.validation.y, data.rows[1] % 10)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12).filter(lambda rows: sum(rows) >= 3),
    st.tuples(st.floats(0.02, 0.98), st.floats(0.02, 0.98)),
)
def test_rounding_keeps_both_sums_and_every_cell_within_one_row(
    class_rows: list[int], cuts: tuple[float, float]
) -> None:
    n = sum(class_rows)
    first = 1 + int(cuts[0] * (n - 2))
    second = 1 + int(cuts[1] * (n - first - 1))
    parts = [first, second, n - first - second]
    table = round_table(np.array(class_rows), parts)
    assert table.sum(axis=0).tolist() == parts
    assert table.sum(axis=1).tolist() == class_rows
    assert (np.abs(table - np.outer(class_rows, parts) / n) < 1).all()
    assert (table >= 0).all()


@given(st.integers(0, 2**64), st.integers(20, 200), st.integers(2, 8))
def test_classes_keep_their_shares(seed: int, n: int, n_classes: int) -> None:
    y = np.random.Generator(np.random.Philox(seed)).integers(0, n_classes, n)
    data = split(np.zeros((n, 1)), y, stratify=True, seed=seed % 1000)
    for rows in data.rows:
        for label in range(n_classes):
            share = (y == label).sum() * len(rows) / n
            assert abs((y[rows] == label).sum() - share) < 1


def test_the_same_seed_gives_the_same_rows_on_every_machine() -> None:
    y = np.arange(20) % 2
    data = split(np.zeros((20, 1)), y, seed=0)
    again = split(np.ones((20, 4), np.float32), y.astype(bool), seed=0)
    assert same(data, again)
    assert not same(data, split(np.zeros((20, 1)), y, seed=1))
    assert not np.array_equal(data.rows[0], np.sort(data.rows[0]))
    # written down once: a change of these numbers breaks every published result
    assert [
        rows.tolist() for rows in split(np.zeros((8, 1)), np.zeros(8), sizes=(4, 2, 2), seed=7).rows
    ] == EIGHT


EIGHT = [[7, 3, 1, 2], [4, 0], [5, 6]]


def test_mappings_and_lists() -> None:
    X = {"num": np.arange(20.0).reshape(10, 2), "cat": list(range(10))}
    data = hl.split(X, {"y": np.arange(10.0)}, seed=3)
    assert data.train.X["num"].shape == (7, 2)
    np.testing.assert_array_equal(data.train.X["cat"], data.train.y["y"])
    _, y_test = data.test.open("check")
    np.testing.assert_array_equal(y_test["y"], data.rows[2])


def test_auto_stratifies_labels_and_nothing_else() -> None:
    n, X = 100, np.zeros((100, 1))
    labels = np.repeat([0, 1], [90, 10])
    even = split(X, labels, seed=5)
    counts = [(labels[rows] == 1).sum() for rows in even.rows]
    assert counts[0] == 7
    assert sorted(counts[1:]) == [1, 2]
    assert same(even, split(X, labels, stratify=True, seed=5))
    assert same(even, split(X, np.array(["a", "b"])[labels], seed=5))
    assert same(even, split(X, np.zeros(n), stratify=labels, seed=5))
    plain = split(X, labels, stratify=False, seed=5)
    assert not same(plain, even)
    for no_labels in (labels.astype(float), np.arange(n), labels.reshape(-1, 1)):
        assert same(plain, split(X, no_labels, seed=5))


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"sizes": (0.5, 0.5)}, ValueError, "three numbers"),
        ({"sizes": (0.5, 0.3, 0.3)}, ValueError, "add up to 1"),
        ({"sizes": (1.2, -0.1, -0.1)}, ValueError, r"sizes\[0\]"),
        ({"sizes": (0.9, 0.1, 0.0)}, ShapeError, "every part needs at least one"),
        ({"sizes": (5, 3, 3)}, ValueError, "add up to 10"),
        ({"sizes": (10, 0, 0)}, ShapeError, "at least one"),
        ({"sizes": ("a", 0.1, 0.1)}, TypeError, "must be a number"),
        ({"seed": -1}, ValueError, "seed must be >= 0"),
        ({"seed": 1.5}, TypeError, "seed"),
        ({"stratify": "classes"}, ValueError, "'auto', True, False or labels"),
        ({"stratify": [0, 1]}, ShapeError, r"shape \(10,\), got \(2,\)"),
        ({"y": np.zeros(9)}, ShapeError, "y has 9 rows, X has 10"),
        ({"X": {"a": np.zeros(10), "b": np.zeros(4)}}, ShapeError, r"X\['b'\] has 4 rows"),
        ({"X": {}}, ShapeError, "empty mapping"),
        ({"X": 3.0}, ShapeError, "must have rows"),
        ({"y": np.zeros((10, 2)), "stratify": True}, ShapeError, "needs one target"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        split(**{"X": np.zeros((10, 1)), "y": np.zeros(10), **kwargs})


# --- the seal -------------------------------------------------------------------------------------


def sealed() -> SealedData:
    return split(np.arange(20.0).reshape(20, 1), np.arange(20.0)).test


def test_each_look_is_counted_and_reported() -> None:
    test = sealed()
    assert len(test) == 3
    assert (test.openings, test.log) == (0, ())
    X, y = test.open("final")
    np.testing.assert_array_equal(X[:, 0], y)
    assert test.log == ("final",)
    assert repr(test) == "SealedData(3 rows, opened 1 time: final)"
    with pytest.warns(HotloopWarning, match=r"opened 2 times \(final, again\)"):
        test.open("again")
    assert test.openings == 2


def test_unpacking_counts_as_a_look() -> None:
    test = sealed()
    X, y = test
    assert len(X) == len(y) == 3
    assert test.log == ("unpacked",)


@pytest.mark.parametrize("name", ["X", "y"])
def test_the_rows_are_not_lying_about(name: str) -> None:
    test = sealed()
    with pytest.raises(AttributeError, match=r"test\.open\('purpose'\), which is counted"):
        getattr(test, name)
    with pytest.raises(AttributeError, match="no attribute 'shape'"):
        test.shape  # noqa: B018
    assert test.openings == 0


def test_the_trainer_opens_it() -> None:
    X = np.random.Generator(np.random.Philox(0)).normal(size=(60, 3)).astype(np.float32)
    data = split(X, (X[:, 0] > 0).astype(int))
    trainer = hl.Trainer(hl.nn.Linear(3, 2), loss="cross_entropy")
    trainer.fit(*data.train, validation=data.validation, epochs=2)
    result = trainer.evaluate(data.test)
    assert data.test.log == ("Trainer.evaluate",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HotloopWarning)
        assert result == trainer.evaluate(*data.test.open("check"))
