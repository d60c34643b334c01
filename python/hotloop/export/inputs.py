# SPDX-License-Identifier: Apache-2.0
"""What a model takes: by its own stored graph, by how it was last used, or by an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hotloop.data import border
from hotloop.errors import GraphError, HotloopError
from hotloop.nn.graph_module import GraphModule
from hotloop.trace import last_inputs, trace

if TYPE_CHECKING:
    from hotloop.graph import TensorType
    from hotloop.nn import Module


def input_types(model: Module, example: Any) -> Mapping[str, TensorType]:
    """Name to type of the model's inputs. Raises `GraphError` if nobody has told, and as `fit` for an example
    that the model does not take."""
    if example is not None:
        return _of_example(model, example)
    known = last_inputs(model)
    if known is None and isinstance(model, GraphModule):
        known = {name: model.graph.types[value] for name, value in model.graph.inputs}
    if known is None:
        raise GraphError(
            "[export_onnx] the model has not seen data yet, so its inputs are unknown; give a few rows of them: "
            "export_onnx(path, X[:1])"
        )
    return known


def _of_example(model: Module, example: Any) -> Mapping[str, TensorType]:
    arrays = border.as_inputs(example, where="export_onnx", name="example", check_finite=False)
    first: HotloopError | None = None
    for types in border.candidate_types(arrays, "export_onnx"):
        try:
            trace(model, types)
        except HotloopError as error:
            first = first or error
        else:
            return types
    assert first is not None  # there is at least one candidate
    raise first
