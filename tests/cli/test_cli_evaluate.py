# SPDX-License-Identifier: Apache-2.0
"""``hotloop evaluate`` beside scikit-learn's metrics, and on blocks of a file."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

import hotloop as hl
from hotloop.cli import main, source
from hotloop.cli.reports import Scores
from tests.command_line import Captured, call, done, write_people

pytest.importorskip("cyclopts")
pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people.csv, a classifier, one of numbered classes and a regression of it."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_people(folder / "people.csv")
    text = data.read_text()
    data.write_text(text.replace(",cat", ",7").replace(",dog", ",12"))
    (folder / "named.csv").write_text(text)
    quick = ["--ignore", "id", "--epochs", "5", "--hidden", "8", "--drop-missing-target"]
    for table, target in (("named", "kind"), ("people", "kind"), ("named", "height")):
        out = str(folder / f"{table}-{target}.safetensors")
        assert main(["train", str(folder / f"{table}.csv"), "--target", target, *quick, "--out", out]) == 0
    rows = [line for line in text.splitlines() if ",NA," not in line]
    (folder / "heights.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize(("table", "names"), [("named", ["cat", "dog"]), ("people", ["7", "12"])])
def test_classes(table: str, names: list[str], trained: Path, capsys: Captured) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    model, data = trained / f"{table}-kind.safetensors", trained / f"{table}.csv"
    predicted = [
        row["prediction"] for row in csv.DictReader(done(capsys, "predict", model, data).splitlines())
    ]
    true = [row["kind"] for row in csv.DictReader(data.read_text().splitlines())]
    result = call(capsys, "evaluate", model, data, "--json").result
    assert set(result) == {"model", "data", "task", "target", "rows", "accuracy", "classes", "confusion"}
    assert (result["rows"], result["target"], result["task"]) == (240, "kind", "classification")
    assert result["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert result["confusion"] == metrics.confusion_matrix(true, predicted, labels=names).tolist()
    theirs = metrics.precision_recall_fscore_support(true, predicted, labels=names)
    for label, name in enumerate(names):
        ours = result["classes"][label]
        assert ours.pop("name") == name
        assert list(ours) == ["precision", "recall", "f1", "support"]
        np.testing.assert_allclose(list(ours.values()), [column[label] for column in theirs])
    text = done(capsys, "evaluate", model, data)
    assert text.startswith(f"{data}: 240 rows\n")
    matrix = "\n".join(rf" *{n} +{a} +{b}" for n, (a, b) in zip(names, result["confusion"]))
    assert re.search(rf"true \\ predicted\n +{names[0]} +{names[1]}\n{matrix}\n", text)


def test_values(trained: Path, capsys: Captured) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    model, data = trained / "named-height.safetensors", trained / "heights.csv"
    predicted = [float(line) for line in done(capsys, "predict", model, data).split()[1:]]
    true = [float(row["height"]) for row in csv.DictReader(data.read_text().splitlines())]
    result = call(capsys, "evaluate", model, data, "--json").result
    assert result["rmse"] == pytest.approx(metrics.root_mean_squared_error(true, predicted))
    assert result["mae"] == pytest.approx(metrics.mean_absolute_error(true, predicted))
    assert result["r2"] == pytest.approx(metrics.r2_score(true, predicted))
    assert re.search(r"RMSE +\S+\nMAE +\S+\nR2 +\S+\n", done(capsys, "evaluate", model, data))


def test_blocks_change_nothing(trained: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [("evaluate", trained / "named-kind.safetensors", trained / "named.csv", "--json")]
    calls += [("evaluate", trained / "named-height.safetensors", trained / "heights.csv", "--json")]
    whole = [call(capsys, *arguments).out for arguments in calls]
    monkeypatch.setattr(source, "_ROWS", 7)
    assert [call(capsys, *arguments).out for arguments in calls] == whole


def test_another_column_may_hold_the_truth(trained: Path, capsys: Captured, tmp_path: Path) -> None:
    data = tmp_path / "new.csv"
    data.write_text((trained / "named.csv").read_text().replace("kind", "truth", 1))
    model = trained / "named-kind.safetensors"
    ended = call(capsys, "evaluate", model, data)
    assert ended.code == 2 and "has no column 'kind'" in ended.err
    result = call(capsys, "evaluate", model, data, "--target", "truth", "--json").result
    assert (
        result["accuracy"]
        == call(capsys, "evaluate", model, trained / "named.csv", "--json").result["accuracy"]
    )
    ended = call(capsys, "evaluate", model, data, "--target", "size")
    assert ended.code == 2 and "--target size is a feature of the model" in ended.err


def test_names_that_are_numbers_are_names(tmp_path: Path, capsys: Captured) -> None:
    """A preprocessing that knows class names only, as earlier versions wrote and as `class_names` makes."""
    random = np.random.Generator(np.random.Philox(3))
    X = random.normal(size=(60, 2))
    y = (X[:, 0] > 0).astype(np.int64)
    trainer = hl.Trainer(hl.nn.Linear(2, 2), "cross_entropy", optimizer=hl.optim.AdamW(0.1))
    names = ["1", "2"]
    prepare = hl.data.Preprocessor.fit(X, y, task="classification", class_names=names, target_name="y")
    trainer.preprocessor = prepare
    trainer.fit(prepare.transform(X), y, epochs=30)
    trainer.save(tmp_path / "m.safetensors")
    lines = [f"{a},{b},{names[label]}" for (a, b), label in zip(X, y)]
    (tmp_path / "t.csv").write_text("\n".join(["x0,x1,y", *lines]))
    np.savez(tmp_path / "t.npz", X=X, y=y + 1)
    for data in ("t.csv", "t.npz"):
        assert (
            call(capsys, "evaluate", tmp_path / "m.safetensors", tmp_path / data, "--json").result["accuracy"]
            > 0.9
        )


@pytest.mark.parametrize(
    ("last", "message"),
    [("bird", r"row 241: class 'bird', which the model does not know; allowed: cat, dog"),
     ("", r"row 241: the value is missing")],
)  # fmt: skip
def test_a_bad_target_is_named_by_its_row(
    last: str, message: str, trained: Path, capsys: Captured, tmp_path: Path
) -> None:
    data = tmp_path / "new.csv"
    data.write_text((trained / "named.csv").read_text() + f"\n00240,1,150,Rome,2024-01-01,{last}\n")
    ended = call(capsys, "evaluate", trained / "named-kind.safetensors", data)
    assert ended.code == 2 and re.search(message, ended.err)


def test_a_matrix_too_wide_becomes_a_list() -> None:
    names = [f"class {i}" for i in range(12)]
    true = np.repeat(np.arange(12), 3)
    predicted = np.where(np.arange(36) % 6 == 0, (true + 1) % 12, true)
    scores = Scores(true, predicted, names)
    wide, narrow = scores.text(200, confusion=True), scores.text(60, confusion=True)
    assert "true \\ predicted" in wide and "most often confused" not in wide
    assert "      1  class 0 taken for class 1" in narrow and "true \\ predicted" not in narrow
    assert max(map(len, narrow.splitlines())) <= 60
    assert "no class is taken for another" in Scores(true, true, names).text(60, confusion=True)
