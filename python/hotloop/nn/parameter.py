# SPDX-License-Identifier: Apache-2.0
"""Parameter and Buffer: the arrays of a model, which know their shape before they have values.

Training moves them into its own flat memory, so everything goes through ``data``. A parameter that has moved
has no array of its own: each look at it borrows a view, so that the memory knows when somebody else may be
writing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, Union

import numpy as np

from hotloop.errors import DTypeError, GraphError, ShapeError
from hotloop.nn.init import Constant, Init, Values, stream
from hotloop.trace import Operand, Tensor, Tracer, active_tracer

Array = np.ndarray[Any, Any]


class Lender(Protocol):
    """Makes views of memory that holds an array's values."""

    def __call__(self) -> Array:
        """A view that may be written through."""
        ...

    def look(self) -> Array:
        """A view that is only read."""
        ...


_edits = 0


def edit_count() -> int:
    """How many attributes of any module, and arrays of any parameter, have been set so far: if it stands
    still, no model has changed but in place."""
    return _edits


def count_edit() -> None:
    """One more."""
    global _edits
    _edits += 1


class _Stored(Operand):
    """An array with a fixed shape, owned by a module, that training may move into memory of its own."""

    shape: tuple[int, ...]
    _data: Union[Array, Lender, None]

    @property
    def data(self) -> Array:
        """The array itself; change it in place (``data[...] = values``)."""
        assert self._data is not None
        return self._data if isinstance(self._data, np.ndarray) else self._data()

    def look(self) -> Array:
        """The array, read-only. While a model trains on a GPU, looking at its numbers this way does not cost a
        copy back, which every look at `data` may, since it may write."""
        if self._data is not None and not isinstance(self._data, np.ndarray):
            return self._data.look()
        view: Array = self.data.view()  # which a parameter draws at its first look
        view.flags.writeable = False
        return view

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def bind(self, data: Union[Array, Lender]) -> None:
        """From now on this is the data: an array, or what makes a view of one, of the same shape and kind of
        dtype. Values are not copied."""
        view = data if isinstance(data, np.ndarray) else data.look()
        if view.shape != self.shape or view.dtype.kind != self._kind():
            raise ShapeError(f"[nn] cannot bind {view.dtype} {view.shape} to {self!r}")
        self._data = data
        count_edit()

    def is_bound_to(self, lender: Lender) -> bool:
        """Whether the data are still what `bind` was given."""
        return self._data is lender

    def __getstate__(self) -> dict[str, Any]:
        # A copy stands alone: it takes the values, not the way to the original's memory.
        lent = self._data is not None and not isinstance(self._data, np.ndarray)
        return {**vars(self), "_data": self.look().copy() if lent else self._data}

    def _kind(self) -> str:
        return "f"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape})"

    def _tracer(self) -> Tracer:
        tracer = active_tracer()
        if tracer is None:
            raise GraphError(
                f"[{type(self).__name__}] arithmetic is for inside forward; the numbers are in .data"
            )
        return tracer


class Parameter(_Stored):
    """An array that training changes.

    Args:
        shape: its shape, or a floating-point array that gives shape and values (stored as float32).
        init: the distribution it begins with; zeros by default, or the values of the array.

    ``frozen`` (False) keeps training from changing it; `Module.freeze` sets it by name. It is no part of the
    state dict, and stays with copies and in model files.

    ``data`` is the float32 array behind it. Reading it before `Module.initialize` draws it with seed 0,
    from a stream that no module uses.

    Example:
        >>> Parameter((2,), Constant(1.0)).data
        array([1., 1.], dtype=float32)
    """

    _unplaced = 0  # parameters read before a module gave them a position

    def __init__(self, shape: int | Sequence[int] | Array, init: Init | None = None) -> None:
        self._data = None
        self._frozen = False
        if isinstance(shape, np.ndarray):
            if shape.dtype.kind != "f":
                raise DTypeError(
                    f"[Parameter] values must be floating-point, got {shape.dtype}; use .astype(np.float32)"
                )
            values = np.array(shape, np.float32, order="C")
            self._data, init = values, Values(values.copy())
            shape = shape.shape
        dims = (shape,) if isinstance(shape, int) else tuple(shape)
        if any(isinstance(d, bool) or not isinstance(d, (int, np.integer)) or d < 1 for d in dims):
            raise ShapeError(f"[Parameter] a shape holds whole numbers of at least 1, got {dims}")
        self.shape = tuple(int(d) for d in dims)
        self.init: Init = Constant() if init is None else init

    @property
    def frozen(self) -> bool:
        """Whether training leaves it alone: no gradient, no update, no weight decay."""
        return self._frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        self._frozen = bool(value)
        count_edit()

    @property
    def requires_grad(self) -> bool:
        """torch's name for the opposite of `frozen`."""
        return not self._frozen

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.frozen = not value

    @property
    def is_initialized(self) -> bool:
        return self._data is not None

    @property
    def data(self) -> Array:
        """The array itself; change it in place (``data[...] = values``)."""
        if self._data is None:
            Parameter._unplaced += 1
            self.draw(0, 2**63 + Parameter._unplaced)
        return super().data

    def draw(self, seed: int, position: int) -> None:
        """Fills the parameter from the stream (seed, position), in place if it has an array."""
        values = self.init.sample(self.shape, stream(seed, position))
        if self._data is None:
            self._data = values
        else:
            self.data[...] = values

    def symbol(self) -> Tensor:
        return self._tracer().parameter(self)


class Buffer(_Stored):
    """An array that belongs to the model but is not trained, as running statistics or a constant table.

    forward may read it if it is floating-point (then it is stored as float32).
    """

    def __init__(self, array: Array) -> None:
        self._data = np.array(array, np.float32 if array.dtype.kind == "f" else None, order="C")
        self._begin: Array = self._data.copy()
        self.shape = self._data.shape

    def reset(self) -> None:
        """Back to the values it was made with."""
        self.data[...] = self._begin

    def _kind(self) -> str:
        return str(self.look().dtype.kind)

    def symbol(self) -> Tensor:
        return self._tracer().buffer(self)
