# SPDX-License-Identifier: Apache-2.0
"""Progress: what is shown where, how much of it, at what cost, and that looking changes nothing."""

from __future__ import annotations

import io
import re
import sys
import time
import types
from typing import Any

import pytest

from hotloop.progress import Plain, Silent, check_progress, duration, epoch_line, make_progress, quantity
from hotloop.progress import base as progress_base
from hotloop.progress import plain as progress_plain
from hotloop.progress.board import Board
from hotloop.progress.budget import SHARE, Budget


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Stands for time.perf_counter; moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Tty:
    pytest.importorskip("rich")
    for name, value in (("TERM", "xterm"), ("COLUMNS", "100"), ("LINES", "40")):
        monkeypatch.setenv(name, value)
    return Tty()


def plain_text(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


def test_silent_unless_watched_or_asked(terminal: Tty) -> None:
    pipe = io.StringIO()
    assert type(make_progress("auto", pipe)) is Silent
    assert type(make_progress(False, terminal)) is Silent
    assert isinstance(make_progress(True, pipe), Plain)
    assert type(make_progress("auto", terminal)).__name__ == "Terminal"


def test_a_terminal_that_cannot_redraw_gets_lines(terminal: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress("auto", terminal), Plain)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "hotloop.progress.terminal", None)  # as if rich were not installed
    assert isinstance(make_progress("auto", terminal), Plain)


# --- lines in a log ---


def test_plain_lines() -> None:
    stream = io.StringIO()
    progress = make_progress(True, stream)
    progress.start(12, 1000)
    progress.epoch(3, {"loss": 0.123456, "val_loss": 0.5, "lr": 0.001}, 0.5, 3)
    progress.stop("the end")
    first, last = stream.getvalue().splitlines()
    assert re.fullmatch(
        r"epoch  3/12  loss 0\.1235  val_loss 0\.5  lr 1\.0e-03  2k samples/s  \d+\.\ds left  best", first
    )
    assert last == "the end"


def shown_epochs(stream: io.StringIO) -> list[int]:
    return [int(found) for found in re.findall(r"^epoch +(\d+)/", stream.getvalue(), re.MULTILINE)]


def test_many_short_epochs_are_thinned(clock: Clock) -> None:
    stream = io.StringIO()
    progress = make_progress(True, stream)
    progress.start(10_000, 100)
    for epoch in range(1, 9_991):  # it ends early, at an epoch that no rule would show
        clock.now += 1e-3
        progress.epoch(epoch, {"loss": 1.0}, 1e-3)
    progress.stop("end")
    epochs = shown_epochs(stream)
    assert epochs[0] == 1 and epochs[-1] == 9_990
    assert 20 <= len(epochs) <= 32  # each twentieth and each second


def test_a_long_run_prints_ever_less(clock: Clock) -> None:
    stream = io.StringIO()
    progress = make_progress(True, stream)
    progress.start(10_000, 100)
    for epoch in range(1, 10_001):
        clock.now += 2.0
        progress.epoch(epoch, {"loss": 1.0}, 2.0)
    progress.stop("end")
    epochs = shown_epochs(stream)
    assert epochs[:20] == list(range(1, 21)) and epochs[-1] == 10_000
    assert len(epochs) < 1000


def test_a_long_epoch_moves(clock: Clock) -> None:
    stream = io.StringIO()
    progress = make_progress(True, stream)
    progress.start(2, 1000)
    for batch in range(1, 100):
        clock.now += 1.0
        progress.batch(batch, 100, lambda: {"loss": 0.5, "accuracy": 0.1})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 9
    assert lines[4].startswith("epoch 1/2  loss 0.5  10 samples/s  50% of the epoch  2m30s left")


def test_slices_of_long_epochs_only(clock: Clock) -> None:
    slices = progress_base.Slices()
    clock.now += 0.5
    assert slices.pause_s() == pytest.approx(1.5)  # an epoch of 1.9 s is never paused
    clock.now += 1.5
    assert slices.due() and not slices.due()
    assert slices.pause_s() == pytest.approx(progress_base.SLICE_S)
    slices.ended(5.0, clock.now)
    assert slices.pause_s() == pytest.approx(progress_base.SLICE_S)  # the next one will be as long
    slices.ended(0.1, clock.now)
    assert slices.pause_s() == pytest.approx(progress_base.LONG_EPOCH_S)
    assert Silent().pause_s() is None


@pytest.mark.parametrize("name", ["batch_norm", "dropout"])
def test_pauses_change_no_bit(name: str, toy: Any, digest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import hotloop as hl

    X, y = toy.classes(100)
    seen: list[int] = []

    def run(progress: bool) -> tuple[Any, ...]:
        model = toy.batch_norm() if name == "batch_norm" else toy.mlp(6, 8, 3, dropout=0.3)
        trainer = hl.Trainer(model, schedule="cosine", progress=progress)
        history = trainer.fit(X, y, validation=0.2, epochs=3, batch_size=8)
        return digest(trainer), history.history

    whole = run(False)
    monkeypatch.setattr(progress_base, "SLICE_S", 0.0)
    monkeypatch.setattr(progress_base, "LONG_EPOCH_S", 0.0)
    monkeypatch.setattr(Plain, "batch", lambda self, batch, batches, metrics: seen.append(batch))
    assert run(True) == whole
    assert seen == 3 * list(range(1, 10))  # 80 rows: after each batch but the last


def test_a_time_limit_still_ends_a_paused_epoch(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_base, "SLICE_S", 0.0)
    monkeypatch.setattr(progress_base, "LONG_EPOCH_S", 0.0)
    trainer, fit = toy.turning(progress=True)
    run = trainer.fit(**{**fit, "epochs": 10**6, "max_time": 0.05})
    assert run.stop_reason == "time"


# --- the share of the run's time ---


def test_budget(clock: Clock) -> None:
    budget = Budget(every_s=0.1, cost_s=0.002)
    assert budget.next == pytest.approx(budget.begin + 0.002 / SHARE)  # 2 ms have to be earned first
    clock.now += 1.0
    with budget.drawing():
        clock.now += 0.01
    assert budget.spent_s == pytest.approx(0.01)
    assert budget.next == pytest.approx(budget.begin + 0.02 / SHARE)  # with one more as long
    cheap = Budget(every_s=0.1)
    assert cheap.next == cheap.begin + 0.1


def test_a_slow_terminal_gets_few_frames(clock: Clock, terminal: Tty, monkeypatch: Any) -> None:
    """A terminal that takes 50 ms to draw: all frames together stay within the share."""
    progress = make_progress(True, terminal)
    progress.start(10_000, 1000)
    write = terminal.write
    drawn = [0.0]

    def slow(text: str) -> int:
        clock.now += 0.05
        drawn[0] += 0.05
        return write(text)

    monkeypatch.setattr(terminal, "write", slow)
    begin = clock.now
    for epoch in range(1, 5001):
        clock.now += 0.02
        progress.epoch(epoch, {"loss": 0.25}, 0.02, 1)
    budget = progress._budget  # type: ignore[attr-defined]
    assert 0 < drawn[0] <= budget.spent_s + 1e-9
    # the first frame was expected to be cheaper than it turned out
    assert budget.spent_s <= SHARE * (clock.now - begin) + 0.2


# --- the live table ---


def test_live_table(terminal: Tty, clock: Clock) -> None:
    progress = make_progress("auto", terminal)
    progress.start(20, 100)
    for epoch in range(1, 13):
        clock.now += 1.0
        progress.epoch(epoch, {"loss": 1 / epoch, "a[b]": 2.0, "lr": 0.1}, 0.01, min(epoch, 2))
    clock.now += 2.5
    progress.batch(30, 40, lambda: {"loss": 0.77})
    clock.now += 1.0
    progress.batch(31, 40, lambda: {"loss": 0.77})
    live = plain_text(terminal)
    assert "batch 31/40" in live and "loss 0.77" in live
    assert re.search(r"epoch 12/20 .*samples/s · 15\.5s · \d+\.\ds left · best epoch 2", live)
    progress.stop("finished [0]")
    table = plain_text(terminal)[len(live) :].splitlines()
    rows = [line.split() for line in table if re.match(r"^[* ] +\d", line)]
    assert rows[0] == ["*", "2", "0.5", "2", "1.0e-01", "10k"]  # older than the rows that are kept
    assert [row[0] for row in rows[1:]] == ["6", "7", "8", "9", "10", "11", "12"]
    assert table[0].split() == ["epoch", "loss", "a[b]", "lr", "samples/s"] or "a[b]" in "".join(table)
    assert table[-1] == "finished [0]"


def test_a_short_run_draws_once_at_the_end(terminal: Tty) -> None:
    progress = make_progress(True, terminal)
    progress.start(2, 100)
    progress.epoch(1, {"loss": 0.25}, 0.01, 1)
    progress.epoch(2, {"loss": 0.5}, 0.01, 1)
    assert terminal.getvalue() == ""
    progress.stop("done")
    text = plain_text(terminal)
    assert text.count("0.25") == 1 and text.splitlines()[-1] == "done"


def test_table_fits_narrow_terminals(terminal: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    progress = make_progress(True, terminal)
    progress.start(2, 100)
    progress.epoch(1, {f"metric_{i}": 0.25 for i in range(9)}, 0.01, 1)
    progress.stop("done")
    lines = plain_text(terminal).splitlines()
    assert "metric_0" in lines[0] and "metric_8" not in lines[0]
    assert max(map(len, lines)) <= 40


def test_a_run_that_never_got_anywhere(terminal: Tty) -> None:
    for progress in (make_progress(True, terminal), make_progress(True, io.StringIO())):
        progress.start(5, 100)
        progress.stop("stopped by an error")
    assert plain_text(terminal).strip() == "stopped by an error"


# --- notebooks ---


class Shown:
    """Stands for IPython: keeps what was displayed and what replaced it."""

    def __init__(self) -> None:
        self.pages: list[str] = []
        self.displays = 0

    def display(self, page: Any, display_id: bool = False) -> Any:
        self.displays += 1
        self.pages.append(page.data)
        return types.SimpleNamespace(update=lambda page: self.pages.append(page.data))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Shown:
    shown = Shown()
    ipython = types.ModuleType("IPython")
    display = types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    display.HTML = lambda data: types.SimpleNamespace(data=data)  # type: ignore[attr-defined]
    display.display = shown.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_notebook(notebook: Shown, clock: Clock) -> None:
    progress = make_progress("auto")
    progress.start(3, 100)
    for epoch in (1, 2):
        clock.now += 1.0
        progress.epoch(epoch, {"loss": 0.5, "<b>x": 1.0}, 0.01, 1)
    clock.now += 2.5
    progress.batch(1, 4, lambda: {"loss": 0.4})
    clock.now += 1.0
    progress.batch(2, 4, lambda: {"loss": 0.4})
    assert "batch 2/4" in notebook.pages[-1] and "<progress" in notebook.pages[-1]
    progress.stop("done & over")
    assert notebook.displays == 1 and len(notebook.pages) >= 3  # one output, replaced
    assert "<b>x" not in notebook.pages[-1] and "&lt;b&gt;x" in notebook.pages[-1]
    assert "done &amp; over" in notebook.pages[-1] and "<progress" not in notebook.pages[-1]


def test_an_ipython_without_a_notebook_is_a_terminal(notebook: Shown, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: object())
    assert type(make_progress(True)).__name__ != "Notebook"


def test_a_real_notebook() -> None:
    """Executed by Jupyter's own machinery, where that is installed."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    code = (
        "import numpy as np, hotloop as hl\n"
        "X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(-1, 1)\n"
        "run = hl.Trainer(hl.nn.Linear(1, 1), 'mse').fit(X, 2 * X, validation=0.2, epochs=5)\n"
        "run\n"
    )
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(page, timeout=60, kernel_name="python3").execute()
    outputs = [o for o in page.cells[0].outputs if o["output_type"] == "display_data"]
    assert len(outputs) == 1
    assert "History(5 epochs" in outputs[0]["data"]["text/html"]
    result = page.cells[0].outputs[-1]
    assert result["output_type"] == "execute_result" and "<svg" in result["data"]["text/html"]


# --- through fit ---


def test_trainer_prints_one_line_per_epoch(toy: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(progress_plain, "_GRACE_S", 10.0)  # however slow the machine prints
    trainer, fit = toy.turning(progress=True)
    trainer.fit(**{**fit, "epochs": 3})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "val_loss" in lines[0] and lines[2].endswith("best")
    assert lines[3].startswith("History(3 epochs")
    trainer, fit = toy.turning()
    trainer.fit(**{**fit, "epochs": 1})
    assert capsys.readouterr().out == ""


def test_units() -> None:
    assert [quantity(v) for v in (950, 12345, 4.56e6, 2e9)] == ["950", "12.3k", "4.56M", "2G"]
    assert [duration(v) for v in (4.23, 185, 7620)] == ["4.2s", "3m05s", "2h07m"]
    assert epoch_line(1, 100, {}, 1.0).startswith("epoch   1/100")


def test_board_before_anything_happened() -> None:
    board = Board(5, 100)
    assert (board.left(), board.rate(), board.columns(), board.shown()) == ("", "-", [], [])


@pytest.mark.parametrize("bad", ["yes", None, 2])
def test_bad_option(bad: Any) -> None:
    with pytest.raises(ValueError, match="progress must be True, False"):
        check_progress(bad)
