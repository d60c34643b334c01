# SPDX-License-Identifier: Apache-2.0
"""What an operation is: one `Rule` per op name, and the builder that applies shape rules.

Everything the compiler knows about an op stands in its rule, so that adding one touches one place here
(and, if it needs a kernel of its own, the kernel list). The passes are loops over rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hotloop.errors import GraphError
from hotloop.graph import Affine, Attr, Dim, Graph, Node, TensorType, make_attrs

if TYPE_CHECKING:
    from typing_extensions import Self

Types = Sequence["TensorType | None"]
ScratchType = Literal["real", "index", "double", "int64"]


class Emitter(Protocol):
    """Where new nodes go: tracing, differentiation and rewriting all build graphs through this."""

    def emit(self, op: str, *inputs: int | None, **attrs: Attr) -> tuple[int, ...]:
        """Append a node; the ids of its outputs."""

    def type(self, value: int) -> TensorType: ...


class Lowering(Protocol):
    """Where kernel steps go. Operands are opaque here: `value` and `scratch` make them."""

    max_rows: int
    #: Whether products want their right operand in panels: on a CPU; a GPU reads it as it lies.
    packs: bool

    def step(self, kernel: str, **fields: Any) -> None:
        """Append one kernel step. Fields by the names of args.h: operands from `value` or `scratch`
        (None: absent), dims as int, `Rows` or `Affine`, attributes as int or float."""

    def value(self, value: int, offset: int = 0) -> Any:
        """The operand that holds a graph value, ``offset`` elements in."""

    def scratch(self, size: Affine | int, dtype: ScratchType = "real") -> Any:
        """A buffer that lives only between the steps of the node being lowered."""

    def metric(self, name: str, kind: str, size: int) -> Any:
        """The operand of ``size`` doubles of the metric block; the first call with a name reserves them."""

    def is_used(self, value: int) -> bool:
        """Whether any later node, or the plan's border, reads the value."""

    def type(self, value: int) -> TensorType: ...


ShapeRule = Callable[[Types, dict[str, Any]], tuple[TensorType, ...]]
# (emitter, node, gradients of the outputs) -> gradients of the inputs; None: no gradient flows there.
GradRule = Callable[[Emitter, Node, tuple["int | None", ...]], tuple["int | None", ...]]
LowerRule = Callable[[Lowering, Node], None]
# A fused op's meaning: the same outputs from simpler ops.
ReferenceRule = Callable[[Emitter, Node], tuple[int, ...]]


@dataclass(frozen=True)
class Rule:
    """All that is known of one op.

    shape      output types from input types and attributes; raises `ShapeError`, `DTypeError`
    grad       builds the gradient; None for ops that only differentiation or fusion makes
    lower      appends the kernel steps
    reference  for fused ops: their meaning in simpler ops, which is oracle and fallback
    alias      the output is the first input's memory under another shape (reshape): no step at all
    flops      floating-point operations of the node, affine in rows; for cost and explain
    """

    name: str
    shape: ShapeRule
    lower: LowerRule
    grad: GradRule | None = None
    reference: ReferenceRule | None = None
    alias: bool = False
    flops: Callable[[Types, dict[str, Any]], Affine] | None = None


RULES: dict[str, Rule] = {}


def register(rule: Rule) -> Rule:
    if rule.name in RULES:
        raise ValueError(f"[rules] {rule.name} is registered twice")
    RULES[rule.name] = rule
    return rule


def rule_of(op: str) -> Rule:
    try:
        return RULES[op]
    except KeyError:
        raise GraphError(f"[rules] unknown op {op!r}; known: {', '.join(sorted(RULES))}") from None


class GraphBuilder:
    """A graph in the making; values are numbered as they appear."""

    def __init__(self) -> None:
        self.types: list[TensorType] = []
        self.nodes: list[Node] = []
        self.inputs: list[tuple[str, int]] = []
        self.parameters: list[tuple[str, int]] = []
        self.states: list[tuple[str, int]] = []

    @classmethod
    def extend(cls, graph: Graph) -> Self:
        """A builder that begins with everything a graph holds (its outputs are left to `build`)."""
        builder = cls()
        builder.types = list(graph.types)
        builder.nodes = list(graph.nodes)
        builder.inputs = list(graph.inputs)
        builder.parameters = list(graph.parameters)
        builder.states = list(graph.states)
        return builder

    def new_value(self, type_: TensorType) -> int:
        self.types.append(type_)
        return len(self.types) - 1

    def input(self, name: str, type_: TensorType) -> int:
        self.inputs.append((name, self.new_value(type_)))
        return self.inputs[-1][1]

    def parameter(self, name: str, shape: tuple[int, ...]) -> int:
        dims: tuple[Dim, ...] = shape
        self.parameters.append((name, self.new_value(TensorType(dims))))
        return self.parameters[-1][1]

    def state(self, name: str, shape: tuple[int, ...]) -> int:
        dims: tuple[Dim, ...] = shape
        self.states.append((name, self.new_value(TensorType(dims))))
        return self.states[-1][1]

    def type(self, value: int) -> TensorType:
        return self.types[value]

    def emit(self, op: str, *inputs: int | None, **attrs: Attr) -> tuple[int, ...]:
        types = [None if i is None else self.types[i] for i in inputs]
        outputs = tuple(self.new_value(t) for t in rule_of(op).shape(types, dict(attrs)))
        self.nodes.append(Node(op, inputs, outputs, make_attrs(attrs)))
        return outputs

    def build(self, outputs: Sequence[tuple[str, int]]) -> Graph:
        return Graph(
            tuple(self.types),
            tuple(self.nodes),
            tuple(self.inputs),
            tuple(self.parameters),
            tuple(self.states),
            tuple(outputs),
        )
