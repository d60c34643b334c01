# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: exit codes, messages, help, documents for machines, configuration files."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import pytest

import hotloop as hl
from hotloop.cli import main
from tests.command_line import Captured, call, done, process, write_blobs

pytest.importorskip("cyclopts")

COMMANDS = ("train", "evaluate", "predict", "export", "check", "info", "bench")


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return write_blobs(tmp_path / "blobs.csv")


# --- exit codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train absent.csv --target y", r"No such file or directory: 'absent\.csv'"),
        ("train BLOBS", r"needs the column to learn: target \(--target\)"),
        ("train BLOBS --target knd", "did you mean 'kind'"),
        ("train BLOBS --target kind --hidden 8,x", "--hidden takes widths"),
        ("train BLOBS --target kind --lr -1", "lr must be finite and >= 0"),
        ("train BLOBS --target kind --dropout 1.5", "p must lie in 0..1"),
        ("train BLOBS --target kind --epochs 0", "epochs must be >= 1"),
        ("train BLOBS --target kind --epochs many", "epochs"),
        ("train BLOBS --target kind --out BLOBS/below/m.safetensors", "Not a directory|File exists"),
        ("train BLOBS --target kind --lr 1e30", "no model was written"),
        ("train BLOBS --target kind --momentum 0.9", "--momentum is for sgd and rmsprop"),
        ("train BLOBS --target kind --loss mse", "--loss mse does not suit a classification"),
        ("train BLOBS --target size --label-smoothing 0.1 --ignore kind", "--label-smoothing is for classes"),
        ("train", "requires an argument"),
        ("train BLOBS --bogus 1", "--bogus"),
        ("fly", "fly"),
        ("predict absent.safetensors BLOBS", "No such file"),
        ("predict BLOBS BLOBS", "not a safetensors file"),
        ("info BLOBS", "not a safetensors file"),
        ("bench train --peers cobol", "no peer 'cobol'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: str, message: str, blobs: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(blobs.parent)
    arguments = command.replace("BLOBS", str(blobs)).split()
    ended = call(capsys, *arguments)
    assert ended.code == 2 and ended.out == ""
    lines = [line for line in ended.err.splitlines() if line.startswith("hotloop: ")]
    (line,) = [line for line in lines if not line.startswith("hotloop: warning: ")]
    assert ended.err.splitlines()[-1] == line
    assert re.search(message, line)
    error = call(capsys, *arguments, "--json").document["error"]
    assert set(error) == {"type", "message"} and error["message"] == line.removeprefix("hotloop: ")
    assert not list(blobs.parent.rglob("*.safetensors"))


def test_a_model_without_preprocessing_is_explained(blobs: Path, capsys: Captured) -> None:
    trainer = hl.Trainer(hl.nn.Linear(3, 2), loss="mse")
    trainer.fit([[0.0, 0.0, 0.0]] * 8, [[0.0, 1.0]] * 8, epochs=1)
    trainer.save(blobs.with_name("m.safetensors"))
    for command in ("predict", "evaluate"):
        ended = call(capsys, command, blobs.with_name("m.safetensors"), blobs)
        assert ended.code == 2 and "holds no preprocessing" in ended.err


def test_without_cyclopts_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cyclopts":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["info"]) == 2
    assert "pip install 'hotloop[cli]'" in capsys.readouterr().err


# --- help -----------------------------------------------------------------------------------------


def test_help_and_version(capsys: Captured) -> None:
    for arguments in (["--help"], []):
        out = done(capsys, *arguments)
        assert "Usage: hotloop COMMAND" in out
        assert re.findall(r"^│ (\w+) ", out, re.MULTILINE) == list(COMMANDS)
    assert done(capsys, "--version") == f"{hl.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [60, 100])
def test_each_help_has_examples_and_fits_the_terminal(
    command: str, columns: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    out = done(capsys, command, "--help")
    assert f"\n\nExamples:\n  hotloop {command}" in out
    assert command == "bench" or ("--json" in out and "--config" in out)
    assert max(map(len, out.splitlines())) <= columns
    assert "\x1b" not in out


# --- documents ------------------------------------------------------------------------------------


def test_a_document_names_its_command_and_collects_warnings(blobs: Path, capsys: Captured) -> None:
    train = ("train", blobs, "--target", "kind", "--lr", "1e30", "--json")
    ended = call(capsys, *train, "--out", blobs.with_name("m.safetensors"))
    document = ended.document
    assert set(document) == {"schema", "hotloop", "command", "exit_code", "warnings", "error"}
    assert (document["command"], document["hotloop"], document["exit_code"]) == ("train", hl.__version__, 2)
    shown = re.findall(r"^hotloop: warning: (.*)$", ended.err, re.MULTILINE)
    assert document["warnings"] == shown != []


def test_stdout_parses_alone_in_a_pipe(blobs: Path) -> None:
    child = process(
        "train", blobs, "--target", "kind", "--epochs", 5, "--progress", "--json", cwd=blobs.parent
    )
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert re.fullmatch(r"\{.*\}\n", out)
    assert "val_loss" in err


# --- configuration files --------------------------------------------------------------------------


def test_a_file_stands_for_flags_which_overrule_it(blobs: Path, capsys: Captured) -> None:
    file = blobs.with_name("run.toml")
    file.write_text(
        f'[train]\ndata = "{blobs}"\ntarget = "kind"\nepochs = 4\nhidden = "5"\nbatch-size = 20\nlabel_smoothing = 0.1\n'
        f'out = "{blobs.with_name("m.safetensors")}"\njson = true\n[evaluate]\ntarget = "kind"\n'
    )
    result = call(capsys, "train", "--config", file, "--epochs", "3").result
    assert result["run"]["epochs"] == 3
    assert result["parameters"] == 3 * 5 + 5 + 5 * 2 + 2
    file.write_text(file.read_text().replace('"5"', "[5, 4]"))
    result = call(capsys, "train", "--config", file).result
    assert (result["run"]["epochs"], result["parameters"]) == (4, 3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2)
    ended = call(capsys, "evaluate", result["model"], blobs, f"--config={file}")
    assert ended.code == 0 and "120 rows" in ended.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", r"run\.toml, table \[train\]: unknown key 'epoch'; did you mean 'epochs'\?"),
        ("[train]\nconfig = 'x'", "unknown key 'config'"),
        ("[trian]\nepochs = 3", r"'trian' is not a command; did you mean 'train'\?"),
        ("epochs = 3", r"'epochs' stands outside of a table; .* such as \[train\]"),
        ("[train]\nepochs = 'many'", "epochs"),
        ("train = 3", r"'train' must be a table, \[train\]"),
        ("[train", "run.toml is not TOML in UTF-8"),
    ],
)
def test_a_bad_file_is_refused(
    text: str, message: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(text)
    ended = call(capsys, "train", "digits", "--config", "run.toml")
    assert ended.code == 2
    assert re.search(message, ended.err)
    assert ended.err.count("\n") == 1


def test_an_absent_file_is_refused(capsys: Captured) -> None:
    ended = call(capsys, "train", "digits", "--config", "absent.toml")
    assert ended.code == 2 and "No such file or directory: 'absent.toml'" in ended.err


def test_what_print_config_prints_is_the_same_run(blobs: Path, capsys: Captured) -> None:
    odd = blobs.rename(blobs.with_name('a "b" \\ é.csv'))
    flags = (
        "--target",
        "kind",
        "--ignore",
        "unit",
        "--epochs",
        3,
        "--lr",
        "3e-3",
        "--out",
        blobs.parent / "m.safetensors",
    )
    printed = done(capsys, "train", odd, *flags, "--print-config")
    assert not list(blobs.parent.rglob("*.safetensors"))
    file = blobs.with_name("run.toml")
    file.write_text(printed, encoding="utf-8")
    assert done(capsys, "train", "--config", file, "--print-config") == printed
    by_file = call(capsys, "train", "--config", file, "--json").result
    by_flags = call(capsys, "train", odd, *flags, "--json").result
    for result in (by_file, by_flags):
        result["run"].pop("seconds")
    assert by_file == by_flags
    assert by_file["data"]["features"] == ["size", "weight"]
