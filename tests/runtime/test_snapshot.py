# SPDX-License-Identifier: Apache-2.0
"""Native memory between epochs: the check for divergence, and copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hotloop import InternalError, _core

SIZES = {"parameters": 5000, "state": 7, "counters": 3, "moments": 2}
SPACES = ("parameters", "moment1", "moment2", "state", "counters")


def filled(dtype: str = "float32", **options: Any) -> _core.Memory:
    memory = _core.Memory(**{**SIZES, **options}, dtype=dtype)
    for i, name in enumerate(SPACES):
        space = getattr(memory, name)
        space[...] = np.arange(len(space)) + 10000 * i
    return memory


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_element_that_is_not_finite_is_found_anywhere(dtype: str, bad: float) -> None:
    memory = filled(dtype)
    largest = np.finfo(dtype).max  # is finite, though no sum with it is
    memory.parameters[:100] = largest
    memory.state[0] = np.finfo(dtype).smallest_subnormal
    assert memory.is_finite()
    for space, at in (
        (memory.parameters, 0),
        (memory.parameters, 4096),
        (memory.parameters, -1),
        (memory.state, 6),
    ):
        before = space[at]
        space[at] = bad
        assert not memory.is_finite()
        space[at] = before
    memory.moment1[0] = bad  # an optimiser's own affair
    assert memory.is_finite()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("moments", [0, 1, 2])
def test_a_copy_holds_what_training_changes(dtype: str, moments: int) -> None:
    memory = filled(dtype, moments=moments)
    memory.gradients[...] = 7
    copy = _core.Memory(**{**SIZES, "moments": moments}, dtype=dtype, gradients=False)
    copy.copy_from(memory)
    for name in SPACES:
        np.testing.assert_array_equal(getattr(copy, name), getattr(memory, name))
    assert len(copy.gradients) == 0
    memory.parameters[...] = 0
    assert copy.parameters[-1] == 4999  # its own bytes
    memory.copy_from(copy)
    assert memory.parameters[-1] == 4999
    assert (memory.gradients == 7).all()


@pytest.mark.parametrize("name", SIZES)
def test_copies_need_equal_sizes(name: str) -> None:
    other = _core.Memory(**{**SIZES, name: 1}, dtype="float32")
    with pytest.raises(InternalError, match="other sizes"):
        other.copy_from(filled())
    with pytest.raises(InternalError, match="other sizes"):
        filled("float64").copy_from(filled())
