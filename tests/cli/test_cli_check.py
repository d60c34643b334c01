# SPDX-License-Identifier: Apache-2.0
"""``hotloop check``, and what ``hotloop train`` says of a table before it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hotloop as hl
from tests.command_line import Captured, call, done, write_blobs, write_people

pytest.importorskip("cyclopts")
pytest.importorskip("pyarrow")


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """blobs.csv with a column that says the class."""
    header, *lines = write_blobs(tmp_path / "blobs.csv").read_text().splitlines()
    rows = [f"{line},{'c' if line.endswith('cat') else 'a'}" for line in lines]
    (tmp_path / "told.csv").write_text("\n".join([f"{header},initial", *rows]))
    return tmp_path / "told.csv"


def test_it_is_the_check_of_the_library(tmp_path: Path, capsys: Captured) -> None:
    people = write_people(tmp_path / "people.csv")
    found = hl.check(hl.data.read(people), "kind")
    assert done(capsys, "check", people, "--target", "kind") == f"{people}: {found}\n"
    result = call(capsys, "check", people, "--target", "kind", "--json").result
    assert set(result) == {"data", "rows", "columns", "target", "task", "classes", "issues", "ok"}
    assert [issue["rule"] for issue in result["issues"]] == [issue.rule for issue in found.issues]
    missing = next(issue for issue in result["issues"] if issue["rule"] == "missing")
    assert set(missing) == {"rule", "severity", "columns", "rows", "text"}
    assert done(capsys, "check", people) == f"{people}: {hl.check(people)}\n"


def test_strict_has_an_exit_code_of_its_own(leaking: Path, capsys: Captured) -> None:
    random, clean = np.random.Generator(np.random.Philox(0)), leaking.with_name("clean.csv")
    rows = [f"{x:.4f},3,{'ab'[int(x + y > 0)]}" for x, y in random.normal(size=(200, 2))]
    clean.write_text("\n".join(["x,unit,kind", *rows]))
    assert call(capsys, "check", leaking, "--target", "kind").code == 0
    ended = call(capsys, "check", leaking, "--target", "kind", "--strict", "--json")
    assert ended.code == 3 and ended.document["result"]["ok"] is False
    assert call(capsys, "check", clean, "--target", "kind", "--strict").code == 0  # notes alone


def test_a_target_that_is_not_there(leaking: Path, capsys: Captured) -> None:
    ended = call(capsys, "check", leaking, "--target", "knd")
    assert ended.code == 2 and "did you mean 'kind'" in ended.err


def test_train_warns_of_what_it_finds(leaking: Path, capsys: Captured) -> None:
    train = (
        "train",
        leaking,
        "--target",
        "kind",
        "--epochs",
        "2",
        "--out",
        leaking.with_name("m.safetensors"),
    )
    ended = call(capsys, *train)
    assert "\nwarning: leaking: initial" in ended.err or "\nerror: leaking: initial" in ended.err
    assert f"about the data: hotloop check {leaking} --target kind" in ended.err
    assert ": leaking: initial" not in ended.out
    result = call(capsys, *train, "--json").result
    assert ("leaking", ["initial"]) in [(issue["rule"], issue["columns"]) for issue in result["check"]]
    ended = call(capsys, *train, "--no-check", "--json")
    assert ended.result["check"] is None and ": leaking: initial" not in ended.err
    ended = call(capsys, *train, "--ignore", "initial")
    assert ": leaking: initial" not in ended.err


def test_rows_in_two_parts_are_counted(leaking: Path, capsys: Captured) -> None:
    header, *lines = leaking.with_name("blobs.csv").read_text().splitlines()
    leaking.write_text("\n".join([header, *np.repeat(lines, 2)]))
    ended = call(capsys, "train", leaking, "--target", "kind", "--epochs", "2", "--out", leaking.parent)
    assert "rows of validation and test also in an earlier part (rows " in ended.err
