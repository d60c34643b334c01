# SPDX-License-Identifier: Apache-2.0
"""Files as tables: every way to write a CSV, every way to write it wrongly, and files larger than memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotloop.data import read, read_blocks, read_table
from hotloop.data.columns import Columns
from hotloop.errors import DTypeError, ShapeError

pa = pytest.importorskip("pyarrow")

from pyarrow import csv, feather, parquet  # noqa: E402

Write = Callable[..., Path]
PLAIN = "a,b,town\n1,2.5,Rom\n3,NA,Oslo\n,-4e2,?\n"
VALUES: dict[str, list[Any]] = {"a": [1, 3, None], "b": [2.5, None, -400], "town": ["Rom", "Oslo", None]}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(text: str | bytes, name: str = "t.csv", encoding: str = "utf-8") -> Path:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return tmp_path / name

    return file


def cells(table: Columns) -> dict[str, list[Any]]:
    """The values by column, None where missing."""
    return {c.name: [None if v != v else v for v in c.values.tolist()] for c in table.columns}


def joined(blocks: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for block in blocks:
        for name, values in cells(block).items():
            found.setdefault(name, []).extend(values)
    return found


# --- CSV ------------------------------------------------------------------------------------------

CLOTHES = [
    (PLAIN, {}, ()),
    (PLAIN.replace(",", ";").replace("2.5", "2,5"), {}, ("semicolon between values", "decimal commas")),
    (PLAIN.replace(",", "\t"), {"name": "t.tsv"}, ("tab between values",)),
    (PLAIN.replace(",", "|"), {"name": "t.txt"}, ("bar between values",)),
    (PLAIN.replace("\n", "\r\n"), {}, ()),
    (PLAIN.replace("\n", "\n\n"), {}, ()),
    (PLAIN.rstrip("\n"), {}, ()),
    (PLAIN, {"encoding": "utf-8-sig"}, ("a byte order mark, left out",)),
    (re.sub(r"([^,\n]+)", r'"\1"', PLAIN), {}, ()),
    (
        PLAIN.replace(",", " , "),
        {},
        ("numbers with blanks around them in 'a'", "numbers with blanks around them in 'b'"),
    ),
]
NAMES = ["plain", "semicolon", "tab", "bar", "crlf", "blank", "no end", "bom", "quoted", "blanks"]


@pytest.mark.parametrize(("text", "how", "guesses"), CLOTHES, ids=NAMES)
def test_the_same_table_in_other_clothes(
    text: str, how: dict[str, str], guesses: tuple[str, ...], write: Write
) -> None:
    path = write(text, **how)
    table = read(path)
    assert cells(table) == VALUES
    assert [c.kind for c in table.columns] == ["number", "number", "text"]
    assert table.guesses == guesses
    assert table["town"].values.dtype == object and table["a"].values.dtype == np.float64
    assert joined(read_blocks(path, rows=2)) == VALUES
    assert [block.rows for block in read_blocks(path, rows=2)] == [2, 1]


def test_told_instead_of_guessed(write: Write) -> None:
    assert cells(read(write("a;b\n1,5;2\n"), separator=";", decimal=".")) == {"a": ["1,5"], "b": [2]}
    zip_codes = write("zip,n\n01234,1\n10115,2\n")
    assert cells(read(zip_codes)) == {"zip": [1234, 10115], "n": [1, 2]}
    for table in (read(zip_codes, kinds={"zip": "text"}), *read_blocks(zip_codes, kinds={"zip": "text"})):
        assert cells(table) == {"zip": ["01234", "10115"], "n": [1, 2]}
    assert cells(read(zip_codes, columns=["n"])) == {"n": [1, 2]}
    assert read(zip_codes, columns=["n", "zip"]).names == ("n", "zip")
    assert cells(read(write("a,b\n-,x\n99,none\n"), missing=("99",))) == {
        "a": ["-", None],
        "b": ["x", "none"],
    }
    for encoding in ("latin-1", "utf-16"):
        path = write("a,town\n1,Köln\n", encoding=encoding)
        assert cells(read(path, encoding=encoding)) == {"a": [1], "town": ["Köln"]}
        assert joined(read_blocks(path, encoding=encoding)) == {"a": [1], "town": ["Köln"]}


def test_quoted_values_hold_separators_and_line_ends(write: Write) -> None:
    path = write('a,note\n1,"one, two"\n2,"first\nsecond ""line"""\n')
    assert cells(read(path))["note"] == ["one, two", 'first\nsecond "line"']
    assert joined(read_blocks(path))["note"] == ["one, two", 'first\nsecond "line"']


def test_dates_and_booleans_are_numbers(write: Write) -> None:
    table = read(write("day,moment,ok\n1970-01-03,1970-01-01T12:00:00Z,true\n,NA,false\n"))
    assert cells(table) == {"day": [2, None], "moment": [0.5, None], "ok": [1, 0]}
    examples = {c.name: (c.found, c.example) for c in table.schema.columns}
    assert examples["day"] == ("date32[day]", "1970-01-03")
    assert examples["moment"][1] == "1970-01-01T12:00:00"


def test_schema_says_how_each_column_was_understood(write: Write) -> None:
    table = read(write(PLAIN.replace(",", ";")))
    assert str(table.schema).splitlines() == [
        "3 rows, 3 columns",
        "column  found   used as  missing  distinct  example",
        "a       int64   number   1        2         1",
        "b       double  number   1        2         2.5",
        "town    string  text     1        2         Rom",
        "guessed: semicolon between values",
    ]
    assert table.source.endswith("t.csv")


FAULTS = [
    (
        "a,b\n1,2\n1,2,3\n",
        {},
        ShapeError,
        "line 3: 3 values for 2 columns: '1,2,3'; quote values that hold a comma",
    ),
    ("a,b\n1,2\n\n\n1\n", {}, ShapeError, "line 5: 1 value for 2 columns"),
    ('a,b\n1,"x\ny"\n1,2,3\n', {}, ShapeError, "line 4: 3 values for 2 columns"),
    ("a,b,a\n1,2,3\n", {}, ShapeError, "names a column twice: 'a', columns 1 and 3"),
    ("a, a \n1,2\n", {}, ShapeError, "names a column twice: 'a', columns 1 and 2"),
    (",b\n0,2\n", {}, ValueError, "column 1 of 2 has no name; name it in the first line, or leave it out"),
    ("1,2\n3,4\n", {}, ValueError, "begins with numbers (1, 2); the first line must name the columns"),
    ("", {}, ValueError, "is empty; the first line must name the columns"),
    ("a,b\n", {}, ValueError, "has a header and no rows"),
    ("a,b\n1,x\n2,y\n", {"kinds": {"b": "number"}}, DTypeError, "line 2, column 'b': 'x' is not a number"),
    ("a,b\n1,x\n", {"columns": ["a", "bb"]}, ShapeError, "no column 'bb' (asked for); did you mean 'b'?"),
    ("a,b\n1,x\n", {"kinds": {"c": "text"}}, ShapeError, "no column 'c' (in kinds=)"),
    ("a,b\n1,x\n", {"kinds": {"a": "date"}}, ValueError, "must be 'number' or 'text', got 'date'"),
    ("a,b\n1,x\n", {"encoding": "utf-9"}, ValueError, "encoding='utf-9' is not known"),
    (b"a,b\n1,x\n2,caf\xe9\n", {}, ValueError, "line 3: byte 0xe9 is not UTF-8"),
    (b"a,b\n1,x\n2,caf\xe9\n", {}, ValueError, "encoding='latin-1'"),
    ("a,b\n1,x\n".encode("utf-16"), {}, ValueError, "is written in UTF-16; read it with encoding='utf-16'"),
]


@pytest.mark.parametrize(("text", "how", "error", "match"), FAULTS)
def test_what_is_wrong_is_said_by_line(
    text: str | bytes, how: dict[str, Any], error: type[Exception], match: str, write: Write
) -> None:
    path = write(text)
    with pytest.raises(error, match=re.escape(match)):
        read(path, **how)
    with pytest.raises(error, match=re.escape(match)):
        list(read_blocks(path, **how))


def test_faults_far_down_a_file_are_found(write: Write) -> None:
    many = "1,x\n" * 400_000  # several blocks of a MiB
    with pytest.raises(ShapeError, match="line 400002: 3 values"):
        read(write("a,b\n" + many + "1,x,y\n"))
    with pytest.raises(ValueError, match="line 400002: byte 0xff"):
        read(write(b"a,b\n" + many.encode() + b"1,\xff\n"))
    later = write("a,b\n" + many + "half,x\n")
    assert read(later)["a"].kind == "text"  # the whole file decides
    with pytest.raises(DTypeError, match=r"line 400002, column 'a': 'half' .* kinds=\{'a': 'text'\}"):
        list(read_blocks(later))
    assert sum(block.rows for block in read_blocks(later, kinds={"a": "text"})) == 400_001
    fraction = write("a,b\n" + many + " NA ,x\n1.5,y\n")  # whole numbers at first, then blanks and a fraction
    assert cells(read(fraction).take([-2, -1]))["a"] == [None, 1.5]
    assert cells(list(read_blocks(fraction))[-1].take([-2, -1]))["a"] == [None, 1.5]


def test_files_that_are_none(write: Write, tmp_path: Path) -> None:
    for name in ("t.parquet", "t.arrow", "t.feather"):
        with pytest.raises(ValueError, match=f"t.{name[2:]} is no {name[2:].capitalize()} file"):
            read(write("a,b\n1,2\n", name))
    with pytest.raises(ValueError, match=r"cannot read .*t\.xlsx.*\.parquet.*iris"):
        read(write("", "t.xlsx"))
    for reader in (read, lambda path: list(read_blocks(path))):
        with pytest.raises(FileNotFoundError):
            reader(tmp_path / "nowhere.csv")
        with pytest.raises(FileNotFoundError):
            reader(tmp_path / "nowhere.parquet")
    with pytest.raises(ValueError, match="rows must be >= 1, got 0"):
        read_blocks(write(PLAIN), rows=0)


CELL = st.one_of(
    st.none(), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp", "Cs"]))
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.one_of(st.none(), st.floats(allow_nan=False)), CELL), min_size=1, max_size=30)
)
def test_what_arrow_writes_is_read_back(rows: list[tuple[Any, Any]], tmp_path: Path) -> None:
    numbers, texts = map(list, zip(*rows))
    texts = [f"t{t}" if t is not None else None for t in texts]  # no numeral, no mark
    table = pa.table({"x": pa.array(numbers, pa.float64()), "t": pa.array(texts, pa.string())})
    csv.write_csv(table, tmp_path / "t.csv")
    parquet.write_table(table, tmp_path / "t.parquet")
    for name, how in (("t.csv", {"kinds": {"t": "text", "x": "number"}}), ("t.parquet", {})):
        found = cells(read(tmp_path / name, **how))
        assert found == {"x": numbers, "t": texts}
        assert joined(read_blocks(tmp_path / name, rows=7, **how)) == found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from('ab,;1.5-"\n\r \t'), max_size=40))
def test_any_text_is_read_alike_or_refused_with_a_reason(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    results: list[Any] = []
    for reader in (read, lambda path: list(read_blocks(path, rows=2))):
        try:
            found = reader(path)
            results.append(cells(found) if isinstance(found, Columns) else joined(found))
        except (ValueError, DTypeError) as error:  # ShapeError is a ValueError
            results.append(str(error))
    assert results[0] == results[1]
    assert not isinstance(results[0], str) or results[0].startswith("[data] ")


# --- Parquet, Arrow, NPZ, bundled -----------------------------------------------------------------


def test_parquet_and_arrow(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None, 3], pa.int32()),
            "f": pa.array([0.5, 1.5, None], pa.float32()),
            "ok": pa.array([True, None, False]),
            "town": pa.array(["Rom", None, "Oslo"]).dictionary_encode(),
            "day": pa.array([0, 1, None], pa.date32()),
            "text": pa.array(["NA", " x", None], pa.large_string()),
        }
    )
    expected = {
        "n": [1, None, 3], "f": [0.5, 1.5, None], "ok": [1, None, 0], "town": ["Rom", None, "Oslo"],
        "day": [0, 1, None], "text": ["NA", " x", None],  # typed files mean what they say
    }  # fmt: skip
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    feather.write_feather(table, tmp_path / "t.feather")
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    for name in ("t.parquet", "t.feather", "t.arrow"):
        path = tmp_path / name
        assert cells(read(path)) == expected
        assert joined(read_blocks(path, rows=2)) == expected
        assert [b.rows for b in read_blocks(path, rows=2)] == [2, 1]
        assert cells(read(path, columns=["town", "n"])) == {k: expected[k] for k in ("town", "n")}
        assert read(path, columns=["town", "n"]).names == ("town", "n")
        with pytest.raises(ShapeError, match=r"no column 'twon'.*did you mean 'town'"):
            read(path, columns=["twon"])


def test_repeated_and_nested_columns_of_parquet(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="names a column twice: 'a', columns 1 and 2"):
        read(tmp_path / "t.parquet")
    parquet.write_table(pa.table({"a": [[1, 2], [3]]}), tmp_path / "t.parquet")
    with pytest.raises(DTypeError, match="column 'a'"):
        read(tmp_path / "t.parquet")
    parquet.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="no rows"):
        read(tmp_path / "t.parquet")


def test_npz_and_bundled(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "t.npz", X=np.arange(6).reshape(3, 2), y=np.array(["a", "b", "a"]), z=np.eye(3)[:, :2]
    )
    table = read(tmp_path / "t.npz")
    assert cells(table) == {
        "x0": [0, 2, 4], "x1": [1, 3, 5], "y": ["a", "b", "a"], "z[0]": [1, 0, 0], "z[1]": [0, 1, 0]
    }  # fmt: skip
    assert [b.rows for b in read_blocks(tmp_path / "t.npz", rows=2)] == [2, 1]
    np.savez(tmp_path / "t.npz", X=np.zeros((3, 2)), y=np.zeros(2))
    with pytest.raises(ShapeError, match=r"equally many rows, got {'X': 3, 'y': 2}"):
        read(tmp_path / "t.npz")
    pytest.importorskip("sklearn")
    iris, plain = read("iris"), read_table("iris")
    assert iris.names == (*plain.feature_names, "target") and iris["target"].values[0] == "setosa"
    np.testing.assert_array_equal(iris["sepal length (cm)"].values, plain.features[:, 0])
    assert read("diabetes")["target"].kind == "number"


# --- memory, and no pyarrow -----------------------------------------------------------------------

STREAM = r"""
import json, re, sys
from hotloop.data import read, read_blocks
path, small, how = sys.argv[1:]
for block in read_blocks(small): pass  # what loading pyarrow takes is no matter here
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
before, rows, total = peak(), 0, 0.0
if how == "whole":
    rows = read(path).rows
else:
    for block in read_blocks(path, rows=10_000):
        rows, total = rows + block.rows, total + float(block["x"].values.sum())
print(json.dumps([rows, total, peak() - before]))
"""


def streamed(path: Path, small: Path, how: str) -> tuple[int, float, int]:
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(path), str(small), how],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_blocks_of_a_large_file_take_little_memory(suffix: str, tmp_path: Path) -> None:
    n = 100_000
    rng = np.random.Generator(np.random.Philox(0))
    table = pa.table(
        {"x": rng.integers(0, 99, n), "y": rng.normal(size=n), "id": [f"row {i:06d}" for i in range(n)]}
    )
    path, small = tmp_path / f"large.{suffix}", tmp_path / f"small.{suffix}"
    if suffix == "csv":
        csv.write_csv(table, small)
        body = small.read_bytes().partition(b"\n")[2]
        with path.open("wb") as file:
            file.write(b'"x","y","id"\n')
            file.writelines([body] * 30)
    else:
        parquet.write_table(table, small, compression="none", row_group_size=20_000)
        with parquet.ParquetWriter(path, table.schema, compression="none") as writer:
            for _ in range(30):
                writer.write_table(table, row_group_size=20_000)
    size = path.stat().st_size
    assert size > 75_000_000
    rows, total, peak = streamed(path, small, "blocks")
    assert rows == 30 * n and total == 30 * float(np.sum(table["x"].to_numpy()))
    assert peak < 0.7 * size
    whole_rows, _, whole_peak = streamed(path, small, "whole")
    assert whole_rows == rows and whole_peak > 2 * peak  # the measure can tell them apart


def test_without_pyarrow_tables_of_numbers_are_read_alike(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a; b\n1,5;NA\n\n2; 3\n-;1e3\n", "t.csv")
    expected, guesses = cells(read(path)), read(path).guesses[:2]
    text, ragged, frame = write(PLAIN, "u.csv"), write("a,b\n1,2\n3\n", "v.csv"), write("", "w.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    assert cells(read(path)) == expected and read(path).guesses == guesses
    assert [cells(b)["a"] for b in read_blocks(path, rows=2)] == [[1.5, 2], [None]]
    assert cells(read(path, columns=["b"])) == {"b": expected["b"]}
    with pytest.raises(ImportError, match=r"line 2, column 'town': 'Rom' is not a number.*hotloop\[data\]"):
        read(text)
    with pytest.raises(DTypeError, match="line 2, column 'town'"):
        read(text, kinds={"town": "number"})
    with pytest.raises(ShapeError, match="line 3: 1 value for 2 columns"):
        read(ragged)
    with pytest.raises(ImportError, match=r"needs pyarrow.*hotloop\[data\]"):
        read(frame)
    with pytest.raises(ImportError, match="needs pyarrow"):
        read_blocks(frame)
