# SPDX-License-Identifier: Apache-2.0
"""A look at the finished model: its activations, and its predictions by class, on a few training rows.

It is taken when somebody asks for a diagnosis, and only if the model still has the bits that the run ended
with; the rows were set aside when the run began.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hotloop import _core, classes
from hotloop.compile.inside import activation_nodes, inside_plan
from hotloop.data import border
from hotloop.engine.native import Data
from hotloop.evidence import Activation, Look
from hotloop.graph import Graph, Node
from hotloop.runtime.executable import native_plan
from hotloop.runtime.session import Session

#: Rows that are looked at: enough to call a unit dead, few enough to cost next to nothing.
MAX_ROWS = 256
#: ... and at most so many elements of inputs and activations.
_MAX_ELEMENTS = 1 << 22
#: Rows among which classes are looked for.
_MAX_SORTED = 1 << 13


class Witness:
    """Sees one run's end. ``loss`` is the kind of the loss, "" of a callable."""

    def __init__(self, session: Session, graph: Graph, loss: str, train: Data) -> None:
        self._session, self._graph, self._loss = session, graph, loss
        self._rows = Data(border.take(train.arrays, rows_to_see(train, graph, loss)), train.kind)
        self._ended: tuple[Any, ...] | None = None

    def run_ended(self) -> None:
        """Remember what the model is now."""
        self._ended = fingerprint(self._session)

    def __call__(self) -> Look | None:
        """The look; None if the model is not what it was, is in use elsewhere, or is not finite."""
        try:
            with self._session.entered("diagnosis"):
                same = self._ended is not None and fingerprint(self._session) == self._ended
                return self._see() if same else None
        except RuntimeError:  # another thread trains it: it will not be what it was
            return None

    def _see(self) -> Look:
        session, graph, rows = self._session, self._graph, self._rows.rows
        plan = inside_plan(graph, rows, session.dtype)
        isa = "generic" if session.dtype == "float64" else ""
        program = _core.Program(native_plan(plan), session.memory.native, isa=isa)
        for name, buffer in plan.inputs:
            program.buffer(buffer, rows)[...] = self._rows.arrays[name].ravel()
        program.run(_core.Team(1), rows, params=session.params_table(plan, graph)[0])
        values = {name: np.asarray(program.buffer(buffer, rows)) for name, buffer in plan.outputs}
        found = tuple(
            _activation(graph, node, values[f"activation{i}"])
            for i, node in enumerate(activation_nodes(graph))
        )
        shape = border.row_shape(graph.types[graph.output])
        hits, seen = self._by_class(values["output"].reshape(rows, *shape))
        return Look(rows, found, hits, seen)

    def _by_class(self, output: Any) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Right predictions and rows of each class."""
        labels = labels_of(self._rows, self._loss)
        if labels is None:
            return None, None
        n = 2 if self._loss == "bce_with_logits" else output.shape[1]
        right = labels[classes.labels(output, self._loss) == labels]
        return tuple(map(int, np.bincount(right, minlength=n))), tuple(
            map(int, np.bincount(labels, minlength=n))
        )


def labels_of(data: Data, loss: str) -> Any:
    """The class of each row, int64 (n,), where a row has just one; else None."""
    target = data.arrays["target"]
    if loss == "cross_entropy":
        return np.asarray(target if target.ndim == 1 else target.argmax(axis=1), np.int64)
    if loss == "bce_with_logits" and target.size == len(target):
        return np.asarray(target.reshape(-1) > 0.5, np.int64)
    return None


def rows_to_see(data: Data, graph: Graph, loss: str) -> Any:
    """Numbers of the rows to look at: evenly over the data, or class by class in turn where there are labels,
    so that a rare class is seen too."""
    values = [value for _, value in graph.inputs]
    values += [node.outputs[0] for node in activation_nodes(graph)]
    per_row = sum(graph.types[value].size.per_row for value in values)
    count = max(1, min(MAX_ROWS, data.rows, _MAX_ELEMENTS // max(per_row, 1)))
    some = spread(data.rows, _MAX_SORTED)
    labels = labels_of(Data({"target": data.arrays["target"][some]}, data.kind), loss)
    if labels is None:
        return np.arange(count) * data.rows // count
    by_class, place = class_places(labels)
    turn = by_class[np.argsort(place, kind="stable")[:count]]  # the first of each, the second of each, ...
    return np.arange(data.rows)[some][np.sort(turn)] if some.step > 1 else np.sort(turn)


def class_places(labels: Any) -> tuple[Any, Any]:
    """The rows (n,) class after class, each in the order of the rows; and each one's place in its class."""
    short = labels.astype(np.uint16) if labels.max(initial=0) < 1 << 16 else labels  # which sort by radix
    by_class = np.argsort(short, kind="stable")
    ordered = labels[by_class]
    return by_class, np.arange(len(labels)) - np.searchsorted(ordered, ordered)


def spread(rows: int, count: int) -> slice:
    """About ``count`` rows, evenly from all; a slice, which copies nothing."""
    return slice(0, rows, max(-(-rows // count), 1))


def fingerprint(session: Session) -> tuple[Any, ...]:
    """Marks of all parameters and states, different if any bit has changed."""
    native = session.memory.native
    return _core.fingerprint(native.parameters), _core.fingerprint(native.state)


def _activation(graph: Graph, node: Node, values: Any) -> Activation:
    """What one activation does; a unit is a feature, over all rows and places of them."""
    *_, last = graph.types[node.outputs[0]].shape
    units = last if isinstance(last, int) else 1
    table = values.reshape(-1, units)
    scale = float(np.sqrt(np.mean(np.square(table, dtype=np.float64))))
    dead = float(np.mean(~table.any(axis=0))) if node.op == "relu" else 0.0
    return Activation(layer_of(graph, node), node.op, units, dead, scale if math.isfinite(scale) else None)


def layer_of(graph: Graph, node: Node) -> str:
    """The name of the layer before a node: of the nearest one with parameters, along first inputs."""
    producers = {value: other for other in graph.nodes for value in other.outputs}
    names = {value: name for name, value in graph.parameters}
    current: Node | None = node
    while current is not None:
        found = [names[value] for value in current.inputs if value in names]
        if found:
            return found[0].rpartition(".")[0] or found[0]
        first = current.inputs[0] if current.inputs else None
        current = None if first is None else producers.get(first)
    return "input"
