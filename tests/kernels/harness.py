# SPDX-License-Identifier: Apache-2.0
"""Runs a kernel natively and in NumPy on the same fields: on the heap, or with every operand against a page
that may not be touched (inputs may not even be written), so that one element too far is a crash."""

from __future__ import annotations

import ctypes
import mmap
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from hotloop import _core
from hotloop.reference import REFERENCES, Context
from tests.cases import CONTEXT, Fields, KernelCase

Outputs = dict[str, np.ndarray]
Placement = Literal["heap", "start", "end"]

SCHEMA = _core.kernels()
#: (isa, dtype): every column of the kernel table.
UNITS: list[tuple[str, type]] = [
    (isa, dtype)
    for isa in _core.isas()
    for dtype in (np.float32, np.float64)
    if dtype is np.float32 or isa == "generic"
]
OPERANDS = ("In", "InOpt", "Out", "OutOpt", "InOut", "InOutOpt")
PAGE = mmap.PAGESIZE
PROT_NONE, PROT_READ = 0, 1
_libc = ctypes.CDLL(None, use_errno=True)


def _protect(address: int, size: int, protection: int) -> None:
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection):
        raise OSError(ctypes.get_errno(), "mprotect")


def guarded(values: np.ndarray, placement: Placement, writable: bool) -> np.ndarray:
    """A copy of flat ``values`` that begins or ends at a page nobody may touch."""
    data = max(1, -(-values.nbytes // PAGE)) * PAGE
    memory = mmap.mmap(-1, data + 2 * PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    offset = PAGE if placement == "start" else PAGE + data - values.nbytes
    copy = np.frombuffer(memory, values.dtype, values.size, offset)
    copy[:] = values
    _protect(base, PAGE, PROT_NONE)
    _protect(base + PAGE + data, PAGE, PROT_NONE)
    if not writable:
        _protect(base + PAGE, data, PROT_READ)
    return copy


def _poison(values: np.ndarray) -> np.ndarray:
    """NaN, or a number that no kernel computes."""
    return np.full_like(values, np.nan if values.dtype.kind == "f" else -0x5EED)


def initial(case: KernelCase, fields: Fields) -> Fields:
    """The fields with flat operands, and with outputs poisoned unless what they hold matters."""
    schema = SCHEMA[case.kernel]
    missing = {name for name, *_ in schema} ^ set(fields)
    assert not missing, f"{case.kernel} {case.label}: fields missing or unknown: {sorted(missing)}"
    start = dict(fields)
    for name, kind, _ in schema:
        if kind in OPERANDS and fields[name] is not None:
            values = np.ravel(fields[name])
            poisoned = kind in ("Out", "OutOpt") and name not in case.keep
            start[name] = _poison(values) if poisoned else values.copy()
    return start


def call(kernel: str, fields: Fields, isa: str, reverse: bool = False, whole: bool = False) -> None:
    """Run a native kernel under the context of the cases."""
    _core.run_kernel(
        kernel,
        fields,
        isa=isa,
        seed=CONTEXT.seed,
        run=CONTEXT.run,
        step=CONTEXT.step,
        groups=np.ravel(CONTEXT.groups).tolist(),
        dropout=list(CONTEXT.dropout),
        first_row=CONTEXT.first_row,
        first=CONTEXT.first,
        last=CONTEXT.last,
        reverse=reverse,
        whole=whole,
    )


def run_native(
    case: KernelCase,
    start: Fields,
    isa: str,
    placement: Placement = "heap",
    reverse: bool = False,
    whole: bool = False,
) -> Outputs:
    """Run the native kernel on copies of ``start``: its outputs. Fails if it changed an input."""
    given: Fields = dict(start)
    inputs, outputs = [], []
    for name, kind, _ in SCHEMA[case.kernel]:
        if kind not in OPERANDS or start[name] is None:
            continue
        written = kind not in ("In", "InOpt")
        (outputs if written else inputs).append(name)
        given[name] = start[name].copy() if placement == "heap" else guarded(start[name], placement, written)
    call(case.kernel, given, isa, reverse, whole)
    for name in inputs:
        assert given[name].tobytes() == start[name].tobytes(), f"input {name} was changed"
    return {name: given[name] for name in outputs}


def run_reference(case: KernelCase, start: Fields, dtype: type, context: Context = CONTEXT) -> Outputs:
    """Run the NumPy reference with its reals in ``dtype``: its outputs."""
    given: dict[str, Any] = {}
    outputs = []
    for name, kind, element in SCHEMA[case.kernel]:
        value = start[name]
        if kind in OPERANDS and value is not None:
            value = value.astype(dtype) if element == "real" else value.copy()
            if kind not in ("In", "InOpt"):
                outputs.append(name)
        given[name] = value
    REFERENCES[case.kernel](SimpleNamespace(**given), context)
    return {name: given[name] for name in outputs}


#: Rounding allowed however small NumPy's own is, in units of eps of the largest element. In float64 NumPy is
#: the oracle itself, and only the order of a sum differs.
SLACK = {np.float32: 10, np.float64: 64}


def assert_close(case: KernelCase, native: Outputs, exact: Outputs, usual: Outputs, dtype: type) -> None:
    """NaN and infinities agree in place and sign; elsewhere the error is at most twice that of NumPy in the
    same precision, or a few eps of the largest element."""
    for name, got in native.items():
        if got.dtype.kind != "f":
            np.testing.assert_array_equal(got, exact[name], err_msg=name)
            continue
        with np.errstate(all="ignore"):
            want = exact[name].astype(got.dtype)
            finite = np.isfinite(want)
            np.testing.assert_array_equal(got[~finite], want[~finite], err_msg=f"{name}: NaN and infinity")
            error = np.abs(got - exact[name])[finite]
            rounding = np.abs(usual[name].astype(np.float64) - exact[name])[finite]
            largest = np.abs(exact[name])[finite].max(initial=0.0)
        if case.tolerance is not None:
            limit = case.tolerance * largest
        else:
            limit = max(
                2 * np.nan_to_num(rounding, nan=0.0, posinf=0.0).max(initial=0.0),
                (SLACK[dtype] + case.cancels) * float(np.finfo(dtype).eps) * largest,
            )
        bad = np.flatnonzero(~(error <= limit))
        assert not bad.size, (
            f"{name}[{np.flatnonzero(finite)[bad[0]]}] is off by {error[bad[0]]:.3g}, allowed {limit:.3g}; "
            f"{bad.size} of {got.size} elements"
        )


def assert_same_bits(got: Outputs, want: Outputs, what: str) -> None:
    for name, values in want.items():
        bits = np.dtype(f"u{values.itemsize}")
        different = np.flatnonzero(got[name].view(bits) != values.view(bits))
        assert not different.size, f"{what}: {name}[{different[0]}] differs, in all {different.size} elements"
