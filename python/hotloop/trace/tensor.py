# SPDX-License-Identifier: Apache-2.0
"""The symbolic tensor that `forward` computes with: it has a shape and a type, and no numbers.

Every operator appends a node to the graph being traced. `Operand` holds the operators, because a parameter
takes part in formulas like a tensor does.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol, Union

import numpy as np

from hotloop.errors import GraphError, ShapeError
from hotloop.graph import Attr, Dim, ElementType, Rows, TensorType
from hotloop.rules.dims import Shape, resolve_shape, shape_to_attr, show
from hotloop.trace.indexing import Index, getitem

Axes = Union[int, Sequence[int], None]


class Recorder(Protocol):
    """What a tensor needs of the trace it belongs to."""

    def emit(self, op: str, *inputs: int | None, **attrs: Attr) -> tuple[int, ...]: ...

    def type(self, value: int) -> TensorType: ...

    def lift(self, operand: object) -> Tensor: ...


_NO_NUMBERS = (
    "a symbolic tensor has no numbers: forward is traced once, and then every batch runs what was recorded; "
    "use operators and hotloop.nn.functional, and nothing that depends on values"
)


class Operand:
    """Arithmetic in `forward`, the same for tensors and parameters."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Tensor:
        operators = {np.add: "add", np.subtract: "sub", np.multiply: "mul", np.true_divide: "div"}
        if method == "__call__" and ufunc in operators and not options:  # a NumPy number on the left
            return _binary(operators[ufunc], *inputs)
        raise GraphError(
            f"[trace] np.{ufunc.__name__} cannot run on a symbolic tensor; use hotloop.nn.functional"
        )

    def symbol(self) -> Tensor:
        """This operand as a tensor of the trace in progress."""
        raise NotImplementedError

    def __add__(self, other: object) -> Tensor:
        return _binary("add", self, other)

    def __radd__(self, other: object) -> Tensor:
        return _binary("add", other, self)

    def __sub__(self, other: object) -> Tensor:
        return _binary("sub", self, other)

    def __rsub__(self, other: object) -> Tensor:
        return _binary("sub", other, self)

    def __mul__(self, other: object) -> Tensor:
        return _binary("mul", self, other)

    def __rmul__(self, other: object) -> Tensor:
        return _binary("mul", other, self)

    def __truediv__(self, other: object) -> Tensor:
        return _binary("div", self, other)

    def __rtruediv__(self, other: object) -> Tensor:
        return _binary("div", other, self)

    def __matmul__(self, other: object) -> Tensor:
        x = self.symbol()
        return x.emit("matmul", x.recorder.lift(other))

    def __neg__(self) -> Tensor:
        return self.symbol().emit("affine", p0=-1.0, p1=0.0)

    def __abs__(self) -> Tensor:
        return self.symbol().emit("abs")

    def __pow__(self, exponent: object) -> Tensor:
        names = {2: "square", 0.5: "sqrt", -1: "reciprocal"}
        if not isinstance(exponent, (int, float)) or exponent not in names:
            raise GraphError(f"[trace] powers are ** 2, ** 0.5 and ** -1, got {exponent!r}; multiply instead")
        return self.symbol().emit(names[exponent])

    def _no_numbers(self, *_: object) -> NoReturn:
        raise GraphError(f"[trace] {type(self).__name__}: {_NO_NUMBERS}")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = _no_numbers
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __rpow__ = _no_numbers


class Tensor(Operand):
    """A value of the graph being traced.

    ``shape`` holds ints and, for the batch, `Rows`: write ``x.shape[0]`` or -1 where the batch belongs.

    Example:
        >>> from hotloop.graph import Rows, TensorType
        >>> from hotloop.trace import trace
        >>> graph = trace(lambda x: (2 * x + 1).mean(-1), {"x": TensorType((Rows(), 4))})
        >>> [node.op for node in graph.nodes]
        ['affine', 'affine', 'mean']
    """

    def __init__(self, recorder: Recorder, value: int) -> None:
        self.recorder = recorder
        self.value = value

    def symbol(self) -> Tensor:
        return self

    @property
    def shape(self) -> Shape:
        return self.recorder.type(self.value).shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> ElementType:
        """ "real" (float32 in training) or "index" (integer ids)."""
        return self.recorder.type(self.value).dtype

    def __repr__(self) -> str:
        return f"Tensor(shape={show(self.shape)}, dtype={self.dtype!r})"

    __len__ = __iter__ = __array__ = Operand._no_numbers
    __eq__ = __ne__ = Operand._no_numbers
    __hash__ = object.__hash__

    def emit(self, op: str, *others: Tensor | None, **attrs: Attr) -> Tensor:
        """The first output of ``op(self, *others; attrs)``."""
        ids = (None if t is None else t.value for t in others)
        return Tensor(self.recorder, self.recorder.emit(op, self.value, *ids, **attrs)[0])

    def axis(self, axis: int, *, end: int | None = None) -> int:
        """A non-negative axis; raises `ShapeError` outside of the rank."""
        rank = self.ndim if end is None else end
        if isinstance(axis, bool) or not isinstance(axis, int) or not -rank <= axis < rank:
            raise ShapeError(
                f"[trace] axis must lie in {-rank}..{rank - 1} for {show(self.shape)}, got {axis!r}"
            )
        return axis % rank

    # ---- shape

    def reshape(self, *shape: Dim | Sequence[Dim]) -> Tensor:
        """The same elements under another shape; one dimension may be -1."""
        wanted: tuple[Any, ...] = (
            tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        )
        target = resolve_shape(self.shape, wanted, "reshape")
        return self if target == self.shape else self.emit("reshape", shape=shape_to_attr(target))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes ``start_dim..end_dim`` as one."""
        start, end = self.axis(start_dim), self.axis(end_dim)
        if start > end:
            raise ShapeError(
                f"[flatten] start_dim must not come after end_dim, got {start_dim} and {end_dim}"
            )
        return self.reshape(*self.shape[:start], -1, *self.shape[end + 1 :])

    def unsqueeze(self, dim: int) -> Tensor:
        """A new axis of length 1 at ``dim``."""
        at = self.axis(dim, end=self.ndim + 1)
        return self.reshape(*self.shape[:at], 1, *self.shape[at:])

    def squeeze(self, dim: int) -> Tensor:
        """Without the axis ``dim``, which must be of length 1."""
        at = self.axis(dim)
        if self.shape[at] != 1:
            raise ShapeError(f"[squeeze] axis {dim} of {show(self.shape)} is not of length 1")
        return self.reshape(*self.shape[:at], *self.shape[at + 1 :])

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        """The axes in another order."""
        given: tuple[Any, ...] = tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], Sequence) else dims
        perm = tuple(self.axis(d) for d in given)
        return self if perm == tuple(range(self.ndim)) else self.emit("transpose", perm=perm)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two axes exchanged."""
        perm = list(range(self.ndim))
        a, b = self.axis(dim0), self.axis(dim1)
        perm[a], perm[b] = perm[b], perm[a]
        return self.permute(*perm)

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix that does not hold the batch."""
        if self.ndim != 2 or any(isinstance(d, Rows) for d in self.shape):
            raise GraphError(
                f"[trace] .T is for matrices without the batch, got {show(self.shape)}; use transpose(0, 1)"
            )
        return self.transpose(0, 1)

    def broadcast_to(self, *shape: Dim | Sequence[Dim]) -> Tensor:
        """Repeated along missing axes and axes of length 1, by NumPy's rule."""
        target: tuple[Any, ...] = (
            tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        )
        return self if target == self.shape else self.emit("broadcast_to", shape=shape_to_attr(target))

    expand = broadcast_to

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Tensor:
        """Basic indexing with ints, ``a:b``, ``...`` and None; never over the batch."""
        return getitem(self, index if isinstance(index, tuple) else (index,))

    # ---- reductions

    def sum(self, dim: Axes = None, keepdim: bool = False, *, axis: Axes = None) -> Tensor:
        """Sum over one axis, several, or all."""
        return self.emit("sum", axes=self._axes(dim, axis), keepdim=bool(keepdim))

    def mean(self, dim: Axes = None, keepdim: bool = False, *, axis: Axes = None) -> Tensor:
        """Mean over one axis, several, or all."""
        return self.emit("mean", axes=self._axes(dim, axis), keepdim=bool(keepdim))

    def max(self, dim: Axes = None, keepdim: bool = False, *, axis: Axes = None) -> Tensor:
        """Largest value over one axis, several, or all: torch's ``amax``, whose ties share the gradient."""
        axes = self._axes(dim, axis)
        if not axes or axes == tuple(range(axes[0], axes[-1] + 1)):
            return self.emit("max", axes=axes, keepdim=bool(keepdim))
        rest = tuple(i for i in range(self.ndim) if i not in axes)
        last = tuple(range(len(rest), self.ndim))
        out = self.permute(*rest, *axes).emit("max", axes=last, keepdim=False)
        return out.reshape(*(1 if i in axes else d for i, d in enumerate(self.shape))) if keepdim else out

    def min(self, dim: Axes = None, keepdim: bool = False, *, axis: Axes = None) -> Tensor:
        """Smallest value: ``-max(-x)``."""
        return -((-self).max(dim, keepdim, axis=axis))

    def _axes(self, dim: Axes, axis: Axes) -> tuple[int, ...]:
        if dim is not None and axis is not None:
            raise GraphError("[trace] give the axes once, got both dim and axis")
        chosen = dim if axis is None else axis
        if chosen is None:
            return tuple(range(self.ndim))
        axes = [self.axis(a) for a in (chosen if isinstance(chosen, Sequence) else (chosen,))]
        if len(set(axes)) != len(axes):
            raise ShapeError(f"[trace] an axis is named twice, got {chosen}")
        return tuple(sorted(axes))


def is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, np.ndarray)


def _binary(op: str, a: Any, b: Any) -> Tensor:
    """One of + - * /; a Python number on either side makes it `affine`."""
    if is_number(b):
        x, c = a.symbol(), float(b)
        if op == "div" and c == 0.0:
            raise GraphError("[trace] division of a tensor by the number 0")
        p0, p1 = {"add": (1.0, c), "sub": (1.0, -c), "mul": (c, 0.0), "div": (1.0 / c if c else 0.0, 0.0)}[op]
        return _affine(x, p0, p1)
    if is_number(a):
        x, c = b.symbol(), float(a)
        if op == "div":
            return _affine(x.emit("reciprocal"), c, 0.0)
        p0, p1 = {"add": (1.0, c), "sub": (-1.0, c), "mul": (c, 0.0)}[op]
        return _affine(x, p0, p1)
    known = a if isinstance(a, Operand) else b
    recorder = known.symbol().recorder
    return recorder.lift(a).emit(op, recorder.lift(b))


def _affine(x: Tensor, p0: float, p1: float) -> Tensor:
    return x if (p0, p1) == (1.0, 0.0) and x.dtype == "real" else x.emit("affine", p0=p0, p1=p1)
