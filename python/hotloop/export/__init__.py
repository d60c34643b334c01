# SPDX-License-Identifier: Apache-2.0
"""Models in other people's runtimes: ONNX files, written with the onnx package (extra ``onnx``).

What is exported is the traced graph in evaluation mode, op by op (ops.py), so a model needs nothing but a forward
that traces. The file is checked before it takes the place of an older one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hotloop.errors import GraphError
from hotloop.export.builder import Builder
from hotloop.export.convert import add_graph, border_of, evaluated, nbytes
from hotloop.export.heads import LABEL, PROBABILITIES, add_head, check_head
from hotloop.export.inputs import input_types
from hotloop.files import Path, replacing
from hotloop.trace import trace

if TYPE_CHECKING:
    from hotloop.graph import Graph
    from hotloop.nn import Module

#: Bytes that protobuf can hold in one message, less some for everything but the weights.
_LIMIT = 2**31 - 2**20


def export_onnx(
    model: Module,
    path: Path,
    *,
    example: Any = None,
    probabilities: str | None = None,
    class_names: Sequence[str] = (),
    input_names: Mapping[str, str] | None = None,
    output_name: str = "output",
    graph: Graph | None = None,
) -> None:
    """Write a model as an ONNX file; see `hotloop.nn.Module.export_onnx`, which is this.

    ``graph``: what the model was traced to, where the caller knows.
    """
    onnx = need_onnx()
    if graph is None:
        graph = trace(model, input_types(model, example))
    graph = evaluated(graph)
    output = graph.types[graph.output]
    names = check_head(output, probabilities, class_names)
    chosen = check_names(dict(input_names or {}), [name for name, _ in graph.inputs])
    builder = Builder()
    extra = (PROBABILITIES, LABEL) if probabilities else ()
    builder.reserve((*chosen.values(), output_name, *extra))
    builder.inputs += [border_of(chosen[name], graph.types[value]) for name, value in graph.inputs]
    value = add_graph(builder, graph, tensors_of(model), chosen)
    builder.finish(value, border_of(output_name, output))
    if probabilities:
        add_head(builder, output_name, output, probabilities, names)
    write(onnx, builder, path, name=type(model).__name__)


def tensors_of(model: Module) -> dict[str, Any]:
    """The model's numbers by the names that its graph uses; parameters without values are drawn."""
    model.initialize(0, overwrite=False)
    return {name: item.data for name, item in (*model.named_parameters(), *model.named_buffers())}


def check_names(wanted: dict[str, str], inputs: Sequence[str]) -> dict[str, str]:
    """The name of each input in the file. Raises `GraphError` for a name of no input."""
    unknown = [name for name in wanted if name not in inputs]
    if unknown:
        raise GraphError(
            f"[export_onnx] input_names names no input of the model, got {unknown[0]!r}; inputs: {', '.join(inputs)}"
        )
    return {name: wanted.get(name, name) for name in inputs}


def write(onnx: Any, builder: Builder, path: Path, *, name: str) -> None:
    """Check the model and put it into a file, in one step. Raises `GraphError` above 2 GiB, and `OSError`."""
    if nbytes(builder) > _LIMIT:
        raise GraphError(
            f"[export_onnx] an ONNX file holds at most 2 GiB, got {nbytes(builder)} bytes of weights"
        )
    model = builder.proto(onnx, name=name, doc="", metadata={})
    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as file:
        file.write(model.SerializeToString(deterministic=True))


def need_onnx() -> Any:
    """The onnx package. Raises `ImportError` that names the extra."""
    try:
        import onnx
    except ImportError:
        raise ImportError(
            "[export_onnx] needs the package onnx; install the extra: pip install 'hotloop[onnx]'"
        ) from None
    return onnx
