# SPDX-License-Identifier: Apache-2.0
"""Every kernel, in every unit, on every case: right values, and nothing touched beside its operands."""

from __future__ import annotations

import numpy as np
import pytest

from hotloop import _core
from hotloop.reference import REFERENCES
from hotloop.reference.elementwise import ACTIVATIONS, BINARY
from tests.cases import CASES, KernelCase
from tests.kernels.harness import (
    SCHEMA,
    assert_close,
    assert_same_bits,
    call,
    initial,
    run_native,
    run_reference,
)

Unit = tuple[str, type]


def name_of(case: KernelCase) -> str:
    return f"{case.kernel}[{case.label}]"


every_case = pytest.mark.parametrize("case", CASES, ids=name_of)


def test_every_kernel_has_a_reference_and_cases() -> None:
    assert set(REFERENCES) == set(SCHEMA)
    untested = set(SCHEMA) - {case.kernel for case in CASES}
    assert untested <= {"optimizer_begin"}, untested  # test_optim.py follows it over several steps


def test_labels_are_unique() -> None:
    names = [(case.kernel, case.label) for case in CASES]
    assert len(names) == len(set(names))


def test_activations_have_the_numbers_of_the_native_list() -> None:
    assert [_core.activation_index(name) for name in ACTIVATIONS] == list(range(len(ACTIVATIONS)))


@every_case
def test_values(case: KernelCase, unit: Unit) -> None:
    isa, dtype = unit
    start = initial(case, case.fields(dtype))
    exact = run_reference(case, start, np.float64)
    assert_close(case, run_native(case, start, isa), exact, run_reference(case, start, dtype), dtype)


@every_case
def test_bits_depend_on_neither_place_nor_order(case: KernelCase, unit: Unit) -> None:
    isa, dtype = unit
    start = initial(case, case.fields(dtype))
    plain = run_native(case, start, isa)
    assert_same_bits(run_native(case, start, isa, reverse=True), plain, "chunks in reverse")
    assert_same_bits(run_native(case, start, isa, whole=True), plain, "all chunks at once")
    assert_same_bits(run_native(case, start, isa, "start"), plain, "after a guard page")
    assert_same_bits(run_native(case, start, isa, "end"), plain, "before a guard page")


def in_place_operands(case: KernelCase) -> tuple[str, str] | None:
    """The output of a case and the input it may overwrite, if their elements lie alike."""
    function, _, direction = case.kernel.rpartition("_")
    if function in ACTIVATIONS and direction in ("fwd", "bwd"):
        return ("y", "x") if direction == "fwd" else ("dx", "dy")
    if case.kernel == "dropout":
        return "y", "x"
    if case.kernel in BINARY and case.label.startswith("dense"):
        return "out", "a"
    return None


@pytest.mark.parametrize("case", [case for case in CASES if in_place_operands(case)], ids=name_of)
def test_in_place(case: KernelCase, unit: Unit) -> None:
    isa, dtype = unit
    operands = in_place_operands(case)
    assert operands is not None
    output, source = operands
    start = initial(case, case.fields(dtype))
    shared = start[source].copy()
    call(case.kernel, {**start, output: shared, source: shared}, isa)
    assert_same_bits({output: shared}, run_native(case, start, isa), "in place")
