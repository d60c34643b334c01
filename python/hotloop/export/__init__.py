# SPDX-License-Identifier: Apache-2.0
"""Models in other people's runtimes: ONNX files, written with the onnx package (extra ``onnx``).

What is exported is the traced graph in evaluation mode, op by op (ops.py), so a model needs nothing but a forward
that traces. The file is checked before it takes the place of an older one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hotloop.errors import GraphError
from hotloop.export.builder import Builder
from hotloop.export.columns import add_columns, add_quantity, column_names
from hotloop.export.convert import add_graph, border_of, evaluated, nbytes
from hotloop.export.heads import LABEL, PROBABILITIES, add_head, check_head
from hotloop.export.inputs import input_types
from hotloop.storage.files import Path, replacing
from hotloop.trace import trace

if TYPE_CHECKING:
    from hotloop.data.preprocess import Preprocessor
    from hotloop.graph import Graph
    from hotloop.nn import Module

#: The output of a regression in its target's unit.
PREDICTION = "prediction"
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
    preprocessor: Preprocessor | None = None,
) -> None:
    """Write a model as an ONNX file; see `hotloop.nn.Module.export_onnx` and `Trainer.export_onnx`.

    ``graph``: what the model was traced to, where the caller knows.
    """
    onnx = need_onnx()
    if graph is None:
        graph = trace(model, input_types(model, example))
    graph = evaluated(graph)
    output = graph.types[graph.output]
    classes = check_head(output, probabilities, class_names)
    takes = [name for name, _ in graph.inputs] if preprocessor is None else column_names(preprocessor)
    names = check_names(dict(input_names or {}), takes)
    quantity = preprocessor is not None and preprocessor.task == "regression"
    extra = (PROBABILITIES, LABEL) if probabilities else (PREDICTION,) if quantity else ()
    builder = Builder()
    builder.reserve((*names.values(), output_name, *extra))
    if preprocessor is None:
        builder.inputs += [border_of(names[name], graph.types[value]) for name, value in graph.inputs]
        fed = names
    else:
        fed = add_columns(builder, preprocessor, graph, names)
    value = add_graph(builder, graph, tensors_of(model), fed)
    builder.finish(value, border_of(output_name, output))
    if probabilities:
        add_head(builder, output_name, output, probabilities, classes)
    elif preprocessor is not None and quantity:
        add_quantity(builder, output_name, preprocessor, PREDICTION)
    write(onnx, builder, path, name=type(model).__name__, metadata=_about(preprocessor))


def _about(preprocessor: Preprocessor | None) -> dict[str, str]:
    """What a reader of the file needs to know of the columns."""
    if preprocessor is None:
        return {}
    return {"feature_names": json.dumps(preprocessor.feature_names), "target_name": preprocessor.target_name}


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


def write(onnx: Any, builder: Builder, path: Path, *, name: str, metadata: dict[str, str]) -> None:
    """Check the model and put it into a file, in one step. Raises `GraphError` above 2 GiB, and `OSError`."""
    if nbytes(builder) > _LIMIT:
        raise GraphError(
            f"[export_onnx] an ONNX file holds at most 2 GiB, got {nbytes(builder)} bytes of weights"
        )
    model = builder.proto(onnx, name=name, metadata=metadata)
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
