# SPDX-License-Identifier: Apache-2.0
"""A `Module` on a CUDA device: torch's parameters in flat tensors there, and passes of a device program.

The program has memory of its own on the device, where parameters and running statistics are copied before each pass:
less than a launch takes, and torch's allocator, streams and graphs go on as they are used to. Each pass is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hotloop import _core
from hotloop.errors import DeviceError
from hotloop.ops import device as on_device
from hotloop.runtime.executable import Executable
from hotloop.runtime.session import Session
from hotloop.torch import cuda
from hotloop.torch.inputs import WHERE

#: (element type of the tensor, buffer, least and largest id) of an input, as `inputs.input_of` says.
Input = tuple[str, int, float, float]


def check_number(device: torch.device) -> None:
    """Raises `DeviceError` for another CUDA device than the first, which programs run on."""
    if device.index not in (None, 0):
        raise DeviceError(
            f"[{WHERE}] cannot move to {device}; allowed: cpu and cuda:0; choose the GPU by CUDA_VISIBLE_DEVICES"
        )


class There:
    """One module's memory on a device: a copy of a session's, with flat tensors of torch's beside it."""

    def __init__(self, session: Session, device: torch.device) -> None:
        self.device = device
        self.of = session.memory
        self.session = session.replica()
        self.session.place(on_device.KIND)  # type: ignore[arg-type]
        memory = self.session.memory
        self.parameters = cuda.empty((memory.layout.size,), device).zero_()
        self.state = cuda.empty((memory.states.size,), device).zero_()
        self.gradients = cuda.empty((memory.layout.size,), device).zero_()

    def views(self) -> dict[str, Any]:
        """The flat tensors by the names of what lies in them."""
        memory = self.session.memory
        return {
            e.name: flat[e.offset : e.offset + e.size].view(e.shape)
            for flat, entries in (
                (self.parameters, memory.layout.entries), (self.state, memory.states.entries)
            )
            for e in entries
        }  # fmt: skip

    def counters(self, tables: dict[str, tuple[dict[str, Any], str]]) -> list[Any]:
        """How many batches each BatchNorm has seen: tensors of torch's."""
        return [table[key] for name, (table, key) in tables.items() if name.endswith("num_batches_tracked")]


class Passes:
    """`_core.Passes` for tensors on a device; see there. Inputs come as tensors."""

    def __init__(
        self, there: There, exe: Executable, *, inputs: Sequence[Input], params: Any, middle: int, output: int,
        doutput: int, dinputs: Sequence[int], gradients: Sequence[tuple[int, list[int]]], counters: Sequence[Any],
    ) -> None:  # fmt: skip
        self.there = there
        self.inputs, self.gradients, self.counters = inputs, gradients, counters
        self.native = _core.DevicePasses(
            exe.program, inputs=[buffer for _, buffer, _, _ in inputs], params=list(params), middle=middle,
            output=output, doutput=doutput, dinputs=list(dinputs),
        )  # fmt: skip

    def run(self, rows: int, inputs: Sequence[Any], output: int, seed: int) -> bool:
        return self._start(rows, inputs, output, seed, False, False) is not None

    def start(self, rows: int, inputs: Sequence[Any], output: int, seed: int, again: bool = False) -> Any:
        return self._start(rows, inputs, output, seed, True, again)

    def _start(
        self, rows: int, inputs: Sequence[Any], output: int, seed: int, keep: bool, again: bool
    ) -> Any:
        """A pass, True if it is not to be kept, None if an id is out of range."""
        read = []
        for x, (kind, _, low, high) in zip(inputs, self.inputs, strict=True):
            is_id = kind.startswith("int")
            if is_id and bool(((x < low) | (x > high)).any()):
                return None
            wanted = torch.int32 if is_id else torch.float32
            read.append(x if x.dtype is wanted else cuda.empty(x.shape, self.there.device, wanted).copy_(x))
        there = self.there
        started = self.native.start(
            cuda.place(there.parameters)[1], rows, [x.data_ptr() for x in read], there.parameters.data_ptr(),
            there.state.data_ptr() if there.state.numel() else 0, output, seed, keep, again,
        )  # fmt: skip
        if not again:
            for counter in self.counters:
                counter.add_(1)
        return Pass(self, started) if keep else True


class Pass:
    """`_core.Pass` for tensors on a device."""

    def __init__(self, owner: Passes, native: Any) -> None:
        self.owner, self.native = owner, native

    @property
    def is_open(self) -> bool:
        return bool(self.native.is_open)

    def backward(self, doutput: int, dinputs: list[int], apart: bool = False) -> tuple[Any, ...]:
        """The gradients, in memory of their own each time."""
        there = self.owner.there
        flat = cuda.empty(tuple(there.gradients.shape), there.device)
        self.native.backward(
            cuda.place(flat)[1], there.parameters.data_ptr(), doutput, dinputs, flat.data_ptr()
        )
        sizes = [(offset, torch.Size(shape)) for offset, shape in self.owner.gradients]
        return tuple(flat[offset : offset + shape.numel()].view(shape) for offset, shape in sizes)
