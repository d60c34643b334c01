# SPDX-License-Identifier: Apache-2.0
"""Batches of products on devices: whole numbers exactly for every way of multiplying, wherever the matrices lie,
and the bits of each matrix alone where it goes the same way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hotloop import _core, ops
from hotloop.ops import device as on_device
from tests.gpu.kernel_harness import LIBRARIES, on_devices, open_device
from tests.gpu.test_ops_arrays import Interface

#: (outer, inner, m, n, k): tiles of each size, thin operands, pieces of k, k of nothing. An emulated device has four
#: multiprocessors.
SHAPES = [
    (2, 3, 5, 7, 9), (1, 4, 32, 32, 16), (3, 1, 40, 33, 20), (2, 2, 70, 65, 33), (1, 2, 130, 129, 24),
    (2, 2, 100, 3, 50), (1, 3, 1, 100, 40), (2, 1, 4, 300, 7), (1, 2, 16, 16, 2000), (1, 2, 40, 50, 1500),
    (1, 2, 3, 4, 0), (2, 0, 3, 4, 5), (5, 60, 3, 2, 4),
]  # fmt: skip


@dataclass
class Batch:
    """Whole numbers as matrices of a batch, on a device; NaN between them.

    ``gap``: elements between matrices; ``swapped``: outer and inner change places in memory; ``shared``: operands that
    are the same for all i; ``turned``: operands stored transposed; ``shift``: elements before the first.
    """

    queue: _core.DeviceEager
    sizes: tuple[int, int, int, int, int]
    gap: int = 0
    swapped: bool = False
    shared: str = ""
    turned: str = ""
    shift: int = 0

    def __post_init__(self) -> None:
        outer, inner, m, n, k = self.sizes
        rng = np.random.default_rng(m + n + k)
        self.matrices = {
            "a": rng.integers(-8, 9, (1 if "a" in self.shared else outer, inner, m, k)),
            "b": rng.integers(-8, 9, (1 if "b" in self.shared else outer, inner, k, n)),
            "out": rng.integers(-8, 9, (outer, inner, m, n)),
        }
        self.bias = rng.integers(-8, 9, n)
        self.held, self.steps = {}, {}
        for name, values in self.matrices.items():
            size = values[0, 0].size + self.gap if values.size else 0
            places, count = values.shape[:2]
            step = [size, size * places] if self.swapped else [size * count, size]
            self.steps[name] = [0 if places == 1 < outer else step[0], step[1]]
            flat = np.full(self.shift + size * places * count + 1, np.nan, np.float32)
            for i, j in np.ndindex(places, count):
                at = self.shift + i * step[0] + j * step[1]
                matrix = values[i, j].T if name in self.turned.split() else values[i, j]
                flat[at : at + matrix.size] = matrix.ravel()
            self.held[name] = (flat, self.upload(flat))
        self.held["bias"] = (self.bias, self.upload(self.bias.astype(np.float32)))

    def upload(self, flat: np.ndarray) -> _core.DeviceMemory:
        memory = self.queue.allocate(max(flat.nbytes, 4))
        if flat.size:
            self.queue.upload(memory.address, flat)
        return memory

    def multiply(
        self, precision: str = "float32", alpha: float = 1.0, beta: float = 0.0, bias: bool = False
    ) -> None:
        outer, inner, m, n, k = self.sizes
        a, b, out = (self.held[name][1].address + 4 * self.shift for name in ("a", "b", "out"))
        shift = self.held["bias"][1].address if bias else None
        a_strides = (1, m) if "a" in self.turned.split() else (k, 1)
        b_strides = (1, k) if "b" in self.turned.split() else (n, 1)
        relu = _core.activation_index("relu") if bias else -1
        fields = (
            out, None, None, a, b, shift, None, None, m, n, k, *a_strides, *b_strides, n, 0, 0, relu, -1, alpha, beta,
            0.0, 0.0,
        )  # fmt: skip
        steps = [step for name in ("a", "b", "out") for step in self.steps[name]]
        self.queue.multiply(fields, [outer, inner, *steps], precision)

    def check(self, alpha: float = 1.0, beta: float = 0.0, bias: bool = False) -> None:
        """``out`` is what it must be, and nothing beside it was written."""
        want = alpha * (self.matrices["a"] @ self.matrices["b"]) + beta * self.matrices["out"]
        if bias:
            want = np.maximum(want + self.bias, 0)
        before, memory = self.held["out"]
        found, expected = np.empty_like(before), before.copy()
        self.queue.download(found, memory.address)
        for i, j in np.ndindex(*want.shape[:2]):
            at = self.shift + i * self.steps["out"][0] + j * self.steps["out"][1]
            expected[at : at + want[i, j].size] = want[i, j].ravel()
        np.testing.assert_array_equal(found, expected, f"{self.sizes}")


def check(
    device: str, sizes: tuple[int, int, int, int, int], precision: str = "float32", **how: object
) -> None:
    batch = Batch(_core.DeviceEager(open_device(device)), sizes, **how)  # type: ignore[arg-type]
    for _ in range(2):  # the counters are zero again after each
        batch.multiply(precision)
        batch.check()


@on_devices
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"gap": 3},
        {"gap": 4, "swapped": True},
        {"shared": "a"},
        {"shared": "b", "turned": "a b"},
        {"shift": 1},
    ],
    ids=str,
)
def test_whole_numbers_wherever_matrices_lie(
    device: str, sizes: tuple[int, int, int, int, int], how: dict
) -> None:
    check(device, sizes, **how)


@on_devices
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
@pytest.mark.parametrize(
    "sizes", [(2, 2, 70, 90, 40), (1, 3, 130, 140, 20), (2, 1, 256, 512, 33), (1, 2, 64, 64, 555)], ids=str
)
def test_whole_numbers_on_the_matrix_units(
    device: str, precision: str, sizes: tuple[int, int, int, int, int]
) -> None:
    check(device, sizes, precision, turned="a", gap=4)
    check(device, sizes, precision, turned="b", swapped=True, gap=1)


@on_devices
def test_three_products_for_a_batch(device: str) -> None:
    check(device, (2, 2, 130, 256, 140))  # as one they are large enough for the matrix units
    check(device, (1, 2, 257, 256, 260), turned="a b")


@on_devices
@pytest.mark.parametrize("sizes", [(2, 3, 5, 7, 9), (1, 2, 70, 65, 33), (2, 2, 3, 40, 600)], ids=str)
def test_what_follows_the_product(device: str, sizes: tuple[int, int, int, int, int]) -> None:
    batch = Batch(_core.DeviceEager(open_device(device)), sizes, gap=4)
    batch.multiply(alpha=0.5, beta=2.0, bias=True)
    batch.check(alpha=0.5, beta=2.0, bias=True)


@on_devices
def test_more_matrices_than_a_grid_has_blocks(device: str) -> None:
    batch = Batch(_core.DeviceEager(open_device(device)), (1, 65_537, 17, 17, 1))
    batch.multiply()
    batch.check()


HEADS = np.arange(2 * 7 * 3 * 8, dtype=np.float32).reshape(2, 7, 3, 8) % 11 - 5


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (HEADS.transpose(0, 2, 1, 3), HEADS.transpose(0, 2, 3, 1)),  # attention: heads between rows
        (HEADS[:, :, :, :5], HEADS[0].transpose(0, 2, 1)[:, :5]),
        (HEADS, HEADS[0, 0].T),  # one matrix for all
        (HEADS[:, :1], HEADS[:1].transpose(0, 1, 3, 2)),  # broadcast both ways
        (
            HEADS.transpose(2, 1, 0, 3)[..., None, :],
            HEADS.transpose(2, 1, 0, 3)[..., None],
        ),  # three dimensions
    ],
)
def test_any_leading_dimensions(left: np.ndarray, right: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    if not LIBRARIES["simt"].exists():
        pytest.skip("the emulator is not built")
    monkeypatch.setattr(on_device, "KIND", "simt")

    def lent(x: np.ndarray) -> Interface:
        base = x if x.base is None else x.base
        base = base if base.base is None else base.base
        offset = x.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        source = Interface(np.ravel(base, "K"))
        source.shape, source.strides = x.shape, x.strides
        source.memory = _Moved(source.memory, offset)
        return source

    np.testing.assert_array_equal(ops.matmul(lent(left), lent(right)).numpy(), left @ right)


@dataclass
class _Moved:
    held: _core.DeviceMemory
    offset: int

    @property
    def address(self) -> int:
        return self.held.address + self.offset
