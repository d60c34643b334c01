# SPDX-License-Identifier: Apache-2.0
"""Runs single kernels on devices: on the emulator where it is built, on a GPU where there is one. The cases, the
poison and the rule of what is close are those of the CPU's kernels.

    @on_devices
    @with_cases("dropout", "fill")
    def test_like_the_reference(device: str, case: KernelCase) -> None:
        check_case(device, case)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop
from hotloop import _core
from tests.cases import CASES, CONTEXT, Fields, KernelCase
from tests.kernels.harness import OPERANDS, SCHEMA, Outputs, assert_close, initial, run_reference

#: A launch is of the whole batch: rows begin at 0.
DEVICE_CONTEXT = replace(CONTEXT, first_row=0)
LIBRARIES = {name: Path(hotloop.__file__).with_name(f"_{name}.so") for name in ("simt", "cuda")}


@lru_cache
def open_device(name: str) -> Any:
    """Device 0 of the library "simt" or "cuda"."""
    return _core.Device(_core.DeviceLibrary(str(LIBRARIES[name])), 0)


def _available(name: str) -> bool:
    if not LIBRARIES[name].exists():
        return False
    library = _core.DeviceLibrary(str(LIBRARIES[name]))  # one that does not open is a failure, not an absence
    try:
        return library.count() > 0
    except hotloop.errors.DeviceError:  # no driver
        return False


DEVICES = [name for name in LIBRARIES if _available(name)]
#: Parametrises a test by ``device``; skips it where no library of device kernels is built.
on_devices = pytest.mark.parametrize(
    "device", DEVICES or [pytest.param("none", marks=pytest.mark.skip("neither emulator nor GPU"))]
)


def with_cases(*kernels: str) -> Callable[[Any], Any]:
    """Parametrises a test by ``case``, over all cases of these kernels; each kernel must have some."""
    cases = [case for case in CASES if case.kernel in kernels]
    without = set(kernels) - {case.kernel for case in cases}
    assert not without, f"no cases of {sorted(without)}"
    decorate: Callable[[Any], Any] = pytest.mark.parametrize(
        "case", cases, ids=[f"{case.kernel} {case.label}" for case in cases]
    )
    return decorate


def call_device(
    device: str, kernel: str, fields: Fields, *, precision: str = "float32", times: int = 1, shift: int = 0
) -> None:
    """Run a kernel on copies of ``fields``; outputs are copied back into them.

    Fails if it wrote outside of its outputs. ``shift``: bytes past a multiple of 256 at which operands lie.
    """
    open_device(device).run_kernel(
        kernel,
        fields,
        seed=DEVICE_CONTEXT.seed,
        run=DEVICE_CONTEXT.run,
        step=DEVICE_CONTEXT.step,
        groups=np.ravel(DEVICE_CONTEXT.groups).tolist(),
        dropout=list(DEVICE_CONTEXT.dropout),
        first=DEVICE_CONTEXT.first,
        last=DEVICE_CONTEXT.last,
        precision=precision,
        times=times,
        shift=shift,
    )


def run_device(device: str, case: KernelCase, start: Fields, **how: Any) -> Outputs:
    """The outputs of the kernel on copies of ``start``; ``how`` as in `call_device`."""
    given: Fields = dict(start)
    outputs = []
    for name, kind, _ in SCHEMA[case.kernel]:
        if kind in OPERANDS and start[name] is not None:
            given[name] = start[name].copy()
            if kind not in ("In", "InOpt"):
                outputs.append(name)
    call_device(device, case.kernel, given, **how)
    return {name: given[name] for name in outputs}


def check_case(device: str, case: KernelCase, **how: Any) -> None:
    """The device's outputs are those of the NumPy reference, up to the rounding of float32."""
    start = initial(case, case.fields(np.float32))
    exact = run_reference(case, start, np.float64, DEVICE_CONTEXT)
    usual = run_reference(case, start, np.float32, DEVICE_CONTEXT)
    assert_close(case, run_device(device, case, start, **how), exact, usual, np.float32)
