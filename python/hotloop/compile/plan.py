# SPDX-License-Identifier: Apache-2.0
"""The Plan: the only contract between the compiler (Python) and the executors (C++).

A flat list of kernel steps over a table of buffers, for any number of rows up to ``max_rows``. It can be
printed (`explain`), interpreted in NumPy float64 (`interpret`), and handed to the native executor. Plans
are never stored in files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Union

from hotloop.graph import Affine

# input, activation, scratch   the program's arena (offset in the arena)
# parameter, gradient, moment1, moment2, state, counter   the session's memory (offset in that space)
# accumulated, ema, ema_counter                the same; only where a run accumulates gradients or averages
# metric                       the program's block of doubles, zeroed at the start of an epoch
# constant                     the plan's own read-only numbers
BufferKind = Literal[
    "input", "activation", "scratch",
    "parameter", "gradient", "moment1", "moment2", "state", "counter",
    "accumulated", "ema", "ema_counter",
    "metric", "constant",
]  # fmt: skip
ARENA_KINDS = ("input", "activation", "scratch")
BufferDType = Literal["real", "index", "double", "int64"]
Mode = Literal["train", "vjp", "eval", "predict"]

#: Every buffer in the arena, and every parameter in the flat buffers, begins at a multiple of this.
ALIGN_BYTES = 64
#: ... which is this many elements of the flat buffers, whatever the scalar type.
ALIGN_ELEMENTS = 16


#: Bytes of an element of the flat buffers and constants.
REAL_BYTES = {"float32": 4, "float64": 8}

NO_FLOPS = Affine(0, 0)


@dataclass(frozen=True)
class Buffer:
    """``size`` elements of ``dtype``, ``offset`` bytes into the memory that ``kind`` names."""

    name: str
    kind: BufferKind
    dtype: BufferDType
    size: Affine
    offset: int = 0


@dataclass(frozen=True)
class Operand:
    """A place in a buffer: ``offset`` elements in."""

    buffer: int
    offset: int = 0


FieldValue = Union[Operand, Affine, int, float, None]


@dataclass(frozen=True)
class Step:
    """One kernel call: its fields by the names of args.h. Dims are `Affine`; absent operands None."""

    kernel: str
    fields: tuple[tuple[str, FieldValue], ...]
    note: str = ""  # the graph node it came from, for explain
    flops: Affine = NO_FLOPS  # of that node, written on the last of its steps


@dataclass(frozen=True)
class Stage:
    """Steps [begin, end) between two barriers of a team; see stages.py.

    rows    each thread takes blocks of rows through all of them
    chunks  they touch none of one another's buffers; the chunks of all are one pool of work
    """

    kind: Literal["rows", "chunks"]
    begin: int
    end: int


@dataclass(frozen=True)
class Metric:
    """``size`` doubles at ``offset`` (in doubles) of the metric block; ``kind`` says how to read them.

    loss, accuracy, top_k: [sum, weight];  regression: see RegressionStats in args.h;  batch_loss: the last
    batch's;  accumulated: the tally of AccumulateBegin;  batch_weight: the batch's sum of row weights, where
    the caller has to say it.
    """

    name: str
    kind: Literal["loss", "batch_loss", "accuracy", "top_k", "regression", "accumulated", "batch_weight"]
    offset: int
    size: int


def top_k(name: str) -> int | None:
    """The k of a metric's name, if it is one of top-k accuracy.

    >>> top_k("top5_accuracy"), top_k("accuracy")
    (5, None)
    """
    found = re.fullmatch(r"top([1-9]\d*)_accuracy", name)
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Plan:
    """Steps in order. ``sections`` names ranges of them: prepare, forward, backward, accumulate, update as far
    as present.

    The first two doubles of the metric block are always the loss totals (if there is a loss). ``stages``
    cover the steps in order, each within one section; without them every step is one of its own. In a
    training plan with stages the section forward holds the backward steps as well.
    """

    mode: Mode
    dtype: Literal["float32", "float64"]
    max_rows: int
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    sections: tuple[tuple[str, int, int], ...]
    inputs: tuple[tuple[str, int], ...]  # name -> buffer
    outputs: tuple[tuple[str, int], ...]  # name -> buffer
    metrics: tuple[Metric, ...]
    constants: tuple[float, ...]
    arena_bytes: int
    n_groups: int
    n_dropout: int
    flops: Affine
    stages: tuple[Stage, ...] = ()

    def section(self, name: str) -> tuple[int, int]:
        for key, begin, end in self.sections:
            if key == name:
                return begin, end
        raise KeyError(name)

    @property
    def prepare(self) -> int:
        """Where the prepare section ends; 0 without one."""
        return next((end for name, _, end in self.sections if name == "prepare"), 0)

    @property
    def update(self) -> int:
        """Where the update section begins; the number of steps without one."""
        return next((begin for name, begin, _ in self.sections if name == "update"), len(self.steps))


@dataclass(frozen=True)
class ParamEntry:
    """Where one parameter (or state) lies in its flat buffer: torch's shape, row-major, at ``offset``."""

    name: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class ParamLayout:
    """The only map between names and the flat buffers. Entries stand in the order of their offsets, each
    aligned to `ALIGN_ELEMENTS`; what lies between them is zero and stays zero. A parameter's step counter has
    its entry's place. Nothing here depends on optimiser, groups, or what is frozen."""

    entries: tuple[ParamEntry, ...]
    size: int


@dataclass(frozen=True)
class Segment:
    """A run of the flat buffer that one optimiser call updates: elements [begin, end), which hold the entries
    [first, last), under the step parameters of ``group``."""

    group: int
    begin: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class LossSpec:
    """A loss as data. ``kind`` is a kernel name: cross_entropy, mse, mae, huber, bce_with_logits."""

    kind: str
    label_smoothing: float = 0.0
    delta: float = 1.0
    class_weight: tuple[float, ...] | None = None
    pos_weight: tuple[float, ...] | None = None


@dataclass(frozen=True)
class OptimizerSpec:
    """What shapes an optimiser's steps. Learning rate and weight decay are not here: they vary by step."""

    kind: Literal["adam", "adamw", "sgd", "rmsprop"]
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    alpha: float = 0.0
    # False: the rates hold Adam's correction sqrt(1 - beta2^t), so that eps stands beside the bare root
    corrects_root: bool = True
    # "all": one group;  "weights": group 0 decays, group 1 (biases, norms, every 1-D parameter) does not
    decay: Literal["all", "weights"] = "all"


@dataclass(frozen=True)
class TrainableSpec:
    """Which parameters a training plan changes, and with which step parameters; by default all, alike.

    frozen   names of those without gradient, update and decay
    n_rates  how many factors of the learning rate there are; each has groups of its own
    rates    (name, number of its factor) where that is not 0
    ages     (name, class) where that is not 0: parameters of one class have taken equally many steps
    """

    frozen: tuple[str, ...] = ()
    n_rates: int = 1
    rates: tuple[tuple[str, int], ...] = ()
    ages: tuple[tuple[str, int], ...] = ()


ALL_ALIKE = TrainableSpec()


@dataclass(frozen=True)
class PlanSpec:
    """What a plan is compiled for, next to the graph. Hashable: (graph, spec) is the cache's key.

    train    forward, loss, backward, update, statistics     sections forward, backward, update; before update
                                                             accumulate, if the spec says so
    vjp      forward in training mode to output "output"; backward from input "doutput"; update. With
             ``input_gradients`` also outputs "grad:input:NAME" of these inputs, as far as they have influence;
             with ``evaluated`` forward is in evaluation mode
    eval     forward in evaluation mode, loss, statistics    sections prepare, forward
    predict  forward in evaluation mode to output "output"   sections prepare, forward

    What prepare makes depends on parameters alone and stays until they change.

    ``target`` is the type of the target's elements: "index" for class labels (rows), "real" for anything
    of the output's shape (class probabilities, regression targets). ``weighted`` adds the input
    "sample_weight" (rows). The target is the input "target".
    """

    mode: Mode
    max_rows: int
    dtype: Literal["float32", "float64"] = "float32"
    loss: LossSpec | None = None
    target: Literal["index", "real"] = "real"
    weighted: bool = False
    optimizer: OptimizerSpec | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    metrics: tuple[str, ...] = ()  # kinds: accuracy, regression; topK_accuracy
    accumulate: bool = False  # gradients of several batches share an update
    ema: float | None = None  # decay of the moving average of the parameters
    spread: bool = False  # in stages, for a team of threads, or for a device
    device: Literal["cpu", "cuda"] = "cpu"  # which kernels are meant: a CPU's read packed panels
    trainable: TrainableSpec = ALL_ALIKE
    input_gradients: tuple[str, ...] = ()
    evaluated: bool = False
