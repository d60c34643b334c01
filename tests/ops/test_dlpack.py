# SPDX-License-Identifier: Apache-2.0
"""The rules of DLPack 1.x at the border of `hotloop.ops`: who may write, whose memory, on which device."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import ops


class Producer:
    """An array that is known through DLPack alone.

    ``legacy``: knows the protocol of before 1.0, which has no versions and cannot say "read-only". ``fleeting``:
    forgets its memory once it has handed it out. What it was asked is in ``asked``.
    """

    def __init__(self, array: Any, *, device: int = 1, legacy: bool = False, fleeting: bool = False) -> None:
        self.array, self.device, self.legacy, self.fleeting = array, device, legacy, fleeting
        self.asked: list[dict[str, Any]] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **how: Any) -> Any:
        self.asked.append(how)
        if self.legacy and set(how) - {"stream"}:
            raise TypeError("__dlpack__() got an unexpected keyword argument")
        array = self.array
        if self.fleeting:
            self.array = None
        return array.__dlpack__(**how)


def line() -> Any:
    return np.arange(-3, 3, dtype=np.float32)


@pytest.mark.parametrize("legacy", [False, True])
def test_both_protocols_are_read_and_a_processor_names_no_stream(legacy: bool) -> None:
    source = Producer(line(), legacy=legacy)
    assert np.array_equal(ops.relu(source), np.maximum(line(), 0))
    assert all(how.get("stream") is None for how in source.asked)
    assert np.array_equal(source.array, line())  # lent, not written to


def test_memory_that_says_it_may_be_written_is_and_no_other() -> None:
    target = Producer(np.full(6, np.nan, np.float32))
    assert ops.relu(line(), out=target) is target
    assert np.array_equal(target.array, np.maximum(line(), 0))
    frozen = np.zeros(6, np.float32)
    frozen.flags.writeable = False
    for unwritable in (Producer(frozen), Producer(np.zeros(6, np.float32), legacy=True)):
        with pytest.raises(ValueError, match=r"\[ops.relu\] out is read-only; pass a copy"):
            ops.relu(line(), out=unwritable)
        assert not unwritable.array.any()


def test_a_read_only_producer_is_read() -> None:
    frozen = line()
    frozen.flags.writeable = False
    assert np.array_equal(ops.relu(Producer(frozen)), np.maximum(line(), 0))


def test_a_producer_may_go_while_its_memory_is_in_use_and_the_memory_goes_after() -> None:
    class Owner(np.ndarray):
        """An array that can be watched."""

    array = line().view(Owner)
    watch = weakref.ref(array)
    source = Producer(array, fleeting=True)
    del array
    result = ops.softmax(source)
    expected = np.exp(line()) / np.exp(line()).sum()
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    gc.collect()
    assert watch() is None  # the borrowed memory was given back, once


@pytest.mark.parametrize("device", [3, 11])
def test_pages_pinned_for_a_gpu_are_memory_of_the_processor(device: int) -> None:
    assert np.array_equal(ops.relu(Producer(line(), device=device)), np.maximum(line(), 0))


@pytest.mark.parametrize(
    ("device", "name"),
    [(2, "CUDA device 0"), (10, "ROCm device 0"), (8, "Metal"), (99, "the device type 99")],
)
def test_other_memory_is_refused_before_anything_is_asked_of_it(device: int, name: str) -> None:
    source = Producer(line(), device=device)
    with pytest.raises(
        hl.DeviceError, match=rf"x is not in the memory of the CPU, but of {name}.*x\.cpu\(\)"
    ):
        ops.relu(source)
    with pytest.raises(hl.DeviceError, match="out is not in the memory of the CPU"):
        ops.relu(line(), out=source)
    assert source.asked == []


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1, 1)])
def test_shapes_at_the_edge(shape: tuple[int, ...]) -> None:
    x = np.full(shape, -2.0, np.float32)
    found = ops.relu(Producer(x))
    assert found.shape == shape
    assert not found.any()


def test_strides_of_any_sign_are_read_as_they_are() -> None:
    table = np.arange(-12, 12, dtype=np.float64).reshape(4, 6)
    for view in (table[::-1], table[:, ::-2], table.T, table[1:3, 2:5], np.broadcast_to(table[0], (3, 6))):
        assert np.array_equal(ops.relu(Producer(view)), np.maximum(view, 0))


def test_what_is_ours_outlives_us() -> None:
    step = hl.TrainStep(hl.nn.Linear(3, 2), "mse", "sgd")
    x = np.ones((4, 3), np.float32)
    step(x, np.zeros((4, 2), np.float32))
    lent = np.from_dlpack(step.flat_params)
    copy, shared = lent.copy(), np.shares_memory(lent, step.flat_params)
    assert shared
    del step
    gc.collect()
    noise = [np.full(1000, 7.0) for _ in range(100)]  # would take the place of memory that was given back
    assert np.array_equal(lent, copy) and len(noise) == 100
    result = ops.relu(x)
    assert np.shares_memory(np.from_dlpack(result), result)
