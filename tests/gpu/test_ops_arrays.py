# SPDX-License-Identifier: Apache-2.0
"""`hotloop.ops` on arrays of a device: read where they lie, in the order of streams, and given back in kind.

Producers are stand-ins over the emulator's memory: one for each protocol, and one for each library that gets its own
kind back.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import _core, ops
from hotloop.ops import device as on_device
from tests.gpu.device_plans import MODES, emulating
from tests.gpu.kernel_harness import LIBRARIES

pytestmark = pytest.mark.skipif(not LIBRARIES["simt"].exists(), reason="the emulator is not built")


@pytest.fixture(autouse=True)
def _emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's memory is the emulator's."""
    monkeypatch.setattr(on_device, "KIND", "simt")


def put(array: Any) -> tuple[Any, Any]:
    """(queue, memory) that holds a copy of the array."""
    queue = on_device._queue(0, "test")
    array = np.ascontiguousarray(array)
    memory = queue.allocate(array.nbytes)
    if array.size:
        queue.upload(memory.address, array)
        queue.wait()
    return queue, memory


class Interface:
    """An array that is known by ``__cuda_array_interface__`` alone."""

    def __init__(self, array: Any, *, stream: Any = 1, read_only: bool = False, strides: Any = None) -> None:
        array = np.asarray(array)
        self.queue, self.memory = put(array)
        self.shape, self.dtype, self.strides = array.shape, array.dtype, strides
        self.stream, self.read_only = stream, read_only

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.memory.address, self.read_only),
            "strides": self.strides,
            "stream": self.stream,
            "version": 3,
        }

    def numpy(self) -> np.ndarray:
        result = np.empty(self.shape, self.dtype)
        self.queue.wait()
        if result.size:
            self.queue.download(result, self.memory.address)
        return result


class Lender:
    """An array that is known by DLPack alone; ``asked``: the streams that it was told of."""

    def __init__(self, array: Any, *, legacy: bool = False) -> None:
        array = np.asarray(array, np.float32)
        self.queue, self.memory = put(array)
        self.shape, self.legacy = array.shape, legacy
        self.asked: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: Any = None, **more: Any) -> Any:
        if self.legacy and more:
            raise TypeError("__dlpack__() got an unexpected keyword argument")
        self.asked.append(stream)
        return _core.to_dlpack(self.memory, 0, list(self.shape), not self.legacy)

    numpy = Interface.numpy
    dtype = np.dtype(np.float32)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def close(got: Any, want: Any, tolerance: float = 2e-6) -> None:
    array = got.numpy() if hasattr(got, "numpy") else np.asarray(got)
    np.testing.assert_allclose(array, want, rtol=tolerance, atol=tolerance)


X, W, B = normal(6, 10), normal(10, 7, seed=1), normal(7, seed=2)
LABELS = np.array([0, 9, 3, 3, 1, 5])
CALLS: dict[str, Any] = {
    "relu": lambda put: ops.relu(put(X)),
    "softplus": lambda put: ops.softplus(put(X), 2.0, 3.0),
    "gelu tanh": lambda put: ops.gelu(put(X), "tanh"),
    "softmax": lambda put: ops.softmax(put(X)),
    "softmax of columns": lambda put: ops.log_softmax(put(normal(3, 5, 4)), 1),
    "layer_norm": lambda put: ops.layer_norm(put(X), 10, put(W[:, 0]), put(W[:, 1])),
    "rms_norm": lambda put: ops.rms_norm(put(X), (10,), put(W[:, 0])),
    "matmul": lambda put: ops.matmul(put(X), put(W), bias=put(B), activation="tanh", alpha=0.5),
    "matmul transposed": lambda put: ops.matmul(put(X.T), put(W.T), transpose_a=True, transpose_b=True),
    "matmul of vectors": lambda put: ops.matmul(put(X[0]), put(W)),
    "matmul by a vector": lambda put: ops.matmul(put(X), put(W[:, 0])),
    "matmul of batches": lambda put: ops.matmul(put(normal(2, 1, 3, 4)), put(normal(3, 4, 5))),
    "embedding": lambda put: ops.embedding(put(LABELS), put(W)),
    "dropout": lambda put: ops.dropout(put(X), 0.25, seed=5, offset=3),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_functions_are_those_of_the_cpu(call: Any) -> None:
    got = call(Interface)
    assert type(got) is hl.DeviceArray
    close(got, call(np.asarray))


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "mae", "huber", "bce_with_logits"])
@pytest.mark.parametrize("return_grad", [False, True])
def test_losses_are_those_of_the_cpu(name: str, return_grad: bool) -> None:
    target = LABELS if name == "cross_entropy" else (normal(6, 10, seed=3) > 0).astype(np.float32)
    function = getattr(ops, name)
    got = function(Interface(X), Interface(target), return_grad=return_grad)
    want = function(X, target, return_grad=return_grad)
    if return_grad:
        (got, gradient), (want, expected) = got, want
        close(gradient, expected)
    assert got == pytest.approx(want, rel=1e-6)


def test_updates_are_those_of_the_cpu_alone_and_in_lists() -> None:
    shapes = [(3, 4), (5,), (0,), (1000,)]
    cpu = [[normal(*s, seed=i) ** 2 for s in shapes] for i in range(4)]
    gpu = [[Interface(a) for a in column] for column in cpu]
    for step in (1, 2):
        ops.adamw_(*cpu, step=step, lr=0.1)
        ops.adamw_(*gpu, step=step, lr=0.1)
        ops.adam_(*(c[0] for c in cpu), step=step, lr=0.1, weight_decay=0.1)
        ops.adam_(*(g[0] for g in gpu), step=step, lr=0.1, weight_decay=0.1)
        ops.sgd_(cpu[0], cpu[1], cpu[2], lr=0.1, momentum=0.9, nesterov=True)
        ops.sgd_(gpu[0], gpu[1], gpu[2], lr=0.1, momentum=0.9, nesterov=True)
        ops.sgd_(cpu[0][3], cpu[1][3], lr=0.1)
        ops.sgd_(gpu[0][3], gpu[1][3], lr=0.1)
    for expected, found in zip(cpu, gpu, strict=True):
        for want, got in zip(expected, found, strict=True):
            close(got, want)


@pytest.mark.parametrize("legacy", [False, True])
def test_lenders_are_told_our_stream(legacy: bool) -> None:
    source = Lender(X, legacy=legacy)
    close(ops.relu(source), np.maximum(X, 0))
    assert source.asked == [source.queue.stream]


def test_strides_are_read_where_they_lie() -> None:
    turned = Interface(X, strides=(4, 24))  # the same numbers as a (6, 10) matrix by columns
    turned_host = X.ravel().reshape(10, 6).T
    close(ops.relu(turned), np.maximum(turned_host, 0))
    close(ops.matmul(turned, Interface(W)), turned_host @ W, 1e-5)
    backward = Interface(X, strides=(-40, 4))
    backward.memory = SimpleNamespace(address=backward.memory.address + 200, held=backward.memory)
    with pytest.raises(hl.ShapeError, match=r"strides \(-40, 4\)"):
        ops.relu(backward)


def test_out_is_written_and_given_back() -> None:
    source, target = Interface(X), Interface(np.full_like(X, np.nan))
    assert ops.relu(source, out=target) is target
    close(target, np.maximum(X, 0))
    assert ops.softmax(source, out=source) is source
    close(source, ops.softmax(X))
    lent = Lender(np.zeros_like(X))
    assert ops.softmax(Interface(X), 0, out=lent) is lent
    close(lent, ops.softmax(X, 0))


def test_what_does_not_fit_is_refused_before_anything_is_written() -> None:
    for out, error, words in (
        (Interface(np.zeros((6, 9), np.float32)), hl.ShapeError, r"out must be float32 \(6, 10\)"),
        (Interface(np.zeros((6, 10))), hl.DTypeError, "out must be float32"),
        (Interface(np.zeros_like(X), read_only=True), ValueError, "out is read-only"),
        (np.zeros_like(X), hl.DeviceError, "out on the CPU, the arguments on CUDA device 0"),
    ):
        with pytest.raises(error, match=words):
            ops.relu(Interface(X), out=out)
        assert not (out.numpy() if isinstance(out, Interface) else out).any()
    with pytest.raises(hl.DTypeError, match="x must be float32 on a device, got float64"):
        ops.relu(Interface(X.astype(float)))
    with pytest.raises(hl.DeviceError, match="a on CUDA device 0, b on the CPU; move them"):
        ops.matmul(Interface(X), W)
    with pytest.raises(hl.DeviceError, match="labels on the CPU"):
        ops.cross_entropy(Interface(X), LABELS)
    with pytest.raises(ValueError, match="names stream 0"):
        ops.relu(Interface(X, stream=0))
    shared = Interface(np.ones(8, np.float32))
    with pytest.raises(ValueError, match="overlap"):
        ops.sgd_(shared, Interface(np.ones(8, np.float32)), shared, lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="overlap"):
        ops.sgd_([shared, shared], [Interface(np.ones(8, np.float32)) for _ in range(2)], lr=0.1)
    with pytest.raises(ValueError, match="overlap"):  # a parameter is the other's gradient
        ops.sgd_(
            [shared, Interface(np.ones(8, np.float32))], [Interface(np.ones(8, np.float32)), shared], lr=0.1
        )
    with pytest.raises(ValueError, match="overlap"):
        ops.sgd_(
            [shared, like := Interface(np.ones(8, np.float32))],
            [like, Interface(np.ones(8, np.float32))],
            lr=0.1,
        )
    close(shared, np.ones(8))
    with pytest.raises(ValueError, match="overlaps an operand"):
        ops.matmul(shared_square := Interface(np.eye(3, dtype=np.float32)), shared_square, out=shared_square)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_of_any_width_are_checked_on_the_device(dtype: type) -> None:
    labels = LABELS.astype(dtype)
    assert ops.cross_entropy(Interface(X), Interface(labels)) == pytest.approx(
        ops.cross_entropy(X, LABELS), rel=1e-6
    )
    labels[4] = 10
    with pytest.raises(hl.LabelError, match=r"labels\[4\] is 10; allowed 0 to 9"):
        ops.cross_entropy(Interface(X), Interface(labels))
    with pytest.raises(hl.LabelError, match=r"ids\[0, 1\] is 9; allowed 0 to 6"):
        ops.embedding(Interface(labels.reshape(2, 3)[:, :2]), Interface(W.T))


def test_labels_of_other_types_are_refused() -> None:
    with pytest.raises(hl.DTypeError, match="must be uint8, int32 or int64 on a device, got int16"):
        ops.cross_entropy(Interface(X), Interface(LABELS.astype(np.int16)))


class Recorder:
    """Stands for our queue: notes in which order it was asked for what, and asks it."""

    def __init__(self, queue: Any) -> None:
        self.queue, self.log = queue, []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.queue, name)
        if name not in ("after", "before", "wait", "launch", "update_list"):
            return found

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.log.append((name, args[0] if args else None))
            return found(*args, **kwargs)

        return noted


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder(on_device._queue(0, "test"))
    monkeypatch.setattr(on_device, "_queue", lambda *_: made)
    return made


def test_work_comes_after_the_owners_stream_and_before_its_next(recorder: Recorder) -> None:
    theirs = _core.DeviceEager(on_device.open_device("simt", "test"))
    for stream in (1, 2, theirs.stream):
        source = Interface(X, stream=stream)
        recorder.log.clear()
        ops.relu(source)
        assert recorder.log == [("after", stream), ("launch", "relu_fwd"), ("before", stream)]


def test_a_list_waits_once_for_each_stream(recorder: Recorder) -> None:
    theirs = _core.DeviceEager(on_device.open_device("simt", "test"))
    columns = [[Interface(X, stream=s) for s in (1, theirs.stream, 1)] for _ in range(2)]
    recorder.log.clear()
    ops.sgd_(*columns, lr=0.1)
    assert recorder.log[:3] == [("after", 1), ("after", theirs.stream), ("update_list", "sgd")]
    assert sorted(recorder.log[3:]) == sorted([("before", 1), ("before", theirs.stream)])
    gradient = Interface(X)
    recorder.log.clear()
    ops.sgd_([columns[0][0]], [gradient], lr=0.1)  # and again in the next call
    assert [name for name, _ in recorder.log] == ["after", "update_list", "before"]


def test_a_list_may_share_a_gradient() -> None:
    first, second, gradient = Interface(X), Interface(X + 1), Interface(np.ones_like(X))
    ops.sgd_([first, second], [gradient, gradient], lr=0.5)
    close(first, X - 0.5)
    close(second, X + 0.5)


def test_the_host_waits_for_owners_that_name_no_stream(recorder: Recorder) -> None:
    for source in (Interface(X, stream=None), Lender(X)):
        recorder.log.clear()
        ops.relu(source)
        assert recorder.log == [("launch", "relu_fwd"), ("wait", None)]


def test_an_array_of_ours_waits_for_nobody(recorder: Recorder) -> None:
    first = ops.relu(Interface(X))
    recorder.log.clear()
    ops.exp(first)
    assert recorder.log == [("launch", "exp_fwd")]


@pytest.mark.parametrize("mode", MODES)
def test_streams_that_run_late_give_the_same(mode: str) -> None:
    """Another queue writes the operand, and reads the result, without a wait in between."""
    theirs = _core.DeviceEager(on_device.open_device("simt", "test"))
    source, target = Interface(np.zeros_like(X), stream=theirs.stream), Interface(X, stream=theirs.stream)
    found = np.empty_like(X)
    with emulating("simt", mode):
        theirs.upload(source.memory.address, X)
        ops.relu(source, out=target)
        theirs.download(found, target.memory.address)
    np.testing.assert_array_equal(found, np.maximum(X, 0))


def test_arrays_of_ours() -> None:
    array = hl.DeviceArray.copy_of(X)
    assert (array.shape, array.ndim, array.size, array.dtype) == (X.shape, 2, 60, np.dtype(np.float32))
    np.testing.assert_array_equal(array.numpy(), X)
    assert repr(array).startswith("DeviceArray(array([[")
    assert array.__dlpack_device__() == (2, 0)
    interface = array.__cuda_array_interface__
    assert interface["version"] == 3
    assert (interface["shape"], interface["typestr"], interface["strides"]) == ((6, 10), "<f4", None)
    assert interface["stream"] not in (0, None)
    assert not interface["data"][1]
    with pytest.raises(hl.DTypeError, match="x must be float32, got float64"):
        hl.DeviceArray.copy_of(X.astype(float))
    assert hl.DeviceArray.copy_of(np.empty((0, 3), np.float32)).numpy().shape == (0, 3)


@pytest.mark.parametrize("versioned", [False, True])
def test_capsules_of_ours(versioned: bool) -> None:
    array = hl.DeviceArray.copy_of(X)
    capsule = array.__dlpack__(stream=-1, max_version=(1, 0) if versioned else None)
    assert ("dltensor_versioned" if versioned else '"dltensor"') in repr(capsule)
    address = array._view.address
    del array  # the capsule keeps the memory
    found = _core.from_dlpack(capsule)
    assert found[:9] == (address, 2, 0, 2, 32, 1, (6, 10), (10, 1), False)
    back = np.empty_like(X)
    on_device._queue(0, "test").download(back, address)
    np.testing.assert_array_equal(back, X)
    with pytest.raises(Exception, match=r"(?i)capsule"):
        _core.from_dlpack(capsule)  # it was taken


def test_capsules_are_asked_for_with_a_stream(recorder: Recorder) -> None:
    array = hl.DeviceArray.copy_of(X)
    recorder.log.clear()
    for stream in (None, -1, 1):
        array.__dlpack__(stream=stream)
    assert recorder.log == [("before", 1), ("before", 1)]
    for stream in (0, -2):
        with pytest.raises(ValueError, match="stream must be None, -1, 1, 2 or an address"):
            array.__dlpack__(stream=stream)
    with pytest.raises(BufferError, match=r"use numpy\(\) for a copy"):
        array.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="lent as it is"):
        array.__dlpack__(dl_device=(1, 0))


def test_cupy_gets_its_own_kind_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        def __init__(self, number: int) -> None:
            assert number == 0

        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    cupy = ModuleType("cupy")
    cupy.ndarray = Interface  # type: ignore[attr-defined]
    cupy.empty = lambda shape, dtype: Interface(np.empty(shape, dtype))  # type: ignore[attr-defined]
    cupy.cuda = SimpleNamespace(Device=Device)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    result = ops.relu(Interface(X))
    assert type(result) is Interface
    close(result, np.maximum(X, 0))


def test_torch_gets_its_own_kind_back_in_its_own_stream(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    theirs = _core.DeviceEager(on_device.open_device("simt", "test"))
    torch = ModuleType("torch")
    torch.Tensor, torch.float32 = Lender, "float32"  # type: ignore[attr-defined]

    def empty(shape: Any, *, dtype: str, device: str) -> Lender:
        assert (dtype, device) == ("float32", "cuda:0")
        return Lender(np.zeros(shape, np.float32))

    torch.empty = empty  # type: ignore[attr-defined]
    torch.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        current_stream=lambda number: SimpleNamespace(cuda_stream=theirs.stream)
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    source = Lender(X)
    recorder.log.clear()
    result = ops.relu(source)
    assert type(result) is Lender
    assert [entry for entry in recorder.log if entry[0] != "wait"] == [
        ("launch", "relu_fwd"),
        ("before", theirs.stream),
    ]
    close(result, np.maximum(X, 0))


def test_jax_reads_results_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    jax = ModuleType("jax")
    jax.Array = Lender  # type: ignore[attr-defined]
    taken = []

    def from_dlpack(array: Any) -> str:
        taken.append(array)
        return "an array of jax"

    jax.dlpack = SimpleNamespace(from_dlpack=from_dlpack)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert ops.relu(Lender(X)) == "an array of jax"
    close(taken[0], np.maximum(X, 0))
    with pytest.raises(ValueError, match="out is read-only"):
        ops.relu(Lender(X), out=Lender(X))


def test_a_device_without_memory_left_works_on() -> None:
    queue = on_device._queue(0, "test")
    with pytest.raises(hl.DeviceError, match=r"could not get .* bytes of device memory"):
        queue.allocate(1 << 50)
    close(ops.relu(Interface(X)), np.maximum(X, 0))


def test_memory_that_was_lent_is_not_used_again_and_other_is() -> None:
    queue = on_device._queue(0, "test")
    sizes = 77_777 * 4
    kept = queue.allocate(sizes)
    address = kept.address
    del kept
    again = queue.allocate(sizes)
    assert again.address == address
    again.lend()
    del again
    assert queue.allocate(sizes).bytes >= sizes  # from the driver, wherever that is


def test_nothing_is_looked_up_without_such_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise hl.DeviceError("there is no NVIDIA GPU")

    monkeypatch.setattr(on_device, "open_device", refuse)
    monkeypatch.setattr(on_device, "_queues", {})
    source = Lender.__new__(Lender)
    with pytest.raises(hl.DeviceError, match=r"x is not in the memory of the CPU.*no NVIDIA GPU.*x\.cpu\(\)"):
        ops.relu(source)
