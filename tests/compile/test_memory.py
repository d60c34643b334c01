# SPDX-License-Identifier: Apache-2.0
"""The arena: nothing that lives together overlaps, everything is aligned, and little is wasted."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop.compile import compile_uncached
from hotloop.compile.kernels import in_place
from hotloop.compile.memory import Life, lifetimes, lower_bound, pack
from hotloop.compile.plan import ALIGN_BYTES, PlanSpec
from tests.compile.graphs import ADAMW, LOSSES, mlp, train_spec

lives = st.builds(
    lambda n, begin, length: Life(n, begin, begin + length),
    st.integers(0, 5000),
    st.integers(0, 30),
    st.integers(0, 30),
)


@settings(deadline=None)
@given(st.lists(lives, max_size=40))
def test_lives_that_meet_never_overlap(items: list[Life]) -> None:
    offsets, total = pack(items)
    assert all(offset % ALIGN_BYTES == 0 for offset in offsets)
    assert all(
        offset + life.n_bytes <= total for offset, life in zip(offsets, items, strict=True) if life.n_bytes
    )
    for (p, a), (q, b) in itertools.combinations(zip(offsets, items, strict=True), 2):
        if a.begin <= b.end and b.begin <= a.end:
            assert p + a.n_bytes <= q or q + b.n_bytes <= p


@settings(deadline=None)
@given(st.lists(lives, max_size=40))
def test_the_arena_is_at_least_the_bound_and_at_most_the_sum(items: list[Life]) -> None:
    _, total = pack(items)
    assert lower_bound(items) <= total <= sum(-(-life.n_bytes // ALIGN_BYTES) * ALIGN_BYTES for life in items)


def test_a_gap_is_filled() -> None:
    # 256 and 192 live on the two sides; the 64 in between fits beside neither end but beside both
    offsets, total = pack([Life(256, 0, 1), Life(192, 1, 2), Life(64, 1, 2), Life(256, 2, 3)])
    assert total == 512
    assert len(set(offsets)) >= 3


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_an_mlp_stays_near_the_bound(depth: int) -> None:
    graph = mlp((16, *[64] * depth, 10), "gelu", dropout=0.1)
    plan = compile_uncached(graph, train_spec("cross_entropy", rows=32, optimizer=ADAMW))
    # outputs written over inputs can push the arena below the bound without reuse in place
    assert plan.arena_bytes <= 1.1 * lower_bound(list(lifetimes(plan).values()))


def test_prediction_needs_two_layers_at_a_time_and_all_panels() -> None:
    graph = mlp((64, *[64] * 6, 64), "relu")
    plan = compile_uncached(graph, PlanSpec("predict", max_rows=32))
    layer, panels = 4 * 32 * 64, 4 * 64 * 64
    assert plan.arena_bytes == 2 * layer + 7 * panels


@pytest.mark.parametrize("mode", ["eval", "predict"])
def test_what_is_packed_from_parameters_comes_first_and_stays(mode: str) -> None:
    plan = compile_uncached(mlp((16, 32, 32, 4)), dataclasses.replace(train_spec("mse"), mode=mode))  # type: ignore[arg-type]
    assert [step.kernel for step in plan.steps[: plan.prepare]] == ["pack_panels"] * 3
    assert "pack_panels" not in [step.kernel for step in plan.steps[plan.prepare :]]
    for step in plan.steps[: plan.prepare]:
        panels = dict(step.fields)["out"].buffer  # type: ignore[union-attr]
        assert lifetimes(plan)[panels] == Life(lifetimes(plan)[panels].n_bytes, 0, len(plan.steps))


def test_what_is_packed_from_a_batch_is_packed_again() -> None:
    from hotloop.graph import Rows, TensorType
    from hotloop.rules.registry import GraphBuilder

    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 8)))
    (sums,) = builder.emit("linear_grad_weight", x, x, bias=False)  # (8, 8), of the whole batch
    graph = builder.build([("output", builder.emit("linear", x, sums, None)[0])])
    plan = compile_uncached(graph, PlanSpec("predict", max_rows=4))
    assert plan.prepare == 0
    assert "pack_panels" in [step.kernel for step in plan.steps]


def test_activations_are_written_over_inputs_that_die() -> None:
    graph = mlp((8, 8, 8), "tanh")
    plan = compile_uncached(graph, train_spec("mse"), fused=False)
    (step,) = [step for step in plan.steps if step.kernel == "tanh_bwd"]
    found = in_place(step)
    assert found is not None
    out, (dy, saved) = found
    assert plan.buffers[out.buffer].offset in {
        plan.buffers[dy.buffer].offset,
        plan.buffers[saved.buffer].offset,
    }


def test_an_input_that_is_read_again_is_not_overwritten() -> None:
    from hotloop.graph import Rows, TensorType
    from hotloop.rules.registry import GraphBuilder

    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 4)))
    (y,) = builder.emit("tanh", x)
    graph = builder.build([("output", builder.emit("add", x, y)[0])])
    plan = compile_uncached(graph, PlanSpec("predict", max_rows=4))
    (first, second) = (in_place(step) for step in plan.steps)
    assert first is not None
    assert second is not None
    assert plan.buffers[first[0].buffer].offset != plan.buffers[first[1][0].buffer].offset
    assert plan.buffers[second[0].buffer].offset == plan.buffers[second[1][0].buffer].offset


@pytest.mark.parametrize("kind", LOSSES)
def test_what_the_update_uses_is_shared_with_nothing(kind: str) -> None:
    graph = mlp((16, 32, 4))
    plan = compile_uncached(graph, train_spec(kind, optimizer=ADAMW, clip_norm=1.0))
    begin, end = plan.section("update")
    own = {
        value.buffer
        for step in plan.steps[begin:end]
        for name, value in step.fields
        if name in ("scalars", "partial")
    }
    assert own
    for buffer in own:
        assert lifetimes(plan)[buffer] == Life(lifetimes(plan)[buffer].n_bytes, 0, len(plan.steps))
