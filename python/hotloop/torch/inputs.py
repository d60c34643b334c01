# SPDX-License-Identifier: Apache-2.0
"""Tensors on their way in: what a network can take, under which names, and how native code is to read it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hotloop.compile.plan import Plan
from hotloop.data import border
from hotloop.errors import DeviceError, DTypeError, ShapeError
from hotloop.graph import Graph
from hotloop.nn import Module as Network

WHERE = "torch.Module"
_CPU = torch.device("cpu")
#: What is copied into an input, and how.
_REAL = {torch.float32: "float32", torch.uint8: "uint8"}
_INDEX = {torch.int32: "int32", torch.int64: "int64"}


def check_input(x: Any, name: str, device: torch.device) -> None:
    """Raise unless x is a dense tensor on the module's device, with rows, of a dtype that networks take."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(
            f"[{WHERE}] {name} is {type(x).__name__}; allowed: torch.Tensor; torch.as_tensor(...)"
        )
    if x.device != device:
        raise DeviceError(
            f"[{WHERE}] {name} lies on {x.device}; allowed: {device}, where the module is; use {name}.to('{device}')"
        )
    if x.layout is not torch.strided:
        raise DTypeError(f"[{WHERE}] {name} is {x.layout}; allowed: dense tensors; use {name}.to_dense()")
    if x.dtype not in _REAL and x.dtype not in _INDEX:
        raise DTypeError(
            f"[{WHERE}] {name} is {x.dtype}; allowed: torch.float32, torch.uint8 (as float32), torch.int32 and "
            f"torch.int64 (ids); use {name}.float() or {name}.long()"
        )
    if x.ndim == 0 or (x.ndim == 1 and x.dtype in _REAL):
        raise ShapeError(
            f"[{WHERE}] {name} has shape {tuple(x.shape)}; allowed: rows first, (n, ...); use {name}.unsqueeze(0)"
        )


def as_arrays(
    names: tuple[str, ...], inputs: Sequence[Any], device: torch.device = _CPU, shapes_only: bool = False
) -> border.Arrays:
    """The tensors as arrays that share their memory, checked to be inputs of equal length; zeros instead where only
    shapes and types matter."""
    for name, x in zip(names, inputs, strict=True):
        check_input(x, name, device)
    if len({len(x) for x in inputs}) > 1:
        lengths = {name: len(x) for name, x in zip(names, inputs, strict=True)}
        raise ShapeError(f"[{WHERE}] the inputs differ in length: {lengths}; rows come first")
    if shapes_only:
        dtypes = {**_REAL, **_INDEX}
        return {
            name: np.zeros(tuple(x.shape), dtypes[x.dtype]) for name, x in zip(names, inputs, strict=True)
        }
    return {name: x.detach().contiguous().numpy() for name, x in zip(names, inputs, strict=True)}


def input_names(graph: Graph, names: tuple[str, ...]) -> tuple[str, ...]:
    """The graph's names of inputs that the caller gave under his."""
    return (graph.inputs[0][0],) if len(names) == 1 else names


def input_of(plan: Plan, graph: Graph, name: str, x: Any) -> tuple[str, int, float, float]:
    buffer = dict(plan.inputs)[name]
    if plan.buffers[buffer].dtype == "real":
        if x.dtype not in _REAL:
            raise DTypeError(f"[{WHERE}] {name} holds features, got {x.dtype}; use .float()")
        return _REAL[x.dtype], buffer, 0.0, 0.0
    limit = border.id_limits(graph).get(name)
    low, high = (-(2**31), 2**31 - 1) if limit is None else (0, limit - 1)
    return _INDEX[x.dtype], buffer, low, high


def names_by_position(network: Network, count: int) -> tuple[str, ...]:
    """Names of inputs given by position: those of forward's arguments."""
    if count == 1:
        return ("x",)
    graph = getattr(network, "graph", None)
    if isinstance(graph, Graph):
        names = [name for name, _ in graph.inputs]
    else:
        names = list(inspect.signature(network.forward).parameters)
    if len(names) != count:
        raise ShapeError(f"[{WHERE}] the model takes {len(names)} inputs ({', '.join(names)}), got {count}")
    return tuple(names)
