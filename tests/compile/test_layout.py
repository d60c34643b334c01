# SPDX-License-Identifier: Apache-2.0
"""Parameters in the flat buffer: aligned, grouped, and at the same place whatever decays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop.compile import param_layout, state_layout
from hotloop.compile.plan import ALIGN_ELEMENTS
from hotloop.graph import Graph
from hotloop.ops.registry import GraphBuilder
from tests.compile.graphs import mlp


def parameters(*shapes: tuple[int, ...]) -> Graph:
    builder = GraphBuilder()
    for i, shape in enumerate(shapes):
        builder.parameter(f"p{i}", shape)
    return builder.build([])


def test_weights_come_before_biases() -> None:
    layout = param_layout(mlp((5, 7, 3)), "weights")
    assert [entry.name for entry in layout.entries] == ["0.weight", "2.weight", "0.bias", "2.bias"]
    assert [entry.offset for entry in layout.entries] == [0, 48, 80, 96]
    assert [entry.group for entry in layout.entries] == [0, 0, 1, 1]
    assert layout.segments == ((0, 0, 80), (1, 80, 112))
    assert layout.size == 112


def test_one_group_is_one_segment() -> None:
    assert param_layout(mlp((5, 7, 3)), "all").segments == ((0, 0, 112),)


@pytest.mark.parametrize("shapes", [((4,), (3,)), ((2, 2),)])
def test_an_empty_group_has_no_segment(shapes: tuple[tuple[int, ...], ...]) -> None:
    layout = param_layout(parameters(*shapes), "weights")
    assert len(layout.segments) == 1
    assert layout.segments[0][0] == (1 if len(shapes[0]) == 1 else 0)


def test_states_keep_their_order() -> None:
    builder = GraphBuilder()
    builder.state("running_mean", (5,))
    builder.state("running_var", (20,))
    layout = state_layout(builder.build([]))
    assert [(entry.name, entry.offset) for entry in layout.entries] == [
        ("running_mean", 0),
        ("running_var", 16),
    ]
    assert (layout.size, layout.segments) == (48, ())


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=8))
def test_layouts(shapes: list[tuple[int, ...]]) -> None:
    graph = parameters(*shapes)
    by_weights, by_all = param_layout(graph, "weights"), param_layout(graph, "all")
    assert [(e.name, e.offset) for e in by_weights.entries] == [(e.name, e.offset) for e in by_all.entries]
    end = 0
    for entry in by_weights.entries:
        assert entry.offset >= end
        assert entry.offset % ALIGN_ELEMENTS == 0
        end = entry.offset + entry.size
        if entry.size:
            assert any(g == entry.group and a <= entry.offset and end <= b for g, a, b in by_weights.segments)
    assert end <= by_weights.size < end + ALIGN_ELEMENTS
    for (_, _, end), (_, begin, _) in zip(by_weights.segments, by_weights.segments[1:], strict=False):
        assert end <= begin
