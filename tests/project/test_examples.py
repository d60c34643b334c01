# SPDX-License-Identifier: Apache-2.0
"""Every example runs as its reader would run it, without a warning, and prints a result worth printing."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"

# example -> (pattern with one number, least, largest)
RESULTS = {
    "classification": (r"test accuracy (\S+);", 0.97, 1.0),
    "regression": (r"test RMSE (\S+) ", 90.0, 140.0),
    "custom_module": (r"accuracy (\S+) on rows", 0.93, 1.0),
    "fine_tuning": (r"fine-tuned (\S+), from scratch", 0.65, 0.8),
    "track_mlflow": (r"last with val_accuracy (\S+)", 0.9, 1.0),
    "track_wandb": (r"last with val_accuracy (\S+)", 0.9, 1.0),
    "table_file": (r"test accuracy (\S+)", 0.95, 1.0),
    "images": (r"test accuracy (\S+)", 0.95, 1.0),
    "text": (r"test accuracy (\S+)", 0.9, 1.0),
    "audio": (r"test accuracy (\S+)", 0.97, 1.0),
    "pipeline": (r"test accuracy (\S+)", 0.79, 0.88),
    "optuna_search": (r"test accuracy (\S+)", 0.95, 1.0),
    "own_loss": (r"farthest from its level: (\S+)", 0.0, 0.06),
    "policy_gradient": (r"first -1\S+, last (\S+)", -3.5, -1.0),
    "torch_loop": (r"test accuracy (\S+)", 0.97, 1.0),
    "lightning_fit": (r"unexplained (\S+) after 320 steps", 0.0, 0.1),
    "skorch_fit": (r"test accuracy (\S+)", 0.95, 1.0),
    "own_schedule": (r"one cycle .* loss (\S+)", 0.009, 0.0125),
}


def test_every_example_has_a_row() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_example(name: str, tmp_path: Path) -> None:
    for library in re.findall(r"^# needs: (\w+)", (FOLDER / f"{name}.py").read_text(encoding="utf-8"), re.M):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    command = [sys.executable, "-W", "error", str(FOLDER / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    pattern, least, largest = RESULTS[name]
    found = re.search(pattern, done.stdout)
    assert found, done.stdout
    assert least <= float(found.group(1)) <= largest
    assert not any(tmp_path.iterdir())  # an example leaves nothing behind


@pytest.mark.parametrize("name", RESULTS)
def test_examples_stay_short(name: str) -> None:
    assert len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 60
