# SPDX-License-Identifier: Apache-2.0
"""Training, evaluation and prediction on arrays that lie on the device already: read in place, checked there in the
CPU's words, after what their owner has launched, and answered in kind."""

from __future__ import annotations

import gc
import sys
import weakref
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import _core
from hotloop.data import device_arrays
from hotloop.ops import device as on_device
from tests.gpu.device_plans import MODES, emulating
from tests.gpu.foreign_arrays import Interface, Lender
from tests.gpu.kernel_harness import DEVICES

RNG = np.random.default_rng(5)
X = RNG.standard_normal((90, 12)).astype(np.float32)
Y = (X[:, :3].sum(axis=1) > 0).astype(np.int64) + (X[:, 3] > 1)
WEIGHT = RNG.random(90).astype(np.float32)


@pytest.fixture(
    autouse=True, params=DEVICES or [pytest.param("none", marks=pytest.mark.skip("neither emulator nor GPU"))]
)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where arrays lie and runs take place: on a GPU, or on the emulator, whose memory is then CUDA's."""
    found: str = request.param
    monkeypatch.setattr(on_device, "KIND", found)
    return found


def trainer(device: str = "", loss: Any = "cross_entropy", outputs: int = 3, **how: Any) -> hl.Trainer:
    model = hl.nn.Sequential(hl.nn.Linear(12, 16), hl.nn.ReLU(), hl.nn.Linear(16, outputs))
    return hl.Trainer(
        model,
        loss,
        optimizer=hl.optim.AdamW(0.01),
        device=device or on_device.KIND,
        seed=3,
        progress=False,
        **how,
    )


def weights(of: hl.Trainer) -> np.ndarray:
    return np.concatenate([value.ravel() for value in of.model.state_dict().values()])


#: Ways to hand over the same data: X, y, weight.
WAYS: dict[str, Any] = {
    "interface": lambda: (Interface(X), Interface(Y), Interface(WEIGHT)),
    "dlpack": lambda: (Lender(X), Interface(Y.astype(np.int32)), Lender(WEIGHT)),
    "ours": lambda: (hl.DeviceArray.copy_of(X), Y, WEIGHT),
    "labels alone": lambda: (X, Interface(Y.astype(np.uint8)), None),
    "by name": lambda: ({"x": Interface(X)}, {"y": Interface(Y)}, None),
    "doubles": lambda: (Interface(X.astype(np.float64)), Interface(Y), None),
    "columns first": lambda: (
        Interface(np.asarray(X.T.copy()).reshape(90, 12), strides=(4, 90 * 4)), Interface(Y), None,
    ),
    "doubles, columns first": lambda: (
        Interface(X.T.astype(np.float64).reshape(90, 12), strides=(8, 90 * 8)), Interface(Y), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_run_has_the_bits_of_the_same_data_on_the_host(way: str) -> None:
    data, labels, weight = WAYS[way]()
    runs = []
    for x, y, w in ((data, labels, weight), (X, Y, None if weight is None else WEIGHT)):
        one = trainer()
        run = one.fit(x, y, sample_weight=w, validation=0.2, epochs=2, batch_size=16)
        runs.append((run.history, weights(one), one.provenance.data.digests if one.provenance else None))
    assert runs[0][0] == runs[1][0]
    assert np.array_equal(runs[0][1], runs[1][1])
    assert runs[0][2] == runs[1][2] is not None


def test_sets_for_validation_may_lie_on_either_side() -> None:
    one, other = trainer(), trainer()
    first = one.fit(
        X, Y, validation={"a": (Interface(X[:30]), Interface(Y[:30])), "b": (X[30:], Y[30:])}, epochs=2
    )
    second = other.fit(
        Interface(X), Y, validation={"a": (X[:30], Y[:30]), "b": (Lender(X[30:]), Y[30:])}, epochs=2
    )
    assert first.history == second.history
    assert one.evaluate(Interface(X), Interface(Y)) == other.evaluate(X, Y)
    assert one.was_trained_on(Interface(X), Interface(Y))
    assert not one.was_trained_on(Interface(X + 1), Interface(Y))


def test_nothing_is_copied_that_need_not_be() -> None:
    rows = device_arrays.read(source := Interface(X), "X", "test", on=on_device.KIND, check=None)
    assert rows.view.address == source.memory.address
    there = on_device.open_device(on_device.KIND, "test")
    held = _core.DeviceSource(there, [rows.feed, np.zeros((90, 3), np.float32)])
    assert held.resident and held.nbytes == 90 * 3 * 4


def test_the_source_keeps_the_array_alive() -> None:
    array = Interface(X)
    gone = weakref.ref(array)
    there = on_device.open_device(on_device.KIND, "test")
    held = _core.DeviceSource(
        there, [device_arrays.read(array, "X", "test", on=on_device.KIND, check=None).feed]
    )
    del array
    gc.collect()
    assert gone() is not None
    del held
    gc.collect()
    assert gone() is None


def test_what_is_streamed_takes_its_neighbours_along() -> None:
    """Beside an array of the host that has no room, one of the device is read from a copy."""
    there = on_device.open_device(on_device.KIND, "test")
    rows = device_arrays.read(Interface(X), "X", "test", on=on_device.KIND, check=None)
    held = _core.DeviceSource(there, [rows.feed, np.zeros((90, 3), np.float32)], budget=64)
    assert not held.resident


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stream", ["theirs", "dlpack"])
def test_the_owners_work_comes_first(mode: str, stream: str) -> None:
    """Another queue writes X without a wait, and training reads what it wrote."""
    theirs = _core.DeviceEager(on_device.open_device(on_device.KIND, "test"))
    expected = trainer().fit(X, Y, epochs=1).history
    source: Any = Interface(np.zeros_like(X), stream=theirs.stream)
    if stream == "dlpack":
        source = Lender(np.zeros_like(X))
        lend = source.__dlpack__

        class Ordered(Lender):
            def __init__(self) -> None:
                vars(self).update(vars(source))

            def __dlpack__(self, *, stream: Any = None, **more: Any) -> Any:
                theirs.before(stream)  # as a producer does for the consumer's stream
                return lend(stream=stream, **more)

        source = Ordered()
    with emulating(on_device.KIND, mode):
        theirs.upload(source.memory.address, X)
        assert trainer().fit(source, Y, epochs=1).history == expected


@pytest.mark.parametrize(
    ("x", "y", "weight"),
    [
        (np.where(np.arange(12) == 3, np.nan, X), Y, None),
        (np.where(np.arange(12) == 3, np.inf, X), Y, None),
        (np.where(np.arange(12) == 3, 1e300, X.astype(np.float64)), Y, None),
        (X, np.where(np.arange(90) == 77, 9, Y), None),
        (X, np.where(np.arange(90) == 4, -1, Y), None),
        (X, Y.astype(np.float32), None),
        (X, Y.astype(np.float32) + 0.5, None),
        (X, Y[:80], None),
        (X, Y, -WEIGHT),
        (X, Y, 0 * WEIGHT),
        (X, Y, WEIGHT[:7]),
        (X[:, :5], Y, None),
        (X.astype(np.int32), Y[:, None], None),
    ],
)  # fmt: skip
def test_errors_are_those_of_the_cpu(x: Any, y: Any, weight: Any) -> None:
    said = []
    for put in (Interface, np.asarray):
        one = trainer()
        before = weights(one.fit(X, Y, epochs=1) and one)
        with pytest.raises((hl.HotloopError, ValueError)) as error:
            one.fit(put(x), put(y), sample_weight=None if weight is None else put(weight), epochs=1)
        said.append((type(error.value), str(error.value)))
        assert np.array_equal(weights(one), before)
    assert said[0] == said[1]


def test_a_loss_by_the_target_is_chosen_as_on_the_cpu() -> None:
    for y, outputs, kind in ((Y % 2, 1, "bce_with_logits"), (Y, 3, "cross_entropy"), (X[:, 0], 1, "mse")):
        losses = []
        for put in (Interface, np.asarray):
            one = trainer(loss="auto", outputs=outputs)
            losses.append((one.fit(put(X), put(y), epochs=1).history, one._resolved[1].kind))
        assert losses[0] == losses[1] and losses[0][1] == kind


def test_balanced_classes_are_counted_where_they_are() -> None:
    balanced = hl.losses.CrossEntropy(class_weight="balanced")
    runs = [trainer(loss=balanced).fit(put(X), put(Y), epochs=1).history for put in (Interface, np.asarray)]
    assert runs[0] == runs[1]


def test_ids_are_checked_on_the_device() -> None:
    ids = RNG.integers(0, 20, (90, 2))
    for put in (Interface, np.asarray):
        model = hl.nn.Sequential(hl.nn.Embedding(20, 6), hl.nn.Flatten(), hl.nn.Linear(12, 3))
        one = hl.Trainer(model, "cross_entropy", device=on_device.KIND, seed=1, progress=False)
        run = one.fit(put(ids), put(Y), epochs=1)
        with pytest.raises(hl.LabelError, match=r"X\[2, 1\] = 20"):
            one.fit(put(np.where(np.arange(180).reshape(90, 2) == 5, 20, ids)), put(Y), epochs=1)
        if put is Interface:
            first = run.history
    assert run.history == first


def test_bytes_and_integers_are_features_where_the_model_takes_numbers() -> None:
    for dtype in (np.uint8, np.int32, np.int64):
        table = RNG.integers(0, 200, (90, 12)).astype(dtype)
        runs = [trainer().fit(put(table), Y, epochs=1).history for put in (Interface, np.asarray)]
        assert runs[0] == runs[1]


def test_what_no_gather_reads_is_refused() -> None:
    with pytest.raises(hl.DTypeError, match=r"\[fit\] X has dtype float16 on a GPU; allowed there: float32"):
        trainer().fit(Interface(X.astype(np.float16)), Y)
    with pytest.raises(hl.ShapeError, match="must be contiguous"):
        trainer().fit(Interface(X.astype(np.uint8), strides=(1, 90)), Y)
    with pytest.raises(hl.ShapeError, match="X is a single number"):
        trainer().fit(Interface(X[0, 0]), Y)


def test_a_model_on_the_cpu_says_how_to_copy() -> None:
    message = r"\[fit\] X lies on a GPU, and this model runs on the CPU; pass {}, or train with device='cuda'"
    for source, home in (
        (hl.DeviceArray.copy_of(X), r"X\.numpy\(\)"),
        (Interface(X), "a copy of it in the memory of the CPU"),
    ):
        with pytest.raises(hl.DeviceError, match=message.format(home)):
            trainer("cpu").fit(source, Y)
    one = trainer("cpu")
    one.fit(X, Y, epochs=1)
    for call in (one.predict, lambda x: one.evaluate(x, Y), one.predict_proba):
        with pytest.raises(hl.DeviceError, match="this model runs on the CPU"):
            call(Interface(X))
    step = hl.TrainStep(hl.nn.Linear(12, 3), "cross_entropy")
    with pytest.raises(hl.DeviceError, match=r"[xX] lies on a GPU"):
        step(Interface(X), Y)


def test_auto_goes_where_the_data_lie() -> None:
    for x, validation in ((Interface(X), None), (X, (Interface(X), Y))):
        one = trainer("auto")
        run = one.fit(x, Y, validation=validation, epochs=1)
        found = run.about["environment"]
        assert (found["device"], found["device chosen"]) == (on_device.KIND, "the data lies there")
        assert one.predict(Interface(X)).numpy().shape == (90, 3)


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 90, 2048, 2100])
def test_predictions_lie_where_their_rows_do_and_have_the_same_bits(rows: int) -> None:
    one = trainer()
    one.fit(X, Y, epochs=1)
    table = np.resize(X, (rows, 12))
    expected = one.predict(table)
    assert type(expected) is np.ndarray
    for put in (Interface, Lender, hl.DeviceArray.copy_of):
        found = one.predict(put(table))
        assert type(found) is hl.DeviceArray
        assert np.array_equal(found.numpy(), expected)
    assert np.array_equal(one.predict_proba(Interface(table)), one.predict_proba(table))
    assert np.array_equal(one.predict_label({"x": Interface(table)}), one.predict_label(table))
    assert one.predict(Interface(table[:0])).shape == (0, 3)


def test_a_stream_of_device_arrays_is_answered_on_the_host() -> None:
    one = trainer()
    blocks = [(Interface(X[:40]), Interface(Y[:40])), (Interface(X[40:]), Interface(Y[40:]))]
    run = one.fit(hl.data.Stream(lambda: iter(blocks)), epochs=2, batch_size=30)
    other = trainer()
    host = [(X[:40], Y[:40]), (X[40:], Y[40:])]
    assert run.history == other.fit(hl.data.Stream(lambda: iter(host)), epochs=2, batch_size=30).history
    assert np.array_equal(one.predict(hl.data.Stream(lambda: iter(blocks))), other.predict(X))


def test_steps_by_hand_take_and_give_device_arrays() -> None:
    steps = {}
    for put in (Interface, np.asarray):
        model = hl.nn.Sequential(hl.nn.Linear(12, 16), hl.nn.Tanh(), hl.nn.Linear(16, 3))
        step = hl.TrainStep(model, "cross_entropy", hl.optim.AdamW(0.01), device=on_device.KIND, seed=2)
        losses = [step(put(X[i : i + 30]), put(Y[i : i + 30]), put(WEIGHT[:30])) for i in range(0, 90, 30)]
        loss, gradients = step.loss_and_grads(put(X), put(Y))
        step.update()
        out = step.forward(put(X[:20]))
        assert type(out) is (np.ndarray if put is np.asarray else hl.DeviceArray)
        host = out if isinstance(out, np.ndarray) else out.numpy()
        back = step.backward(put(2 * host))
        step.update()
        predicted = step.predict(put(X[:9]))
        host_of = predicted if isinstance(predicted, np.ndarray) else predicted.numpy()
        steps[put] = [*losses, loss], gradients, host, back, np.array(step.flat_params), host_of
    there, here = steps[Interface], steps[np.asarray]
    assert there[0] == here[0]
    for a, b in zip(there[1:], here[1:]):
        if isinstance(a, dict):
            assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        else:
            assert np.array_equal(a, b)


def test_bytes_go_into_a_step() -> None:
    """They are converted on the way, into memory that is gone with the call."""
    table = RNG.integers(0, 200, (30, 12)).astype(np.uint8)
    losses = []
    for put in (Interface, np.asarray):
        step = hl.TrainStep(
            hl.nn.Linear(12, 3), "cross_entropy", hl.optim.SGD(1e-4), device=on_device.KIND, seed=2
        )
        losses.append([step(put(table), put(Y[:30])) for _ in range(3)])
    assert losses[0] == losses[1]


def test_a_loss_of_ones_own_sees_numpy_arrays() -> None:
    def squares(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert type(prediction) is type(target) is np.ndarray
        error = prediction - target
        return (error**2).mean(axis=1), 2 * error / error.shape[1]

    runs = []
    for put in (Interface, np.asarray):
        one = trainer(loss=squares, metrics=None)
        run = one.fit(put(X), put(X[:, :3]), validation=0.25, epochs=1)
        step = hl.TrainStep(hl.nn.Linear(12, 3), squares, device=on_device.KIND, seed=1)
        runs.append((run.history, one.evaluate(put(X), put(X[:, :3])), step(put(X), put(X[:, :3]))))
    assert runs[0] == runs[1]


def test_scores_reports_and_curves_read_device_data() -> None:
    one, other = trainer(metrics=["accuracy", "f1_macro"]), trainer(metrics=["accuracy", "f1_macro"])
    runs = [
        a.fit(put(X), put(Y), validation=(put(X[:40]), put(Y[:40])), epochs=2)
        for a, put in ((one, Interface), (other, np.asarray))
    ]
    assert runs[0].history == runs[1].history
    assert str(runs[0].diagnosis) == str(runs[1].diagnosis)
    curves = [
        trainer().learning_curve(put(X), put(Y), epochs=1, fractions=(0.5, 1.0)).points
        for put in (Interface, np.asarray)
    ]
    assert curves[0] == curves[1]
    checks = [trainer().overfit_batch(put(X), put(Y), steps=3).losses for put in (Interface, np.asarray)]
    assert checks[0] == checks[1]


def libraries(monkeypatch: pytest.MonkeyPatch, name: str) -> type:
    """A stand-in for a library that gets its own kind back: its kind of array."""
    library: Any = ModuleType(name)
    if name == "cupy":
        library.ndarray, library.cuda = Interface, SimpleNamespace(Device=lambda number: nullcontext())
        library.empty = lambda shape, dtype: Interface(np.empty(shape, dtype))
    else:

        class Tensor(Lender):
            device, requires_grad = SimpleNamespace(type="cuda"), False

        library.Tensor, library.float32 = Tensor, "float32"
        library.empty = lambda shape, dtype, device: Tensor(np.empty(shape, np.float32))
        library.cuda = SimpleNamespace(current_stream=lambda number: SimpleNamespace(cuda_stream=1))
    monkeypatch.setitem(sys.modules, name, library)
    found: type = library.ndarray if name == "cupy" else library.Tensor
    return found


@pytest.mark.parametrize("name", ["cupy", "torch"])
def test_libraries_get_their_own_kind_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer()
    one.fit(X, Y, epochs=1)
    step = hl.TrainStep(hl.nn.Linear(12, 3), "mse", device=on_device.KIND, seed=1)
    expected, forward = one.predict(X), step.forward(X)
    kind = libraries(monkeypatch, name)
    for given in (X, X.astype(np.float64), np.rint(X * 10).astype(np.uint8)):
        if name == "torch" and given.dtype != np.float32:
            continue  # the stand-in lends float32 only
        found = one.predict(kind(given))
        assert type(found) is kind
        assert np.array_equal(found.numpy(), expected) or given.dtype == np.uint8
    found = step.forward(kind(X))
    assert type(found) is kind and np.array_equal(found.numpy(), forward)
    home = {"cupy": r"X\.get\(\)", "torch": r"X\.cpu\(\)"}[name]
    with pytest.raises(hl.DeviceError, match=home):
        trainer("cpu").fit(kind(X), Y)


def test_a_tensor_that_requires_grad_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = libraries(monkeypatch, "torch")(X)
    tensor.requires_grad = True
    with pytest.raises(TypeError, match=r"X is a tensor that requires grad.*pass X\.detach\(\)"):
        trainer().fit(tensor, Y)
