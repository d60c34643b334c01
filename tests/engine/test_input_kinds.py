# SPDX-License-Identifier: Apache-2.0
"""Frames, series, sparse matrices and lists as X and y: the bits of the array they stand for, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl

sparse = pytest.importorskip("scipy.sparse")

_RNG = np.random.Generator(np.random.PCG64(1))
X = np.round(_RNG.normal(size=(120, 4)), 2).astype(np.float32)
X[np.abs(X) < 0.5] = 0
y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
NAMES = ("age", "height", "weight", "score")


def trainer(**options: Any) -> Any:
    model = hl.nn.Sequential(hl.nn.Linear(4, 8), hl.nn.ReLU(), hl.nn.Linear(8, 2))
    return hl.Trainer(model, "cross_entropy", **options)


def same(a: Any, b: Any) -> bool:
    states = a.model.state_dict(), b.model.state_dict()
    equal = all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    return equal and a.history.history == b.history.history


def pandas_frame(data: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame(np.asarray(data), columns=list(NAMES))


def polars_frame(data: Any) -> Any:
    return pytest.importorskip("polars").DataFrame(np.asarray(data), schema=list(NAMES))


def arrow_table(data: Any) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.table({name: np.ascontiguousarray(column) for name, column in zip(NAMES, data.T, strict=True)})


def structured(data: Any) -> Any:
    return np.rec.fromarrays(list(data.T), names=list(NAMES))


FRAMES: list[Callable[[Any], Any]] = [pandas_frame, polars_frame, arrow_table, structured]
KINDS: dict[str, Callable[[Any], Any]] = {
    **{make.__name__: make for make in FRAMES},
    "pandas float64": lambda data: pandas_frame(data.astype(np.float64)),
    "pandas mixed": lambda data: pandas_frame(data).astype({"age": "float64", "score": "Float32"}),
    "polars lazy": lambda data: polars_frame(data).lazy(),
    "record batch": lambda data: arrow_table(data).to_batches()[0],
    "list": lambda data: data.tolist(),
    "csr": sparse.csr_matrix,
    "csc array": sparse.csc_array,
    "coo float64": lambda data: sparse.coo_matrix(data.astype(np.float64)),
    "other byte order": lambda data: data.astype(">f4"),
    "columns first": np.asfortranarray,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_bits_of_the_array(kind: str) -> None:
    given = KINDS[kind](X)
    array, other = trainer(), trainer()
    array.fit(X, y, epochs=3, validation=0.2, batch_size=16)
    other.fit(given, y, epochs=3, validation=0.2, batch_size=16)
    assert same(array, other)
    assert other.evaluate(given, y) == array.evaluate(X, y)
    assert np.array_equal(other.predict(given), array.predict(X))
    assert np.array_equal(other.predict_label(given), array.predict_label(X))
    assert other.was_trained_on(X, y)
    step = hl.TrainStep(trainer().model, "cross_entropy")
    assert step(given, y) == hl.TrainStep(trainer().model, "cross_entropy")(X, y)


def series() -> dict[str, Any]:
    pd, pl, pa = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    return {
        "pandas": pd.Series(y), "pandas nullable": pd.Series(y, dtype="Int64"), "polars": pl.Series(y),
        "arrow": pa.array(y), "chunked": pa.chunked_array([y[:50], y[50:]]), "list": y.tolist(),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["pandas", "pandas nullable", "polars", "arrow", "chunked", "list"])
def test_a_series_is_a_target(kind: str) -> None:
    array, other = trainer(), trainer()
    array.fit(X, y, epochs=2)
    other.fit(X, series()[kind], epochs=2)
    assert same(array, other)
    auto = hl.Trainer(trainer().model)
    auto.fit(X, series()[kind], epochs=1)
    assert auto._known_loss().kind == "cross_entropy"


@pytest.mark.parametrize("make", FRAMES)
def test_columns_are_remembered_put_in_order_and_compared(make: Callable[[Any], Any], tmp_path: Path) -> None:
    frame = make(X)
    learnt = trainer()
    learnt.fit(frame, y, epochs=2)
    assert learnt.feature_names == {"x": NAMES}
    learnt.save(tmp_path / "model.safetensors")
    loaded = hl.load(tmp_path / "model.safetensors")
    assert loaded.feature_names == {"x": NAMES}
    pd = pytest.importorskip("pandas")
    shuffled = pd.DataFrame(X, columns=list(NAMES))[["score", "age", "weight", "height"]]
    assert np.array_equal(loaded.predict(shuffled), learnt.predict(X))
    assert loaded.evaluate(shuffled, y) == learnt.evaluate(X, y)
    other = shuffled.rename(columns={"weight": "wight"})[["age", "height", "wight", "score"]]
    with pytest.raises(
        hl.ShapeError, match=r"column 2 is 'wight', expected 'weight' \('weight' is missing; did"
    ):
        loaded.predict(other)
    with pytest.raises(hl.ShapeError, match="column 4 is 'more', expected no more"):
        loaded.predict_proba(pd.DataFrame(X, columns=list(NAMES)).assign(more=1.0))
    with pytest.raises(hl.ShapeError, match="column 3 is not there, expected 'score'"):
        loaded.evaluate(pd.DataFrame(X, columns=list(NAMES)).drop(columns="score"), y)
    with pytest.raises(hl.ShapeError, match="val X has other columns"):
        trainer().fit(frame, y, validation=(other, y))
    learnt.fit(X, y, epochs=1)
    assert learnt.feature_names == {}  # an array's columns have no names


def test_frames_as_named_inputs_are_put_in_order(toy: Any) -> None:
    pd = pytest.importorskip("pandas")
    num = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.0, 1.0, 0.0, 1.0]})
    cat = np.array([0, 1, 2, 3])
    model = hl.Trainer(toy.two_inputs(), "cross_entropy")
    model.fit({"num": num, "cat": pd.Series(cat)}, [0, 1, 0, 1], epochs=2)
    assert model.feature_names == {"num": ("a", "b")}
    expected = model.predict({"num": num.to_numpy(), "cat": cat})
    assert np.array_equal(model.predict({"num": num[["b", "a"]], "cat": cat}), expected)
    with pytest.raises(hl.ShapeError, match=r"X\['num'\] has other columns .* column 1 is 'c', expected 'b'"):
        model.predict({"num": num.rename(columns={"b": "c"}), "cat": cat})


def table() -> tuple[Any, Any, Any]:
    """A frame of text, numbers and gaps; a class and a quantity for each row."""
    pd = pytest.importorskip("pandas")
    city = np.where(X[:, 0] > 0, "Rome", "Oslo").astype(object)
    frame = pd.DataFrame({"city": city, "size": np.where(X[:, 1] > 1, np.nan, X[:, 1])})
    return frame, np.where(y == 1, "yes", "no"), 100.0 + 30 * X[:, 0].astype(np.float64)


def test_text_and_gaps_need_a_preprocessor() -> None:
    frame, kind, _ = table()
    with pytest.raises(hl.DTypeError, match=r"text in column 'city', such as '\w+'.*hl.data.Preprocessor"):
        trainer().fit(frame, y)
    with pytest.raises(hl.NonFiniteError, match=r"missing value in column 'size', row \d+ .*Preprocessor"):
        trainer().fit(frame[["size"]], y)
    with pytest.raises(hl.DTypeError, match=r"y has dtype .*hl.data.Preprocessor"):
        trainer().fit(X, kind)
    pd = pytest.importorskip("pandas")
    with pytest.raises(hl.NonFiniteError, match=r"y\[3\] = nan"):
        trainer().fit(X, pd.Series([1.0, 0.0, 1.0, np.nan] * 30))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_go_through_the_preprocessor_with_their_targets(library: str, tmp_path: Path) -> None:
    frame, kind, price = table()
    if library == "polars":
        frame = pytest.importorskip("polars").from_pandas(frame)
    raw, by_hand = [], []
    for target, outputs, loss in ((kind, 2, "cross_entropy"), (price, 1, "mse")):
        prepare = hl.data.Preprocessor.fit(frame, target)
        inputs, learnt = prepare.transform(frame), prepare.transform_target(target)
        for given, goal, kept in ((frame, target, raw), (inputs, learnt, by_hand)):
            model = hl.Trainer(hl.nn.Linear(inputs.shape[1], outputs), loss, optimizer=hl.optim.AdamW(0.05))
            model.preprocessor = prepare
            model.fit(given, goal, epochs=20, validation=(given, goal))
            kept.append(model)
    assert same(raw[0], by_hand[0])
    assert same(raw[1], by_hand[1])
    classes, numbers = raw
    inputs = classes.preprocessor.transform(frame)
    assert classes.evaluate(frame, kind) == classes.evaluate(
        inputs, classes.preprocessor.transform_target(kind)
    )
    assert np.array_equal(classes.predict(frame), classes.predict(inputs))
    assert set(classes.predict_label(frame)) <= {"no", "yes"}
    assert classes.predict_label(inputs).dtype == np.int64
    assert (classes.predict_label(frame) == kind).mean() > 0.7
    numbers.save(tmp_path / "model.safetensors")
    loaded = hl.load(tmp_path / "model.safetensors")
    predicted = loaded.predict(frame)
    assert predicted.shape == (120,)
    assert abs(predicted.mean() - price.mean()) < 10  # in the target's unit
    assert np.array_equal(
        predicted, numbers.preprocessor.inverse_target(numbers.predict(numbers.preprocessor.transform(frame)))
    )
    assert loaded.history is not None


def test_a_stream_of_frames_goes_through_the_preprocessor() -> None:
    frame, _, price = table()
    blocks = [(frame[i : i + 50], price[i : i + 50]) for i in (0, 50, 100)]
    prepare = hl.data.Preprocessor.fit(frame, price)
    width = prepare.transform(frame).shape[1]
    whole, stream = (hl.Trainer(hl.nn.Linear(width, 1), "mse") for _ in range(2))
    whole.preprocessor = stream.preprocessor = prepare
    whole.fit(frame, price, epochs=2, shuffle=False)
    stream.fit(blocks, epochs=2, shuffle=False)
    assert same(whole, stream)
    assert np.array_equal(stream.predict(hl.data.Stream(blocks)), whole.predict(frame))


def test_the_first_block_of_a_stream_says_what_the_columns_are() -> None:
    frame = pandas_frame(X)
    reordered = frame[["score", "age", "weight", "height"]]
    whole, stream = trainer(), trainer()
    whole.fit(frame, y, epochs=2, shuffle=False, validation=(reordered, y))
    blocks = [(frame[:50], y[:50]), (reordered[50:], y[50:])]
    stream.fit(blocks, epochs=2, shuffle=False, validation=hl.data.Stream([(reordered, y)]))
    assert same(whole, stream)
    assert stream.feature_names == {"x": NAMES}
    assert stream.evaluate([(reordered, y)]) == whole.evaluate(X, y)
    with pytest.raises(hl.ShapeError, match=r"block 1 of the stream: .* column 0 is 'years', expected 'age'"):
        trainer().fit([(frame[:50], y[:50]), (frame[50:].rename(columns={"age": "years"}), y[50:])])


def test_a_file_read_block_by_block_is_a_stream(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "table.csv"
    rows = "".join(f"{a},{'Rome' if b else 'Oslo'},{100 + 10 * a}\n" for a, b in zip(X[:, 0], y, strict=True))
    path.write_text("size,city,price\n" + rows)
    table = hl.data.read(path)
    prepare = hl.data.Preprocessor.fit(table.drop("price"), table["price"])
    whole, stream = (hl.Trainer(hl.nn.Linear(len(prepare.num_names), 1), "mse") for _ in range(2))
    whole.preprocessor = stream.preprocessor = prepare

    def blocks() -> Any:
        return ((b.drop("price"), b["price"]) for b in hl.data.read_blocks(path, rows=50))

    whole.fit(table.drop("price"), table["price"], epochs=3, shuffle=False)
    stream.fit(blocks, epochs=3, shuffle=False)
    assert same(whole, stream)
    assert stream.evaluate(blocks) == whole.evaluate(table.drop("price"), table["price"])
    assert np.array_equal(stream.predict(X for X, _ in blocks()), whole.predict(table.drop("price")))
    plain = hl.Trainer(hl.nn.Linear(1, 1), "mse")
    plain.fit(table.select(["size"]), table["price"], epochs=1)
    assert plain.feature_names == {"x": ("size",)}


REFUSED: list[tuple[Any, Any, type[Exception], str]] = [
    (object(), y, hl.DTypeError, "X is of type object; allowed: arrays, lists"),
    (np.ma.array(X), y, hl.DTypeError, "masked array; fill it first"),
    (sparse.csr_matrix(X.astype(bool)), y, hl.DTypeError, "sparse of dtype bool"),
    (sparse.coo_array(X[:, 0]), y, hl.ShapeError, r"sparse with shape \(120,\)"),
    (sparse.csr_matrix(np.where(X > 1.5, np.nan, X)), y, hl.NonFiniteError, r"X\[\d+, \d\] = nan is not"),
    (sparse.csr_matrix(X.astype(np.float64) * 1e300), y, hl.NonFiniteError, "is not a finite float32"),
    (X, sparse.csr_matrix(y), hl.DTypeError, r"y is a sparse matrix.*y.toarray\(\)"),
    (sparse.csr_matrix(X[:50]), y, hl.ShapeError, "X has 50 rows and y has 120"),
]


@pytest.mark.parametrize(("given", "target", "error", "message"), REFUSED)
def test_what_is_refused_says_why(given: Any, target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trainer().fit(given, target)


def test_probes_take_frames_and_sparse_matrices() -> None:
    frame, kind, _ = table()
    prepare = hl.data.Preprocessor.fit(frame, kind)
    model = hl.Trainer(hl.nn.Linear(prepare.transform(frame).shape[1], 2), "cross_entropy")
    model.preprocessor = prepare
    assert model.plan(frame, kind).rows == 120
    assert model.overfit_batch(frame, kind).verdict
    curve = model.learning_curve(frame, kind, fractions=(0.5, 1.0), epochs=1)
    assert [point.rows for point in curve.points] == [48, 96]
    dry = trainer().fit(sparse.csr_matrix(X), y, dry_run=True).dry_run
    assert dry is not None
    assert dry.rows == 120
