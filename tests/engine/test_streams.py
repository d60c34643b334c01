# SPDX-License-Identifier: Apache-2.0
"""Streams: blocks of any size train to the bits of their rows in an array; what cannot work is refused."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl

_RNG = np.random.Generator(np.random.PCG64(0))
X = _RNG.normal(size=(203, 6)).astype(np.float32)
y = (X @ _RNG.normal(size=(6, 3))).argmax(axis=1)
WEIGHT = np.linspace(0.1, 2.0, 203)
VALIDATION = (X[:50], y[:50])


def blocks(rows: int, weighted: bool = False) -> list[tuple[Any, ...]]:
    return [
        (X[i : i + rows], y[i : i + rows], *([WEIGHT[i : i + rows]] * weighted)) for i in range(0, 203, rows)
    ]


def network() -> Any:
    return hl.nn.Sequential(hl.nn.Linear(6, 16), hl.nn.ReLU(), hl.nn.Dropout(0.2), hl.nn.Linear(16, 3))


def trainer(**options: Any) -> Any:
    return hl.Trainer(network(), "cross_entropy", **options)


def same(a: Any, b: Any) -> bool:
    """Parameters and every number of the history, to the bit."""
    states = a.model.state_dict(), b.model.state_dict()
    equal = all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    return equal and a.history.history == b.history.history


EVERYTHING = {
    "accumulate": 3, "ema": 0.9, "schedule": "cosine", "clip_norm": 1.0, "optimizer": hl.optim.AdamW(0.01),
}  # fmt: skip


@pytest.mark.parametrize("rows", [1, 7, 32, 100, 500])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_blocks_of_any_size_give_the_bits_of_the_array(rows: int, options: dict[str, Any]) -> None:
    settings = {"epochs": 3, "shuffle": False, "validation": VALIDATION}
    array, stream = trainer(**options), trainer(**options)
    array.fit(X, y, **settings)
    stream.fit(blocks(rows), **settings)
    assert same(array, stream)
    assert stream.evaluate(blocks(rows)) == array.evaluate(X, y)
    assert np.array_equal(stream.predict(hl.data.Stream(blocks(rows))), array.predict(X))
    assert np.array_equal(stream.predict_label(part[0] for part in blocks(rows)), array.predict_label(X))


def test_weights_and_a_shuffle_within_one_block_are_those_of_the_array() -> None:
    array, stream = trainer(), trainer()
    array.fit(X, y, epochs=3, sample_weight=WEIGHT)
    stream.fit(blocks(500, weighted=True), epochs=3)
    assert same(array, stream)


def test_blocks_of_equal_size_are_shuffled_differently() -> None:
    data = [(np.arange(8.0, dtype=np.float32).reshape(8, 1), np.zeros(8)) for _ in range(2)]
    seen: list[Any] = []
    stream = hl.Trainer(hl.nn.Linear(1, 1), "mse")
    run = stream._session
    data_set, _, _, _ = open_for(stream, data)
    for piece in data_set.pieces(8, shuffle=True, seed=run.seed, run=0).epoch(0, 0):
        seen.append(piece.arrays["x"].ravel().tolist())
    assert len(seen) == 2
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(8))
    assert seen[0] != seen[1] != list(range(8))


def open_for(owner: Any, source: Any) -> Any:
    from hotloop.engine.streams import open_stream

    stream = hl.data.Stream(source)
    with owner._session.entered("fit"):
        return open_stream(owner._session, stream, owner.loss, lambda X, y: (X, y), where="fit", epochs=1)


def test_a_function_is_called_for_each_epoch_and_its_rows_need_no_second_reading() -> None:
    calls: list[int] = []

    def source() -> Iterator[Any]:
        calls.append(len(calls))
        return iter(blocks(64))

    counted, told, array = trainer(), trainer(), trainer()
    counted.fit(source, epochs=3, shuffle=False)
    assert len(calls) == 4  # one to count
    calls.clear()
    told.fit(hl.data.Stream(source, rows=203), epochs=3, shuffle=False)
    assert len(calls) == 3
    array.fit(X, y, epochs=3, shuffle=False)
    assert same(counted, array)
    assert same(told, array)


def test_an_endless_source_ends_where_the_rows_do() -> None:
    endless = hl.data.Stream(lambda: itertools.cycle(blocks(30)), rows=130)
    array, stream = trainer(), trainer()
    array.fit(X[:130], y[:130], epochs=2, shuffle=False)
    stream.fit(endless, epochs=2, shuffle=False)
    assert same(array, stream)


def test_a_generator_serves_one_epoch() -> None:
    stream, array = trainer(), trainer()
    stream.fit(hl.data.Stream((b for b in blocks(64)), rows=203), shuffle=False, epochs=1)
    array.fit(X, y, epochs=1, shuffle=False)
    assert same(stream, array)
    with pytest.raises(ValueError, match=r"read once, and there are 2 epochs; give a function"):
        trainer().fit((b for b in blocks(64)), epochs=2)
    with pytest.raises(ValueError, match=r"rows of an epoch must be known.*rows=\.\.\."):
        trainer().fit((b for b in blocks(64)), epochs=1)


def test_validation_may_be_a_stream_beside_arrays() -> None:
    array, stream = trainer(), trainer()
    array.fit(X, y, epochs=3, validation={"a": VALIDATION, "b": (X, y)})
    stream.fit(
        X, y, epochs=3, validation={"a": hl.data.Stream([*blocks(9)[:5], (X[45:50], y[45:50])]), "b": (X, y)}
    )
    assert same(array, stream)
    assert stream.history.monitor == "a_loss"


@pytest.mark.parametrize("every", ["epoch", 4])
def test_a_run_over_a_stream_resumes_at_any_batch(every: Any, tmp_path: Path) -> None:
    class Looker(hl.Callback):
        """Looks after every third batch, so that the pass pauses in the middle of blocks."""

        every_n_batches = 3

        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_batch_end(self, state: Any) -> None:
            self.steps.append(state.step)

    options = {**EVERYTHING, "accumulate": 2}
    looker = Looker()
    whole = trainer(**options, callbacks=[looker])
    checkpoint = hl.Checkpoint(tmp_path, every=every, keep=10)
    whole.fit(blocks(50), epochs=3, validation=VALIDATION, checkpoint=checkpoint)
    assert looker.steps == [3, 6, 9, 12, 15, 18, 21]
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == (3 if every == "epoch" else 6)
    for file in files:
        again = trainer(**options)
        again.fit(blocks(50), epochs=3, validation=VALIDATION, resume=file)
        assert same(again, whole)


def test_own_batches_are_steps_of_their_own() -> None:
    uneven = [(X[:20], y[:20]), (X[20:25], y[20:25]), (X[25:57], y[25:57])]
    stream = trainer()
    run = stream.fit(hl.data.Stream(uneven, own_batches=True), epochs=2)
    assert run.evidence is not None
    assert run.evidence.setup.steps_per_epoch == 3
    step = hl.TrainStep(
        hl.nn.Sequential(hl.nn.Linear(6, 16), hl.nn.ReLU(), hl.nn.Linear(16, 3)), "cross_entropy"
    )
    plain = hl.Trainer(
        hl.nn.Sequential(hl.nn.Linear(6, 16), hl.nn.ReLU(), hl.nn.Linear(16, 3)), "cross_entropy"
    )
    plain.fit(hl.data.Stream(uneven, own_batches=True), epochs=1)
    for part in uneven:
        step(*part)
    for name, value in plain.model.state_dict().items():
        np.testing.assert_array_equal(value, step.model.state_dict()[name])


def changing(first: int, later: int) -> Callable[[], Iterator[Any]]:
    """A source whose third epoch, after one to count, has another length."""
    calls = itertools.count()
    return lambda: iter(blocks(9)[: first if next(calls) < 2 else later])


REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (X, {}, TypeError, "y is missing"),
    ("text", {}, TypeError, "y is missing"),
    ([1, 2], {}, TypeError, r"block 0 of the stream is of type int; allowed: \(X, y\)"),
    ([(X,)], {}, TypeError, "block 0 of the stream is of type tuple, 1 long"),
    ([], {}, hl.ShapeError, "gave no block"),
    (hl.data.Stream(blocks(9)), {"y": y}, TypeError, "y is given beside a stream"),
    (blocks(9), {"sample_weight": WEIGHT}, TypeError, "sample_weight is given beside a stream"),
    (blocks(9), {"validation": 0.2}, ValueError, r"cannot be split; give validation=\(X, y\)"),
    ([*blocks(9), (X * np.nan, y)], {}, hl.NonFiniteError, r"block 23 X\[0, 0\] = nan"),
    ([*blocks(9), (X[:, :5], y)], {}, hl.ShapeError, "block 23 of the stream: .* must be 6, got"),
    ([*blocks(9), (X, y, WEIGHT)], {}, hl.ShapeError, "block 23 of the stream has sample_weight"),
    ([(X, y), (X.astype(np.uint8), y)], {}, hl.DTypeError, "block 1 of the stream has x of uint8"),
    ([(X, y), (X, y + 1)], {}, hl.LabelError, r"block 1 y\[\d+\] = 3 is not a class"),
    (changing(20, 15), {"epochs": 3}, hl.ShapeError, "135 rows, not the 180 .* in epoch 2"),
    (changing(20, 22), {"epochs": 3}, hl.ShapeError, "more rows than the 180 .* in epoch 2"),
    (hl.data.Stream(blocks(9), rows=900), {}, hl.ShapeError, "203 rows, not the 900 that were announced"),
    (blocks(9), {"validation": iter(blocks(9))}, ValueError, "validation set 'val' is .* read once"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "options", "error", "message"), REFUSED)
def test_what_is_no_such_stream_is_refused(
    source: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    refusing = trainer()
    with pytest.raises(error, match=message):
        refusing.fit(source, **options)


def test_what_needs_all_rows_at_once_is_refused() -> None:
    stream = hl.data.Stream(blocks(9))
    balanced = hl.losses.CrossEntropy(class_weight="balanced")
    with pytest.raises(ValueError, match="counts all labels"):
        hl.Trainer(hl.nn.Linear(6, 3), balanced).fit(stream)
    with pytest.raises(ValueError, match="Python function needs arrays"):
        hl.Trainer(hl.nn.Linear(6, 3), lambda p, t: (p[:, 0], p)).fit(stream)
    with pytest.raises(ValueError, match="'f1_macro' needs all predictions at once"):
        trainer(metrics=["f1_macro"]).fit(stream, validation=stream)
    with pytest.raises(TypeError, match="only fit and evaluate take one"):
        trainer().lr_find(stream, None)
    with pytest.raises(ValueError, match="rows is for blocks that are cut"):
        hl.data.Stream(blocks(9), rows=9, own_batches=True)
    with pytest.raises(TypeError, match="got ndarray"):
        hl.data.Stream(X)


def test_a_stream_that_fails_leaves_the_last_good_epoch() -> None:
    calls = itertools.count()

    def source() -> Iterator[Any]:
        number = next(calls)
        yield from blocks(50)[:3]
        if number == 3:  # the third epoch, after one to count
            raise OSError("the disk is gone")
        yield from blocks(50)[3:]

    failing, short = trainer(), trainer()
    with pytest.raises(OSError, match="the disk is gone"):
        failing.fit(source, epochs=5, shuffle=False)
    short.fit(X, y, epochs=2, shuffle=False)
    for name, value in short.model.state_dict().items():
        np.testing.assert_array_equal(failing.model.state_dict()[name], value)


def test_ctrl_c_while_a_block_is_read_ends_the_run_after_the_step_in_hand() -> None:
    calls = itertools.count()

    def source() -> Iterator[Any]:
        number = next(calls)
        for at, block in enumerate(blocks(64)):
            if (number, at) == (2, 2):
                signal.raise_signal(signal.SIGINT)
            yield block

    stopped = trainer()
    run = stopped.fit(hl.data.Stream(source, rows=203), epochs=9, validation=VALIDATION)
    assert (run.stop_reason, run.epochs) == ("interrupt", 2)


def test_a_time_limit_ends_a_slow_stream_between_blocks() -> None:
    def source() -> Iterator[Any]:
        for block in blocks(20):
            time.sleep(0.05)
            yield block

    run = trainer().fit(hl.data.Stream(source, rows=203), epochs=100, max_time=0.2)
    assert run.stop_reason == "time"
    assert run.epochs == 0
    assert run.seconds < 5


def test_early_stopping_callbacks_and_rollback_are_those_of_an_array() -> None:
    seen: list[tuple[int, float]] = []
    options = {
        "early_stopping": hl.EarlyStopping(patience=2), "optimizer": hl.optim.AdamW(0.3),
        "callbacks": [lambda state: seen.append((state.epoch, state.metrics["val_loss"]))],
    }  # fmt: skip
    array, stream = trainer(**options), trainer(**options)
    given = array.fit(X[:100], y[:100], epochs=40, shuffle=False, validation=(X[100:], y[100:]))
    half = len(seen)
    run = stream.fit(
        [(X[:70], y[:70]), (X[70:100], y[70:100])], epochs=40, shuffle=False, validation=(X[100:], y[100:])
    )
    assert run.stop_reason == given.stop_reason == "early_stopping"
    assert run.best_epoch == given.best_epoch
    assert seen[:half] == seen[half:]
    assert same(array, stream)


def test_dry_run_report_and_record_of_a_stream(tmp_path: Path) -> None:
    stream = trainer()
    dry = stream.fit(blocks(50), epochs=3, dry_run=True).dry_run
    assert dry is not None
    assert (dry.rows, dry.steps_per_epoch) == (203, 7)
    run = stream.fit(blocks(50), epochs=3)
    assert "of a stream" in str(stream.info)
    assert run.diagnosis.main is None or run.diagnosis.main.rule
    assert not stream.was_trained_on(X, y)
    stream.save(tmp_path / "model.safetensors")
    assert np.array_equal(hl.load(tmp_path / "model.safetensors").predict(X), stream.predict(X))
