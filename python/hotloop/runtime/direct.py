# SPDX-License-Identifier: Apache-2.0
"""Direct calls: once a call has come through the border, others like it need no Python on their way.

"Like it" means arrays of the same dtypes, row shapes and names, in any number of rows that the program has
room for. The values are still checked, natively, while they are copied in. Whatever is different, or not
clean, takes the long way again, which converts, or explains what is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hotloop import _core
from hotloop.compile.plan import BufferDType, Plan
from hotloop.data import border
from hotloop.graph import Graph
from hotloop.runtime.executable import Executable
from hotloop.runtime.session import Session
from hotloop.runtime.threads import ONE_THREAD_BELOW

#: Kinds of calls kept for each purpose: with and without weights, a few shapes. Each is tried in turn.
_KEPT = 4
#: What the copy into an input converts.
_DTYPES: dict[BufferDType, tuple[str, ...]] = {
    "real": ("float32", "float64", "uint8"),
    "index": ("int32", "int64"),
}


def call(
    session: Session, purpose: str, x: Any, y: Any = None, weight: Any = None, lr: Any = None, step: int = 0
) -> tuple[Any, Executable, int] | None:
    """What a call that was remembered gives for these arrays (a loss or an output), its program, and the
    rows; None if no call fits. To be called inside of `Session.entered`."""
    for known, exe in session.direct.get(purpose, ()):
        result = known(x, y, weight, lr, step)
        if result is not None:
            return result, exe, known.rows
    return None


def remember(
    session: Session, purpose: str, exe: Executable, x: Any, y: Any = None, weight: Any = None,
    *, target: tuple[float, float] | None = None, end: int = -1,
) -> None:  # fmt: skip
    """Keep how a call ran that the border accepted. ``target``: the least and largest value allowed in y;
    ``end``: the step to stop before. Does nothing for arguments that only Python can convert, as lists.
    """
    plan, graph = exe.plan, exe.graph
    if exe.device is not None:
        return  # its inputs are elsewhere
    slots = _slots(plan, graph, x, y, weight, target)
    if slots is None:
        return
    training = plan.mode in ("train", "vjp")
    output = plan.outputs[0][1] if plan.mode in ("predict", "vjp") else -1
    known = _core.DirectCall(
        exe.program, exe.team, slots=slots, params=session.params_table(plan, graph)[0], seed=session.seed,
        end=len(plan.steps) if end < 0 else end,
        # the variance of one row is the border's affair
        min_rows=1 + (training and any(node.op == "batch_norm" for node in graph.nodes)),
        team_rows=0 if session.threads else rows_for_a_team(plan), adaptive=session.adaptive,
        loss=next((m.offset for m in plan.metrics if m.kind == "batch_loss"), -1), output=output,
        output_shape=border.row_shape(graph.types[graph.output]) if output >= 0 else (),
        batch_counters=session.memory.batch_counters() if training else (),
    )  # fmt: skip
    calls = session.direct.setdefault(purpose, [])
    calls.insert(0, (known, exe))
    del calls[_KEPT:]


def _slots(
    plan: Plan, graph: Graph, x: Any, y: Any, weight: Any, target: tuple[float, float] | None
) -> list[tuple[int, str | None, int, border.Array, float, float]] | None:
    """For each input of the plan: argument, key, buffer, the array, least and largest value."""
    largest = float(np.finfo(plan.dtype).max)
    ids = border.id_limits(graph)
    slots = []
    for name, buffer in plan.inputs:
        if name == "doutput":  # not of the forward pass
            continue
        dtype = plan.buffers[buffer].dtype
        key, low, high = None, -largest, largest
        if name == "target":
            argument, array = 1, y
            low, high = target or (low, high)
        elif name == "sample_weight":
            argument, array, low = 2, weight, 0.0
        else:
            argument, array = 0, x
            if type(x) is dict:
                key, array = name, x.get(name)
            if dtype == "index":
                low, high = (0, ids[name] - 1) if name in ids else (-(2**31), 2**31 - 1)
        if (
            type(array) is not np.ndarray
            or not array.dtype.isnative
            or array.dtype.name not in _DTYPES[dtype]
        ):
            return None
        slots.append((argument, key, buffer, array, low, high))
    return slots


def rows_for_a_team(plan: Plan) -> int:
    """The fewest rows that more than one thread may pay for."""
    missing = 2 * ONE_THREAD_BELOW - plan.flops.const
    return max(0, -(-missing // plan.flops.per_row)) if plan.flops.per_row else plan.max_rows + 1
