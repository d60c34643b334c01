# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints and writes, its exit codes, and the reports against scikit-learn."""

from __future__ import annotations

import builtins
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotloop as hl
from hotloop.cli import main
from hotloop.report_text import class_scores, classification_report, regression_report

pytest.importorskip("cyclopts")

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """A CSV of two classes by name, 120 rows; the second of three columns is constant."""
    random = np.random.Generator(np.random.Philox(0))
    rows = ["size,unit,weight,kind"]
    for i in range(120):
        kind = i % 2
        size, weight = random.normal(1000 + 300 * kind, 60), random.normal(0.01 - 0.004 * kind, 0.001)
        rows.append(f"{size},7,{weight},{'cat' if kind else 'ant'}")
    (tmp_path / "blobs.csv").write_text("\n".join(rows))
    return tmp_path / "blobs.csv"


def test_classification_from_file_to_prediction(blobs: Path, capsys: Captured) -> None:
    model = blobs.with_name("m.safetensors")
    assert (
        main(
            [
                "train",
                str(blobs),
                "--target",
                "kind",
                "--hidden",
                "16,8",
                "--dropout",
                "0.1",
                "--out",
                str(model),
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "blobs: 120 rows, 3 features, 2 classes (84 train, 18 validation, 18 test)" in out
    assert re.search(r"best epoch \d+, validation loss", out)
    assert "Test report (18 rows)" in out
    assert float(re.search(r"accuracy +(\S+)", out).group(1)) > 0.9  # type: ignore[union-attr]
    assert f"model written to {model}" in out

    assert main(["evaluate", str(model), str(blobs)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"ant +\S+ +\S+ +\S+ +60", out)

    # other columns, another order, no target: what the model needs is found by name
    lines = [line.split(",") for line in blobs.read_text().splitlines()]
    shuffled = "\n".join(
        f"{w},x,{u},{s}" if i else f"{w},extra,{u},{s}" for i, (s, u, w, _) in enumerate(lines)
    )
    blobs.with_name("new.csv").write_text(shuffled)
    predictions = blobs.with_name("p.csv")
    assert main(["predict", str(model), str(blobs.with_name("new.csv")), "--out", str(predictions)]) == 0
    assert "120 predictions written" in capsys.readouterr().out
    header, *rows = predictions.read_text().splitlines()
    assert header == "prediction,probability"
    right = [row.split(",")[0] == line[3] for row, line in zip(rows, lines[1:], strict=True)]
    assert np.mean(right) > 0.9

    assert main(["info", str(model)]) == 0
    out = capsys.readouterr().out
    assert "classification of 'kind' from 3 features" in out
    assert "classes     ant, cat" in out


def test_train_writes_a_report(blobs: Path, capsys: Captured) -> None:
    pytest.importorskip("matplotlib")
    folder = blobs.parent
    train = ["train", str(blobs), "--target", "kind", "--epochs", "5", "--out", str(folder / "m.safetensors")]
    assert main([*train, "--report", str(folder / "new" / "page.html")]) == 0
    assert capsys.readouterr().out.endswith(f"report written to {folder / 'new' / 'page.html'}\n")
    page = (folder / "new" / "page.html").read_text(encoding="utf-8")
    assert "Confusion matrix" in page and ">cat</th>" in page and ">ant</th>" in page
    assert main([*train, "--report", str(folder)]) == 0  # a folder: a page in it
    assert (folder / "run.html").exists()


def test_a_report_that_cannot_be_written_is_refused_before_training(
    blobs: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", str(blobs), "--target", "kind", "--out", str(blobs.with_name("m.safetensors"))]
    assert main([*train, "--report", str(blobs / "page.html")]) == 2  # the folder is a file
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*train, "--report", "page.html"]) == 2
    errors = capsys.readouterr().err
    assert "pip install 'hotloop[plot]'" in errors
    assert not blobs.with_name("m.safetensors").exists()


def test_predictions_are_those_of_the_library(blobs: Path, capsys: Captured) -> None:
    model = blobs.with_name("m.safetensors")
    assert main(["train", str(blobs), "--target", "kind", "--epochs", "3", "--out", str(model)]) == 0
    capsys.readouterr()
    assert main(["predict", str(model), str(blobs)]) == 0
    printed = capsys.readouterr().out.splitlines()[1:]
    trainer = hl.load(model)
    features = np.genfromtxt(blobs, delimiter=",", skip_header=1, usecols=(0, 1, 2))
    assert trainer.preprocessor is not None
    proba = trainer.predict_proba(trainer.preprocessor.transform(features))
    names = trainer.preprocessor.class_names
    assert printed == [f"{names[p.argmax()]},{p.max():.6g}" for p in proba]


def test_regression(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.Generator(np.random.Philox(0))
    X = random.normal(size=(300, 2))
    np.savez("plane.npz", X=X, y=5000 + 100 * X[:, 0] - 50 * X[:, 1] + random.normal(0, 5, 300))
    assert main(["train", "plane.npz", "--epochs", "100"]) == 0
    out = capsys.readouterr().out
    assert "regression (210 train, 45 validation, 45 test)" in out
    assert float(re.search(r"R2 +(\S+)", out).group(1)) > 0.98  # type: ignore[union-attr]
    assert float(re.search(r"RMSE +(\S+)", out).group(1)) < 15  # type: ignore[union-attr]
    assert main(["predict", "hotloop-model/plane.safetensors", "plane.npz"]) == 0
    header, *values = capsys.readouterr().out.split()
    assert header == "prediction"
    assert np.mean([float(v) for v in values]) == pytest.approx(5000, rel=0.01)


def test_the_same_seed_gives_the_same_model(blobs: Path) -> None:
    for name in ("a", "b", "c"):
        seed = "1" if name == "c" else "0"
        path = str(blobs.with_name(f"{name}.safetensors"))
        assert (
            main(["train", str(blobs), "--target", "kind", "--epochs", "3", "--seed", seed, "--out", path])
            == 0
        )
    a, b, c = (hl.load(blobs.with_name(f"{n}.safetensors")).model.state_dict() for n in "abc")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["0.weight"], c["0.weight"])


def test_digits_with_the_defaults(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("sklearn")
    accuracy = []
    for seed in range(5):
        assert main(["train", "digits", "--seed", str(seed), "--out", str(tmp_path / "m.safetensors")]) == 0
        found = re.search(r"accuracy +(\S+)", capsys.readouterr().out)
        assert found
        accuracy.append(float(found.group(1)))
    assert np.mean(accuracy) >= 0.97


# --- exit codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "absent.csv", "--target", "y"], r"No such file or directory: 'absent\.csv'"),
        (["train", "BLOBS"], r"needs the column to learn: target \(--target\)"),
        (["train", "BLOBS", "--target", "knd"], "did you mean 'kind'"),
        (["train", "BLOBS", "--target", "kind", "--hidden", "8,x"], "--hidden takes widths"),
        (["train", "BLOBS", "--target", "kind", "--lr", "-1"], "lr must be finite and >= 0"),
        (["train", "BLOBS", "--target", "kind", "--dropout", "1.5"], "p must lie in 0..1"),
        (["train", "BLOBS", "--target", "kind", "--epochs", "0"], "epochs must be >= 1"),
        (["train", "BLOBS", "--target", "kind", "--epochs", "many"], "epochs"),
        (
            ["train", "BLOBS", "--target", "kind", "--out", "BLOBS/below/m.safetensors"],
            "Not a directory|File exists",
        ),
        (["train", "BLOBS", "--target", "kind", "--lr", "1e30"], "no model was written"),
        (["train"], "requires an argument"),
        (["train", "BLOBS", "--bogus", "1"], "--bogus"),
        (["fly"], "fly"),
        (["predict", "absent.safetensors", "BLOBS"], "No such file"),
        (["predict", "BLOBS", "BLOBS"], "not a safetensors file"),
        (["info", "BLOBS"], "not a safetensors file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, blobs: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(blobs.parent)
    assert main([a.replace("BLOBS", str(blobs)) for a in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    lines = [line for line in lines if not line.startswith("hotloop: warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("hotloop: ")
    assert re.search(message, lines[0])
    assert not list(blobs.parent.rglob("*.safetensors"))


def test_a_model_without_preprocessing_is_explained(blobs: Path, capsys: Captured) -> None:
    trainer = hl.Trainer(hl.nn.Linear(3, 2), loss="cross_entropy")
    trainer.fit(np.zeros((8, 3), np.float32), np.arange(8) % 2, epochs=1)
    trainer.save(blobs.with_name("m.safetensors"))
    assert main(["predict", str(blobs.with_name("m.safetensors")), str(blobs)]) == 2
    assert "holds no preprocessing" in capsys.readouterr().err


def test_without_cyclopts_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cyclopts":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["info"]) == 2
    assert "pip install 'hotloop[cli]'" in capsys.readouterr().err


def test_help_and_version(capsys: Captured) -> None:
    for arguments, expected in (
        (["--help"], "train"),
        (["train", "--help"], "--weight-decay"),
        ([], "Usage"),
    ):
        assert main(arguments) == 0
        assert expected in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == hl.__version__


def test_info_shows_the_installation(capsys: Captured) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out.startswith(f"hotloop {hl.__version__}")


def test_info_of_checkpoints_is_that_of_the_newest(tmp_path: Path, capsys: Captured) -> None:
    X = np.eye(4)
    trainer = hl.Trainer(hl.nn.Linear(4, 1), "mse")
    trainer.fit(X, X[:, 0], epochs=3, checkpoint=hl.Checkpoint(tmp_path))
    assert main(["info", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "trained     3 epochs" in out
    assert re.search(r"data +4 rows, x [0-9a-f]{12}, target [0-9a-f]{12}\n", out)
    (tmp_path / "empty").mkdir()
    assert main(["info", str(tmp_path / "empty")]) == 2
    assert "no checkpoint in this folder" in capsys.readouterr().err


def module(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hotloop", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_as_a_module(tmp_path: Path) -> None:
    process = module("info", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("hotloop ")


def test_ctrl_c_reports_saves_and_exits_with_130(blobs: Path) -> None:
    endless = ["--epochs", "100000000", "--patience", "100000000", "--progress"]
    process = module(
        "train", str(blobs), "--target", "kind", *endless, "--out", "m.safetensors", cwd=blobs.parent
    )
    assert process.stdout is not None
    epochs = 0
    while epochs < 3:  # the run itself says that it is under way
        line = process.stdout.readline()
        assert line, "the run ended by itself"
        epochs += "val_loss" in line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "ended by interrupt" in out
    assert "model written to m.safetensors" in out
    assert hl.load(blobs.with_name("m.safetensors")).preprocessor is not None


def test_a_reader_that_leaves_early_is_no_error(blobs: Path) -> None:
    assert (
        main(
            [
                "train",
                str(blobs),
                "--target",
                "kind",
                "--epochs",
                "1",
                "--out",
                str(blobs.with_name("m.safetensors")),
            ]
        )
        == 0
    )
    many = blobs.with_name("many.csv")
    header, *rows = blobs.read_text().splitlines()
    many.write_text("\n".join([header, *(rows * 100)]))
    with module("predict", "m.safetensors", "many.csv", cwd=blobs.parent) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == ""


# --- reports --------------------------------------------------------------------------------------


@settings(deadline=None)  # the first example imports scikit-learn
@given(st.integers(1, 50), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_class_scores_equal_sklearn(n: int, n_classes: int, seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.Generator(np.random.Philox(seed))
    true, predicted = random.integers(0, n_classes, (2, n))
    scores = class_scores(true, predicted, n_classes)
    theirs = sklearn.precision_recall_fscore_support(
        true, predicted, labels=range(n_classes), zero_division=0
    )
    for ours, other in zip((scores.precision, scores.recall, scores.f1, scores.support), theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-14)
    assert scores.accuracy == pytest.approx(sklearn.accuracy_score(true, predicted))


def test_the_report_reads_like_that_of_sklearn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.Generator(np.random.Philox(0))
    true, predicted = random.integers(0, 3, (2, 60))
    names = ["ant", "bee", "a longer name"]
    theirs = sklearn.classification_report(true, predicted, target_names=names, digits=3)
    ours = classification_report(true, predicted, names)
    assert ours.split() == theirs.split()


def test_regression_report_in_the_unit_of_the_target() -> None:
    true = np.array([1e6, 1e6 + 2, 1e6 + 4])
    text = regression_report(true, true + np.array([1, -1, 1]))
    assert [line.split() for line in text.splitlines()] == [["RMSE", "1"], ["MAE", "1"], ["R2", "0.625"]]


def test_training_ends_with_the_main_finding_and_its_next_step(tmp_path: Path, capsys: Captured) -> None:
    out = ["--out", str(tmp_path), "--progress"]
    ill = ["train", "digits", "--lr", "1e-6", "--epochs", "6", *out]
    healthy = ["train", "digits", "--lr", "3e-3", *out]
    for command, shown in ((ill, 1), (healthy, 0)):
        for silent in (True, False):  # with progress, that shows it already
            assert main([*command[:-1], "--no-progress"] if silent else command) == 0
            text = capsys.readouterr().out
            assert text.count("\nlearning rate too low: the training loss fell from") == shown
            assert (
                text.count("\n  next: raise the learning rate tenfold: optimizer=hl.optim.AdamW(1e-05)")
                == shown
            )
            assert shown or "next:" not in text
