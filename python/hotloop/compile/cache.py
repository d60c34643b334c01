# SPDX-License-Identifier: Apache-2.0
"""Plans by (graph, spec), so that a clone of a model never compiles again.

Both are immutable and hashable by value; a plan is plain data and may be shared by any number of sessions
and threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps

from hotloop.compile.plan import Plan, PlanSpec
from hotloop.graph import Graph, with_dropout

#: A plan of an MLP is about 50 KB of Python objects; a fit needs three.
MAX_PLANS = 256


def cached(compile_: Callable[[Graph, PlanSpec], Plan]) -> Callable[[Graph, PlanSpec], Plan]:
    """The function with the `MAX_PLANS` plans used last kept; thread-safe.

    Drop probabilities are step parameters, so graphs that differ in them alone share a plan.
    """
    compiled = lru_cache(maxsize=MAX_PLANS)(compile_)

    @wraps(compile_)
    def lookup(graph: Graph, spec: PlanSpec) -> Plan:
        return compiled(with_dropout(graph, lambda attr: {"layer": attr["layer"], "p": 0.5}), spec)

    lookup.cache_info = compiled.cache_info  # type: ignore[attr-defined]
    lookup.cache_clear = compiled.cache_clear  # type: ignore[attr-defined]
    return lookup
