# SPDX-License-Identifier: Apache-2.0
"""``hotloop train``: what it prints and writes, its options, Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hotloop as hl
from tests.command_line import Captured, call, done, process, write_blobs, write_people

pytest.importorskip("cyclopts")


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return write_blobs(tmp_path / "blobs.csv")


def test_what_goes_where(blobs: Path, capsys: Captured) -> None:
    model = blobs.with_name("m.safetensors")
    ended = call(
        capsys, "train", blobs, "--target", "kind", "--hidden", "16,8", "--dropout", "0.1", "--out", model
    )
    assert ended.code == 0
    assert "blobs: 120 rows, 3 features, 2 classes (84 train, 18 validation, 18 test)" in ended.err
    assert ended.out.startswith("ended by ")
    assert re.search(r"best epoch \d+, validation loss", ended.out)
    assert "Test report (18 rows)" in ended.out
    assert float(re.search(r"accuracy +(\S+)", ended.out).group(1)) > 0.9  # type: ignore[union-attr]
    assert ended.out.endswith(f"model written to {model}\n")


def test_the_document(blobs: Path, capsys: Captured) -> None:
    model = blobs.with_name("m.safetensors")
    train = ("train", blobs, "--target", "kind", "--epochs", "40", "--lr", "0.01", "--out", model, "--json")
    result = call(capsys, *train, "--progress").result
    assert set(result) == {"data", "parameters", "run", "findings", "test", "check", "model", "report"}
    assert result["data"] == {
        "name": "blobs", "task": "classification", "target": "kind", "classes": ["ant", "cat"],
        "features": ["size", "unit", "weight"], "rows": {"train": 84, "validation": 18, "test": 18},
    }  # fmt: skip
    assert result["model"] == str(model) and result["report"] is None
    run = result["run"]
    assert set(run) == {"epochs", "best_epoch", "stop_reason", "seconds", "best"}
    assert run["stop_reason"] in ("epochs", "early_stopping") and run["best"]["val_loss"] < 0.3
    test = result["test"]
    assert test["rows"] == 18 and test["accuracy"] > 0.9
    assert [c["name"] for c in test["classes"]] == ["ant", "cat"]
    assert np.sum(test["confusion"]) == 18
    assert np.trace(test["confusion"]) / 18 == test["accuracy"]


def test_a_report(blobs: Path, capsys: Captured) -> None:
    pytest.importorskip("matplotlib")
    folder = blobs.parent
    train = ("train", blobs, "--target", "kind", "--epochs", "5", "--out", folder / "m.safetensors")
    out = done(capsys, *train, "--report", folder / "new" / "page.html")
    assert out.endswith(f"report written to {folder / 'new' / 'page.html'}\n")
    page = (folder / "new" / "page.html").read_text(encoding="utf-8")
    assert "Confusion matrix" in page and ">cat</th>" in page and ">ant</th>" in page
    result = call(capsys, *train, "--report", folder, "--json").result  # a folder: a page in it
    assert result["report"] == str(folder / "run.html")
    assert (folder / "run.html").exists()


def test_a_report_that_cannot_be_written_is_refused_before_training(
    blobs: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", blobs, "--target", "kind", "--out", blobs.with_name("m.safetensors"))
    assert call(capsys, *train, "--report", blobs / "page.html").code == 2  # the folder is a file
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = call(capsys, *train, "--report", "page.html")
    assert ended.code == 2 and "pip install 'hotloop[plot]'" in ended.err
    assert not blobs.with_name("m.safetensors").exists()


def test_regression(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.Generator(np.random.Philox(0))
    X = random.normal(size=(300, 2))
    np.savez("plane.npz", X=X, y=5000 + 100 * X[:, 0] - 50 * X[:, 1] + random.normal(0, 5, 300))
    ended = call(capsys, "train", "plane.npz", "--epochs", "100")
    assert "regression (210 train, 45 validation, 45 test)" in ended.err
    assert float(re.search(r"R2 +(\S+)", ended.out).group(1)) > 0.98  # type: ignore[union-attr]
    assert float(re.search(r"RMSE +(\S+)", ended.out).group(1)) < 15  # type: ignore[union-attr]
    model = "hotloop-model/plane.safetensors"
    header, *values = done(capsys, "predict", model, "plane.npz").split()
    assert header == "prediction"
    assert np.mean([float(v) for v in values]) == pytest.approx(5000, rel=0.01)
    test = call(capsys, "train", "plane.npz", "--epochs", "100", "--json").result["test"]
    assert set(test) == {"rows", "rmse", "mae", "r2"} and test["r2"] > 0.98


def test_the_same_seed_gives_the_same_model(blobs: Path, capsys: Captured) -> None:
    for name in ("a", "b", "c"):
        seed = "1" if name == "c" else "0"
        path = blobs.with_name(f"{name}.safetensors")
        done(capsys, "train", blobs, "--target", "kind", "--epochs", "3", "--seed", seed, "--out", path)
    a, b, c = (hl.load(blobs.with_name(f"{n}.safetensors")).model.state_dict() for n in "abc")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["mlp.0.weight"], c["mlp.0.weight"])


def test_digits_with_the_defaults(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("sklearn")
    out = ("--out", tmp_path / "m.safetensors", "--json")
    runs = [call(capsys, "train", "digits", "--seed", seed, *out).result for seed in range(5)]
    assert np.mean([run["test"]["accuracy"] for run in runs]) >= 0.97


def test_options_reach_the_trainer(blobs: Path, capsys: Captured) -> None:
    model = blobs.with_name("m.safetensors")
    text = (
        "--hidden 8 --activation gelu --optimizer sgd --lr 0.05 --momentum 0.9 --weight-decay 0.001 --schedule cosine "
        "--warmup 0.1 --clip-norm 1 --ema 0.9 --label-smoothing 0.1 --class-weight balanced --epochs 4 --batch-size 16"
    )
    done(capsys, "train", blobs, "--target", "kind", *text.split(), "--out", model)
    trainer = hl.load(model)
    assert trainer.optimizer == hl.optim.SGD(0.05, 0.9, weight_decay=0.001)
    assert trainer.schedule == hl.schedules.Cosine(warmup=0.1)
    assert (trainer.clip_norm, trainer.ema) == (1.0, 0.9)
    assert trainer.history is not None
    assert (trainer.history.epochs, trainer.history.about["configuration"]["settings"]["batch size"]) == (
        4,
        16,
    )
    assert trainer.history.about["configuration"]["model"]["layers"][1][1].startswith("GELU(")
    loss = trainer._known_loss()
    assert loss.label_smoothing == pytest.approx(0.1) and loss.class_weight == (1.0, 1.0)  # 42 rows each


@pytest.mark.parametrize("text", ["onehot", "embedding"])
def test_tables_as_they_come(text: str, tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("pyarrow")
    people, model = write_people(tmp_path / "people.csv"), tmp_path / "m.safetensors"
    options = ("--ignore", "id,day", "--text", text, "--scale", "robust", "--clip", "3", "--missing", "mean")
    train = ("train", people, "--target", "kind", *options, "--out", model, "--json")
    result = call(capsys, *train).result
    assert result["data"]["features"] == ["size", "height", "town"]
    assert result["test"]["accuracy"] > 0.9
    prepare = hl.load(model).preprocessor
    assert prepare is not None and prepare.cat_names == (("town",) if text == "embedding" else ())
    assert call(capsys, "evaluate", model, people, "--json").result["accuracy"] > 0.9
    rows = call(capsys, "predict", model, people, "--json").result["predictions"]
    assert {row["prediction"] for row in rows} == {"cat", "dog"}


@pytest.mark.parametrize(("option", "column"), [("--split-by-time", "day"), ("--split-by-group", "town")])
def test_other_splits(option: str, column: str, tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("pyarrow")
    people, model = tmp_path / "people.csv", tmp_path / "m.safetensors"
    header, *lines = write_people(people).read_text().splitlines()
    towns = [
        ",".join([*line.split(",")[:3], f"town {i % 12}", *line.split(",")[4:]])
        for i, line in enumerate(lines)
    ]
    people.write_text("\n".join([header, *towns]))
    train = ("train", people, "--target", "kind", "--ignore", "id", "--epochs", "3", "--out", model, "--json")
    result = call(capsys, *train, option, column).result
    assert column not in result["data"]["features"]
    info = hl.load(model).split
    assert info is not None and info.by == option.removeprefix("--split-by-")
    rows = list(result["data"]["rows"].values())
    assert sum(rows) == 240 and tuple(rows) == info.rows
    both = call(capsys, *train, "--split-by-time", "day", "--split-by-group", "town")
    assert both.code == 2 and "exclude one another" in both.err
    absent = call(capsys, *train, option, "dya")
    assert absent.code == 2 and f"{option} names 'dya', which is no column; did you mean 'day'" in absent.err


def test_rows_without_a_target(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("pyarrow")
    people = write_people(tmp_path / "people.csv")
    train = ("train", people, "--target", "height", "--ignore", "id", "--epochs", "2", "--out", tmp_path)
    ended = call(capsys, *train)
    assert ended.code == 2
    assert "the target 'height' is missing in row 6 (14 of 240 rows)" in ended.err
    ended = call(capsys, *train, "--drop-missing-target", "--json")
    assert sum(ended.result["data"]["rows"].values()) == 226
    assert "14 of 240 rows have no target 'height' and are left out" in ended.err


BARE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyarrow", "narwhals", "pandas", "polars", "sklearn", "onnx"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "pyarrow" else found(name, *more)
from hotloop.cli import main
codes = [main(["train", "numbers.csv", "--target", "kind", "--epochs", "3", "--out", "m.safetensors"])]
codes += [main(["predict", "m.safetensors", "numbers.csv", "--keep", "kind", "--out", "p.csv"])]
codes += [main(["evaluate", "m.safetensors", "numbers.csv"]), main(["check", "numbers.csv"])]
codes += [main(["train", "blobs.csv", "--target", "kind"]), main(["train", "x.parquet", "--target", "kind"])]
print(codes)
"""


def test_tables_of_numbers_need_no_further_library(blobs: Path) -> None:
    text = blobs.read_text()
    blobs.with_name("numbers.csv").write_text(text.replace("ant", "1").replace("cat", "2"))
    child = subprocess.run(
        [sys.executable, "-c", BARE], cwd=blobs.parent, capture_output=True, text=True, check=True
    )
    assert child.stdout.splitlines()[-1] == "[0, 0, 0, 0, 2, 2]", child.stderr
    assert child.stderr.count("pip install 'hotloop[data]'") == 2
    assert blobs.with_name("p.csv").read_text().splitlines()[1].startswith("1,1,")


def test_a_run_goes_on_from_its_checkpoint(blobs: Path, capsys: Captured) -> None:
    train = ("train", blobs, "--target", "kind", "--epochs", "12", "--dropout", "0.2")
    whole, rest, states = (
        blobs.with_name(name) for name in ("whole.safetensors", "rest.safetensors", "states")
    )
    done(capsys, *train, "--out", whole, "--checkpoint", states)
    earlier = sorted(states.glob("*.safetensors"))[0]
    assert hl.load(earlier).info.history.epochs < 12  # type: ignore[union-attr]
    done(capsys, *train, "--out", rest, "--resume", earlier)
    a, b = (hl.load(path).model.state_dict() for path in (whole, rest))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    other = call(capsys, *train, "--lr", "0.5", "--out", rest, "--resume", earlier)
    assert other.code == 2 and "optimizer" in other.err


def test_a_time_limit_ends_with_a_model(blobs: Path, capsys: Captured) -> None:
    endless = (
        "train",
        blobs,
        "--target",
        "kind",
        "--epochs",
        10**8,
        "--patience",
        10**8,
        "--out",
        blobs.parent,
    )
    assert call(capsys, *endless, "--max-time", "0.3", "--json").result["run"]["stop_reason"] == "time"


def test_parquet_trains_as_csv_does(tmp_path: Path, capsys: Captured) -> None:
    csv, parquet = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
    people = write_people(tmp_path / "people.csv")
    marks = csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
    parquet.write_table(csv.read_csv(people, convert_options=marks), tmp_path / "people.parquet")
    options = ("--target", "kind", "--ignore", "id", "--epochs", "5", "--out", tmp_path, "--json")
    first, second = (
        call(capsys, "train", tmp_path / f"people.{kind}", *options).result for kind in ("csv", "parquet")
    )
    assert first["run"].pop("seconds") and second["run"].pop("seconds")
    assert first["run"] == second["run"] and first["test"] == second["test"]


def test_ctrl_c_reports_saves_and_exits_with_130(blobs: Path) -> None:
    endless = ("--epochs", 100000000, "--patience", 100000000, "--progress")
    child = process("train", blobs, "--target", "kind", *endless, "--out", "m.safetensors", cwd=blobs.parent)
    assert child.stderr is not None
    epochs = 0
    while epochs < 3:  # the run itself says that it is under way
        line = child.stderr.readline()
        assert line, "the run ended by itself"
        epochs += "val_loss" in line
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert out.startswith("ended by interrupt")
    assert "model written to m.safetensors" in out
    assert hl.load(blobs.with_name("m.safetensors")).preprocessor is not None


def test_training_ends_with_the_main_finding_and_its_next_step(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("sklearn")
    ill = ("train", "digits", "--lr", "1e-6", "--epochs", "6", "--out", tmp_path)
    healthy = ("train", "digits", "--lr", "3e-3", "--out", tmp_path)
    for command, shown in ((ill, 1), (healthy, 0)):
        for silent in (True, False):
            ended = call(capsys, *command, "--no-progress" if silent else "--progress")
            text = ended.out if silent else ended.err  # progress shows it already
            assert text.count("\nlearning rate too low: the training loss fell from") == shown
            next_step = "\n  next: raise the learning rate tenfold: optimizer=hl.optim.AdamW(1e-05)"
            assert text.count(next_step) == shown
            assert (ended.out + ended.err).count("next:") == shown
    findings = call(capsys, *ill, "--json").result["findings"]
    assert findings[0]["rule"] == "learning_rate_too_low"
    assert set(findings[0]) == {"rule", "severity", "reason", "next_step", "numbers"}
