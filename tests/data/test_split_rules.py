# SPDX-License-Identifier: Apache-2.0
"""Splits by group and by time, rows that stand in two parts, and frames in, frames out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotloop as hl
from hotloop.data import dealing
from hotloop.data.columns import as_columns
from hotloop.data.rows import fingerprints, numbered
from hotloop.data.split import Split, SplitInfo, split
from hotloop.errors import NonFiniteError, ShapeError


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def part_of(data: Split) -> np.ndarray:
    """The part (n,) of each row; every row is in exactly one."""
    out = np.full(sum(map(len, data.rows)), -1)
    for part, rows in enumerate(data.rows):
        assert (out[rows] == -1).all()
        out[rows] = part
    assert (out >= 0).all()
    return out


# --- groups ---------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(7, 60), st.integers(1, 9))
def test_no_group_is_in_two_parts_and_no_part_empty(seed: int, n_groups: int, largest: int) -> None:
    rng = generator(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, largest + 1, n_groups))
    groups = rng.permutation(groups)
    y = rng.integers(0, 3, len(groups))
    data = split(np.arange(len(groups)), y, groups=groups, seed=seed % 100)
    part = part_of(data)
    assert all(len(np.unique(part[groups == g])) == 1 for g in range(n_groups))
    assert min(map(len, data.rows)) > 0
    assert data.by == "group" and data.stratified == (len(np.unique(y)) <= len(y) // 2)


def test_groups_keep_sizes_and_classes_as_far_as_whole_groups_allow() -> None:
    rng = generator(0)
    groups = rng.integers(0, 300, 6000)
    y = (rng.uniform(size=6000) < np.where(groups % 2, 0.05, 0.35)).astype(
        int
    )  # groups differ in their classes
    data = split(np.zeros((6000, 1)), y, groups=groups)
    assert [len(r) / 6000 for r in data.rows] == pytest.approx([0.70, 0.15, 0.15], abs=0.005)
    assert [y[r].mean() for r in data.rows] == pytest.approx([y.mean()] * 3, abs=0.005)
    plain = split(np.zeros((6000, 1)), y, groups=groups, stratify=False)
    assert not plain.stratified
    assert [len(r) / 6000 for r in plain.rows] == pytest.approx([0.70, 0.15, 0.15], abs=0.005)


def test_many_single_rows_are_dealt_at_once_and_evenly() -> None:
    rng = generator(1)
    groups = np.concatenate([np.arange(20_000), np.repeat(np.arange(20_000, 20_100), 5)])
    y = rng.integers(0, 4, len(groups))
    data = split(np.zeros((len(groups), 1)), y, groups=groups, duplicates="ignore")
    part_of(data)
    assert np.abs(np.array([len(r) for r in data.rows]) - len(y) * np.array([0.7, 0.15, 0.15])).max() <= 2
    for rows in data.rows:
        assert np.abs(np.bincount(y[rows]) - np.bincount(y) * len(rows) / len(y)).max() <= 2


def test_group_order_is_random_by_the_seed() -> None:
    groups = np.repeat(np.arange(40), 5)
    first, again, other = (split(groups, groups * 1.0, groups=groups, seed=s) for s in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first.rows, again.rows, strict=True))
    assert not np.array_equal(np.sort(first.rows[2]), np.sort(other.rows[2]))
    named = split(groups, groups * 1.0, groups=[f"patient {g}" for g in groups], seed=0)
    assert set(map(len, named.rows)) == set(map(len, first.rows))


# --- time -----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(7, 200), st.integers(3, 400))
def test_time_runs_from_part_to_part_and_ties_stay_together(seed: int, n: int, n_times: int) -> None:
    time = generator(seed).integers(0, n_times, n)
    time[:3] = [0, n_times // 2 + 1, n_times + 1]  # three different ones at least
    data = split(np.arange(n), np.zeros(n), time=time)
    part_of(data)
    train, validation, test = (time[r] for r in data.rows)
    assert train.max() < validation.min() and validation.max() < test.min()
    assert all((np.diff(time[r]) >= 0).all() for r in data.rows)
    assert data.by == "time" and not data.stratified


def test_time_cuts_are_at_the_shares_if_no_tie_is_there() -> None:
    time = generator(0).permutation(1000).astype(float)
    data = split(time, time, time=time)
    assert [len(r) for r in data.rows] == [700, 150, 150]
    assert data.train.X.tolist() == list(range(700))


@pytest.mark.parametrize(
    "time",
    [
        np.array(["2026-01-03", "2026-01-01", "2026-01-02"], "M8[D]"),
        ["2026-01-03", "2026-01-01T12:00", "2026-01-02"],
        [3, 1, 2],
    ],
    ids=["dates", "ISO text", "numbers"],
)
def test_kinds_of_time(time: Any) -> None:
    data = split(np.arange(3), np.zeros(3), time=time, sizes=(1, 1, 1))
    assert [r.tolist() for r in data.rows] == [[1], [2], [0]]


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"groups": np.zeros(10)}, ShapeError, "1 groups cannot fill three parts; allowed: 3 or more"),
        ({"groups": np.zeros(9)}, ShapeError, "groups has 9 rows, X has 10"),
        ({"groups": np.zeros((10, 2))}, ShapeError, "groups must be one column"),
        ({"groups": ["a"] * 9 + [None]}, NonFiniteError, "groups has no value in row 9"),
        ({"groups": "patient"}, ValueError, "must name a column of X, which is no frame but ndarray"),
        ({"time": [1.0] * 9 + [np.nan]}, NonFiniteError, "time has no value in row 9"),
        ({"time": [1, 2] * 5}, ShapeError, "2 different times cannot make three parts"),
        ({"time": ["noon"] * 10}, ValueError, "ISO 8601 text such as 2026-11-21"),
        ({"time": range(10), "groups": range(10)}, ValueError, "give one of them"),
        ({"time": range(10), "stratify": True}, ValueError, "decides every row"),
        ({"time": range(10), "duplicates": "together"}, ValueError, "would break the order of time"),
        ({"duplicates": "drop"}, ValueError, "'report', 'together', 'ignore'"),
        ({"y": "target"}, ValueError, "y='target' must name a column of X"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=re.escape(match)):
        split(**{"X": np.arange(10), "y": np.zeros(10), **kwargs})


# --- duplicates -----------------------------------------------------------------------------------


def with_repeats(n: int, repeats: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n rows of which the last ``repeats`` say again what the first do."""
    X = generator(seed).normal(size=(n, 3))
    X[n - repeats :] = X[:repeats]
    y = (X[:, 0] > 0).astype(int)
    return X, y


def test_rows_in_two_parts_are_counted_and_the_first_pair_named() -> None:
    X, y = with_repeats(200, 30, seed=3)
    data = split(X, y)
    part = part_of(data)
    apart = np.flatnonzero(part[:30] != part[170:])
    assert data.duplicates == len(apart) > 5
    assert data.first_duplicate is not None
    earlier, later = data.first_duplicate
    np.testing.assert_array_equal(X[earlier], X[later])
    assert part[earlier] < part[later]
    assert f"{len(apart)} rows of validation and test also in an earlier part" in str(data.info)
    assert f"{len(apart)} of them also in an earlier part" in repr(data)
    assert split(X, y, duplicates="ignore").duplicates is None
    assert split(X, np.arange(200.0)).duplicates == 0  # the target differs: no copy


def test_equal_rows_can_be_kept_in_one_part() -> None:
    X, y = with_repeats(400, 60, seed=4)
    data = split(X, y, duplicates="together")
    assert data.duplicates == 0
    part = part_of(data)
    np.testing.assert_array_equal(part[:60], part[340:])
    assert np.abs(np.array([len(r) for r in data.rows]) - [280, 60, 60]).max() <= 2
    unique = split(X[:340], y[:340], duplicates="together")  # nothing to keep together: the usual split
    assert all(np.array_equal(a, b) for a, b in zip(unique.rows, split(X[:340], y[:340]).rows, strict=True))


def test_groups_that_share_a_row_stay_together() -> None:
    X, y = with_repeats(90, 1, seed=5)
    groups = np.repeat(np.arange(30), 3)  # the first and the last group share a row
    data = split(X, y, groups=groups, duplicates="together")
    part = part_of(data)
    assert len(np.unique(part[(groups == 0) | (groups == 29)])) == 1
    assert data.duplicates == 0 and data.by == "group"


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=40))
def test_joined_groups_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs).T
    found = dealing.joined(a, b)
    expected = np.arange(len(a))
    for _ in pairs:  # the slow way: spread the least number along either kind of edge until nothing moves
        for keys in (a, b):
            expected = np.array([expected[keys == k].min() for k in keys])
    np.testing.assert_array_equal(found, expected)


def test_fingerprints_are_equal_where_rows_are() -> None:
    X = np.array([[0.0, np.nan], [-0.0, -np.nan], [np.nan, 0.0], [0.0, 1.0]])
    prints = fingerprints(X)
    assert prints[0] == prints[1]
    assert len(set(prints.tolist())) == 3
    table = as_columns({"a": ["x", None, "x"], "b": [1.0, np.nan, 1.0]}, where="test")
    assert numbered(fingerprints(table)).tolist() in ([0, 1, 0], [1, 0, 1])
    grid = np.stack(np.meshgrid(np.arange(400), np.arange(400)), -1).reshape(
        -1, 2
    )  # differ in a few low bits
    assert len(np.unique(fingerprints(grid))) == len(grid)
    images = generator(0).integers(0, 2, (500, 4, 4)).astype(np.uint8)
    distinct = len(np.unique(images.reshape(500, -1), axis=0))
    assert len(np.unique(fingerprints(images))) == distinct


# --- what is kept of a split ----------------------------------------------------------------------


def test_info_goes_through_json_and_reads_what_earlier_versions_wrote() -> None:
    import dataclasses
    import json

    X, y = with_repeats(60, 10, seed=6)
    data = split(X, y, groups=np.arange(60))
    data.test.open("final report")
    info = data.info
    again = SplitInfo.from_dict(json.loads(json.dumps(dataclasses.asdict(info))))
    assert again == info and again.looks == ["final report"] and again.by == "group"
    old = {"rows": [3, 1, 1], "seed": 2, "stratified": True, "digest": "00ff"}
    assert str(SplitInfo.from_dict(old)) == "3 train, 1 validation, 1 test, stratified; seed 2, rows 00ff"
    assert SplitInfo.from_dict(old).duplicates_text() == "not looked for"


def test_report_and_model_file_know_of_duplicates_and_of_every_look(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    X, y = with_repeats(120, 20, seed=7)
    data = split(X, y)
    trainer = hl.Trainer(hl.nn.Linear(3, 2), loss="cross_entropy")
    trainer.split = data.info
    run = trainer.fit(*data.train, validation=data.validation, epochs=2)
    before = Path(run.report(tmp_path / "before.html")).read_text(encoding="utf-8")
    trainer.evaluate(data.test)
    after = Path(run.report(tmp_path / "after.html")).read_text(encoding="utf-8")
    assert '<td class="key">test rows opened</td><td class="wrap">0</td>' in before
    assert '<td class="key">test rows opened</td><td class="wrap">1: Trainer.evaluate</td>' in after
    assert data.info.duplicates_text() in after
    trainer.save(tmp_path / "model.safetensors")
    loaded = hl.load(tmp_path / "model.safetensors")
    assert loaded.split == data.info and loaded.split.looks == ["Trainer.evaluate"]
    assert "opened 1 time: Trainer.evaluate" in str(loaded.info)


# --- frames ---------------------------------------------------------------------------------------


def frame_data() -> dict[str, Any]:
    rng = generator(8)
    return {
        "size": rng.normal(size=60),
        "town": rng.choice(["Rom", "Oslo", "Bonn"], 60).tolist(),
        "day": (np.datetime64("2026-01-01") + rng.permutation(60)).astype("M8[us]"),
        "patient": rng.integers(0, 12, 60),
        "label": rng.choice(["no", "yes"], 60).tolist(),
    }


def check_frames(frame: Any, take: Any) -> None:
    """The parts of a frame are frames with the rows that arrays would have had."""
    data = frame_data()
    labels, town = np.array(data["label"]), np.array(data["town"])
    parts = split(frame, "label", seed=2)
    plain = split(np.zeros((60, 1)), labels, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(parts.rows, plain.rows, strict=True))
    X, y = parts.train
    assert type(X) is type(frame)
    assert list(take(X, "town")) == town[parts.rows[0]].tolist()
    assert np.asarray(y).tolist() == labels[parts.rows[0]].tolist()
    assert "label" not in list(X.columns if not hasattr(X, "column_names") else X.column_names)
    test_X, test_y = parts.test.open("check")
    assert type(test_X) is type(frame) and len(test_y) == len(parts.rows[2])
    groups = split(frame, "label", groups="patient")
    part = part_of(groups)
    assert all(len(np.unique(part[data["patient"] == p])) == 1 for p in range(12))
    times = split(frame, "label", time="day")
    assert data["day"][times.rows[0]].max() < data["day"][times.rows[1]].min()
    with pytest.raises(
        ValueError, match="time='date' must name a column of X, which has the columns size, town"
    ):
        split(frame, "label", time="date")


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("narwhals")
    frame = pd.DataFrame(frame_data(), index=np.arange(100, 160))
    check_frames(frame, lambda X, name: X[name])
    parts = split(frame, "label")
    assert parts.train.X.index.tolist() == (parts.rows[0] + 100).tolist()  # the index goes along
    assert parts.train.y.index.tolist() == parts.train.X.index.tolist()
    numbered_columns = pd.DataFrame(np.arange(40.0).reshape(20, 2))
    assert split(numbered_columns, np.arange(20) % 2).train.X.shape == (14, 2)
    one_column = split(frame.drop(columns="label"), frame[["label"]])
    assert one_column.stratified and all(map(np.array_equal, one_column.rows, parts.rows))
    assert isinstance(one_column.train.y, pd.DataFrame)
    zoned = frame.assign(day=frame["day"].dt.tz_localize("Europe/Rome"))
    assert all(
        map(np.array_equal, split(zoned, "label", time="day").rows, split(frame, "label", time="day").rows)
    )
    categories = split(frame.drop(columns="label"), frame["label"].astype("category"))
    assert categories.stratified and all(map(np.array_equal, categories.rows, parts.rows))


def test_polars_and_arrow() -> None:
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    pytest.importorskip("narwhals")
    check_frames(pl.DataFrame(frame_data()), lambda X, name: X[name])
    check_frames(pa.table(frame_data()), lambda X, name: X[name].to_pylist())
    lazy = split(pl.DataFrame(frame_data()).lazy(), "label")
    assert isinstance(lazy.train.X, pl.DataFrame)


def test_columns_and_duplicates_in_frames() -> None:
    table = as_columns({"a": ["x", "y", None] * 20, "b": [1.0, 2.0, 3.0] * 20}, where="test")
    data = split(table, np.arange(60) % 3)
    assert data.train.X.names == ("a", "b") and data.train.X.rows == 42
    assert data.duplicates == 18 and data.first_duplicate is not None


def test_sparse_rows_stay_sparse() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = generator(9).integers(0, 2, (80, 5)).astype(np.float32)
    y = np.arange(80) % 2
    for kind in (sparse.csr_array, sparse.coo_matrix):
        data, plain = split(kind(dense), y), split(dense, y)
        assert data.duplicates == plain.duplicates and data.duplicates
        assert sparse.issparse(data.train.X) and len(data.test) == len(plain.test)
        np.testing.assert_array_equal(data.train.X.toarray(), plain.train.X)
