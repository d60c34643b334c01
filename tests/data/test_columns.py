# SPDX-License-Identifier: Apache-2.0
"""Columns: what every library's frames, mappings and arrays become, and what is refused by its place."""

from __future__ import annotations

import datetime as dt
import decimal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from hotloop.data.columns import Columns, as_columns, is_frame
from hotloop.errors import DTypeError, ShapeError

DATA: dict[str, list[Any]] = {
    "whole": [1, 2, 3],
    "real": [1.0, None, 2.5],
    "nullable": [1, None, 3],
    "text": ["a", None, "ü"],
    "flag": [True, False, True],
    "maybe": [True, None, False],
    "day": [dt.date(1970, 1, 2), None, dt.date(2020, 1, 1)],
    "time": [dt.datetime(1970, 1, 2, 12), None, dt.datetime(2020, 1, 1)],
    "clock": [dt.time(12), None, dt.time(6)],
    "span": [dt.timedelta(days=1), None, dt.timedelta(hours=12)],
    "price": [decimal.Decimal("1.5"), None, decimal.Decimal("2")],
    "nothing": [None, None, None],
}
NAN = np.nan
EXPECTED: dict[str, list[Any]] = {
    "whole": [1, 2, 3],
    "real": [1, NAN, 2.5],
    "nullable": [1, NAN, 3],
    "text": ["a", None, "ü"],
    "flag": [1, 0, 1],
    "maybe": [1, NAN, 0],
    "day": [1, NAN, 18262],
    "time": [1.5, NAN, 18262],
    "clock": [0.5, NAN, 0.25],
    "span": [1, NAN, 0.5],
    "price": [1.5, NAN, 2],
    "nothing": [NAN, NAN, NAN],
}


def frame(library: str) -> Any:
    if library == "dict":
        return DATA
    module = pytest.importorskip(library)
    pytest.importorskip("narwhals")
    if library == "pyarrow":
        return module.table(DATA)
    return module.DataFrame(DATA)


def column(data: Any) -> list[Any]:
    return list(as_columns({"c": data}, where="test")["c"].values)


@pytest.mark.parametrize("library", ["dict", "pandas", "polars", "pyarrow"])
def test_every_library_gives_the_same_columns(library: str) -> None:
    columns = as_columns(frame(library), where="test")
    assert columns.names == tuple(EXPECTED) and columns.rows == 3
    for found in columns.columns:
        if found.name == "text":
            assert found.kind == "text" and found.values.dtype == object
            assert found.values.tolist() == EXPECTED["text"]
            assert found.missing.tolist() == [False, True, False]
        else:
            assert found.kind == "number" and found.values.dtype == np.float64
            np.testing.assert_array_equal(found.values, EXPECTED[found.name], err_msg=found.name)
            np.testing.assert_array_equal(found.missing, np.isnan(EXPECTED[found.name]))


def test_sources_are_the_names_that_the_library_uses() -> None:
    arrow = as_columns(frame("pyarrow"), where="test")
    assert [arrow[name].source for name in ("whole", "text", "flag", "day")] == [
        "int64", "string", "bool", "date32[day]"
    ]  # fmt: skip
    assert as_columns(frame("polars"), where="test")["text"].source == "String"


def test_dtypes_that_only_pandas_has() -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(
        {
            "integer": pd.array([1, None, 2], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "arrow": pd.array([1, None, 2], dtype="int64[pyarrow]"),
            "text": pd.array(["a", None, "b"], dtype="string"),
            "objects": pd.Series(["a", None, NAN], dtype=object),
            "category": pd.Categorical(["x", None, "y"]),
            "numbers": pd.Categorical([1, None, 2]),
            "zoned": pd.to_datetime(["1970-01-02T01:00+01:00", None, "1970-01-03T00:00Z"], utc=True)
            .tz_convert("Europe/Rome"),
            "sparse": pd.array([1, 0, 0], dtype="Sparse[int64]"),
            "mixed": ["a", 1, 2.5],
        }
    )  # fmt: skip
    columns = as_columns(table, where="test")
    for name, values in {
        "integer": [1, NAN, 2], "flag": [1, NAN, 0], "arrow": [1, NAN, 2], "zoned": [1, NAN, 2],
        "sparse": [1, 0, 0],
    }.items():  # fmt: skip
        np.testing.assert_array_equal(columns[name].values, values, err_msg=name)
    assert columns["text"].values.tolist() == ["a", None, "b"]
    assert columns["objects"].values.tolist() == ["a", None, None]
    assert columns["category"].values.tolist() == ["x", None, "y"]
    assert columns["numbers"].values.tolist() == ["1", None, "2"]
    assert columns["mixed"].values.tolist() == ["a", "1", "2.5"]
    assert columns["mixed"].source == "mixed (float, int, str)"


def test_names_that_are_no_text_and_names_that_stand_twice() -> None:
    pd = pytest.importorskip("pandas")
    assert as_columns(pd.DataFrame(np.eye(2)), where="test").names == ("0", "1")
    with pytest.raises(ShapeError, match=r"\[test\] columns 0 and 2 have the same name 'a'; rename"):
        as_columns(pd.DataFrame(np.ones((1, 3)), columns=["a", "b", "a"]), where="test")
    with pytest.raises(ShapeError, match="columns 0 and 1 have the same name '1'"):
        as_columns({1: [1], "1": [2]}, where="test")


def test_polars_categories_zones_and_lazy_frames() -> None:
    pl = pytest.importorskip("polars")
    lazy = pl.LazyFrame(
        {
            "enum": pl.Series(["a", "b", None], dtype=pl.Enum(["a", "b"])),
            "category": pl.Series(["a", "b", None], dtype=pl.Categorical),
            "zoned": pl.Series([dt.datetime(1970, 1, 2, 1), None, None]).dt.replace_time_zone("Europe/Rome"),
        }
    )
    assert is_frame(lazy)
    columns = as_columns(lazy, where="test")
    assert columns["enum"].values.tolist() == columns["category"].values.tolist() == ["a", "b", None]
    np.testing.assert_array_equal(columns["zoned"].values, [1, NAN, NAN])


def test_arrow_batches_chunks_and_dictionaries() -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("narwhals")
    batch = pa.record_batch({"a": pa.array(["x", None, "y"]).dictionary_encode(), "b": [1, None, 3]})
    assert is_frame(batch)
    columns = as_columns(batch, where="test")
    assert columns["a"].values.tolist() == ["x", None, "y"]
    np.testing.assert_array_equal(columns["b"].values, [1, NAN, 3])
    np.testing.assert_array_equal(column(pa.chunked_array([[1, None], [3]])), [1, NAN, 3])
    np.testing.assert_array_equal(column(pa.array([1, None])), [1, NAN])


def test_a_mapping_may_hold_series() -> None:
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    data = {"p": pd.Series(["x", None], index=[7, 3]), "q": pl.Series([1, None])}
    columns = as_columns(data, where="test")
    assert columns["p"].values.tolist() == ["x", None]
    np.testing.assert_array_equal(columns["q"].values, [1, NAN])


def test_arrays() -> None:
    x = np.arange(6.0).reshape(3, 2)
    columns = as_columns(x, where="test")
    assert columns.names == ("x0", "x1")
    assert np.shares_memory(columns["x1"].values, x)  # float64 is not copied
    structured = np.array([(1, b"x", "\u00fc", 2.5)], [("a", "i4"), ("b", "S3"), ("c", "U3"), ("d", "f4")])
    columns = as_columns(structured, where="test")
    assert [c.values.tolist() for c in columns.columns] == [[1], ["x"], ["ü"], [2.5]]
    assert [c.kind for c in as_columns([[1, "a"], [2, None]], where="test").columns] == ["number", "text"]
    masked = np.ma.array([[1, 2], [3, 4]], mask=[[True, False], [False, False]])
    np.testing.assert_array_equal(as_columns(masked, where="test")["x0"].values, [NAN, 3])
    np.testing.assert_array_equal(column(np.array([1, "NaT"], "m8[h]")), [1 / 24, NAN])


def test_columns_are_taken_dropped_and_selected() -> None:
    columns = as_columns({"a": [1, 2, 3], "b": ["x", None, "z"]}, where="test")
    assert as_columns(columns, where="test") is columns
    assert columns.take([2, 0])["b"].values.tolist() == ["z", "x"]
    assert columns.take(np.array([True, False, True]))["a"].values.tolist() == [1, 3]
    assert columns.take([]).rows == 0
    assert columns.take(slice(1, 2))["b"].values.tolist() == [None]
    assert columns.drop("a").names == ("b",)
    assert columns.select(["b", "a"]).names == ("b", "a")
    with pytest.raises(ShapeError, match=r"\[here\] no column 'zz'; Columns: a, b"):
        columns.select(["a", "zz"], where="here")
    with pytest.raises(ShapeError, match="did you mean 'height'"):
        as_columns({"height": [1]}, where="test")["hight"]
    with pytest.raises(ShapeError, match="'b' has 1 rows, 'a' has 2"):
        Columns((as_columns({"a": [1, 2]}, where="t")["a"], as_columns({"b": [1]}, where="t")["b"]))


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        ({"a": [1], "b": [1, 2]}, ShapeError, "column 'b' has 2 rows, 'a' has 1"),
        ({"a": "text"}, ShapeError, "column 'a' is a str"),
        ({"a": 5}, ShapeError, "column 'a' is a int"),
        ({"a": np.eye(2)}, ShapeError, r"column 'a' must have shape \(rows,\), got \(2, 2\)"),
        ({"a": [1, [2]]}, DTypeError, r"column 'a', row 1: '\[2\]' has type list; allowed: numbers, text"),
        ({"a": ["x", b"y"]}, DTypeError, "row 1: .* has type bytes"),
        ({"a": [1j]}, DTypeError, "dtype complex128"),
        ({"a": np.array([b"\xff"])}, DTypeError, "not UTF-8"),
        ({"a": [1, 10**400]}, DTypeError, "column 'a', row 1: a whole number beyond the range of float64"),
        (np.zeros(3), ShapeError, r"got \(3,\).*reshape"),
        ([[1], [2, 3]], ShapeError, "ragged"),
    ],
)
def test_what_is_no_table_is_refused_by_its_place(data: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        as_columns(data, where="test")


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_large_whole_numbers_and_far_dates_are_rounded_not_refused(library: str) -> None:
    module = pytest.importorskip(library)
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("narwhals")
    data = {"id": [2**60 + 1, None, 3], "day": [dt.date(9999, 12, 31), None, dt.date(1960, 1, 1)]}
    if library == "pandas":
        data["id"] = module.array(data["id"], dtype="int64[pyarrow]")
        data["day"] = module.array(data["day"], dtype=module.ArrowDtype(pa.date32()))
    columns = as_columns(module.table(data) if library == "pyarrow" else module.DataFrame(data), where="test")
    np.testing.assert_array_equal(columns["id"].values, [2.0**60, NAN, 3])
    np.testing.assert_array_equal(columns["day"].values, [2932896, NAN, -3653])


def test_nested_columns_of_frames_are_refused() -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("narwhals")
    with pytest.raises(DTypeError, match=r"column 'l' has dtype list<.*; take it apart"):
        as_columns(pa.table({"l": [[1], [2]]}), where="test")


def test_narwhals_is_imported_when_a_frame_arrives_and_not_before() -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("narwhals")
    code = (
        "import sys\n"
        "from hotloop.data.columns import as_columns, is_frame\n"
        "as_columns({'a': [1]}, where='t'); is_frame(3)\n"
        "assert not {'narwhals', 'pandas', 'polars', 'pyarrow'} & set(sys.modules)\n"
        "import pandas as pd\n"
        "assert is_frame(pd.DataFrame()) and not is_frame(pd.Series([1]))\n"
        "class Mine(pd.DataFrame): pass\n"
        "assert is_frame(Mine()) and 'narwhals' not in sys.modules\n"
        "assert as_columns(pd.DataFrame({'a': [1]}), where='t').names == ('a',)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_frame_without_narwhals_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    pd = pytest.importorskip("pandas")
    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(
        ImportError, match=r"needs narwhals; install the extra: pip install 'hotloop\[data\]'"
    ):
        as_columns(pd.DataFrame({"a": [1]}), where="test")
