# SPDX-License-Identifier: Apache-2.0
"""Optimisers over lists of tensors on devices: the numbers of each tensor alone, wherever the tensors lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hotloop import _core
from tests.gpu.kernel_harness import on_devices, open_device

LR, DECAY, MOMENTUM, BETA1, BETA2, EPS = 0.1, 0.05, 0.9, 0.9, 0.99, 1e-6
#: How many written tensors there are, and the fields after (written..., grad, scalars, n).
RULES = {
    "adam": (3, (0, BETA1, BETA2, EPS)),
    "adamw": (3, (1, BETA1, BETA2, EPS)),
    "sgd": (1, (0, 0.0)),
    "sgd momentum": (2, (1, MOMENTUM)),
    "rmsprop": (2, (BETA2, EPS, 0.0)),
    "rmsprop momentum": (3, (BETA2, EPS, MOMENTUM)),
}
#: Sizes around a quad, a block's step of 1024, and several blocks.
SIZES = [1, 3, 4, 5, 1023, 1024, 1025, 2500, 7, 0, 4099]


def scalars(step: int) -> np.ndarray:
    """As optimizer_begin of args.h gives them, for a gradient that is to be halved."""
    return np.array([0.0, LR, DECAY, 0.5, 1 - BETA1**step, np.sqrt(1 - BETA2**step), step, 0.0])


def oracle(rule: str, x: list[np.ndarray], grad: np.ndarray, step: int) -> list[np.ndarray]:
    """torch's formulas in float64."""
    p, *state = (a.astype(np.float64) for a in x)
    g = 0.5 * grad.astype(np.float64)
    if rule == "adamw":
        p *= 1 - LR * DECAY
    else:
        g += DECAY * p
    if rule.startswith("adam"):
        m, v = BETA1 * state[0] + (1 - BETA1) * g, BETA2 * state[1] + (1 - BETA2) * g**2
        root = np.sqrt(v) / np.sqrt(1 - BETA2**step) + EPS
        return [p - LR / (1 - BETA1**step) * m / root, m, v]
    if rule.startswith("rmsprop"):
        square = BETA2 * state[0] + (1 - BETA2) * g**2
        g = g / (np.sqrt(square) + EPS)
        if len(state) == 1:
            return [p - LR * g, square]
        b = MOMENTUM * state[1] + g
        return [p - LR * b, square, b]
    if not state:
        return [p - LR * g]
    b = MOMENTUM * state[0] + g
    return [p - LR * (g + MOMENTUM * b), b]


class Tensors:
    """Sets of tensors of one optimiser in one block of device memory, each ``shift`` elements past 16 bytes."""

    def __init__(self, device: str, rule: str, sizes: list[int], shift: int = 0) -> None:
        self.queue = _core.DeviceEager(open_device(device))
        self.rule, self.sizes = rule, sizes
        self.written, self.numbers = RULES[rule]
        rng = np.random.default_rng(len(sizes))
        self.host = [
            [rng.standard_normal(n).astype(np.float32) ** (2 if k else 1) for k in range(self.written + 1)]
            for n in sizes
        ]
        self.places, at = [], shift
        for n in sizes:
            self.places.append([at + k * (-(-n // 4) * 4 + 4) for k in range(self.written + 1)])
            at = self.places[-1][-1] + -(-n // 4) * 4 + 4
        self.flat = np.full(at + 4, np.nan, np.float32)
        for arrays, places in zip(self.host, self.places, strict=True):
            for array, place in zip(arrays, places, strict=True):
                self.flat[place : place + array.size] = array
        self.memory = self.queue.allocate(self.flat.nbytes)
        self.queue.upload(self.memory.address, self.flat)

    def fields(self, i: int, step: int, skip: bool = False) -> tuple[Any, ...]:
        *written, grad = (self.memory.address + 4 * place for place in self.places[i])
        given = scalars(step)
        given[0] = skip
        buffers = written + [None] * ({"adam": 3, "sgd": 2, "rmsprop": 3}[self.kernel] - len(written))
        return *buffers, grad, given, self.sizes[i], *self.numbers

    @property
    def kernel(self) -> str:
        return self.rule.split()[0].removesuffix("w")

    def step(self, rows: list[tuple[Any, ...]]) -> None:
        self.queue.update_list(self.kernel, rows)

    def found(self) -> np.ndarray:
        result = np.empty_like(self.flat)
        self.queue.download(result, self.memory.address)
        return result

    def expected(self, steps: list[int]) -> np.ndarray:
        """float64, and NaN between the tensors; ``steps``: of each, 0 for one that is skipped."""
        want = self.flat.astype(np.float64)
        for arrays, places, step in zip(self.host, self.places, steps, strict=True):
            if step == 0:
                continue
            *state, grad = arrays
            for array, place in zip(oracle(self.rule, state, grad, step), places, strict=False):
                want[place : place + array.size] = array
        return want


@on_devices
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shift", [0, 1])
def test_each_tensor_is_updated_as_torch_does(device: str, rule: str, shift: int) -> None:
    tensors = Tensors(device, rule, SIZES, shift)
    tensors.step([tensors.fields(i, 3) for i in range(len(SIZES))])
    np.testing.assert_allclose(tensors.found(), tensors.expected([3] * len(SIZES)), rtol=2e-6, atol=2e-6)


@on_devices
@pytest.mark.parametrize("count", [1, 99, 100, 101, 250])
def test_lists_of_any_length_give_the_bits_of_each_alone(device: str, count: int) -> None:
    sizes = [1 + 37 * i % 71 for i in range(count)]
    together, alone = Tensors(device, "adamw", sizes), Tensors(device, "adamw", sizes)
    together.step([together.fields(i, 2) for i in range(count)])
    for i in range(count):
        alone.step([alone.fields(i, 2)])
    np.testing.assert_array_equal(together.found(), alone.found())
    np.testing.assert_allclose(together.found(), together.expected([2] * count), rtol=2e-6, atol=2e-6)


@on_devices
def test_steps_of_their_own_and_tensors_that_are_skipped(device: str) -> None:
    steps = [1, 7, 0, 1, 7, 40, 0, 1]
    tensors = Tensors(device, "adam", [9, 130, 5, 1024, 2, 77, 3, 64])
    tensors.step([tensors.fields(i, max(step, 1), step == 0) for i, step in enumerate(steps)])
    np.testing.assert_allclose(tensors.found(), tensors.expected(steps), rtol=2e-6, atol=2e-6)


@on_devices
def test_tensors_of_many_blocks_beside_small_ones(device: str) -> None:
    sizes = [3, 300_001, 5, 70_000, 1]
    tensors = Tensors(device, "sgd momentum", sizes)
    tensors.step([tensors.fields(i, 1) for i in range(len(sizes))])
    np.testing.assert_allclose(tensors.found(), tensors.expected([1] * 5), rtol=2e-6, atol=2e-6)


@on_devices
def test_only_optimisers_have_lists(device: str) -> None:
    queue = _core.DeviceEager(open_device(device))
    with pytest.raises(KeyError, match="no list of fill"):
        queue.update_list("fill", [(None, 0, 1.0)])
    with pytest.raises(KeyError, match="no kernel adamax"):
        queue.update_list("adamax", [])
