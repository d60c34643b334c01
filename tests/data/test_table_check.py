# SPDX-License-Identifier: Apache-2.0
"""The check of a table: every rule finds what is planted for it, and clean tables stay clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotloop as hl
from hotloop.data.columns import as_columns
from hotloop.errors import ShapeError

N = 200
RULES = {
    "infinite", "identifier", "mixed_types", "duplicate_columns", "target_missing", "tiny_classes", "imbalance",
    "one_class", "leaking", "contradictions", "missing", "empty", "constant", "numerals", "spelling", "rare",
    "outliers", "duplicate_rows",
}  # fmt: skip


def clean(n: int = N) -> dict[str, Any]:
    """Two columns of numbers and one of text, and a target "y" that none of them tells."""
    rng = np.random.Generator(np.random.Philox(1))
    return {
        "size": rng.normal(size=n),
        "weight": rng.uniform(1, 2, n),
        "town": rng.choice(["Rom", "Oslo", "Bonn"], n).tolist(),
        "y": rng.choice(["no", "yes"], n).tolist(),
    }


def found(table: Any, target: Any = "y") -> dict[str, list[tuple[str, ...]]]:
    """The columns by rule, of all rules that fired."""
    by_rule: dict[str, list[tuple[str, ...]]] = {}
    for issue in hl.check(table, target).issues:
        by_rule.setdefault(issue.rule, []).append(issue.columns)
    return by_rule


def planted(**columns: Any) -> dict[str, Any]:
    return {**clean(), **columns}


def test_a_clean_table_is_clean() -> None:
    check = hl.check(clean(), "y")
    assert check.issues == () and check.ok
    head, last = str(check).splitlines()
    assert head.startswith("200 rows, 3 columns, target 'y' (classification: 1")
    assert last == "nothing to report"
    assert hl.check({k: v for k, v in clean().items() if k != "y"}).issues == ()
    assert "no target named" in str(hl.check(np.eye(3)))


def with_cells(values: Any, cells: dict[int, Any]) -> list[Any]:
    out = list(values)
    for row, cell in cells.items():
        out[row] = cell
    return out


RNG = np.random.Generator(np.random.Philox(2))
Y = clean()["y"]
PLANTS: list[tuple[str, dict[str, Any], str, str]] = [
    # rule, columns, severity, what the sentence says
    (
        "infinite",
        {"a": with_cells(clean()["size"], {7: np.inf, 9: -np.inf})},
        "error",
        "2 infinite or beyond 1e+300, first inf in row 7",
    ),
    ("identifier", {"a": np.arange(N) + 5000}, "warning", "it numbers them; drop it"),
    ("identifier", {"a": [f"key-{i}" for i in range(N)]}, "warning", "200 different texts in 200 rows"),
    ("identifier", {"user_id": RNG.permutation(10**6)[:N]}, "warning", "different whole number"),
    (
        "mixed_types",
        {"a": with_cells(map(str, range(N)), {3: "about 3"})},
        "warning",
        "first 'about 3' in row 3",
    ),
    (
        "mixed_types",
        {"a": [f"{v:.1f} kg" for v in RNG.uniform(1, 9, N)]},
        "warning",
        "numbers with something around them, such as",
    ),
    ("duplicate_columns", {"a": clean()["size"]}, "warning", "the same values in every row as 'size'"),
    ("duplicate_columns", {"a": 2.54 * clean()["size"] + 3}, "warning", "2.54 times 'size'+3 in every row"),
    (
        "duplicate_columns",
        {"a": [{"Rom": "I", "Oslo": "N", "Bonn": "D"}[t] for t in clean()["town"]]},
        "warning",
        "the same categories, by other names, as 'town'",
    ),
    (
        "missing",
        {"a": with_cells(clean()["weight"][::-1], {1: None, 2: np.nan})},
        "note",
        "2 of 200 (1 %) missing",
    ),
    (
        "missing",
        {"a": with_cells(clean()["town"][::-1], dict.fromkeys(range(120)))},
        "warning",
        "120 of 200",
    ),
    ("empty", {"a": [None] * N}, "warning", "no value in any row"),
    ("constant", {"a": np.full(N, 7.0)}, "note", "always 7; gives 0"),
    ("constant", {"a": ["x"] * N}, "note", "always 'x'; gives 0"),
    ("numerals", {"a": [f"{v:.2f}" for v in RNG.normal(size=N)]}, "note", "read as numbers"),
    (
        "spelling",
        {"a": RNG.choice(["red", " Red", "blue"], N).tolist()},
        "note",
        "written in 2 ways",
    ),
    ("rare", {"a": with_cells(RNG.choice(["p", "q"], N), {0: "once"})}, "note", "pooled as 'other': 'once'"),
    ("outliers", {"a": with_cells(RNG.normal(size=N), {4: 1e3})}, "note", "beyond the quartiles"),
    (
        "leaking",
        {"a": [f"code {y}" for y in Y]},
        "warning",
        "tells the class of 100 % of unseen rows by itself",
    ),
    (
        "leaking",
        {"a": [float(y == "yes") + e for y, e in zip(Y, RNG.uniform(0, 0.4, N))]},
        "warning",
        "by itself",
    ),
    (
        "target_missing",
        {"y": with_cells(Y, {11: None, 12: None})},
        "error",
        "2 of 200 rows have no target, first row 11",
    ),
    ("tiny_classes", {"y": with_cells(Y, {1: "maybe", 2: "maybe"})}, "warning", "'maybe' (2)"),
    ("imbalance", {"y": ["yes"] * 12 + ["no"] * 188}, "warning", "188 rows are 'no', 12 are 'yes'"),
    ("one_class", {"y": ["yes"] * N}, "error", "every row is 'yes'; there is nothing to learn"),
    ("one_class", {"y": np.full(N, 0.5)}, "error", "always 0.5; there is nothing to learn"),
]


@pytest.mark.parametrize(
    ("rule", "columns", "severity", "text"), PLANTS, ids=[f"{i}-{p[0]}" for i, p in enumerate(PLANTS)]
)
def test_a_planted_fault_is_found(rule: str, columns: dict[str, Any], severity: str, text: str) -> None:
    check = hl.check(planted(**columns), "y")
    (issue,) = check.of(rule)
    assert issue.columns == (next(iter(columns)),)
    assert issue.severity == severity
    assert text in issue.text
    assert check.ok == (severity == "note")
    # nothing else fires, but for what follows from the plant itself
    follows = {
        "duplicate_columns": set(),
        "tiny_classes": {"imbalance"},
        "target_missing": set(),
        "mixed_types": {"identifier", "rare", "constant"},
        "identifier": {"rare", "constant"},
        "leaking": {"duplicate_columns"},
    }
    assert {other.rule for other in check.issues} <= {rule} | follows.get(rule, set())


def test_rows_that_repeat_or_contradict() -> None:
    table = clean()
    for name, values in table.items():
        table[name] = [*values, *values[:30]]
    table["y"][205] = "no" if table["y"][5] == "yes" else "yes"
    check = hl.check(table, "y")
    (repeated,), (torn,) = check.of("duplicate_rows"), check.of("contradictions")
    assert repeated.rows == 29 and repeated.severity == "warning" and "29 of 230" in repeated.text
    assert torn.rows == 2 and torn.severity == "note" and "first 5 and 205" in torn.text
    assert {issue.rule for issue in check.issues} == {"duplicate_rows", "contradictions"}


def test_every_rule_is_planted_and_documented() -> None:
    here = {plant[0] for plant in PLANTS} | {"duplicate_rows", "contradictions"}
    assert here == RULES
    page = (Path(__file__).resolve().parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    assert all(f"| {rule} |" in page for rule in RULES)


def test_what_only_looks_like_a_fault() -> None:
    rng = np.random.Generator(np.random.Philox(3))
    innocent = planted(
        count=rng.poisson(3, N),  # whole numbers that repeat
        income=rng.permutation(10**6)[:N],  # whole, all different, and a quantity
        day=(np.datetime64("2026-01-01") + np.arange(N)).astype("M8[D]"),  # dates in order
        ratio=np.exp(rng.normal(size=N)),
        dose=rng.choice(["5 mg", "10 mg"], N).tolist(),  # two levels with a unit are categories
        flag=rng.integers(0, 2, N).astype(bool),
        hint=[float(y == "yes") + e for y, e in zip(Y, rng.normal(0, 0.25, N))],  # a good feature, no leak
    )
    assert set(found(innocent)) <= {"outliers"}


def test_leaks_of_a_regression() -> None:
    rng = np.random.Generator(np.random.Philox(4))
    y = rng.normal(size=500)
    table = {
        "celsius": 20 + 3 * y,
        "curve": np.exp(y),
        "grade": np.where(y > 0, "high", "low").tolist(),  # good, and no leak
        "noisy": y + rng.normal(0, 0.3, 500),
        "other": rng.normal(size=500),
    }
    check = hl.check(table, y)
    assert check.task == "regression" and check.target == "target" and check.classes == ()
    assert sorted(issue.columns[0] for issue in check.of("leaking")) == ["celsius", "curve"]
    code = {"room": [f"r{i}" for i in np.arange(500) % 40]}
    assert [i.columns for i in hl.check(code, (np.arange(500) % 40) ** 1.5).of("leaking")] == [("room",)]
    assert hl.check({"x": np.arange(20.0)}, np.arange(20.0)).of("leaking") == ()  # too few rows to say so


def test_missing_where_the_target_is_known_is_a_leak() -> None:
    table = planted(
        refund=[None if y == "no" else e for y, e in zip(Y, np.random.default_rng(0).normal(size=N))]
    )
    assert found(table)["leaking"] == [("refund",)]


CLEAN_SETS = {"iris": {"duplicate_rows"}, "wine": set(), "breast_cancer": {"outliers"}, "diabetes": set()}


@pytest.mark.parametrize("name", CLEAN_SETS)
def test_clean_tables_have_no_more_than_notes_that_are_true(name: str) -> None:
    pytest.importorskip("sklearn")
    check = hl.check(name, "target")
    assert check.ok
    assert {issue.rule for issue in check.issues} == CLEAN_SETS[name]
    if name == "iris":  # rows 101 and 142 are equal, as UCI's page says
        assert check.of("duplicate_rows")[0].rows == 1


def test_digits_have_three_dark_pixels() -> None:
    pytest.importorskip("sklearn")
    check = hl.check("digits", "target")
    assert [issue.columns for issue in check.of("constant")] == [
        ("pixel_0_0",),
        ("pixel_4_0",),
        ("pixel_4_7",),
    ]
    assert check.ok and {issue.rule for issue in check.issues} == {"constant", "outliers"}
    assert dict(check.classes)["3"] == 183


def test_it_prints_worst_first_and_shortens_long_lists() -> None:
    table = planted(**{f"pixel{i}": np.zeros(N) for i in range(30)}, a=[np.inf] + [0.5] * (N - 1))
    lines = str(hl.check(table, "y")).splitlines()
    assert lines[1].startswith("error    infinite  a: 1 infinite or beyond 1e+300, first inf in row 0")
    assert [line for line in lines if "more:" in line] == [
        "note     constant  and 27 more: pixel4, pixel5, pixel6, pixel7, pixel8, pixel9, pixel10, pixel11, p..."
    ]
    assert lines[-1] == "1 error, 31 notes"


def test_frames_files_and_json(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(planted(a=np.zeros(N)))
    expected = hl.check(planted(a=np.zeros(N)), "y")
    assert hl.check(frame, "y") == expected
    assert hl.check(frame.drop(columns="y"), frame["y"]).issues == expected.issues
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert hl.check(tmp_path / "t.csv", "y").issues == expected.issues
    data = json.loads(json.dumps(expected.to_dict()))
    assert data["ok"] is True and data["issues"][0]["rule"] == "constant" and data["target"] == "y"


def test_whole_numbers_are_classes_and_floats_are_not() -> None:
    table = {"x": np.random.default_rng(0).normal(size=100)}
    assert hl.check(table, np.arange(100) % 3).task == "classification"
    assert hl.check(table, (np.arange(100) % 3).astype(float)).task == "regression"
    assert hl.check(table, np.arange(100) % 2 == 0).task == "classification"
    assert hl.check(table, np.arange(100)).task == "regression"
    numerals = [*("0.5" if i % 2 else "1.5" for i in range(98)), "", "NA"]
    assert hl.check(table, numerals).task == "regression"  # text of numbers
    assert hl.check(table, numerals).of("target_missing")[0].rows == 2


NUMBER = st.one_of(
    st.none(), st.floats(), st.integers(-3, 3).map(float), st.sampled_from([1e308, -1e308, 5e-324])
)
CELL = st.one_of(
    st.none(), st.sampled_from(["", " ", "a", "A ", "1", "2.5 kg", "NA", "x" * 50]), st.text(max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70).flatmap(lambda n: st.lists(
    st.one_of(*(st.lists(cell, min_size=n, max_size=n) for cell in (NUMBER, CELL))), min_size=2, max_size=5
)))  # fmt: skip
def test_any_table_can_be_checked(columns: list[list[Any]]) -> None:
    table = {f"c{i}": values for i, values in enumerate(columns)}
    for target in (None, "c0"):
        check = hl.check(table, target)  # no exception, and no warning of NumPy
        json.loads(json.dumps(check.to_dict()))
        assert {issue.rule for issue in check.issues} <= RULES
        assert str(check)


def test_a_table_that_is_none() -> None:
    with pytest.raises(ShapeError, match="no column 'yy'; did you mean 'y'"):
        hl.check(clean(), "yy")
    with pytest.raises(ShapeError, match="target has 3 rows, the table has 200"):
        hl.check(clean(), [1, 2, 3])
    with pytest.raises(ShapeError, match="0 feature columns"):
        hl.check({"y": [1, 2]}, "y")
    with pytest.raises(ShapeError, match="the table has 0 rows"):
        hl.check(as_columns({"a": []}, where="test"))
    with pytest.raises(FileNotFoundError):
        hl.check("nowhere.csv")
    assert found({"a": [1.0], "y": ["x"]}).keys() >= {"one_class"}
    every = planted(y=[None] * N)
    assert found(every)["target_missing"] == [("y",)]
