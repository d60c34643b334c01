# SPDX-License-Identifier: Apache-2.0
"""The border: what users hand in is checked and converted here, once, before anything runs.

Inside, an input is a C-contiguous array with rows first, of the session's float type, uint8 (converted in
the gather) or int32; a target is float or int32. Whatever arrives in that form is used without a copy.
Everything else is converted, or refused with the first bad index and the number of bad values. What may be
larger than memory is converted when its rows are read, for callers that ask for it (lazy.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hotloop import _core
from hotloop.data import foreign, lazy
from hotloop.errors import DTypeError, LabelError, NonFiniteError, ShapeError
from hotloop.graph import ElementType, Graph, Rows, TensorType

Array = NDArray[Any]
Arrays = dict[str, Array]

#: Integers are kept in these until the graph says what an input is.
_INTEGERS = (np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.int64))
#: Combinations of element types to try; two to the number of integer inputs.
_MAX_INTEGER_INPUTS = 6


def as_array(
    value: Any, name: str, *, where: str, real: DTypeLike = np.float32, check_finite: bool = True,
    in_blocks: bool = False,
) -> Array:  # fmt: skip
    """One array in canonical form: float of type ``real``, uint8, int32 or int64; C-contiguous, rank >= 1.

    Raises `DTypeError` for bool, complex, object, string and date types, `ShapeError` for scalars and
    ragged lists, `NonFiniteError` for NaN, infinity (unless not ``check_finite``) and overflow.
    ``in_blocks``: a file that is mapped into memory stays there, and is checked block by block.
    """
    if type(value) is not np.ndarray or value.dtype.names is not None:
        value = _foreign(value, name, where, np.dtype(real), check_finite, in_blocks)
        if type(value) is lazy.LazyRows:
            return cast(Array, value)
        if in_blocks and lazy.is_mapped(value):
            return lazy.mapped(value, name, where, np.dtype(real), _checker(where, real, check_finite))
    try:
        array = np.asarray(value)
    except ValueError:
        raise ShapeError(f"[{where}] {name} is ragged: its rows differ in length; pad or cut them") from None
    if array.ndim == 0 and array.dtype.kind in "biufc":
        raise ShapeError(f"[{where}] {name} is a single number, got shape (); allowed: rows first, (n, ...)")
    if array.ndim == 0:
        raise DTypeError(
            f"[{where}] {name} is of type {type(value).__name__}; allowed: arrays, lists of numbers, frames and series, "
            "tensors, what has __dlpack__ (docs/data.md); convert it to an array"
        )
    kind = array.dtype.kind
    if kind in "iu":
        return _as_integers(array, name, where)
    if kind == "f":
        return _as_floats(array, name, where, np.dtype(real), check_finite)
    hint = _hint(kind, name)
    raise DTypeError(f"[{where}] {name} has dtype {array.dtype}; allowed: floats and integers; {hint}")


def _foreign(
    value: Any, name: str, where: str, real: np.dtype[Any], check_finite: bool, in_blocks: bool
) -> Any:
    """What is no plain array as one, or as what NumPy makes one of."""
    if isinstance(value, (list, tuple, np.generic)):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"[{where}] {name} is a masked array; fill it first: {name}.filled(value)")
    from hotloop.data import frame_arrays

    if frame_arrays.is_frame(value):
        return frame_arrays.as_matrix(value, name, where, _checker(where, real, check_finite))
    return value if isinstance(value, np.ndarray) else foreign.as_numpy(value, name, where)


def _checker(where: str, real: DTypeLike, check_finite: bool) -> Callable[[Any, str], Array]:
    return lambda value, name: as_array(value, name, where=where, real=real, check_finite=check_finite)


def _hint(kind: str, name: str) -> str:
    if kind == "b":
        return f"write {name}.astype(np.float32) for features, {name}.astype(np.int64) for labels"
    if kind == "c":
        return "pass the real and imaginary parts as two columns"
    if kind in "OUSTV":
        return (
            "encode text as integers (np.unique(..., return_inverse=True)); hl.data.Preprocessor does that for "
            "tables of text and numbers"
        )
    return "convert it to numbers first"


def _as_integers(array: Array, name: str, where: str) -> Array:
    if array.dtype in _INTEGERS:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        refuse(array > np.uint64(2**63 - 1), array, name, where, DTypeError, "does not fit a signed integer")
    small = array.dtype.itemsize < 4 or (array.dtype.kind == "i" and array.dtype.itemsize == 4)
    return np.ascontiguousarray(array, dtype=np.int32 if small else np.int64)


def _as_floats(array: Array, name: str, where: str, real: np.dtype[Any], check_finite: bool) -> Array:
    with np.errstate(over="ignore"):  # overflow is looked for below, with its place
        out = np.ascontiguousarray(array, dtype=real)
    if _core.is_finite(out):
        return out
    if check_finite:
        refuse(~np.isfinite(array), array, name, where, NonFiniteError, "is not a finite number")
    refuse(np.isinf(out) & np.isfinite(array), array, name, where, NonFiniteError, f"overflows {real}")
    return out


def refuse(
    bad: NDArray[np.bool_], array: Array, name: str, where: str, error: Callable[[str], Exception], text: str
) -> None:
    """Raise ``error`` if any element of ``bad`` is set: the first one, its value, and how many there are."""
    if not bad.any():
        return
    at = np.unravel_index(int(np.argmax(bad)), bad.shape)
    place = ", ".join(str(int(i)) for i in at)
    count, total = int(np.count_nonzero(bad)), bad.size
    values = "value" if count == 1 else "values"
    raise error(f"[{where}] {name}[{place}] = {array[at]} {text} ({count} bad {values} in {total})")


def as_inputs(
    X: Any, *, where: str, name: str = "X", real: DTypeLike = np.float32, check_finite: bool = True,
    allow_empty: bool = False, in_blocks: bool = False,
) -> Arrays:  # fmt: skip
    """An array, or a mapping of named arrays, in canonical form; a plain array is named "x".

    ``in_blocks``: sparse matrices and mapped files become `LazyRows`, or stay where they are; else sparse
    matrices become dense here. Lengths must be equal, and at least 1 unless ``allow_empty``. Raises as
    `as_array`, and `ShapeError`.
    """
    named: Mapping[str, Any] = X if isinstance(X, Mapping) else {"x": X}
    if not named:
        raise ShapeError(f"[{where}] {name} is an empty mapping; allowed: an array, or named arrays")
    arrays: Arrays = {}
    for key, value in named.items():
        if not isinstance(key, str):
            raise TypeError(f"[{where}] names of inputs must be strings, got {key!r}")
        label = f"{name}[{key!r}]" if isinstance(X, Mapping) else name
        if type(value) is not np.ndarray and foreign.is_sparse(value):
            rows = lazy.sparse(value, label, where, np.dtype(real), _checker(where, real, check_finite))
            arrays[key] = cast(Array, rows) if in_blocks else rows[:]
            continue
        arrays[key] = as_array(
            value, label, where=where, real=real, check_finite=check_finite, in_blocks=in_blocks
        )
    lengths = {key: len(a) for key, a in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ShapeError(f"[{where}] the inputs of {name} differ in length: {lengths}; rows come first")
    if not allow_empty and not next(iter(lengths.values())):
        raise ShapeError(f"[{where}] {name} has 0 rows; at least 1 is needed")
    if not isinstance(X, Mapping) and arrays["x"].ndim == 1 and arrays["x"].dtype.kind == "f":
        raise ShapeError(
            f"[{where}] {name} is 1-D with shape {arrays['x'].shape}; allowed: rows first, (n, ...); "
            f"use {name}.reshape(-1, 1) for one feature, {name}.reshape(1, -1) for one row"
        )
    return arrays


def row_count(arrays: Mapping[str, Array]) -> int:
    """The common length of arrays that `as_inputs` gave."""
    return len(next(iter(arrays.values())))


def candidate_types(arrays: Mapping[str, Array], where: str) -> Iterator[dict[str, TensorType]]:
    """The types to trace a model with, most likely first.

    Floats are real. Integers are ids if the model takes them as such, else features; uint8 is the other
    way round, because bytes are mostly pixels.
    """
    choices: list[tuple[ElementType, ...]] = []
    for array in arrays.values():
        if array.dtype.kind == "f":
            choices.append(("real",))
        else:
            choices.append(("real", "index") if array.dtype == np.uint8 else ("index", "real"))
    if sum(len(c) > 1 for c in choices) > _MAX_INTEGER_INPUTS:
        raise DTypeError(
            f"[{where}] more than {_MAX_INTEGER_INPUTS} named inputs are integers; convert those that are "
            "features to float32, and leave ids as integers"
        )
    for combination in product(*choices):
        yield {
            name: TensorType((Rows(), *array.shape[1:]), dtype)
            for (name, array), dtype in zip(arrays.items(), combination, strict=True)
        }


def fit_inputs(arrays: Mapping[str, Array], graph: Graph, *, where: str, name: str = "X",
               real: DTypeLike = np.float32) -> Arrays:  # fmt: skip
    """The arrays in the element types of the graph's inputs, ids checked against the embeddings they index.

    Raises `ShapeError` for other names or row shapes, `DTypeError`, and `LabelError` for an id out of range.
    """
    expected = dict(graph.inputs)
    if len(arrays) == 1 and len(expected) == 1:
        arrays = {next(iter(expected)): next(iter(arrays.values()))}
    if set(arrays) != set(expected):
        raise ShapeError(f"[{where}] {name} has inputs {sorted(arrays)}; the model takes {sorted(expected)}")
    out: Arrays = {}
    for key, value in expected.items():
        type_ = graph.types[value]
        array = arrays[key]
        label = name if len(expected) == 1 else f"{name}[{key!r}]"
        want = row_shape(type_)
        if array.shape[1:] != want:
            shape = f"({', '.join(['n', *map(str, want)])})"
            raise ShapeError(f"[{where}] {label} has shape {array.shape}; the model takes {shape}")
        if type_.dtype == "index":
            out[key] = _as_ids(array, label, where)
        else:
            keep = array.dtype.kind == "f" or array.dtype == np.uint8
            out[key] = array if keep else lazy.convert(array, real)
    for key, limit, weight in _embeddings(graph):
        label = name if len(expected) == 1 else f"{name}[{key!r}]"
        text = f"is not an index into {weight} (expected 0 <= id < {limit})"
        _check_range(out[key], limit, label, where, text)
    return out


def row_shape(type_: TensorType) -> tuple[int, ...]:
    """The shape of one row of a value whose first dimension is the batch."""
    if not type_.shape or type_.shape[0] != Rows():
        raise ShapeError(f"[model] the first dimension must be the batch, got {type_}; keep rows first")
    return tuple(d for d in type_.shape[1:] if isinstance(d, int))


def _as_ids(array: Array, label: str, where: str) -> Array:
    if array.dtype.kind == "f":
        raise DTypeError(f"[{where}] {label} must hold integer ids, got {array.dtype}; use .astype(np.int64)")
    if array.dtype == np.int64:
        limits = np.iinfo(np.int32)
        for part, name in parts(array, label):
            bad = (part < limits.min) | (part > limits.max)
            refuse(bad, part, name, where, LabelError, "does not fit an id of 32 bits")
    return array if array.dtype == np.int32 else lazy.convert(array, np.int32)


def id_limits(graph: Graph) -> dict[str, int]:
    """Input name -> how many ids every embedding that reads it has."""
    limits: dict[str, int] = {}
    for name, limit, _ in _embeddings(graph):
        limits[name] = min(limit, limits.get(name, limit))
    return limits


def _embeddings(graph: Graph) -> Iterator[tuple[str, int, str]]:
    """(input name, rows of the table, parameter name) of each embedding that reads an input."""
    names = {value: name for name, value in graph.inputs}
    parameters = {value: name for name, value in graph.parameters}
    source = {node.outputs[0]: node for node in graph.nodes}
    for node in graph.nodes:
        if node.op != "embedding":
            continue
        weight, ids = node.inputs[0], node.inputs[1]
        while ids in source and source[ids].op == "reshape":
            ids = source[ids].inputs[0]
        size = graph.types[weight].shape[0] if weight is not None else 0
        if ids in names and weight is not None and isinstance(size, int):
            yield names[ids], size, parameters.get(weight, "the table")


def _check_range(array: Array, limit: int, label: str, where: str, text: str) -> None:
    for part, place in parts(array, label):
        if part.size and (int(part.min()) < 0 or int(part.max()) >= limit):
            refuse((part < 0) | (part >= limit), part, place, where, LabelError, text)


def parts(array: Array, label: str) -> Iterator[tuple[Array, str]]:
    """The array, or what is read in blocks block by block, and what to call it."""
    if not (lazy.is_lazy(array) or lazy.is_mapped(array)):
        yield array, label
        return
    for first, block in lazy.blocks(array):
        yield np.asarray(block), f"{label}[{first}:]" if first else label


def take(arrays: Mapping[str, Array], rows: Sequence[int] | Array) -> Arrays:
    """The given rows of every array."""
    return {name: array[rows] for name, array in arrays.items()}


def hold_out(rows: int, fraction: float, labels: Array | None, seed: int) -> tuple[Array, Array]:
    """Row numbers (training, validation), each ascending: ``round(fraction * rows)`` held out, at least 1.

    With ``labels`` (n,), every class is within one row of its share in either part.
    """
    count = min(max(round(fraction * rows), 1), rows - 1)
    noise = np.random.Philox(key=seed & (2**64 - 1)).random_raw(rows)
    order = np.lexsort((noise, noise if labels is None else labels))
    # Class after class, each in random order: every (rows/count)-th of them is an even share of all.
    steps = np.arange(rows, dtype=np.int64) * count // rows
    held = np.empty(rows, np.bool_)
    held[order] = np.diff(steps, append=count) > 0
    return np.flatnonzero(~held), np.flatnonzero(held)
