# SPDX-License-Identifier: Apache-2.0
"""The order of an epoch, the same on every unit. Its values are a promise: a run that resumes from a file must
read the rows that it would have read."""

from __future__ import annotations

import numpy as np
import pytest

from hotloop import _core
from hotloop.errors import InternalError

ISAS = _core.isas()
# Written down when the permutation was first released.
GOLDEN_10 = [3, 8, 1, 4, 5, 6, 2, 7, 9, 0]
GOLDEN_1797 = [205, 742, 948, 53, 1373, 32]
GOLDEN_LARGE = [849438731162, 688596580747, 636806146446]


@pytest.mark.parametrize("isa", ISAS)
def test_the_order_is_what_it_has_always_been(isa: str) -> None:
    assert _core.permutation(10, seed=0, run=0, epoch=0, isa=isa).tolist() == GOLDEN_10
    assert _core.permutation(1797, seed=7, run=2, epoch=5, count=6, isa=isa).tolist() == GOLDEN_1797
    large = _core.permutation(2**40 + 7, seed=1, run=0, epoch=3, first=2**40, count=3, isa=isa)
    assert large.tolist() == GOLDEN_LARGE


@pytest.mark.parametrize("isa", ISAS)
def test_every_size_is_a_permutation_and_equal_on_all_units(isa: str) -> None:
    for n in [*range(300), 1023, 1024, 1025, 4097, 60000]:
        order = _core.permutation(n, seed=n, run=1, epoch=2, isa=isa)
        assert np.array_equal(np.sort(order), np.arange(n)), n
        assert np.array_equal(order, _core.permutation(n, seed=n, run=1, epoch=2, isa="generic")), n


@pytest.mark.parametrize("n", [2500, 2**31 + 1, 2**32, 2**32 + 1, 2**62])
@pytest.mark.parametrize("isa", ISAS)
def test_a_part_is_the_part_of_the_whole(isa: str, n: int) -> None:
    whole = _core.permutation(n, seed=3, run=0, epoch=0, first=n - 2500, count=2500, isa=isa)
    assert len(set(whole.tolist())) == 2500 and whole.min() >= 0 and whole.max() < n
    for first, count in [(0, 0), (0, 1), (1, 31), (7, 1024), (100, 1025), (2499, 1)]:
        part = _core.permutation(n, seed=3, run=0, epoch=0, first=n - 2500 + first, count=count, isa=isa)
        assert np.array_equal(part, whole[first : first + count])


@pytest.mark.parametrize("fields", [{"first": -1}, {"first": 11}, {"first": 4, "count": 7}])
def test_positions_outside_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(InternalError, match=r"\[permutation\]"):
        _core.permutation(10, seed=0, run=0, epoch=0, **fields)
