# SPDX-License-Identifier: Apache-2.0
"""The whole path of a real table: read, check, split, prepare, train, save, load, and predict block by block."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import hotloop as hl
from hotloop.data import read, read_blocks
from hotloop.nn.tabular import tabular_model

pytest.importorskip("narwhals")
csv = pytest.importorskip("pyarrow.csv")

PENGUINS = Path(__file__).resolve().parents[2] / "examples" / "data" / "penguins.csv"


@pytest.mark.parametrize("page", ["check.md", "tables.md"])
def test_the_pages_show_what_is_printed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (PENGUINS.parents[2] / "docs" / page).read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", text, re.DOTALL)
    assert found
    monkeypatch.chdir(tmp_path)
    exec(compile(found[1], page, "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out == found[2]


def test_the_file_is_what_its_page_says() -> None:
    table = read(PENGUINS)
    assert (table.rows, len(table.columns)) == (344, 8)
    assert sum(int(column.missing.sum()) for column in table.columns) == 19
    assert [column.name for column in table.columns if column.kind == "text"] == ["species", "island", "sex"]
    check = hl.check(table, "species")
    assert check.ok and {issue.rule for issue in check.issues} == {"missing"}
    assert dict(check.classes) == {"Adelie": 152, "Gentoo": 124, "Chinstrap": 68}


@pytest.mark.parametrize(
    ("target", "task", "bound"), [("species", "classification", 0.95), ("body_mass_g", "regression", 0.75)]
)
def test_from_file_to_predictions(target: str, task: str, bound: float, tmp_path: Path) -> None:
    table = read(PENGUINS)
    known = table.take(np.flatnonzero(~table[target].missing))
    data = hl.split(known, target, seed=1)
    prepare = hl.data.Preprocessor.fit(*data.train, target_name=target)
    assert prepare.task == task
    classes = task == "classification"
    trainer = hl.Trainer(
        tabular_model(prepare, hidden=(32,)),
        "cross_entropy" if classes else "mse",
        optimizer=hl.optim.AdamW(3e-3),
    )
    trainer.preprocessor, trainer.split = prepare, data.info
    train, validation = (
        (prepare.transform(part.X), prepare.transform_target(part.y))
        for part in (data.train, data.validation)
    )
    trainer.fit(*train, validation=validation, epochs=60)

    X, y = data.test.open("final report")
    if classes:
        labels = trainer.predict_label(prepare.transform(X))
        score = np.mean(np.array(prepare.class_names)[labels] == y)
    else:
        error = prepare.inverse_target(trainer.predict(prepare.transform(X))) - y
        score = 1 - np.mean(error**2) / np.var(y)
    assert score >= bound

    trainer.save(tmp_path / "model.safetensors")
    loaded = hl.load(tmp_path / "model.safetensors")
    names = loaded.preprocessor.feature_names
    kinds = {name: table[name].kind for name in names}
    blocks = read_blocks(PENGUINS, rows=50, columns=names, kinds=kinds)
    streamed = [loaded.predict(loaded.preprocessor.transform(block)) for block in blocks]
    whole = trainer.predict(prepare.transform(table.select(names)))
    np.testing.assert_array_equal(np.concatenate(streamed), whole)  # block by block, to the bit
    assert loaded.split == data.info and loaded.split.looks == ["final report"]
