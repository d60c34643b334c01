# SPDX-License-Identifier: Apache-2.0
"""``hotloop predict``: its columns and formats, bounded memory, and what bad rows and bad files lead to."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.cli import main, source
from tests.command_line import Captured, call, done, process, write_blobs, write_people

pytest.importorskip("cyclopts")
pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people.csv (text, missing values), a classifier and a regression of it."""
    folder = tmp_path_factory.mktemp("trained")
    data = str(write_people(folder / "people.csv"))
    quick = ["--ignore", "id", "--epochs", "5", "--hidden", "8"]
    assert main(["train", data, "--target", "kind", *quick, "--out", str(folder / "kind.safetensors")]) == 0
    assert (
        main(
            [
                "train",
                data,
                "--target",
                "height",
                "--drop-missing-target",
                *quick,
                "--out",
                str(folder / "height.safetensors"),
            ]
        )
        == 0
    )
    return folder


def expected(model: Path, data: Path) -> Any:
    """What the library gives for a file: the outputs of the network, rows in order."""
    trainer = hl.load(model)
    assert trainer.preprocessor is not None
    table = hl.data.read(data).select(trainer.preprocessor.feature_names)
    inputs = trainer.preprocessor.transform(table)
    if trainer.preprocessor.task == "classification":
        return trainer.predict_proba(inputs)
    return trainer.preprocessor.inverse_target(trainer.predict(inputs))


def test_classes(trained: Path, capsys: Captured) -> None:
    model, data = trained / "kind.safetensors", trained / "people.csv"
    header, *lines = done(capsys, "predict", model, data).splitlines()
    assert header == "prediction,probability"
    shares = expected(model, data)
    assert lines == [f"{('cat', 'dog')[p.argmax()]},{p.max():.6g}" for p in shares]


def test_values(trained: Path, capsys: Captured) -> None:
    model, data = trained / "height.safetensors", trained / "people.csv"
    header, *lines = done(capsys, "predict", model, data).splitlines()
    assert header == "prediction"
    assert lines == [f"{value:.9g}" for value in expected(model, data)]


def test_all_probabilities_and_kept_columns(trained: Path, capsys: Captured) -> None:
    model, data = trained / "kind.safetensors", trained / "people.csv"
    out = done(capsys, "predict", model, data, "--proba", "--keep", "id,day", "--keep", "height")
    rows = list(csv.DictReader(out.splitlines()))
    given = list(csv.DictReader(data.read_text().splitlines()))
    assert list(rows[0]) == ["id", "day", "height", "prediction", "probability", "p_cat", "p_dog"]
    assert [row["id"] for row in rows] == [row["id"] for row in given]  # 007 stays 007
    assert [row["day"] for row in rows] == [row["day"] for row in given]
    heights = ["" if row["height"] == "NA" else str(float(row["height"])) for row in given]
    assert [row["height"] for row in rows] == heights
    shares = np.array([[float(row["p_cat"]), float(row["p_dog"])] for row in rows])
    np.testing.assert_allclose(shares, expected(model, data), rtol=1e-5)


def test_parquet_in_and_out(trained: Path, capsys: Captured, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    data, out = tmp_path / "people.parquet", tmp_path / "new" / "out.parquet"
    table = hl.data.read(trained / "people.csv")
    arrays = {column.name: pa.array(column.values, from_pandas=True) for column in table.columns}
    arrays["id"] = pa.array([None, *range(1, table.rows)], pa.int64())
    parquet.write_table(pa.table(arrays), data)
    model = trained / "kind.safetensors"
    assert (
        done(capsys, "predict", model, data, "--keep", "id", "--out", out)
        == f"240 predictions written to {out}\n"
    )
    written = parquet.read_table(out)
    assert written.column_names == ["id", "prediction", "probability"]
    assert written["id"].type == pa.int64() and written["id"].to_pylist() == [None, *range(1, 240)]
    np.testing.assert_array_equal(written["probability"].to_numpy(), expected(model, data).max(axis=1))
    result = call(capsys, "predict", model, data, "--out", out, "--json").result
    assert result == {"model": str(model), "data": str(data), "out": str(out), "rows": 240}


def test_the_document_holds_the_rows(trained: Path, capsys: Captured) -> None:
    model, data = trained / "kind.safetensors", trained / "people.csv"
    result = call(capsys, "predict", model, data, "--keep", "id,height", "--json").result
    assert set(result) == {"model", "data", "out", "rows", "predictions"}
    assert result["rows"] == len(result["predictions"]) == 240
    rows = list(csv.DictReader(done(capsys, "predict", model, data, "--keep", "id,height").splitlines()))
    assert any(row["height"] is None for row in result["predictions"])  # missing is null, never NaN
    for ours, theirs in zip(result["predictions"], rows, strict=True):
        assert [ours["id"], ours["prediction"]] == [theirs["id"], theirs["prediction"]]
        assert ours["probability"] == float(theirs["probability"])


def test_blocks_change_nothing(trained: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = trained / "kind.safetensors", trained / "people.csv"
    whole = done(capsys, "predict", model, data, "--keep", "id", "--proba")
    whole_json = call(capsys, "predict", model, data, "--keep", "id", "--json").out
    monkeypatch.setattr(source, "_ROWS", 7)
    assert done(capsys, "predict", model, data, "--keep", "id", "--proba") == whole
    assert call(capsys, "predict", model, data, "--keep", "id", "--json").out == whole_json


PEAK = """
import resource, sys
from hotloop.cli import main
for arguments in {commands!r}:
    assert main(arguments) == 0
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
"""


def test_memory_is_that_of_a_block(trained: Path, tmp_path: Path) -> None:
    header, *lines = (trained / "people.csv").read_text().splitlines()
    commands = []
    for name, copies in (("small", 800), ("large", 5600)):
        path = tmp_path / f"{name}.csv"
        with path.open("w") as file:
            file.write(header + "\n")
            for _ in range(copies):
                file.write("\n".join(lines) + "\n")
        model, out = str(trained / "kind.safetensors"), str(tmp_path / f"{name}.out.csv")
        commands.append(["predict", model, str(path), "--keep", "id", "--out", out])
    child = subprocess.run(
        [sys.executable, "-c", PEAK.format(commands=commands)], capture_output=True, text=True, check=True
    )
    small, large = (int(line) for line in child.stderr.split())
    # pyarrow reads some 32 blocks of 1 MiB ahead. Held whole, 1.1 million more rows would take 40 bytes each as
    # columns and more than 100 as text.
    assert large - small < 64 * 2**20
    written = (tmp_path / "large.out.csv").read_text().splitlines()
    assert len(written) == 5600 * 240 + 1
    assert [line.split(",")[0] for line in written[1:241]] == [line.split(",")[0] for line in lines]
    assert written[-240:] == written[1:241]


# --- what goes wrong --------------------------------------------------------------------------------


def test_a_bad_row_is_named_and_no_file_is_left(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    header, *lines = (trained / "people.csv").read_text().splitlines()
    data, out = tmp_path / "new.csv", tmp_path / "out.csv"
    out.write_text("of yesterday")
    cases = {
        "00100,x,1,Rome,2024-01-01,cat": "new.csv, line 102, column 'size': 'x' is not a number",
        "00100,1,inf,Rome,2024-01-01,cat": "new.csv, row 101: the value = inf ('height'",
        "00100,1,1,Rome,cat": "new.csv, line 102: 5 values for 6 columns",
    }
    for bad, message in cases.items():
        data.write_text("\n".join([header, *lines[:100], bad, *lines[100:]]))
        ended = call(capsys, "predict", trained / "kind.safetensors", data, "--out", out)
        assert (ended.code, ended.out) == (2, "")
        assert message in ended.err
        assert out.read_text() == "of yesterday"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]
        ended = call(capsys, "predict", trained / "kind.safetensors", data, "--json")
        assert message in ended.document["error"]["message"]


def test_other_columns_are_refused_by_the_first_difference(
    trained: Path, tmp_path: Path, capsys: Captured
) -> None:
    data = tmp_path / "new.csv"
    data.write_text((trained / "people.csv").read_text().replace("height", "hieght", 1))
    ended = call(capsys, "predict", trained / "kind.safetensors", data)
    assert (ended.code, ended.out) == (2, "")
    assert "has no column 'height'" in ended.err and "did you mean 'hieght'?" in ended.err
    # other columns, in another order: found by name
    rows = list(csv.DictReader((trained / "people.csv").read_text().splitlines()))
    with data.open("w") as file:
        writer = csv.DictWriter(file, ["note", "town", "height", "day", "size"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, "note": "n"} for row in rows)
    model = trained / "kind.safetensors"
    assert done(capsys, "predict", model, data) == done(capsys, "predict", model, trained / "people.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("kind.safetensors people.csv --out people.csv", "--out people.csv is read, too"),
        ("kind.safetensors people.csv --out out.xlsx", "cannot write 'out.xlsx'; allowed: .csv, .tsv"),
        (
            "kind.safetensors people.csv --keep idd",
            "--keep names 'idd', which is no column; did you mean 'id'",
        ),
        ("height.safetensors people.csv --proba", "--proba is for classes"),
        (
            "kind.safetensors odd.csv --keep prediction",
            "--keep prediction has the name of a column of predictions",
        ),
        ("kind.safetensors none.csv", "none.csv has a header and no rows"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: str, message: str, trained: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    text = Path("people.csv").read_text()
    Path("odd.csv").write_text(text.replace("kind", "prediction", 1))
    Path("none.csv").write_text(text.partition("\n")[0] + "\n")
    ended = call(capsys, "predict", *arguments.split())
    assert ended.code == 2 and message in ended.err
    assert not Path("out.xlsx").exists()


def test_a_reader_that_leaves_early_is_no_error(trained: Path) -> None:
    many = trained / "many.csv"
    header, *rows = (trained / "people.csv").read_text().splitlines()
    many.write_text("\n".join([header, *(rows * 100)]))
    with process("predict", "kind.safetensors", "many.csv", cwd=trained) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(timeout=60) == 0
        assert child.stderr.read() == ""


def test_a_pipe_gets_nothing_but_predictions(trained: Path) -> None:
    child = process("predict", "kind.safetensors", "people.csv", "--json", cwd=trained)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert json.loads(out)["result"]["rows"] == 240


def test_blobs_of_numbers_need_no_text(tmp_path: Path, capsys: Captured) -> None:
    blobs, model = write_blobs(tmp_path / "blobs.csv"), tmp_path / "m.safetensors"
    done(capsys, "train", blobs, "--target", "kind", "--out", model)
    rows = list(csv.DictReader(done(capsys, "predict", model, blobs, "--keep", "kind").splitlines()))
    assert np.mean([row["prediction"] == row["kind"] for row in rows]) > 0.9


@pytest.mark.parametrize("version", ["v0.1.0.dev0", "v0.1.0.dev3"])
def test_models_of_earlier_versions(version: str, tmp_path: Path, capsys: Captured) -> None:
    model = Path(__file__).parents[1] / "golden" / version / "classifier.safetensors"
    random = np.random.Generator(np.random.Philox(5))
    lines = [",".join(map(str, row)) for row in random.normal(size=(9, 4))]
    (tmp_path / "new.csv").write_text("\n".join(["d,c,b,a", *lines]))
    rows = call(capsys, "predict", model, tmp_path / "new.csv", "--proba", "--json").result["predictions"]
    shares = [[row[f"p_{name}"] for name in ("low", "middle", "high")] for row in rows]
    np.testing.assert_allclose(shares, expected(model, tmp_path / "new.csv"), rtol=1e-5)


def test_ctrl_c_leaves_no_file(trained: Path, tmp_path: Path) -> None:
    header, *lines = (trained / "people.csv").read_text().splitlines()
    (tmp_path / "many.csv").write_text("\n".join([header, *(lines * 5000)]))
    child = process("predict", trained / "kind.safetensors", "many.csv", "--out", "out.csv", cwd=tmp_path)
    while not list(tmp_path.glob(".out.csv.*.tmp")):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "hotloop: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["many.csv"]
