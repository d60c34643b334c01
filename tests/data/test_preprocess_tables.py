# SPDX-License-Identifier: Apache-2.0
"""Preprocessing of real tables: text and its spellings, what is unknown, order and names, the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hotloop.data.columns import as_columns
from hotloop.data.preprocess import Preprocessor
from hotloop.data.preprocess.report import KINDS, Report
from hotloop.errors import DTypeError, LabelError, NonFiniteError, ShapeError

COLORS = [
    "red",
    " Red",
    "RED  ",
    "blue",
    "blue",
    None,
    "gr\u00fcn",
    "gru\u0308n",
    "light  blue",
    "Light Blue",
]


def kinds(report: Report) -> set[tuple[str, str | None]]:
    return {(finding.kind, finding.column) for finding in report.findings}


def test_spellings_of_a_category_are_one_and_are_reported() -> None:
    fitted = Preprocessor.fit({"color": COLORS}, rare=0)
    assert fitted.num_names == (
        "color=blue", "color=gr\u00fcn", "color=light blue", "color=red", "color=missing"
    )  # fmt: skip
    ids = fitted.transform({"color": COLORS}).argmax(axis=1)
    assert ids.tolist() == [3, 3, 3, 0, 0, 4, 1, 1, 2, 2]
    texts = [f.text for f in fitted.report.of_kind("spelling")]
    assert texts[0] == "'red' is written in 3 ways: 'red', ' Red', 'RED  '; taken as one category"
    assert len(texts) == 3 and fitted.report.of_kind("spelling")[0].rows == 3
    assert fitted.report.of_kind("missing")[0].rows == 1


def test_unknown_and_rare_categories_are_other() -> None:
    train = {"c": ["a"] * 5 + ["b"] * 4 + ["x", "y"]}
    pooled = Preprocessor.fit(train, rare=2)
    assert pooled.num_names == ("c=a", "c=b", "c=other")
    assert pooled.transform({"c": ["x", "new", "A "]}).tolist() == [[0, 0, 1], [0, 0, 1], [1, 0, 0]]
    kept = Preprocessor.fit(train, rare=0)
    assert kept.transform({"c": ["new"]}).tolist() == [[0, 0, 0, 0]]
    embedded = Preprocessor.fit(train, rare=2, text="embedding")
    assert embedded.cat_names == ("c",) and embedded.cat_sizes == (3,)
    found = embedded.transform({"c": ["b", "x", "new", None]})
    assert isinstance(found, dict) and list(found) == ["cat"] and found["cat"].dtype == np.int32
    assert found["cat"].tolist() == [[2], [0], [0], [1]]  # what is missing counts as the most frequent
    report = embedded.inspect({"c": ["b", "x", "new", None]})
    assert str(report) == (
        "c: 2 of 4 (50 %) in categories that training did not have, or had rarely: 'x', 'new'; taken as 'other'"
    )


def test_few_categories_are_one_hot_and_many_are_embedded_in_one_table() -> None:
    many = [f"m{i % 20}" for i in range(100)]
    other = [f"o{i % 10}" for i in range(100)]
    table = {"few": ["a", "b"] * 50, "many": many, "n": np.arange(100), "more": other}
    fitted = Preprocessor.fit(table)
    assert fitted.num_names == ("n", "few=a", "few=b")
    assert fitted.cat_names == ("many", "more") and fitted.cat_sizes == (21, 11)
    found = fitted.transform(table)
    assert found["num"].shape == (100, 3) and found["cat"].shape == (100, 2)
    assert sorted(set(found["cat"][:, 0])) == list(range(1, 21))  # 0 and 21 are "other"
    assert sorted(set(found["cat"][:, 1])) == list(range(22, 32))
    assert Preprocessor.fit(table, text="onehot").transform(table).shape == (100, 33)


def test_numerals_in_text_are_numbers_and_what_only_looks_so_is_not() -> None:
    fitted = Preprocessor.fit(
        {"a": ["1", " 2.5", "NA", "1e1"], "zip": ["007", "1", "2", "3"], "b": ["1,2"] * 4}
    )
    assert fitted.kinds == ("number", "text", "text")
    assert kinds(fitted.report) >= {("numerals", "a"), ("missing", "a")}
    np.testing.assert_allclose(fitted.numbers.fill, [2.5])
    same = fitted.transform({"a": [1.0, 2.5, None, 10.0], "zip": ["007", "1", "2", "3"], "b": ["1,2"] * 4})
    again = fitted.transform({"a": ["1", "2.5", "?", "10"], "zip": ["007", 1, 2.0, 3], "b": ["1,2"] * 4})
    np.testing.assert_array_equal(same, again)
    with pytest.raises(DTypeError, match=r"column 'a', row 2: '3.5 kg' is not a number"):
        fitted.transform({"a": ["1", "2", "3.5 kg"], "zip": ["1"] * 3, "b": ["1,2"] * 3})


def test_text_in_training_and_numbers_or_booleans_later() -> None:
    fitted = Preprocessor.fit({"code": ["1", "2", "x"], "flag": ["True", "False", "maybe"]}, rare=0)
    text = fitted.transform({"code": ["2", "1"], "flag": ["true", "false"]})
    typed = fitted.transform({"code": [2, 1], "flag": np.array([True, False])})
    np.testing.assert_array_equal(text, typed)


def test_the_order_of_named_columns_does_not_matter() -> None:
    table = {"a": [1.0, 2.0, 5.0], "b": ["x", "y", "x"], "c": [3, None, 1]}
    fitted = Preprocessor.fit(table)
    turned = dict(reversed(table.items()))
    np.testing.assert_array_equal(fitted.transform(turned), fitted.transform(table))
    by_position = np.array([[1.0, "x", 3], [2.0, "y", None], [5.0, "x", 1]], object)
    np.testing.assert_array_equal(fitted.transform(by_position), fitted.transform(table))


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_give_what_their_columns_give(library: str) -> None:
    module = pytest.importorskip(library)
    pytest.importorskip("narwhals")
    table: dict[str, list[Any]] = {
        "a": [1.0, None, 5.0] * 4,
        "b": ["x", "y", None] * 4,
        "c": [True, False, True] * 4,
    }
    frame = module.table(table) if library == "pyarrow" else module.DataFrame(table)
    target = ["no", "yes", "no"] * 4
    series = module.array(target) if library == "pyarrow" else module.Series(target)
    fitted, ours = Preprocessor.fit(frame, series), Preprocessor.fit(table, target)
    np.testing.assert_array_equal(fitted.transform(frame), ours.transform(table))
    np.testing.assert_array_equal(fitted.transform_target(series), [0, 1, 0] * 4)
    assert fitted.class_names == ("no", "yes")


def test_other_columns_are_named_with_the_first_difference() -> None:
    fitted = Preprocessor.fit({"age": [1, 2], "height": [1, 3], "width": [1, 3]})
    with pytest.raises(
        ShapeError,
        match=r"\[Preprocessor.transform\] column 'height', feature 1 of the training table, is not there; "
        r"got 'hight' in its place; did you mean 'hight'\? columns: age, hight, width",
    ):
        fitted.transform({"age": [1], "hight": [1], "width": [1]})
    with pytest.raises(
        ShapeError, match=r"column 'width', feature 2 .*; there are 2 columns; columns: age, height"
    ):
        fitted.transform({"age": [1], "height": [1]})
    wide = {"x": [9], "age": [1], "height": [1], "width": [1]}
    with pytest.raises(ShapeError, match=r"column 0, 'x', was not there in training .*strict=False"):
        fitted.transform(wide)
    assert fitted.transform(wide, strict=False).shape == (1, 3)


def test_missing_values_in_a_column_that_missed_none_are_filled_without_a_flag() -> None:
    fitted = Preprocessor.fit({"a": [1.0, 2.0, 9.0], "c": ["x", "x", "y"]}, scale=None)
    assert fitted.num_names == ("a", "c=x", "c=y")
    assert fitted.transform({"a": [None], "c": [None]}).tolist() == [[2, 1, 0]]
    assert (
        str(fitted.inspect({"a": [None], "c": [None]}))
        == "a: 1 of 1 missing, none was in training; filled with 2"
    )
    strict = Preprocessor.fit({"a": [1.0, 2.0]}, missing="refuse")
    with pytest.raises(NonFiniteError, match=r"features\[1, 0\] \('a'\) is missing \(2 bad values\)"):
        strict.transform({"a": [1.0, None, None]})


def test_clipping_is_smooth_bounded_and_exact() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0], [1e6]])
    fitted = Preprocessor.fit(x, scale="robust", clip=3.0)
    z = (x[:, 0] - 2.0) / 2.0
    np.testing.assert_array_equal(fitted.transform(x)[:, 0], (z / np.hypot(1, z / 3)).astype(np.float32))
    assert fitted.transform([[1e300]])[0, 0] == 3.0
    with pytest.raises(NonFiniteError, match=r"features\[0, 0\] = inf \('x0'; 1 bad values\)"):
        fitted.transform([[np.inf]])
    assert fitted.report.of_kind("outliers")[0].rows == 1
    assert "clipped smoothly at 3 scales" in str(fitted.report)


def test_robust_scale_where_the_quartiles_are_equal() -> None:
    fitted = Preprocessor.fit(np.array([[0.0]] * 9 + [[8.0]]), scale="robust")
    assert fitted.numbers.scale.tolist() == [4.0] and fitted.numbers.center.tolist() == [0.0]


def test_columns_without_values_and_constant_ones_give_zeros() -> None:
    table = {
        "none": [None] * 4,
        "blank": ["", " ", None, ""],
        "seven": [7] * 4,
        "word": ["w"] * 4,
        "x": [1, 2, 3, 4],
    }
    fitted = Preprocessor.fit(table)
    assert fitted.kinds == ("empty", "empty", "number", "text", "number")
    later = {"none": ["a"], "blank": [3.0], "seven": [8], "word": ["v"], "x": [1]}
    found = fitted.transform(later)
    assert found[0, [0, 1, 2, 4]].tolist() == [0, 0, 0, 0] and found[0, 3] != 0
    assert kinds(fitted.report) == {
        ("empty", "none"), ("empty", "blank"), ("constant", "seven"), ("constant", "word")
    }  # fmt: skip
    identifiers = Preprocessor.fit({"id": [f"id{i}" for i in range(500)]})
    assert identifiers.transform({"id": ["id3", "new"]}).tolist() == [[0], [0]]
    assert "no category is frequent enough" in str(identifiers.report)


def test_the_report_counts_duplicates_mixed_columns_and_names_its_kinds() -> None:
    table = {"a": [1.0, -0.0, 0.0, np.nan, np.nan], "b": ["x", 1, 1, None, None]}
    fitted = Preprocessor.fit(table, [0, 1, 1, 0, 1])
    assert fitted.report.of_kind("duplicates")[0].rows == 1  # the last two differ in their target
    assert fitted.report.of_kind("mixed")[0].column == "b"
    assert Preprocessor.fit(table).report.of_kind("duplicates")[0].rows == 2
    assert {f.kind for f in fitted.report.findings} <= set(KINDS)
    assert str(Preprocessor.fit([[1.0], [2.0]]).report) == "nothing to report"


@pytest.mark.parametrize(
    ("target", "task", "names", "labels"),
    [
        (["b", "a ", "b"], "classification", ("a", "b"), [1, 0, 1]),
        ([True, False, True], "classification", ("False", "True"), [1, 0, 1]),
        ([20, 10, 20, 10], "classification", ("10", "20"), [1, 0, 1, 0]),
        (["2", "1", "2", "1"], "classification", ("1", "2"), [1, 0, 1, 0]),
        (np.array([2.0, 1.0, 2.0, 1.0]), "regression", (), None),
        (list(range(100)), "regression", (), None),
    ],
)
def test_the_task_follows_the_target(target: Any, task: str, names: Any, labels: Any) -> None:
    fitted = Preprocessor.fit(np.arange(float(len(target))).reshape(-1, 1), target)
    assert (fitted.task, fitted.class_names) == (task, names)
    if labels is not None:
        assert fitted.transform_target(target).tolist() == labels
        assert fitted.transform_target(target).dtype == np.int64


def test_targets_by_name_by_value_and_by_index() -> None:
    x = np.arange(4.0).reshape(-1, 1)
    named = Preprocessor.fit(x, ["yes", "no", "yes", "no"], class_names=["yes", "no"])
    assert named.transform_target(["no", " yes"]).tolist() == [1, 0]
    assert named.transform_target([1, 0]).tolist() == [1, 0]
    valued = Preprocessor.fit(x, [20, 10, 20, 10])
    with pytest.raises(
        LabelError, match=r"target\[1\] = 15 is not a class of the training rows \(1 bad .*: 10, 20"
    ):
        valued.transform_target([10, 15])
    with pytest.raises(
        LabelError, match="row 0 has class 'maybe', which the model does not know; allowed: yes, no"
    ):
        named.transform_target(["maybe"])
    apart = Preprocessor.fit(x, ["a", "A", "a", "A"])
    assert apart.class_names == ("A", "a")
    assert "differ in spelling only; kept apart" in str(apart.report)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"missing": "mode"}, "missing must be 'median', 'mean', 'refuse' or a number, got 'mode'"),
        ({"missing": np.nan}, "missing must be"),
        ({"text": "hash"}, "text must be one of 'auto', 'onehot', 'embedding', got 'hash'"),
        ({"scale": "minmax"}, "scale must be one of"),
        ({"scale_target": "log"}, "scale_target must be one of"),
        ({"clip": 0.0}, "clip must be None or a number above 0"),
        ({"rare": 1.0}, "rare must be None, a count of rows or a share below 1"),
        ({"rare": -1}, "rare must be"),
        ({"max_onehot": -1}, "max_onehot must be 0 or more"),
        ({"task": "ranking"}, "task must be one of"),
        ({"feature_names": ["a", "a"]}, "columns 0 and 1 have the same name 'a'"),
    ],
)
def test_options_that_do_not_exist(options: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Preprocessor.fit([[1.0, 2.0], [2.0, 3.0]], [0, 1], **options)


def test_names_choose_the_columns_of_a_frame() -> None:
    columns = as_columns({"a": [1, 2], "b": [3, 4], "c": [5, 6]}, where="test")
    fitted = Preprocessor.fit(columns, feature_names=["c", "a"])
    assert fitted.feature_names == ("c", "a")
    with pytest.raises(ShapeError, match="no column 'd'"):
        Preprocessor.fit(columns, feature_names=["d"])


def test_rows_beyond_one_block_are_all_transformed() -> None:
    x = np.arange(200_000.0).reshape(-1, 2)
    x[70_000, 1] = np.nan
    fitted = Preprocessor.fit(x)
    z = (np.where(np.isnan(x), fitted.numbers.fill, x) - fitted.numbers.center) / fitted.numbers.scale
    found = fitted.transform(x)
    np.testing.assert_array_equal(found[:, :2], z.astype(np.float32))
    assert np.flatnonzero(found[:, 2]).tolist() == [70_000]
    x[90_000, 0] = np.inf
    with pytest.raises(NonFiniteError, match=r"features\[90000, 0\] = inf"):
        fitted.transform(x)


def test_of_bad_values_the_first_row_is_named_and_all_are_counted() -> None:
    fitted = Preprocessor.fit([[0.0, 0.0], [1.0, 1.0]])
    rows = np.zeros((5, 2))
    rows[3, 0] = rows[2, 1] = rows[4, 1] = np.inf
    with pytest.raises(NonFiniteError, match=r"features\[2, 1\] = inf \('x1'; 3 bad values\)"):
        fitted.transform(rows)
    assert fitted.transform(np.zeros((0, 2))).shape == (0, 2)


def test_many_spellings_and_many_rare_categories_make_a_short_report() -> None:
    words = [word for i in range(30) for word in (f"Word{i}", f"word{i} ", f"once{i}")]
    fitted = Preprocessor.fit({"c": words}, rare=2)
    spelling, rare = fitted.report.of_kind("spelling"), fitted.report.of_kind("rare")
    assert len(spelling) == 6 and spelling[5].text.startswith(
        "25 more categories are written in several ways"
    )
    assert rare[0].rows == 30
    assert "pooled as 'other': 'once0', 'once1', 'once2', 'once3', 'once4' and 25 more" in rare[0].text
