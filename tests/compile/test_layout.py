# SPDX-License-Identifier: Apache-2.0
"""Parameters in the flat buffer: aligned, grouped, and at the same place whatever decays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop.compile import param_layout, state_layout
from hotloop.compile.layout import n_groups, trained_runs, update_segments
from hotloop.compile.plan import (
    ALIGN_ELEMENTS,
    OptimizerSpec,
    ParamEntry,
    ParamLayout,
    Segment,
    TrainableSpec,
)
from hotloop.graph import Graph
from hotloop.rules.registry import GraphBuilder
from tests.compile.graphs import mlp

ALL, WEIGHTS = OptimizerSpec("sgd"), OptimizerSpec("sgd", decay="weights")


def parameters(*shapes: tuple[int, ...]) -> Graph:
    builder = GraphBuilder()
    for i, shape in enumerate(shapes):
        builder.parameter(f"p{i}", shape)
    return builder.build([])


def test_weights_come_before_biases() -> None:
    layout = param_layout(mlp((5, 7, 3)))
    assert [entry.name for entry in layout.entries] == ["0.weight", "2.weight", "0.bias", "2.bias"]
    assert [entry.offset for entry in layout.entries] == [0, 48, 80, 96]
    assert layout.size == 112
    assert update_segments(layout, WEIGHTS) == (Segment(0, 0, 80, 0, 2), Segment(1, 80, 112, 2, 4))


def test_one_group_is_one_segment() -> None:
    assert update_segments(param_layout(mlp((5, 7, 3))), ALL) == (Segment(0, 0, 112, 0, 4),)


@pytest.mark.parametrize("shapes", [((4,), (3,)), ((2, 2),)])
def test_an_empty_group_has_no_segment(shapes: tuple[tuple[int, ...], ...]) -> None:
    (segment,) = update_segments(param_layout(parameters(*shapes)), WEIGHTS)
    assert segment.group == (1 if len(shapes[0]) == 1 else 0)


def test_what_is_frozen_has_no_segment() -> None:
    layout = param_layout(mlp((5, 7, 3)))
    body = TrainableSpec(frozen=("0.weight", "0.bias"))
    segments = update_segments(layout, ALL, body)
    assert segments == (Segment(0, 48, 80, 1, 2), Segment(0, 96, 112, 3, 4))
    assert trained_runs(segments) == ((48, 80), (96, 112))
    everything = TrainableSpec(frozen=tuple(entry.name for entry in layout.entries))
    assert update_segments(layout, ALL, everything) == ()


def test_rates_are_groups_and_ages_are_only_segments() -> None:
    layout = param_layout(mlp((5, 7, 3)))
    slow = TrainableSpec(n_rates=2, rates=(("0.weight", 1), ("0.bias", 1)))
    assert [s.group for s in update_segments(layout, WEIGHTS, slow)] == [2, 0, 3, 1]
    assert [s.group for s in update_segments(layout, ALL, slow)] == [1, 0, 1, 0]
    assert (n_groups(WEIGHTS, slow), n_groups(ALL, slow), n_groups(ALL, TrainableSpec())) == (4, 2, 1)
    young = TrainableSpec(ages=(("2.weight", 1), ("0.bias", 1)))
    segments = update_segments(layout, ALL, young)
    assert [(s.group, s.first, s.last) for s in segments] == [(0, 0, 1), (0, 1, 3), (0, 3, 4)]
    assert trained_runs(segments) == ((0, 112),)


def test_states_keep_their_order() -> None:
    builder = GraphBuilder()
    builder.state("running_mean", (5,))
    builder.state("running_var", (20,))
    layout = state_layout(builder.build([]))
    assert [(entry.name, entry.offset) for entry in layout.entries] == [
        ("running_mean", 0),
        ("running_var", 16),
    ]
    assert layout.size == 48


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=8), st.data())
def test_layouts(shapes: list[tuple[int, ...]], data: st.DataObject) -> None:
    layout = param_layout(parameters(*shapes))
    end = 0
    for entry in layout.entries:
        assert entry.offset >= end
        assert entry.offset % ALIGN_ELEMENTS == 0
        end = entry.offset + entry.size
    assert end <= layout.size < end + ALIGN_ELEMENTS
    names = [entry.name for entry in layout.entries]
    frozen = tuple(name for name in names if data.draw(st.booleans()))
    ages = tuple((name, 1) for name in names if data.draw(st.booleans()))
    segments = update_segments(layout, WEIGHTS, TrainableSpec(frozen, ages=ages))
    for index, entry in enumerate(layout.entries):
        of = [s for s in segments if s.first <= index < s.last]
        assert len(of) == (entry.name not in frozen and any(e.size for e in _run(layout, segments, index)))
        if of and entry.size:
            assert of[0].begin <= entry.offset and entry.offset + entry.size <= of[0].end
            assert of[0].group == (len(entry.shape) <= 1)
    for before, after in zip(segments, segments[1:], strict=False):
        assert before.end <= after.begin and before.last <= after.first


def _run(layout: ParamLayout, segments: tuple[Segment, ...], index: int) -> tuple[ParamEntry, ...]:
    """The entries of the segment that holds one; none where all of them are empty."""
    return next((layout.entries[s.first : s.last] for s in segments if s.first <= index < s.last), ())
