# SPDX-License-Identifier: Apache-2.0
"""Where a run takes place: as the trainer says, or for "auto" by what the run will cost."""

from __future__ import annotations

from hotloop.compile import compile_plan
from hotloop.data import lazy
from hotloop.engine.native import Data, Engine, NativeEngine
from hotloop.engine.scored import without_scores
from hotloop.runtime.device_choice import Choice, choose, is_over_soon


def place_run(asked: str, engine: Engine, train: Data, *, batch_size: int, epochs: int) -> Choice:
    """Settle the session of a run on a device, and say why there. Nothing is opened yet."""
    session = engine.session
    if asked != "auto":
        return Choice(session.kind, "as asked")
    native = without_scores(engine)
    if is_over_soon(session.memory.layout.size, train.rows * epochs):
        chosen = Choice("cpu", "its work is over before a GPU is ready")
    elif not isinstance(native, NativeEngine):
        chosen = Choice("cpu", "the loss is a Python function, which needs every batch's outputs")
    elif train.sample is not train or any(map(lazy.is_lazy, train.arrays.values())):
        chosen = Choice("cpu", "the data is read while training")
    else:
        plan = compile_plan(engine.graph, native.train_spec(train, batch_size))
        chosen = choose(
            plan, batches=epochs * train.steps(batch_size), batch_size=batch_size,
            data_bytes=sum(array.nbytes for array in train.arrays.values()), threads=session.threads,
        )  # fmt: skip
    session.place(chosen.kind)
    return chosen
