# SPDX-License-Identifier: Apache-2.0
"""A stage of rows in one launch does what its steps do one after another: every step that a chain takes, at ragged
widths and batches, small and large tiles, weights on the chip and streamed, in all precisions."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop import _core
from hotloop.compile import compile_uncached
from hotloop.compile.plan import ARENA_KINDS, LossSpec, Operand, PlanSpec
from hotloop.graph import Affine, Graph, Rows, TensorType
from hotloop.reference import REFERENCES, Context
from hotloop.rules.elementwise import UNARY
from hotloop.rules.registry import GraphBuilder
from hotloop.runtime.session import native_plan
from tests.compile.graphs import ADAMW, LOSSES, batch, mlp, schema, train_spec
from tests.gpu.device_plans import MODES, Setting, emulating, put_all
from tests.gpu.kernel_harness import on_devices, open_device

DTYPES = {"real": np.float64, "index": np.int32, "double": np.float64, "int64": np.int64}
DROPOUT = (0.3, 0.5)
WRITTEN = ("Out", "OutOpt", "InOut", "InOutOpt")
TOLERANCE = {"float32": 2e-5, "tf32": 4e-3, "bf16": 3e-2}


class Stage:
    """The plan's longest stage of rows, on random operands; what it shall give comes from the references."""

    def __init__(
        self, graph: Graph, spec: PlanSpec, rows: int, *, fused: bool = True, packed: bool = False
    ) -> None:
        spec = dataclasses.replace(spec, spread=True, device="cpu" if packed else "cuda")
        self.plan, self.rows = compile_uncached(graph, spec, fused=fused), rows
        stage = max((s for s in self.plan.stages if s.kind == "rows"), key=lambda s: s.end - s.begin)
        self.steps = self.plan.steps[stage.begin : stage.end]
        self.context = Context(seed=5, run=2, step=3, dropout=DROPOUT, groups=np.zeros((1, 2)))
        rng = np.random.default_rng(rows)
        self.before = [self._fresh(index, rng) for index in range(len(self.plan.buffers))]
        for name, values in batch(graph, spec, rows).items():
            for buffer in (b for n, b in self.plan.inputs if n == name):
                self.before[buffer] = np.asarray(values).ravel().astype(self.before[buffer].dtype)
        exact = [array.copy() for array in self.before]
        for step in self.plan.steps[: stage.begin]:
            REFERENCES[step.kernel](SimpleNamespace(**self._fields(step, exact)), self.context)
        self.before = [array.copy() for array in exact]
        with np.errstate(all="ignore"):
            for step in self.steps:
                REFERENCES[step.kernel](SimpleNamespace(**self._fields(step, exact)), self.context)
        self.exact = exact

    def _fresh(self, index: int, rng: np.random.Generator) -> Any:
        buffer = self.plan.buffers[index]
        size, dtype = buffer.size.at(self.rows), DTYPES[buffer.dtype]
        if buffer.kind == "parameter":
            return rng.normal(0, min(0.3, size**-0.25), size)  # sums of the order of 1
        return np.full(size, np.nan) if dtype == np.float64 else np.zeros(size, dtype)

    def _fields(self, step: Any, arrays: list[Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in step.fields:
            if isinstance(value, Operand):
                assert value.offset == 0
                fields[name] = arrays[value.buffer]
            else:
                fields[name] = value.at(self.rows) if isinstance(value, Affine) else value
        return fields

    def _per_row(self, step: Any) -> dict[str, int]:
        moves = {n: v.per_row for n, v in step.fields if isinstance(v, Affine)}
        return moves | {
            n: self.plan.buffers[v.buffer].size.per_row for n, v in step.fields if isinstance(v, Operand)
        }

    def written(self, steps: Any = None) -> set[int]:
        return {
            value.buffer
            for step in steps or self.steps
            for name, kind, _ in schema()[step.kernel]
            if kind in WRITTEN and isinstance(value := dict(step.fields)[name], Operand)
        }

    def unread(self) -> set[int]:
        """What the stage writes into the arena and no step outside of it reads."""
        outside = {b for _, b in self.plan.outputs}
        for step in self.plan.steps:
            if step not in self.steps:
                outside |= {v.buffer for _, v in step.fields if isinstance(v, Operand)}
        return {b for b in self.written() - outside if self.plan.buffers[b].kind in ARENA_KINDS}

    def run(self, device: str, *, drop: bool = False, **how: Any) -> list[Any] | None:
        """All arrays after one launch; None if there is none for these steps."""
        arrays = [a.astype(np.float32) if a.dtype == np.float64 else a.copy() for a in self.before]
        unread = self.unread() if drop else set()
        steps = []
        for step in self.steps:
            names = {n for n, v in step.fields if isinstance(v, Operand) and v.buffer in unread}
            steps.append((step.kernel, self._fields(step, arrays), self._per_row(step), names))
        ran = _core.run_chain(
            open_device(device), steps, self.rows, seed=5, run=2, step=3, dropout=list(DROPOUT), **how
        )
        return arrays if ran else None

    def check(self, device: str, **how: Any) -> None:
        found = self.run(device, **how)
        assert found is not None, [step.kernel for step in self.steps]
        unread = self.unread() if how.get("drop") else set()
        tolerance = TOLERANCE[how.get("precision", "float32")]
        for buffer in self.written() - unread:
            want = self.exact[buffer]
            scale = max(1e-3, float(np.abs(want[np.isfinite(want)]).max(initial=0.0)))
            np.testing.assert_allclose(
                found[buffer], want, rtol=0, atol=tolerance * scale, err_msg=self.plan.buffers[buffer].name
            )


def training(
    sizes: tuple[int, ...], rows: int, activation: str = "relu", loss: str = "cross_entropy", **more: Any
) -> Stage:
    return Stage(mlp(sizes, activation), train_spec(loss, rows, **more), rows)


@on_devices
@pytest.mark.parametrize("rows", [1, 3, 16, 37, 300])
def test_a_training_step_at_many_batches(device: str, rows: int) -> None:
    stage = training((20, 33, 7), rows)
    assert [s.kernel for s in stage.steps] == ["matmul", "matmul", "cross_entropy", "matmul"]
    stage.check(device)


@on_devices
@pytest.mark.parametrize("tile_blocks", [1, 4, 64])
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (5, 128, 3), (64, 96, 64, 10), (784, 16, 2), (128, 127, 65, 31)]
)
def test_widths_and_tiles(device: str, sizes: tuple[int, ...], tile_blocks: int) -> None:
    """Many multiprocessors make low tiles, a single one makes high tiles."""
    rows = 70
    loss = "cross_entropy" if sizes[-1] > 1 else "mse"
    training(sizes, rows, loss=loss).check(device, multiprocessors=tile_blocks)


@on_devices
@pytest.mark.parametrize("name", sorted(UNARY))
@pytest.mark.parametrize("fused", [True, False])
def test_every_activation_and_its_gradient(device: str, name: str, fused: bool) -> None:
    attrs = dict(zip(("p0", "p1"), (1.5, 0.25), strict=True)) if name == "affine" else {}
    graph = mlp((6, 10, 9, 3), name, **attrs)
    Stage(graph, train_spec("mse", 9), 9, fused=fused).check(device)


@on_devices
@pytest.mark.parametrize("width", [8, 11, 30])
@pytest.mark.parametrize("fused", [True, False])
def test_dropout_has_the_masks_of_its_kernel(device: str, width: int, fused: bool) -> None:
    graph = mlp((5, width, width, 3), "tanh", dropout=0.5)
    stage = Stage(graph, train_spec("cross_entropy", 21), 21, fused=fused)
    found = stage.run(device)
    assert found is not None
    zeros = 0
    for buffer in stage.written():
        zeros += int((stage.exact[buffer] == 0).sum())
        np.testing.assert_array_equal(found[buffer] == 0, stage.exact[buffer] == 0)
    assert zeros > 20
    stage.check(device)


@on_devices
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("columns", [1, 2, 10, 33, 100])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses(device: str, kind: str, columns: int, weighted: bool) -> None:
    if kind == "cross_entropy" and columns == 1:
        columns = 3  # one class is refused at the border
    training((7, 12, columns), 13, "tanh", kind, weighted=weighted).check(device)


@on_devices
def test_losses_with_parameters(device: str) -> None:
    smooth = LossSpec("cross_entropy", label_smoothing=0.2)
    training((7, 12, 5), 13, loss="cross_entropy").check(device)
    Stage(mlp((7, 12, 5)), train_spec("cross_entropy", 13, loss=smooth), 13).check(device)
    Stage(mlp((7, 12, 5)), train_spec("cross_entropy", 13, target="real", loss=smooth), 13).check(device)
    Stage(mlp((7, 12, 5)), train_spec("huber", 13, loss=LossSpec("huber", delta=0.3)), 13).check(device)
    weights = LossSpec("bce_with_logits", pos_weight=(0.5, 1.0, 2.0, 3.0, 4.0))
    Stage(mlp((7, 12, 5)), train_spec("bce_with_logits", 13, loss=weights), 13).check(device)


@on_devices
@pytest.mark.parametrize("mode", ["predict", "eval"])
def test_forward_only(device: str, mode: str) -> None:
    spec = PlanSpec("predict", 40)
    if mode == "eval":
        spec = PlanSpec("eval", 40, loss=LossSpec("cross_entropy"), target="index")
    Stage(mlp((64, 128, 64, 10), "gelu"), spec, 40).check(device)


@on_devices
@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_norms_and_residual_sums(device: str, norm: str) -> None:
    builder = GraphBuilder()
    h = builder.input("x", TensorType((Rows(), 12)))
    (first,) = builder.emit("linear", h, builder.parameter("a", (20, 12)), None)
    vectors = [builder.parameter(f"v{i}", (20,)) for i in range(2 if norm == "layer_norm" else 1)]
    h = builder.emit(norm, first, *vectors, n_axes=1, eps=1e-5)[0]
    (h,) = builder.emit("add", h, first)
    (h,) = builder.emit("linear", h, builder.parameter("b", (3, 20)), None)
    graph = builder.build([("output", h)])
    stage = Stage(graph, PlanSpec("predict", 11), 11)
    assert f"{norm}_fwd" in [s.kernel for s in stage.steps]
    stage.check(device)
    Stage(graph, PlanSpec("predict", 11), 11, fused=False).check(device)


@on_devices
def test_what_nobody_reads_is_not_written(device: str) -> None:
    stage = training((9, 14, 12, 4), 25, "gelu")
    unread = stage.unread()
    assert len(unread) >= 3  # the logits, and what the gradients of gelu read
    found = stage.run(device, drop=True)
    assert found is not None
    assert all(np.isnan(found[buffer]).all() for buffer in unread)
    stage.check(device, drop=True)


@on_devices
@pytest.mark.parametrize("shared_memory", [227 * 1024, 99 * 1024, 64 * 1024, 48 * 1024])
@pytest.mark.parametrize("mma", [False, True])
def test_little_shared_memory(device: str, shared_memory: int, mma: bool) -> None:
    """Values come back from device memory, weights are streamed, tiles shrink: the numbers stay."""
    stage = training((100, 128, 96, 10), 70, "gelu")
    for drop in (False, True):
        stage.check(device, shared_memory=shared_memory, multiprocessors=1, mma=mma, drop=drop)


@on_devices
def test_panels_of_a_processor(device: str) -> None:
    stage = Stage(mlp((30, 40, 17), "relu"), train_spec("cross_entropy", 19), 19, packed=True)
    assert any(dict(s.fields).get("b_packed") == 1 for s in stage.steps)
    stage.check(device)
    stage.check(device, shared_memory=24 * 1024)


@on_devices
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_the_same_bits_twice(device: str, precision: str) -> None:
    stage = training((50, 64, 10), 130, "gelu")
    how = {"precision": precision, "multiprocessors": 2}
    first, second = stage.run(device, **how), stage.run(device, **how)
    assert first is not None and second is not None
    for buffer in stage.written():
        np.testing.assert_array_equal(first[buffer], second[buffer])


@on_devices
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("rows", [64, 150])
@pytest.mark.parametrize("sizes", [(64, 64, 64, 10), (100, 33, 128, 7), (784, 128, 10)])
def test_precisions(device: str, precision: str, rows: int, sizes: tuple[int, ...]) -> None:
    stage = training(sizes, rows, "tanh")  # relu's gradient jumps where a sum is near 0
    stage.check(device, precision=precision, multiprocessors=1)
    if precision != "float32":  # operands are rounded: it is another way of computing
        full, rounded = (stage.run(device, precision=p, multiprocessors=1) for p in ("float32", precision))
        assert full is not None and rounded is not None
        assert any((full[b] != rounded[b]).any() for b in stage.written())


@on_devices
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 128), min_size=3, max_size=5),
    rows=st.integers(1, 140),
    blocks=st.integers(1, 40),
    activation=st.sampled_from(["relu", "tanh", "gelu"]),
)
def test_any_network(device: str, sizes: list[int], rows: int, blocks: int, activation: str) -> None:
    training(tuple(sizes), rows, activation, "mse").check(device, multiprocessors=blocks)


@on_devices
@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ((8, 129, 3), "a value wider than a tile takes"),
        ((1025, 16, 3), "inputs longer than a chain reads"),
        ((4,) * 18, "more steps than one launch takes"),
    ],
)
def test_what_does_not_fit(device: str, sizes: tuple[int, ...], why: str) -> None:
    assert training(sizes, 5).run(device) is None, why


@on_devices
def test_other_kinds_of_steps_do_not_fit(device: str) -> None:
    graph = mlp((6, 8, 3))
    stage = Stage(graph, train_spec("mse", 5), 5)
    before = [a.copy() for a in stage.before]
    softmax = dataclasses.replace(
        stage.steps[0],
        kernel="softmax_fwd",
        fields=(
            ("y", Operand(next(iter(stage.written())))),
            ("x", Operand(0)),
            ("rows", Affine(0, 1)),
            ("cols", 3),
        ),
    )
    stage.steps = (*stage.steps, softmax)
    assert stage.run(device) is None
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, stage.before, strict=True))


@on_devices
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("mode", MODES)
def test_whole_steps_with_and_without_chains(device: str, activation: str, mode: str) -> None:
    """Plans in stages go as chains, plans without as single steps; parameters and statistics stay beside."""
    graph = mlp((12, 24, 16, 5), activation, dropout=0.4)
    spec = train_spec("cross_entropy", 30, optimizer=ADAMW, metrics=("accuracy",))
    setting = Setting(graph, spec)
    alone = dataclasses.replace(setting.spec, spread=False)
    values = batch(graph, spec, 30)
    found = []
    for each in (setting.plan, compile_uncached(graph, alone)):
        assert bool(each.stages) == (each is setting.plan)
        memory = setting.memory()
        with emulating(device, mode):
            program = _core.DeviceProgram(native_plan(each), memory, open_device(device))
            for step in range(3):
                put_all(program, each, values)
                program.run(30, params=setting.params, seed=3, run=1, step=step)
            found.append((memory.parameters.copy(), program.metrics.copy()))
    for chained, single in zip(*found, strict=True):
        np.testing.assert_allclose(chained, single, rtol=1e-4, atol=1e-4)
    assert not np.array_equal(found[0][0], setting.memory().parameters)
