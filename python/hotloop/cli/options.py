# SPDX-License-Identifier: Apache-2.0
"""Options as data: what several commands share, and the long list of ``hotloop train``.

cyclopts makes flags and help of the fields; ``name="*"`` takes a class's fields into the command's own options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

_data, _output = Group("Data", sort_key=1), Group("Output", sort_key=4)

InData = Parameter(group=_data)
Several = Parameter(group=_data, negative="", show_default=False)
InModel = Parameter(group=Group("Model", sort_key=2))
InTraining = Parameter(group=Group("Training", sort_key=3))
InOutput = Parameter(group=_output)
Switch = Parameter(group=_output, negative="", show_default=False)


def described(command: Callable[..., Any]) -> str:
    """The help of a command: its docstring up to the parameters, one line for each paragraph."""
    text = inspect.getdoc(command) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\nParameters\n")[0].split("\n\n"))


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes.

    Parameters
    ----------
    json
        Print one JSON document instead of text.
    config
        A TOML file with options, in a table of the command's name; flags overrule it.
    """

    json: Annotated[bool, Switch] = False
    config: Annotated[str | None, InOutput] = None


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """What is learnt from which columns, and how the rows are split.

    Parameters
    ----------
    target
        The column to learn; needed for CSV and Parquet.
    task
        What the target is; auto decides by its values.
    ignore
        Columns to leave out, such as id,name; may be repeated.
    split_by_group
        Rows with the same value in this column stay in one part; it is no feature.
    split_by_time
        Train on the earliest rows, test on the latest, by this column; it is no feature.
    drop_missing_target
        Leave out rows without a target, which are refused otherwise.
    check
        Look for faults of the table first; see hotloop check.
    missing
        What stands for a missing number.
    text
        How text becomes numbers; auto decides by how many different ones there are.
    scale
        How numbers are scaled: by mean and deviation, or by median and quartiles.
    clip
        Limit scaled numbers smoothly to this many units, such as 3.
    """

    target: Annotated[str | None, InData] = None
    task: Annotated[Literal["auto", "classification", "regression"], InData] = "auto"
    ignore: Annotated[tuple[str, ...], Several] = ()
    split_by_group: Annotated[str | None, InData] = None
    split_by_time: Annotated[str | None, InData] = None
    drop_missing_target: Annotated[bool, Several] = False
    check: Annotated[bool, InData] = True
    missing: Annotated[Literal["median", "mean"], InData] = "median"
    text: Annotated[Literal["auto", "onehot", "embedding"], InData] = "auto"
    scale: Annotated[Literal["standard", "robust"], InData] = "standard"
    clip: Annotated[float | None, InData] = None


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """The network.

    Parameters
    ----------
    hidden
        Widths of the hidden layers, such as 256,256.
    activation
        What follows each hidden layer.
    dropout
        Share of hidden values dropped in training, in [0, 1).
    """

    hidden: Annotated[str, InModel] = "128"
    activation: Annotated[
        Literal["relu", "gelu", "silu", "mish", "selu", "elu", "tanh", "sigmoid"], InModel
    ] = "relu"
    dropout: Annotated[float, InModel] = 0.0


@Parameter(name="*")
@dataclass(frozen=True)
class TrainingOptions:
    """How it is trained.

    Parameters
    ----------
    epochs
        At most this many passes over the training rows.
    patience
        Epochs without improvement before training ends.
    batch_size
        Rows per step.
    optimizer
        The rule of the updates.
    lr
        Learning rate.
    weight_decay
        Weight decay; default: 0.01 for adamw, else 0.
    momentum
        Momentum of sgd and rmsprop.
    schedule
        How the learning rate goes on from --lr.
    warmup
        Share of the steps in which the learning rate rises to --lr, in [0, 1).
    clip_norm
        Limit of the gradient's norm.
    ema
        Decay of an average of the weights, such as 0.999, which becomes the model.
    loss
        What is minimised; auto: cross_entropy for classes, mse for numbers.
    label_smoothing
        Share of every class's target that is spread over all, in [0, 1].
    class_weight
        Whether rare classes count as much as frequent ones.
    max_time
        Seconds after which training ends.
    checkpoint
        A folder for the state of the run, written after each epoch.
    resume
        A checkpoint or a folder of them to go on from, with the same data and options.
    seed
        Decides the split, the initial weights, the shuffles and the dropout.
    threads
        Threads to use; default: as many as the size of the model is worth.
    device
        Where to train: cpu, cuda, or by what it will cost.
    precision
        Of products on a GPU; coarser is faster.
    """

    epochs: Annotated[int, InTraining] = 200
    patience: Annotated[int, InTraining] = 15
    batch_size: Annotated[int, InTraining] = 32
    optimizer: Annotated[Literal["adamw", "adam", "sgd", "rmsprop"], InTraining] = "adamw"
    lr: Annotated[float, InTraining] = 1e-3
    weight_decay: Annotated[float | None, InTraining] = None
    momentum: Annotated[float, InTraining] = 0.0
    schedule: Annotated[
        Literal["constant", "linear", "cosine", "one_cycle", "reduce_on_plateau"], InTraining
    ] = "constant"
    warmup: Annotated[float, InTraining] = 0.0
    clip_norm: Annotated[float | None, InTraining] = None
    ema: Annotated[float | None, InTraining] = None
    loss: Annotated[Literal["auto", "cross_entropy", "mse", "mae", "huber"], InTraining] = "auto"
    label_smoothing: Annotated[float, InTraining] = 0.0
    class_weight: Annotated[Literal["none", "balanced"], InTraining] = "none"
    max_time: Annotated[float | None, InTraining] = None
    checkpoint: Annotated[str | None, InTraining] = None
    resume: Annotated[str | None, InTraining] = None
    seed: Annotated[int, InTraining] = 0
    threads: Annotated[int | None, InTraining] = None
    device: Annotated[Literal["auto", "cpu", "cuda"], InTraining] = "auto"
    precision: Annotated[Literal["float32", "tf32", "bf16"], InTraining] = "float32"


@Parameter(name="*")
@dataclass(frozen=True)
class OutputOptions:
    """What is written, and shown.

    Parameters
    ----------
    out
        The model file, or a folder for it; default: hotloop-model/.
    report
        Write a page about the run to this file: curves, mistakes on the validation rows, cost, settings.
    progress
        Show the training's progress; by default on a terminal.
    print_config
        Print the options in force as a configuration file, and do nothing else.
    """

    out: Annotated[str | None, InOutput] = None
    report: Annotated[str | None, InOutput] = None
    progress: Annotated[bool | None, InOutput] = None
    print_config: Annotated[bool, Switch] = False


#: The defaults.
COMMON, DATA, MODEL, TRAINING, OUTPUT = (
    Common(),
    DataOptions(),
    ModelOptions(),
    TrainingOptions(),
    OutputOptions(),
)
