# SPDX-License-Identifier: Apache-2.0
"""Lower: nodes become kernel steps over a table of buffers.

The result is a Plan whose arena offsets are still zero; the memory pass sets them. (What scratch a node
needs is known only once it is lowered, so memory is planned on steps, not on nodes.) The forward section is
what the statistics and the plan's outputs need; the rest, gradients, is the backward section. Gradients of
parameters are written straight into the session's gradient buffer. Where parameters stand still, in
evaluation, what is packed from them comes first, as the prepare section.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hotloop.compile.autodiff import GRAD, INPUT
from hotloop.compile.kernels import INT_FIELDS, REAL_FIELDS
from hotloop.compile.layout import n_groups, param_layout, state_layout
from hotloop.compile.plan import (
    ALIGN_ELEMENTS,
    REAL_BYTES,
    Buffer,
    BufferDType,
    BufferKind,
    FieldValue,
    Metric,
    Operand,
    ParamLayout,
    Plan,
    PlanSpec,
    Step,
)
from hotloop.compile.rewrite import live_nodes
from hotloop.compile.update import lower_accumulate, lower_update
from hotloop.graph import Affine, Graph, Node, Rows, TensorType
from hotloop.rules.registry import rule_of

#: Where a node has one among its steps, that is where its multiply-adds are.
PRODUCTS = frozenset({"matmul", "matmul_parts"})


def lower(graph: Graph, spec: PlanSpec, *, n_dropout: int) -> Plan:
    """The plan of a graph, arena offsets aside. ``n_dropout``: drop probabilities that a step's row holds."""
    lowerer = Lowerer(graph, spec)
    nodes = graph.nodes
    first = live_nodes(nodes, (v for name, v in graph.outputs if not name.startswith(GRAD)))
    sections = []
    for name, wanted in (("forward", True), ("backward", False)):
        begin = len(lowerer.steps)
        for node, is_forward in zip(nodes, first, strict=True):
            if is_forward is wanted:
                lowerer.lower_node(node)
        if name == "backward" and spec.mode in ("train", "vjp"):
            lowerer.finish_gradients()
        elif name == "backward":
            break
        elif spec.mode in ("eval", "predict"):
            begin = lowerer.prepare_first()
            sections.append(("prepare", 0, begin))
        sections.append((name, begin, len(lowerer.steps)))
    if spec.optimizer is not None and spec.mode in ("train", "vjp"):
        value = dict(graph.outputs).get("total")
        total = None if value is None else lowerer.value(value)
        begin = len(lowerer.steps)
        if spec.accumulate:
            total = lower_accumulate(lowerer, spec, lowerer.layout, total)
            sections.append(("accumulate", begin, len(lowerer.steps)))
            begin = len(lowerer.steps)
        lower_update(lowerer, spec, lowerer.layout, total)
        sections.append(("update", begin, len(lowerer.steps)))
    return lowerer.plan(sections, n_dropout)


class Lowerer:
    """Collects steps and buffers; implements the registry's `Lowering`."""

    def __init__(self, graph: Graph, spec: PlanSpec) -> None:
        self.graph = graph
        self.spec = spec
        self.max_rows = spec.max_rows
        self.packs = spec.device == "cpu"
        self.layout = param_layout(graph)
        self.steps: list[Step] = []
        self.flops = Affine()
        self._bytes = REAL_BYTES[spec.dtype]
        self._buffers: list[Buffer] = []
        self._home: dict[int, int] = {}  # value -> buffer
        self._metrics: dict[str, tuple[Metric, Operand]] = {}
        self._n_metric_doubles = 0
        self._constants: list[float] = []
        self._root = _roots(graph)
        self._note = ""
        self._used = {v for node in graph.nodes for v in node.inputs} | {v for _, v in graph.outputs}
        for name, value in graph.inputs:
            self._home[value] = self._buffer(name, "input", graph.types[value])
        self._place(graph.parameters, "parameter", self.layout)
        self._place(graph.states, "state", state_layout(graph))
        self._in_place_gradients = self._place_gradients()

    # ---- what the lowering rules call

    def step(self, kernel: str, **fields: Any) -> None:
        """Append one kernel step; numbers become sizes or attributes by the names of their fields."""
        values = tuple((name, _field(name, value)) for name, value in fields.items())
        self.steps.append(Step(kernel, values, self._note))

    def value(self, value: int, offset: int = 0) -> Operand:
        """The operand that holds a graph value; its buffer is made at the first mention."""
        root = self._root.get(value, value)
        if root not in self._home:
            self._home[root] = self._buffer(f"%{root}", "activation", self.graph.types[root])
        return Operand(self._home[root], offset)

    def scratch(self, size: Affine | int, dtype: BufferDType = "real") -> Operand:
        """A buffer of its own for the steps of this node."""
        size = size if isinstance(size, Affine) else Affine(0, size)
        return self.memory(f"scratch{len(self._buffers)}", "scratch", size, dtype=dtype)

    def metric(self, name: str, kind: Any, size: int) -> Operand:
        """``size`` doubles of the metric block, under a name that reserves them once."""
        if name not in self._metrics:
            offset = self._n_metric_doubles
            self._n_metric_doubles += size
            place = self.memory(name, "metric", Affine(0, size), dtype="double", offset=8 * offset)
            self._metrics[name] = (Metric(name, kind, offset, size), place)
        return self._metrics[name][1]

    def is_used(self, value: int) -> bool:
        return value in self._used

    def type(self, value: int) -> TensorType:
        return self.graph.types[value]

    # ---- what this module and update.py call

    def memory(
        self, name: str, kind: BufferKind, size: Affine, *, dtype: BufferDType = "real", offset: int = 0
    ) -> Operand:
        """A new buffer, ``offset`` bytes into the memory of its kind."""
        self._buffers.append(Buffer(name, kind, dtype, size, offset))
        return Operand(len(self._buffers) - 1)

    def flat(self, kind: BufferKind, begin: int, end: int, name: str) -> Operand:
        """Elements [begin, end) of one of the session's flat buffers."""
        return self.memory(name, kind, Affine(0, end - begin), offset=begin * self._bytes)

    def note(self, text: str) -> None:
        """What explain says of the steps that follow."""
        self._note = text

    def lower_node(self, node: Node) -> None:
        if node.op == "constant":
            self._place_constant(node)
            return
        rule = rule_of(node.op)
        if rule.alias:
            return
        self.note(node.op)
        before = len(self.steps)
        rule.lower(self, node)
        if rule.flops is not None and len(self.steps) > before:
            types = [None if v is None else self.graph.types[v] for v in node.inputs]
            flops = rule.flops(types, node.attr)
            self.flops = Affine(self.flops.per_row + flops.per_row, self.flops.const + flops.const)
            added = range(before, len(self.steps))
            at = max((i for i in added if self.steps[i].kernel in PRODUCTS), default=added[-1])
            self.steps[at] = dataclasses.replace(self.steps[at], flops=flops)

    def prepare_first(self) -> int:
        """Move the steps that pack parameters to the front; how many they are."""

        def packs_parameters(step: Step) -> bool:
            source = dict(step.fields).get("x")
            kind = self._buffers[source.buffer].kind if isinstance(source, Operand) else None
            return step.kernel == "pack_panels" and kind in ("parameter", "constant")

        self.steps.sort(key=packs_parameters, reverse=True)  # stable: otherwise the order stays
        return sum(map(packs_parameters, self.steps))

    def finish_gradients(self) -> None:
        """Gradients that no node could write in place are copied; parameters without influence get zeros,
        and frozen ones nothing."""
        outputs = dict(self.graph.outputs)
        for entry in self.layout.entries:
            if entry.name in self._in_place_gradients or entry.name in self.spec.trainable.frozen:
                continue
            value = outputs.get(GRAD + entry.name)
            self.note(f"{GRAD}{entry.name}")
            out = self.flat("gradient", entry.offset, entry.offset + entry.size, GRAD + entry.name)
            n = Affine(0, entry.size)
            if value is None:
                self.step("fill", out=out, n=n, value=0.0)
            else:
                self._copy(out, self.value(value), n)

    def _copy(self, out: Operand, x: Operand, n: Affine) -> None:
        sizes: dict[str, Any] = {f"d{i}": 1 for i in range(3)} | {"d3": n}
        strides = {f"{letter}{i}": int(i == 3) for letter in "ox" for i in range(4)}
        self.step("copy", out=out, x=x, **sizes, **strides)

    def plan(self, sections: list[tuple[str, int, int]], n_dropout: int) -> Plan:
        spec = self.spec
        # an output that no step mentions (a model that returns its input) still needs its buffer
        shown = [
            (name, v)
            for name, v in self.graph.outputs
            if name == "output" or spec.mode == "predict" or name.startswith(GRAD + INPUT)
        ]
        outputs = [(name, self.value(v).buffer) for name, v in shown]
        training = spec.mode in ("train", "vjp")
        return Plan(
            mode=spec.mode,
            dtype=spec.dtype,
            max_rows=spec.max_rows,
            buffers=tuple(self._buffers),
            steps=tuple(self.steps),
            sections=tuple(sections),
            inputs=tuple((name, self._home[value]) for name, value in self.graph.inputs),
            outputs=tuple(outputs),
            metrics=tuple(metric for metric, _ in self._metrics.values()),
            constants=tuple(self._constants),
            arena_bytes=0,
            n_groups=n_groups(spec.optimizer, spec.trainable)
            if spec.optimizer is not None and training
            else 0,
            n_dropout=n_dropout,
            flops=self.flops,
        )

    # ---- where values live

    def _buffer(self, name: str, kind: BufferKind, type_: TensorType, offset: int = 0) -> int:
        return self.memory(name, kind, type_.size, dtype=type_.dtype, offset=offset).buffer

    def _place(self, values: tuple[tuple[str, int], ...], kind: BufferKind, layout: ParamLayout) -> None:
        offsets = {entry.name: entry.offset * self._bytes for entry in layout.entries}
        for name, value in values:
            self._home[value] = self._buffer(name, kind, self.graph.types[value], offsets[name])

    def _place_constant(self, node: Node) -> None:
        offset = len(self._constants)
        values = node.attr["values"]
        padding = -len(values) % ALIGN_ELEMENTS
        self._constants += [float(v) for v in values] + [0.0] * padding
        value = node.outputs[0]
        self._home[value] = self._buffer(
            f"%{value}", "constant", self.graph.types[value], offset * self._bytes
        )

    def _place_gradients(self) -> set[str]:
        """Let the node that makes a gradient write it into the session's buffer; names of such gradients.

        A value that no node made, or that is the gradient of two parameters, needs a copy instead.
        """
        made = {value for node in self.graph.nodes if node.op != "constant" for value in node.outputs}
        outputs = dict(self.graph.outputs)
        kept = {self._root.get(v, v) for name, v in outputs.items() if not name.startswith(GRAD)}
        placed = set()
        for entry in self.layout.entries:
            value = outputs.get(GRAD + entry.name)
            root = None if value is None else self._root.get(value, value)
            if root is None or root not in made or root in self._home or root in kept:
                continue
            operand = self.flat("gradient", entry.offset, entry.offset + entry.size, GRAD + entry.name)
            self._home[root] = operand.buffer
            placed.add(entry.name)
        return placed


def _roots(graph: Graph) -> dict[int, int]:
    """Which value's memory a reshape's output is."""
    root: dict[int, int] = {}
    for node in graph.nodes:
        if rule_of(node.op).alias:
            source = node.inputs[0]
            assert source is not None
            root[node.outputs[0]] = root.get(source, source)
    return root


def _field(name: str, value: Any) -> FieldValue:
    if value is None or isinstance(value, (Operand, Affine)):
        return value
    if isinstance(value, Rows):
        return Affine(value.per_row, 0)
    if name in INT_FIELDS:
        return int(value)
    if name in REAL_FIELDS:
        return float(value)
    return Affine(0, int(value))
