# SPDX-License-Identifier: Apache-2.0
"""Plans by (graph, spec), so that a clone of a model never compiles again.

Both are immutable and hashable by value; a plan is plain data and may be shared by any number of sessions
and threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from hotloop.compile.plan import Plan, PlanSpec
from hotloop.graph import Graph

#: A plan of an MLP is about 50 KB of Python objects; a fit needs three.
MAX_PLANS = 256


def cached(compile_: Callable[[Graph, PlanSpec], Plan]) -> Callable[[Graph, PlanSpec], Plan]:
    """The function with the `MAX_PLANS` plans used last kept; thread-safe."""
    return lru_cache(maxsize=MAX_PLANS)(compile_)
