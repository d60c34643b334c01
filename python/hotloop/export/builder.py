# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph in the making: nodes, constants and names that are each used once.

Plain records until the end, when `proto` turns them into onnx's messages; so a value can still be renamed, and
only this file knows how those messages are put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from hotloop import _core
from hotloop.errors import GraphError

#: Opset 18 is the oldest in which all reductions take their axes the same way and LayerNormalization is an op;
#: every runtime since onnxruntime 1.14 (February 2023) reads it.
OPSET = 18
#: Label encoders of strings, as long in use.
OPSET_ML = 3
#: The file format that came with opset 18.
IR_VERSION = 8
#: The name of the dimension that follows the rows.
BATCH = "batch"

Dims = Sequence[Union[int, str]]


@dataclass
class Step:
    """One node: ``outputs = kind(inputs)``. An absent optional input is ""."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]
    domain: str = ""


@dataclass(frozen=True)
class Border:
    """An input or output of the model: its name, dtype ("str" for text) and shape."""

    name: str
    dtype: str
    shape: tuple[Union[int, str], ...]


@dataclass
class Builder:
    """Collects what a model consists of."""

    steps: list[Step] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    inputs: list[Border] = field(default_factory=list)
    outputs: list[Border] = field(default_factory=list)
    _used: set[str] = field(default_factory=set)
    _small: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def reserve(self, names: Iterable[str]) -> None:
        """Names that the caller chose, which nothing else may take. Raises `GraphError` for one given twice."""
        for name in names:
            if not name or name in self._used:
                raise GraphError(
                    f"[export_onnx] names of inputs and outputs must be different and not empty, got {name!r}; "
                    "rename one with input_names= or output_name="
                )
            self._used.add(name)

    def unique(self, name: str) -> str:
        """The name, with a number behind it if it is taken."""
        chosen, count = name, 0
        while chosen in self._used:
            count += 1
            chosen = f"{name}_{count}"
        self._used.add(chosen)
        return chosen

    def op(self, kind: str, *inputs: str, domain: str = "", **attrs: Any) -> str:
        """Append a node with one output; the output's name."""
        output = self.unique(kind.lower())
        self.steps.append(Step(kind, list(inputs), [output], attrs, domain))
        return output

    def constant(self, values: Any, dtype: Any = np.float32, name: str = "constant") -> str:
        """A constant; equal small ones are stored once. Texts have the dtype object."""
        array = np.asarray(values, dtype)
        if array.dtype == object or array.size > 64:
            chosen = self.unique(name)
        else:
            key = (array.dtype.str, array.shape, array.tobytes())
            if key in self._small:
                return self._small[key]
            chosen = self._small[key] = self.unique(name)
        self.constants[chosen] = array
        return chosen

    def weight(self, name: str, values: NDArray[Any]) -> str:
        """A tensor of the model under its own name, never shared."""
        chosen = self.unique(name)
        self.constants[chosen] = np.array(values, np.float32)
        return chosen

    def finish(self, value: str, border: Border) -> None:
        """Make a value an output under the border's name, which `reserve` has taken before."""
        outside = value in self.constants or any(
            value == known.name for known in (*self.inputs, *self.outputs)
        )
        if outside:  # a model may give back what it was given
            self.steps.append(Step("Identity", [value], [border.name], {}))
        else:
            for step in self.steps:
                step.inputs = [border.name if v == value else v for v in step.inputs]
                step.outputs = [border.name if v == value else v for v in step.outputs]
        self.outputs.append(border)

    def proto(self, onnx: Any, *, name: str, metadata: dict[str, str]) -> Any:
        """The model as onnx's message."""
        helper = onnx.helper
        kinds = {"float32": "FLOAT", "float64": "DOUBLE", "int64": "INT64", "str": "STRING"}

        def info(border: Border) -> Any:
            kind = getattr(onnx.TensorProto, kinds[border.dtype])
            return helper.make_tensor_value_info(border.name, kind, list(border.shape))

        nodes = [
            helper.make_node(s.kind, s.inputs, s.outputs, name=f"{s.kind}_{i}", domain=s.domain, **s.attrs)
            for i, s in enumerate(self.steps)
        ]
        stored = [onnx.numpy_helper.from_array(array, key) for key, array in self.constants.items()]
        graph = helper.make_graph(
            nodes,
            name,
            [info(b) for b in self.inputs],
            [info(b) for b in self.outputs],
            stored,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if any(step.domain for step in self.steps):
            opsets.append(helper.make_opsetid("ai.onnx.ml", OPSET_ML))
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hotloop",
            producer_version=_core.__version__,
        )  # fmt: skip
        helper.set_model_props(model, metadata)
        return model
