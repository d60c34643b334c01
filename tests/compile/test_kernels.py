# SPDX-License-Identifier: Apache-2.0
"""The compiler's tables about kernels agree with args.h."""

from __future__ import annotations

import pytest

from hotloop.compile.kernels import EXTENTS, FAMILY, INT_FIELDS, REAL_FIELDS, family
from tests.compile.graphs import schema


def test_every_number_of_every_kernel_is_told_apart() -> None:
    for kernel, fields in schema().items():
        for name, kind, _ in fields:
            if kind in ("Dim", "Int", "Real"):
                expected = "Int" if name in INT_FIELDS else "Real" if name in REAL_FIELDS else "Dim"
                assert kind == expected, f"{kernel}.{name}"


def test_attribute_names_are_all_in_use() -> None:
    used = {name for fields in schema().values() for name, kind, _ in fields if kind in ("Int", "Real")}
    assert used == INT_FIELDS | REAL_FIELDS


@pytest.mark.parametrize("kernel", sorted(schema()))
def test_the_extent_of_every_operand_is_known(kernel: str) -> None:
    operands = {name for name, kind, _ in schema()[kernel] if kind not in ("Dim", "Int", "Real")}
    assert set(EXTENTS[family(kernel)]) == operands


def test_families_hold_only_kernels() -> None:
    assert FAMILY.keys() <= schema().keys()
    for kernel, name in FAMILY.items():
        alike = [other for other in schema() if family(other) == name]
        assert all(schema()[other] == schema()[kernel] for other in alike)


def test_extents_of_strided_operands() -> None:
    a = EXTENTS["matmul"]["a"]
    assert a({"m": 3, "k": 5, "a_stride_m": 1, "a_stride_k": 3}) == 15
    assert a({"m": 3, "k": 0, "a_stride_m": 1, "a_stride_k": 3}) == 0
    b = EXTENTS["matmul"]["b"]
    assert b({"k": 4, "n": 17, "b_packed": 1, "b_stride_k": 0, "b_stride_n": 1}) == 2 * 4 * 16
    assert b({"k": 4, "n": 17, "b_packed": 0, "b_stride_k": 20, "b_stride_n": 1}) == 3 * 20 + 17
    assert b({"k": 4, "n": 17, "b_packed": 0, "b_stride_k": 1, "b_stride_n": 4}) == 4 * 17
