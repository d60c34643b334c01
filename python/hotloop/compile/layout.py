# SPDX-License-Identifier: Apache-2.0
"""Where parameters and states lie in their flat buffers, and which runs of them are updated alike.

Matrices come first, then everything of rank 0 or 1 (biases, norms): the groups of ``decay="weights"`` are
then two runs. The offsets depend on the graph alone, so that all plans see the same memory, whatever they
decay, freeze or scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby

from hotloop.compile.plan import (
    ALIGN_ELEMENTS,
    ALL_ALIKE,
    OptimizerSpec,
    ParamEntry,
    ParamLayout,
    Segment,
    TrainableSpec,
)
from hotloop.graph import Graph


def param_layout(graph: Graph) -> ParamLayout:
    """The flat buffer of parameters, in torch's shapes.

    >>> from hotloop.rules.registry import GraphBuilder
    >>> builder = GraphBuilder()
    >>> _ = builder.parameter("bias", (3,)), builder.parameter("weight", (3, 5))
    >>> layout = param_layout(builder.build([]))
    >>> [(entry.name, entry.offset) for entry in layout.entries]
    [('weight', 0), ('bias', 16)]
    >>> [(s.group, s.begin, s.end) for s in update_segments(layout, OptimizerSpec("sgd", decay="weights"))]
    [(0, 0, 16), (1, 16, 32)]
    """
    named = [(name, _shape(graph, value)) for name, value in graph.parameters]
    matrices = [(name, shape) for name, shape in named if len(shape) > 1]
    vectors = [(name, shape) for name, shape in named if len(shape) <= 1]
    return ParamLayout(*_place([*matrices, *vectors]))


def state_layout(graph: Graph) -> ParamLayout:
    """The flat buffer of states (running statistics), in the graph's order."""
    return ParamLayout(*_place((name, _shape(graph, value)) for name, value in graph.states))


def n_groups(optimizer: OptimizerSpec, trainable: TrainableSpec) -> int:
    """Groups that have a learning rate and a weight decay of their own in a step's parameters: for each
    factor of the rate one that decays, and with ``decay="weights"`` one that does not after it."""
    return trainable.n_rates * kinds_of_decay(optimizer)


def kinds_of_decay(optimizer: OptimizerSpec) -> int:
    """Groups for each factor of the learning rate; the second one never decays."""
    return 2 if optimizer.decay == "weights" else 1


def update_segments(
    layout: ParamLayout, optimizer: OptimizerSpec, trainable: TrainableSpec = ALL_ALIKE
) -> tuple[Segment, ...]:
    """The longest runs of trained parameters that share group and age, in order."""
    frozen, rates, ages = set(trainable.frozen), dict(trainable.rates), dict(trainable.ages)

    def key(index: int) -> tuple[bool, int, int]:
        entry = layout.entries[index]
        undecayed = optimizer.decay == "weights" and len(entry.shape) <= 1
        group = rates.get(entry.name, 0) * kinds_of_decay(optimizer) + undecayed
        return entry.name not in frozen, group, ages.get(entry.name, 0)

    segments = []
    for (trained, group, _), members in groupby(range(len(layout.entries)), key):
        indices = list(members)
        last = layout.entries[indices[-1]]
        begin, end = layout.entries[indices[0]].offset, _aligned(last.offset + last.size)
        if trained and end > begin:
            segments.append(Segment(group, begin, end, indices[0], indices[-1] + 1))
    return tuple(segments)


def trained_runs(segments: Iterable[Segment]) -> tuple[tuple[int, int], ...]:
    """The elements [begin, end) of the segments, with neighbours joined."""
    runs: list[tuple[int, int]] = []
    for segment in segments:
        if runs and runs[-1][1] == segment.begin:
            runs[-1] = (runs[-1][0], segment.end)
        else:
            runs.append((segment.begin, segment.end))
    return tuple(runs)


def _place(named: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[tuple[ParamEntry, ...], int]:
    entries, offset = [], 0
    for name, shape in named:
        entries.append(ParamEntry(name, shape, offset, math.prod(shape)))
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
