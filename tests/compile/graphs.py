# SPDX-License-Identifier: Apache-2.0
"""What the compiler's tests share: small graphs, specs, random batches, and the kernels' schema as the
C++ sources state it (so that these tests need no compiled extension)."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np

from hotloop.compile import check_plan, compile_uncached, param_layout
from hotloop.compile.interpret import Interpreter, session_memory
from hotloop.compile.plan import LossSpec, OptimizerSpec, Plan, PlanSpec
from hotloop.graph import Graph, Rows, TensorType
from hotloop.rules.registry import GraphBuilder

SOURCES = Path(__file__).parents[2] / "csrc" / "kernels"
ADAMW = OptimizerSpec("adamw", beta1=0.9, beta2=0.999, eps=1e-8)
LOSSES = ("cross_entropy", "mse", "mae", "huber", "bce_with_logits")


@functools.cache
def schema() -> dict[str, list[tuple[str, str, str]]]:
    """kernel -> [(field, kind, dtype)], read from args.h and the .def files."""
    args_h = (SOURCES / "args.h").read_text()
    structs = {
        name: [(field, kind, dtype) for kind, dtype, field in re.findall(r"X\((\w+), (\w*), (\w+)\)", body)]
        for name, body in re.findall(r"#define HOTLOOP_(\w+Args)\(X\)((?:.*\\\n)*.*\n)", args_h)
    }
    kernels = re.findall(r"^HOTLOOP_KERNEL\((\w+), (\w+)\)", (SOURCES / "kernels.def").read_text(), re.M)
    for name in _names("unary"):
        kernels += [(f"{name}_fwd", "UnaryFwdArgs"), (f"{name}_bwd", "UnaryBwdArgs")]
    kernels += [(name, "BinaryArgs") for name in _names("binary")]
    kernels += [(name, "LossArgs") for name in _names("loss")]
    return {kernel: structs[struct] for kernel, struct in kernels}


def _names(family: str) -> list[str]:
    return re.findall(r"^HOTLOOP_\w+\((\w+),", (SOURCES / f"{family}.def").read_text(), re.M)


def mlp(
    sizes: tuple[int, ...] = (5, 7, 3), activation: str = "tanh", dropout: float = 0.0, **attrs: float
) -> Graph:
    """x (B, sizes[0]) -> linear -> activation -> dropout -> ... -> (B, sizes[-1]), torch's names."""
    builder = GraphBuilder()
    h = builder.input("x", TensorType((Rows(), sizes[0])))
    for layer, (k, n) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weight = builder.parameter(f"{2 * layer}.weight", (n, k))
        (h,) = builder.emit("linear", h, weight, builder.parameter(f"{2 * layer}.bias", (n,)))
        if layer < len(sizes) - 2:
            (h,) = builder.emit(activation, h, **attrs)
            if dropout:
                (h,) = builder.emit("dropout", h, layer=layer, p=dropout)
    return builder.build([("output", h)])


def train_spec(kind: str = "mse", rows: int = 6, **more: object) -> PlanSpec:
    """A training plan of a loss without an optimiser, unless one is named."""
    target = "index" if kind == "cross_entropy" else "real"
    fields: dict[str, object] = {"loss": LossSpec(kind), "target": target}
    return PlanSpec("train", rows, **{**fields, **more})  # type: ignore[arg-type]


def batch(graph: Graph, spec: PlanSpec, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values for every input of the plan."""
    rng = np.random.default_rng(seed)
    cols = graph.types[graph.output].shape[1]
    values: dict[str, np.ndarray] = {}
    for name, value in graph.inputs:
        type_ = graph.types[value]
        shape = (rows, *type_.shape[1:])
        values[name] = rng.integers(0, 3, shape) if type_.dtype == "index" else rng.standard_normal(shape)
    if spec.target == "index":
        values["target"] = rng.integers(0, cols, rows)
    elif spec.loss is not None and spec.loss.kind == "cross_entropy":
        values["target"] = rng.dirichlet(np.ones(cols), rows)
    else:
        values["target"] = rng.random((rows, cols))
    values["sample_weight"] = rng.uniform(0.2, 2.0, rows)
    values["doutput"] = rng.standard_normal((rows, cols))
    return values


def runner(graph: Graph, spec: PlanSpec, *, fused: bool = True, seed: int = 1) -> Interpreter:
    """A compiled plan on random parameters; the padding of the flat buffers is zero."""
    memory = session_memory(graph)
    rng = np.random.default_rng(seed)
    for entry in param_layout(graph).entries:
        memory["parameter"][entry.offset : entry.offset + entry.size] = rng.normal(0, 0.5, entry.size)
    return Interpreter(check_plan(compile_uncached(graph, spec, fused=fused), schema()), memory)


def kernels(plan: Plan) -> list[str]:
    return [step.kernel for step in plan.steps]
