# SPDX-License-Identifier: Apache-2.0
"""Tables: CSV, NPZ and bundled data; which task a target means; every bad cell by line and column."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotloop.data.tables import BUNDLED, classify, read_table
from hotloop.errors import DTypeError, NonFiniteError, ShapeError

PLAIN = "a,b,kind\n1,2.5,x\n3,-4e2,y\n5,6,x\n"


@pytest.fixture
def csv_file(tmp_path: Path) -> Any:
    def write(text: str, name: str = "t.csv", encoding: str = "utf-8") -> str:
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return write


def test_plain_csv(csv_file: Any) -> None:
    table = read_table(csv_file(PLAIN), target="kind")
    assert (table.name, table.task, table.target_name) == ("t", "classification", "kind")
    assert table.feature_names == ("a", "b")
    np.testing.assert_array_equal(table.features, [[1, 2.5], [3, -400], [5, 6]])
    assert table.class_names == ("x", "y")
    assert table.target is not None
    assert table.target.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "name", "encoding"),
    [
        (PLAIN.replace(",", ";"), "t.csv", "utf-8"),
        (PLAIN.replace(",", "\t"), "t.tsv", "utf-8"),
        (PLAIN.replace("\n", "\r\n"), "t.csv", "utf-8"),
        (PLAIN, "t.csv", "utf-8-sig"),
        (PLAIN.replace("\n", "\n\n"), "t.csv", "utf-8"),
        (PLAIN.replace(",", " , "), "t.txt", "utf-8"),
        (PLAIN.replace("a,", '"a",').replace("1,", '"1",'), "t.csv", "utf-8"),
    ],
    ids=["semicolon", "tab", "crlf", "bom", "blank lines", "spaces", "quotes"],
)
def test_the_same_table_in_other_clothes(text: str, name: str, encoding: str, csv_file: Any) -> None:
    table = read_table(csv_file(text, name, encoding), target="kind")
    np.testing.assert_array_equal(table.features, [[1, 2.5], [3, -400], [5, 6]])
    assert table.feature_names == ("a", "b")
    assert table.class_names == ("x", "y")


def test_columns_are_chosen_by_name(csv_file: Any) -> None:
    path = csv_file(PLAIN)
    table = read_table(path, features=("b", "a"), need_target=False)
    np.testing.assert_array_equal(table.features[0], [2.5, 1])
    assert table.target is None


@pytest.mark.parametrize(
    ("values", "task", "names"),
    [
        (np.array(["b", "a", "b"]), "classification", ("a", "b")),
        (np.array([0, 1] * 10), "classification", ("0", "1")),
        (np.array([1.0, 2.0] * 10), "classification", ("1", "2")),
        (np.array([True, False]), "classification", ("False", "True")),
        (np.arange(21).repeat(9), "regression", ()),  # too many
        (np.arange(20).repeat(9), "classification", tuple(map(str, range(20)))),
        (np.arange(4), "regression", ()),  # each once
        (np.array([0.5, 1.5] * 10), "regression", ()),
    ],
)
def test_the_task_follows_the_target(values: Any, task: str, names: tuple[str, ...]) -> None:
    found, target, class_names = classify(values)
    assert (found, class_names) == (task, names)
    assert target.dtype == (np.int64 if task == "classification" else np.float64)


def test_the_task_can_be_said() -> None:
    assert classify(np.array([0, 1] * 10), task="regression")[0] == "regression"
    assert classify(np.arange(4), task="classification")[2] == ("0", "1", "2", "3")
    assert classify(np.array([1.0, 2.0] * 10), floating=True)[0] == "regression"
    with pytest.raises(DTypeError, match="text; regression needs numbers"):
        classify(np.array(["a"]), task="regression")


@pytest.mark.parametrize(
    ("text", "target", "error", "match"),
    [
        ("", "y", ValueError, "is empty"),
        ("\n", "y", ValueError, "is empty"),
        ("a,y\n", "y", ValueError, "a header and no rows"),
        ("1,2\n3,4\n", "y", ValueError, "begins with numbers"),
        ("a,b,a\n1,2,3\n", "b", ValueError, "names a column twice: 'a'"),
        ("a,kind\n1,2\n", "knd", ValueError, r"no column 'knd'; did you mean 'kind'\? Columns: a, kind"),
        ("a,y\n1,2\n", None, ValueError, r"needs the column to learn: target \(--target\); columns: a, y"),
        ("y\n1\n", "y", ValueError, "no feature columns"),
        ("a,y\n1,2\n3\n", "y", ShapeError, "line 3: 1 values for 2 columns"),
        ("a,y\n1,2\n3,4,5\n", "y", ShapeError, "line 3: 3 values for 2 columns"),
        ("a,y\n1,2\n\nred,4\n", "y", DTypeError, "line 4, column 'a': 'red' is not a number"),
        ("a,y\n1,2\n,4\n", "y", NonFiniteError, "line 3, column 'a': the value is missing"),
        ("a,y\n1,2\nNA,4\n", "y", NonFiniteError, "line 3, column 'a': the value is missing"),
        ("a,y\nnan,2\n", "y", NonFiniteError, "line 2, column 'a': the value is missing"),
        ("a,y\n1,2\n1,\n", "y", NonFiniteError, "line 3, column 'y': the value is missing"),
        ("a,y\n1,2\n-inf,4\n", "y", NonFiniteError, "line 3, column 'a': -inf is not finite"),
    ],
)
def test_bad_csv(text: str, target: str | None, error: type[Exception], match: str, csv_file: Any) -> None:
    with pytest.raises(error, match=match):
        read_table(csv_file(text), target=target)


def test_other_bad_files(csv_file: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(str(tmp_path / "absent.csv"), target="y")
    with pytest.raises(ValueError, match=r"cannot read 'table\.xlsx'; allowed: a \.csv"):
        read_table("table.xlsx")
    with pytest.raises(ValueError, match="cannot read 'irises'"):
        read_table("irises")
    (tmp_path / "latin.csv").write_bytes(b"a,y\n\xe9,1\n")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        read_table(str(tmp_path / "latin.csv"), target="y")


def test_npz(tmp_path: Path) -> None:
    path = str(tmp_path / "t.npz")
    images = np.arange(24.0).reshape(6, 2, 2)
    np.savez(path, X=images, y=np.array([0, 1, 0, 1, 0, 1]))
    table = read_table(path)
    np.testing.assert_array_equal(table.features, images.reshape(6, 4))
    assert (table.task, table.feature_names) == ("classification", ("x0", "x1", "x2", "x3"))
    np.savez(path, X=images, y=np.array([0.0, 1.0] * 3))
    assert read_table(path).task == "regression"  # its type says so
    np.savez(path, a=np.arange(6), b=np.ones(6), t=np.array(["u", "v"] * 3))
    table = read_table(path, target="t")
    assert (table.feature_names, table.class_names) == (("a", "b"), ("u", "v"))
    assert read_table(path, features=("b",), need_target=False).features.shape == (6, 1)


@pytest.mark.parametrize(
    ("arrays", "error", "match"),
    [
        ({"X": np.zeros((3, 2))}, ValueError, "no target array 'y'; arrays: X"),
        ({"X": np.zeros(3), "y": np.zeros(3)}, ShapeError, "'X' must have shape"),
        ({"a": np.array(3.0), "y": np.zeros(1)}, ShapeError, "'a' must have shape"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(2)}, ShapeError, r"'y' must have shape \(3,\), got \(2,\)"),
        ({"X": np.zeros((0, 2)), "y": np.zeros(0)}, ShapeError, "at least one"),
        ({"a": np.zeros(3), "b": np.zeros(2), "y": np.zeros(3)}, ShapeError, r"equally many rows.*\[2, 3\]"),
        ({"a": np.zeros((3, 2)), "y": np.zeros(3)}, ShapeError, r"'a' must have shape \(rows,\)"),
        ({"X": np.array([["a"]]), "y": np.zeros(1)}, DTypeError, "'X' must hold numbers"),
        ({"X": np.array([[np.nan]]), "y": np.zeros(1)}, NonFiniteError, "'X' has nan in row 0"),
        ({"X": np.zeros((1, 1)), "y": np.array([np.inf])}, NonFiniteError, "'y' has inf in row 0"),
        ({"X": np.zeros((1, 1)), "y": np.array([1j])}, DTypeError, "'y' must hold numbers or text"),
        ({"X": np.zeros((1, 1)), "y": np.array([None])}, ValueError, "without pickle"),
    ],
)
def test_bad_npz(arrays: Any, error: type[Exception], match: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(error, match=match):
        read_table(str(tmp_path / "t.npz"))


def test_a_file_that_is_no_npz(tmp_path: Path) -> None:
    for content in (b"", b"not a zip", b"PK\x03\x04broken"):
        (tmp_path / "t.npz").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as NPZ"):
            read_table(str(tmp_path / "t.npz"))
    with (tmp_path / "t.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="cannot be read as NPZ"):
        read_table(str(tmp_path / "t.npz"))


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_data(name: str) -> None:
    pytest.importorskip("sklearn")
    table = read_table(name)
    assert table.target is not None
    assert len(table.features) == len(table.target) > 100
    assert len(table.feature_names) == table.features.shape[1]
    assert table.task == ("regression" if name == "diabetes" else "classification")
    assert len(table.class_names) == (0 if name == "diabetes" else len(np.unique(table.target)))


def test_bundled_data_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'hotloop\[sklearn\]'"):
        read_table("iris")
