# SPDX-License-Identifier: Apache-2.0
"""Tracing: `forward` runs once on symbolic tensors, and what it does becomes a `Graph`.

A trace knows parameters and buffers by identity: each enters the graph once, under its first name. Errors
say in which module they arose.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hotloop.errors import GraphError, HotloopError
from hotloop.graph import Attr, Graph, TensorType
from hotloop.rules.registry import GraphBuilder
from hotloop.trace.tensor import Operand, Tensor, is_number

__all__ = ["Operand", "Tensor", "Tracer", "active_tracer", "last_inputs", "trace"]

_ACTIVE: ContextVar[Tracer | None] = ContextVar("hotloop_trace", default=None)
#: The inputs that each module was last traced with, for whoever needs its graph once more.
_INPUTS: WeakKeyDictionary[Any, dict[str, TensorType]] = WeakKeyDictionary()


def active_tracer() -> Tracer | None:
    """The trace in progress in this thread, if any."""
    return _ACTIVE.get()


class Tracer:
    """A graph in the making, and who is who in the module it comes from."""

    def __init__(self, module: Any) -> None:
        self.builder = GraphBuilder()
        self.n_dropout = 0
        self._parameters: dict[int, str] = {}
        self._buffers: dict[int, str] = {}
        self._modules: dict[int, str] = {}
        self._values: dict[int, int] = {}  # id of a parameter or buffer -> its value
        if hasattr(module, "named_modules"):
            self._parameters = {id(p): name for name, p in module.named_parameters()}
            self._buffers = {id(b): name for name, b in module.named_buffers()}
            self._modules = {id(m): name for name, m in module.named_modules()}

    def emit(self, op: str, *inputs: int | None, **attrs: Attr) -> tuple[int, ...]:
        return self.builder.emit(op, *inputs, **attrs)

    def type(self, value: int) -> TensorType:
        return self.builder.type(value)

    def lift(self, operand: object) -> Tensor:
        """A tensor, parameter or buffer as a tensor of this trace; anything else raises."""
        if isinstance(operand, Tensor) and operand.recorder is not self:
            raise GraphError(
                "[trace] a tensor of another trace was kept and used again; compute it in forward"
            )
        if isinstance(operand, Operand):
            return operand.symbol()
        if isinstance(operand, np.ndarray):
            raise GraphError(
                f"[trace] a NumPy array of shape {operand.shape} is not part of the model; use "
                "self.register_buffer(name, array) for constants and nn.Parameter for what is trained"
            )
        hint = "a number stands beside a tensor only in + - * /" if is_number(operand) else "see hotloop.nn"
        raise GraphError(f"[trace] expected a tensor or parameter, got {type(operand).__name__}; {hint}")

    def parameter(self, parameter: Any) -> Tensor:
        """A parameter of the module; a new value at its first use."""
        return self._named(parameter, "parameter", self._parameters, self.builder.parameter)

    def buffer(self, buffer: Any) -> Tensor:
        """A float32 buffer of the module, as a state that forward reads."""
        if buffer.look().dtype.kind != "f":
            raise GraphError(
                f"[trace] forward can read float buffers only, got {buffer!r} of {buffer.look().dtype}"
            )
        return self._named(buffer, "buffer", self._buffers, self.builder.state)

    def _named(
        self, item: Any, kind: str, names: dict[int, str], make: Callable[[str, tuple[int, ...]], int]
    ) -> Tensor:
        if id(item) not in names:
            raise GraphError(
                f"[trace] a {kind} of shape {item.shape} is used but not registered; assign it to an "
                "attribute of a module, and keep modules in a ModuleList, not in a list"
            )
        if id(item) not in self._values:
            self._values[id(item)] = make(names[id(item)], item.shape)
        return Tensor(self, self._values[id(item)])

    def next_dropout(self) -> int:
        """The number of one more dropout layer."""
        self.n_dropout += 1
        return self.n_dropout - 1

    def path(self, module: object) -> str:
        """The name of a module in the one that is traced."""
        return self._modules.get(id(module), "")

    @contextlib.contextmanager
    def scope(self, module: object) -> Iterator[None]:
        """Errors raised inside name this module, the innermost one only."""
        try:
            yield
        except HotloopError as error:
            if not getattr(error, "in_module", None) and error.args:
                path = self.path(module)
                where = f"{path!r}, a {type(module).__name__}" if path else type(module).__name__
                error.args = (f"{error.args[0]} (in {where})", *error.args[1:])
                error.in_module = path or type(module).__name__  # type: ignore[attr-defined]
            raise

    def build(self, output: Tensor) -> Graph:
        # parameters and states in the module's order, whatever order forward used them in
        order = {name: i for i, name in enumerate((*self._parameters.values(), *self._buffers.values()))}
        self.builder.parameters.sort(key=lambda named: order[named[0]])
        self.builder.states.sort(key=lambda named: order[named[0]])
        return self.builder.build([("output", output.value)])


def trace(module: Callable[..., Any], inputs: Mapping[str, TensorType]) -> Graph:
    """The graph of ``module`` on inputs of the given types.

    Args:
        module: a `hotloop.nn.Module` (or any callable on tensors, which then has no parameters).
        inputs: name to type, by the argument names of ``forward``. A module with one input takes any name.
            The batch is `Rows(1)`, usually first: ``TensorType((Rows(), 64))``.

    Returns:
        A graph with the one output "output", parameters under torch's names.

    Raises:
        GraphError: forward does something that no graph holds, or the input names do not fit.
        ShapeError, DTypeError: shapes or types do not fit; the message names the module.

    Example:
        >>> from hotloop import nn
        >>> from hotloop.graph import Rows, TensorType
        >>> graph = trace(nn.Sequential(nn.Linear(64, 10), nn.ReLU()), {"x": TensorType((Rows(), 64))})
        >>> [name for name, _ in graph.parameters], graph.types[graph.output]
        (['0.weight', '0.bias'], [B, 10])
    """
    if _ACTIVE.get() is not None:
        raise GraphError("[trace] a trace is in progress: call the module itself inside forward")
    tracer = Tracer(module)
    arguments = _arguments(module, tuple(inputs))
    tensors = {name: Tensor(tracer, tracer.builder.input(name, type_)) for name, type_ in inputs.items()}
    token = _ACTIVE.set(tracer)
    try:
        output = module(**{argument: tensors[name] for argument, name in arguments.items()})
        if isinstance(output, Operand):
            graph = tracer.build(output.symbol())
            with contextlib.suppress(TypeError):  # a callable that cannot be referenced weakly
                _INPUTS[module] = dict(inputs)
            return graph
    finally:
        _ACTIVE.reset(token)
    what = type(output).__name__
    raise GraphError(f"[trace] forward must return one tensor, got {what}; concatenate or choose one")


def last_inputs(module: object) -> Mapping[str, TensorType] | None:
    """The types with which a module was last traced well; None if it never was."""
    return _INPUTS.get(module)


def _arguments(module: Any, names: tuple[str, ...]) -> dict[str, str]:
    """Which input goes to which argument of forward."""
    if not names:
        raise GraphError("[trace] a model needs at least one input")
    forward = getattr(module, "forward", module)
    signature = inspect.signature(forward).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in signature):
        return {name: name for name in names}
    takes = [p.name for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in signature if p.name in takes and p.default is p.empty]
    if len(names) == 1 and names[0] not in takes and len(takes) >= 1 and set(required) <= {takes[0]}:
        return {takes[0]: names[0]}
    unknown = [name for name in names if name not in takes]
    missing = [name for name in required if name not in names]
    if unknown or missing:
        raise GraphError(
            f"[trace] inputs must be named as the arguments of {type(module).__name__}.forward, got "
            f"{', '.join(names)}; it takes {', '.join(takes) or 'nothing'}"
            + (f"; missing {', '.join(missing)}" if missing else "")
        )
    return {name: name for name in names}
