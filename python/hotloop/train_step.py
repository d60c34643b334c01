# SPDX-License-Identifier: Apache-2.0
"""`TrainStep`: one training step at a time, inside somebody else's loop.

Forward, loss, backward and update are one native call on the caller's batch; or in parts, for a loss of
one's own. Parameters and gradients are flat arrays that others may read and write in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from hotloop import optim
from hotloop.arguments import choice, count, number
from hotloop.compile.plan import LossSpec, PlanSpec, TrainableSpec
from hotloop.data import border
from hotloop.data.target import target_range
from hotloop.engine.native import Data, checked_inputs, predict_any, row_weights
from hotloop.errors import DeviceError, ShapeError
from hotloop.fit.setup import ResolvedLoss, check_batches, check_data, check_loss
from hotloop.graph import Graph
from hotloop.losses import CallableLoss
from hotloop.runtime import direct
from hotloop.runtime.device import PRECISIONS, Precision, check_device, first_kind
from hotloop.runtime.executable import Executable
from hotloop.runtime.session import Doubles, DType, Session
from hotloop.runtime.threads import check_threads

if TYPE_CHECKING:
    from hotloop.nn import Module

OptimizerLike = Union["optim.Optimizer", str]


class TrainStep:
    """A model, a loss and an optimiser, stepped by hand.

    Args:
        model: a `hl.nn.Module`; its parameters become views of `flat_params`.
        loss: as in `hl.Trainer`; a callable ``(prediction, target) -> (per-row loss, per-row gradient)``
            runs in Python between two native calls.
        optimizer: an optimiser from `hl.optim` or its name.
        device: "cpu" or "cuda"; "auto" is the CPU, since every batch comes from there.
        precision: of products on a GPU: "float32", or faster and coarser "tf32" or "bf16".
        threads: None decides by the model's cost.
        seed: of the initialisation and of dropout.
        dtype: "float32"; "float64" is the slow generic path for gradient checks.

    Dropout masks change with every update; between two updates they stay the same, so that a gradient can be
    compared with differences of the loss.

    >>> import numpy as np, hotloop as hl
    >>> step = hl.TrainStep(hl.nn.Linear(3, 1), "mse", hl.optim.SGD(0.1))
    >>> x = np.eye(3, dtype=np.float32)
    >>> losses = [step(x, x.sum(axis=1)) for _ in range(100)]
    >>> losses[-1] < 0.01
    True
    """

    def __init__(
        self,
        model: Module,
        loss: Any = "auto",
        optimizer: OptimizerLike = "adamw",
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int | None = None,
        seed: int = 0,
        dtype: DType = "float32",
        precision: Precision = "float32",
    ) -> None:
        check_device(device, "TrainStep")
        choice("TrainStep", "dtype", dtype, ("float32", "float64"))
        choice("TrainStep", "precision", precision, PRECISIONS)
        if dtype == "float64" and device not in ("auto", "cpu"):
            raise DeviceError(
                f"[TrainStep] float64 runs on the CPU only, got device={device!r}; use device='cpu'"
            )
        check_loss(loss)
        chosen = optim.resolve(optimizer)
        self.model = model
        self.lr = chosen.lr
        self._loss: ResolvedLoss | None = None
        self._loss_given = loss
        self._session = Session(
            model, chosen, seed=count("TrainStep", "seed", seed), dtype=dtype,
            threads=check_threads(threads, "TrainStep"), where=first_kind(device),
            precision=precision,
        )  # fmt: skip
        self._max_rows = 0
        self._updates = 0
        self._last: tuple[Executable, int] | None = None  # whose gradients stand in flat_grads, and its rows
        self._can_go_back = False  # the backward steps write over what forward left for them
        self._row: tuple[Executable, float, Doubles] | None = None

    # --- one call ---

    def __call__(self, x: Any, y: Any, sample_weight: Any = None) -> float:
        """One step on a batch: forward, loss, backward, update. Returns the batch's (weighted mean) loss.

        x is an array (rows, ...) or a mapping of named inputs, y and sample_weight as in `hl.Trainer.fit`.
        Raises before anything changes if they do not fit.
        """
        with self._session.entered("TrainStep"):
            return self._batch(x, y, sample_weight, update=True)

    def loss_and_grads(
        self, x: Any, y: Any, sample_weight: Any = None
    ) -> tuple[float, dict[str, border.Array]]:
        """(loss, gradients by name of the parameters that are not frozen) of a batch, without an update; the
        arrays are copies.

        `update` applies these gradients, as they then stand in `flat_grads`.
        """
        with self._session.entered("loss_and_grads"):
            value = self._batch(x, y, sample_weight, update=False)
            return value, self._session.memory.gradients()

    # --- in parts ---

    def forward(self, x: Any) -> border.Array:
        """The model's output (rows, ...) in training mode (a copy); `backward` continues from here."""
        with self._session.entered("forward"):
            found = direct.call(self._session, "forward", x, lr=self.lr, step=self._updates)
            if found is None:
                found = self._forward(*checked_inputs(self._session, x, "forward", name="x"))
                end = found[1].plan.section("forward")[1]
                direct.remember(self._session, "forward", found[1], x, end=end)
            output: border.Array = found[0]
            self._last, self._can_go_back = found[1:], True
            return output

    def backward(self, doutput: Any) -> dict[str, border.Array]:
        """Gradients by parameter name (copies) from the loss's gradient by the output of `forward`.

        They also stand in `flat_grads`. Raises `RuntimeError` if no `forward` came before, or it was used.
        """
        with self._session.entered("backward"):
            self._backward(doutput)
            return self._session.memory.gradients()

    def update(self, lr: float | None = None) -> None:
        """One optimiser step with the gradients in `flat_grads`. ``lr`` replaces `lr` for this step."""
        with self._session.entered("update"):
            self._update(lr)

    def predict(self, x: Any) -> border.Array:
        """The model's output (rows, ...) in evaluation mode."""
        with self._session.entered("predict"):
            return predict_any(self._session, x, "predict", name="x")

    # --- state ---

    @property
    def flat_params(self) -> border.Array:
        """All parameters, a zero-copy view; `layout` tells where each begins. The gaps stay zero."""
        return self._session.memory.native.parameters

    @property
    def flat_grads(self) -> border.Array:
        """All gradients of the last backward pass, a zero-copy view in the order of `flat_params`."""
        return self._session.memory.native.gradients

    @property
    def layout(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Name -> (offset in the flat arrays, shape) of each parameter."""
        return {e.name: (e.offset, e.shape) for e in self._session.memory.layout.entries}

    def state_dict(self) -> dict[str, border.Array]:
        """The model's parameters and buffers, under torch's names (copies)."""
        with self._session.entered("state_dict"):
            return {name: np.array(value) for name, value in self.model.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over parameters and buffers. Raises before anything changes if a name or shape differs."""
        with self._session.entered("load_state_dict"):
            self.model.load_state_dict(state)

    def optimizer_state(self) -> dict[str, border.Array]:
        """Copies of the optimiser's state: "{param}.exp_avg", "{param}.exp_avg_sq", "{param}.step"."""
        with self._session.entered("optimizer_state"):
            return self._session.memory.optimizer_state()

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `optimizer_state` gave. Raises `ValueError` if a name or shape differs."""
        with self._session.entered("load_optimizer_state"):
            memory = self._session.memory
            ages = memory.ages()
            memory.load_optimizer_state(state, "load_optimizer_state")
            if memory.ages() != ages:  # programs are made for parameters that have taken equally many steps
                self._session.direct.clear()
                self._last = None

    # --- inside ---

    def _batch(self, x: Any, y: Any, weight: Any, *, update: bool) -> float:
        """Forward, loss and backward, and the update if wanted; arrays like former ones go in directly."""
        purpose = "step" if update else "gradients"
        found = direct.call(self._session, purpose, x, y, weight, self.lr, self._updates)
        if found is None:
            data, graph, loss = self._check(x, y, weight)
            if isinstance(loss, CallableLoss):
                return self._callable_batch(data, graph, loss, update=update)
            found = self._run_batch(data, graph, loss, update=update)
            allowed = target_range(loss.kind, data.kind, border.row_shape(graph.types[graph.output]))
            end = _end(found[1], update=update)
            direct.remember(self._session, purpose, found[1], x, y, weight, target=allowed, end=end)
        value, exe, rows = found
        self._last = None if update else (exe, rows)
        self._updates += update
        return float(value)

    def _run_batch(
        self, data: Data, graph: Graph, loss: LossSpec, *, update: bool
    ) -> tuple[float, Executable, int]:
        """Copy a checked batch in and run it: the loss, the program, the rows."""
        spec = PlanSpec(
            "train", self._room(data.rows), self._session.dtype, loss, data.kind, data.weighted,
            self._session.optimizer.spec(), trainable=self._trainable("TrainStep"),
        )  # fmt: skip
        exe = self._program(graph, spec, data.rows)
        for name, _ in exe.plan.inputs:
            exe.put(name, data.arrays[name])
        self._run(exe, data.rows, 0, _end(exe, update=update))
        self._session.memory.count_batches(1)
        at = next(m.offset for m in exe.plan.metrics if m.kind == "batch_loss")
        return exe.program.metrics[at], exe, data.rows

    def _callable_batch(self, data: Data, graph: Graph, loss: CallableLoss, *, update: bool) -> float:
        if update and not row_weights(data, slice(None)).any():
            return 0.0  # no row counts: no update either, as in the native step
        value = self._callable_gradients(data, graph, loss)
        if update:
            self._update(None)
        return value

    def _check(self, x: Any, y: Any, weight: Any) -> tuple[Data, Graph, ResolvedLoss]:
        data, graph, self._loss = check_data(
            self._session, x, y, weight, self._loss or self._loss_given, where="TrainStep", batch=True
        )
        return data, graph, self._loss

    def _trainable(self, where: str) -> TrainableSpec:
        return self._session.trainable(self._session.grouping(where=where))

    def _program(self, graph: Graph, spec: PlanSpec, rows: int) -> Executable:
        if rows == 1:
            check_batches(graph, rows, rows, "TrainStep", spec.trainable.frozen)
        return self._session.program(graph, spec)

    def _room(self, rows: int) -> int:
        """Rows the programs are compiled for: they grow by doubling."""
        if rows > self._max_rows:
            self._max_rows = max(rows, 2 * self._max_rows)
        return self._max_rows

    def _run(self, exe: Executable, rows: int, begin: int, end: int, lr: float | None = None) -> None:
        rate = number("TrainStep", "lr", self.lr if lr is None else lr, low=0)
        # Only whole steps are alike, so that their times may decide on the threads.
        adaptive = self._session.adaptive and end - begin == len(exe.plan.steps)
        exe.run(
            rows, begin, end, seed=self._session.seed, step=self._updates, params=self._params(exe, rate),
            adaptive=adaptive,
        )  # fmt: skip

    def _params(self, exe: Executable, lr: float) -> Doubles:
        """The row of step parameters; the last one serves again as long as the learning rate stays."""
        if self._row is None or self._row[0] is not exe or self._row[1] != lr:
            self._row = exe, lr, self._session.params_table(exe.plan, exe.graph, (1.0,), lr)[0]
        return self._row[2]

    def _forward(self, arrays: border.Arrays, graph: Graph) -> tuple[border.Array, Executable, int]:
        rows = border.row_count(arrays)
        spec = PlanSpec(
            "vjp", self._room(rows), self._session.dtype, optimizer=self._session.optimizer.spec(),
            trainable=self._trainable("forward"),
        )  # fmt: skip
        exe = self._program(graph, spec, rows)
        for name, _ in graph.inputs:
            exe.put(name, arrays[name])
        self._run(exe, rows, *exe.plan.section("forward"))
        self._session.memory.count_batches(1)
        shape = border.row_shape(graph.types[graph.output])
        return exe.get("output", rows).reshape(rows, *shape), exe, rows

    def _backward(self, doutput: Any) -> None:
        if self._last is None or self._last[0].plan.mode != "vjp":
            raise RuntimeError("[backward] no forward pass to go back from; call forward(x) first")
        exe, rows = self._last
        shape = (rows, *border.row_shape(exe.graph.types[exe.graph.output]))
        real = self._session.real
        array = border.as_array(doutput, "doutput", where="backward", real=real, check_finite=False)
        if array.shape != shape:
            raise ShapeError(f"[backward] doutput has shape {array.shape}; the output of forward had {shape}")
        if not self._can_go_back:
            raise RuntimeError(
                "[backward] the forward pass was gone back from; each serves once: call forward(x)"
            )
        exe.put("doutput", array)
        self._can_go_back = False
        self._run(exe, rows, *exe.plan.section("backward"))

    def _callable_gradients(self, data: Data, graph: Graph, loss: CallableLoss) -> float:
        inputs = {name: data.arrays[name] for name, _ in graph.inputs}
        output, exe, rows = self._forward(inputs, graph)
        self._last, self._can_go_back = (exe, rows), True
        row_loss, gradient = loss(output, data.arrays["target"])
        weight = row_weights(data, slice(None))
        share = weight / (weight.sum() or 1.0)  # no weight at all: no loss and no gradient
        self._backward(gradient * share.reshape(data.rows, *(1 for _ in output.shape[1:])))
        return float(np.dot(share, row_loss))

    def _update(self, lr: float | None) -> None:
        if self._last is None:
            raise RuntimeError("[update] no gradients to apply; call loss_and_grads or backward first")
        exe, rows = self._last
        self._run(exe, rows, *exe.plan.section("update"), lr=lr)
        self._updates += 1
        self._last = None


def _end(exe: Executable, *, update: bool) -> int:
    """The step of a training program to stop before."""
    return len(exe.plan.steps) if update else exe.plan.section("backward")[1]
