# SPDX-License-Identifier: Apache-2.0
"""Progress: what is shown where, as text."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from hotloop.progress import Plain, Silent, check_progress, duration, epoch_line, make_progress, quantity


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_silent_unless_terminal_or_asked() -> None:
    pipe = io.StringIO()
    assert type(make_progress("auto", pipe)) is Silent
    assert type(make_progress(False, Terminal())) is Silent
    assert isinstance(make_progress(True, pipe), Plain)
    assert type(make_progress("auto", Terminal())) is not Silent


def test_plain_lines() -> None:
    stream = io.StringIO()
    progress = make_progress(True, stream)
    progress.start(12, 1000)
    progress.epoch(3, {"loss": 0.123456, "val_loss": 0.5, "lr": 0.001}, 0.5)
    progress.stop("the end")
    first, last = stream.getvalue().splitlines()
    assert re.fullmatch(
        r"epoch  3/12  loss 0\.1235  val_loss 0\.5  lr 1\.0e-03  2k samples/s  \d+\.\ds left", first
    )
    assert last == "the end"


def test_rich_shows_the_same_rows() -> None:
    pytest.importorskip("rich")
    stream = Terminal()
    progress = make_progress("auto", stream)
    progress.start(2, 100)
    for epoch in (1, 2):
        progress.epoch(epoch, {"loss": 0.25, "lr": 0.1}, 0.01)
    progress.stop("finished [0]")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "epoch 1/2  loss 0.25  lr 1.0e-01  10k samples/s" in text
    assert "epoch 2/2" in text
    assert "finished [0]" in text


def test_trainer_prints_one_line_per_epoch(toy: Any, capsys: Any) -> None:
    trainer, fit = toy.turning(progress=True)
    trainer.fit(**{**fit, "epochs": 3})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "val_loss" in lines[0]
    assert lines[3].startswith("History(3 epochs")
    trainer, fit = toy.turning()
    trainer.fit(**{**fit, "epochs": 1})
    assert capsys.readouterr().out == ""


def test_units() -> None:
    assert [quantity(v) for v in (950, 12345, 4.56e6, 2e9)] == ["950", "12.3k", "4.56M", "2G"]
    assert [duration(v) for v in (4.23, 185, 7620)] == ["4.2s", "3m05s", "2h07m"]
    assert epoch_line(1, 100, {}, 1.0).startswith("epoch   1/100")


@pytest.mark.parametrize("bad", ["yes", None, 2])
def test_bad_option(bad: Any) -> None:
    with pytest.raises(ValueError, match="progress must be True, False"):
        check_progress(bad)
