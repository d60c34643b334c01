# SPDX-License-Identifier: Apache-2.0
"""Where parameters and states lie in their flat buffers.

Matrices come first, then everything of rank 0 or 1 (biases, norms): the groups of ``decay="weights"`` are
then two runs, and the offsets do not depend on ``decay``, so that plans compiled without an optimiser see
the same memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from hotloop.compile.plan import ALIGN_ELEMENTS, ParamEntry, ParamLayout
from hotloop.graph import Graph


def param_layout(graph: Graph, decay: Literal["all", "weights"] = "all") -> ParamLayout:
    """The flat buffer of parameters, in torch's shapes, with one segment for each group that has any.

    >>> from hotloop.ops.registry import GraphBuilder
    >>> builder = GraphBuilder()
    >>> _ = builder.parameter("bias", (3,)), builder.parameter("weight", (3, 5))
    >>> layout = param_layout(builder.build([]), "weights")
    >>> [(entry.name, entry.offset) for entry in layout.entries], layout.segments
    ([('weight', 0), ('bias', 16)], ((0, 0, 16), (1, 16, 32)))
    """
    named = [(name, _shape(graph, value)) for name, value in graph.parameters]
    matrices = [(name, shape, 0) for name, shape in named if len(shape) > 1]
    vectors = [(name, shape, int(decay == "weights")) for name, shape in named if len(shape) <= 1]
    entries, size = _place([*matrices, *vectors])
    segments = []
    for group in sorted({entry.group for entry in entries}):
        offsets = [entry.offset for entry in entries if entry.group == group]
        ends = [_aligned(entry.offset + entry.size) for entry in entries if entry.group == group]
        if ends[-1] > offsets[0]:
            segments.append((group, offsets[0], ends[-1]))
    return ParamLayout(entries, size, tuple(segments))


def state_layout(graph: Graph) -> ParamLayout:
    """The flat buffer of states (running statistics): in the graph's order, without segments."""
    return ParamLayout(*_place((name, _shape(graph, value), 0) for name, value in graph.states))


def n_groups(decay: Literal["all", "weights"]) -> int:
    """Groups that have a learning rate and a weight decay of their own in a step's parameters."""
    return 2 if decay == "weights" else 1


def _place(named: Iterable[tuple[str, tuple[int, ...], int]]) -> tuple[tuple[ParamEntry, ...], int]:
    entries, offset = [], 0
    for name, shape, group in named:
        entries.append(ParamEntry(name, shape, offset, math.prod(shape), group))
        offset = _aligned(offset + entries[-1].size)
    return tuple(entries), offset


def _aligned(elements: int) -> int:
    return -(-elements // ALIGN_ELEMENTS) * ALIGN_ELEMENTS


def _shape(graph: Graph, value: int) -> tuple[int, ...]:
    shape: list[int] = []
    for dim in graph.types[value].shape:
        assert isinstance(dim, int), "a parameter or state never follows the batch"
        shape.append(dim)
    return tuple(shape)
