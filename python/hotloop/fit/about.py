# SPDX-License-Identifier: Apache-2.0
"""What a run was: its settings, the machine, and what its plan costs, as JSON data in the history.

Written when the run begins, because whoever reads it later has neither the trainer nor the machine. Texts and
numbers under names for readers; what must be exact for a resume is in storage/checkpoint_file.py.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hotloop import __version__, losses
from hotloop.arguments import function_name
from hotloop.engine.native import Engine, NativeEngine
from hotloop.engine.scored import ScoredEngine
from hotloop.fit.cost import counted
from hotloop.fit.job import FitJob

if TYPE_CHECKING:
    from hotloop.trainer import Trainer

#: Layers of a model that are named; those of a deeper one are only counted.
_MAX_LAYERS = 200
_MAX_TEXT = 200


def about_run(trainer: Trainer, job: FitJob) -> dict[str, Any]:
    """{"configuration", "environment", "cost"} of a run that is about to begin."""
    return {
        "configuration": {
            "model": _model(trainer),
            "settings": _settings(trainer, job),
            "data": _data(trainer, job),
        },
        "environment": _environment(job),
        "cost": _cost(job.engine, job),
    }


def _model(trainer: Trainer) -> dict[str, Any]:
    """The layers that hold or do something: [name, what it is, trained numbers]."""
    layers = [
        [name, _short(repr(module)), sum(p.size for p in module._parameters.values())]
        for name, module in trainer.model.named_modules()
        if not module._modules
    ]
    return {
        "name": type(trainer.model).__name__,
        "parameters": sum(p.size for p in trainer.model.parameters()),
        "layers": layers[:_MAX_LAYERS],
        "more_layers": max(len(layers) - _MAX_LAYERS, 0),
    }


def _settings(trainer: Trainer, job: FitJob) -> dict[str, Any]:
    loss = job.engine.loss
    given = trainer.loss
    name = losses.to_dict(loss)["kind" if not isinstance(loss, losses.CallableLoss) else "name"]
    return {
        "loss": _text(given) if isinstance(given, losses.Loss) else name,
        "metrics": ", ".join(job.engine.metrics) or "none",
        "optimizer": _text(job.session.optimizer),
        "schedule": _text(trainer.schedule),
        "freeze": _text(trainer.freeze),
        "epochs": job.epochs,
        "batch size": job.batch_size,
        "steps per epoch": job.steps_per_epoch,
        "shuffle": job.shuffle,
        "seed": job.session.seed,
        "monitor": job.monitor,
        "restore best": job.restore_best,
        "early stopping": _text(job.early_stopping),
        "accumulate": trainer.accumulate,
        "ema": trainer.ema,
        "clip norm": trainer.clip_norm,
        "clip value": trainer.clip_value,
        "max time, s": job.max_time,
        "callbacks": ", ".join(type(c).__name__ for c in job.callbacks) or "none",
    }


def _data(trainer: Trainer, job: FitJob) -> dict[str, Any]:
    streamed = job.train.sample is not job.train
    train = {
        name: f"{array.dtype} {array.shape}{', the first block' * streamed}"
        for name, array in job.train.arrays.items()
    }
    found = {"training": train, "validation rows": {name: data.rows for name, data in job.validation.items()}}
    if trainer.split is not None:
        found["split"] = {
            "rows": str(dataclasses.replace(trainer.split, duplicates=None)),
            "duplicates": trainer.split.duplicates_text(),
            "looks": trainer.split.looks,  # not a copy: looks at the test rows come after the run
        }
    return found


def _environment(job: FitJob) -> dict[str, Any]:
    executable = job.train_pass.executable
    return {
        "began": job.provenance.fitted,
        "hotloop": __version__,
        **_machine(),
        "device": job.device.kind,
        "device chosen": job.device.reason,
        "instruction set": executable.program.isa,
        "threads": executable.threads,
        "processors": os.cpu_count(),
    }


@lru_cache(maxsize=1)
def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor_name(),
    }


def processor_name() -> str:
    """The processor's name as the system tells it, or the architecture."""
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                for line in file:
                    if line.startswith("model name"):
                        return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.machine()


def _cost(engine: Engine, job: FitJob) -> dict[str, Any] | None:
    engine = engine.engine if isinstance(engine, ScoredEngine) else engine
    if not isinstance(engine, NativeEngine):
        return None  # a Python function's part of the step is not in the plan
    exe = job.train_pass.executable
    counts = counted(engine, exe, job.train.rows, job.batch_size, keeps_epochs=job.restore_best)
    return {**counts, "seconds_per_epoch": None}


def _text(value: Any) -> str:
    """A setting for readers: without what is not set, and functions by their names."""
    if value is None:
        return "none"
    if not dataclasses.is_dataclass(value):
        return _short(repr(value))
    fields = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    parts = [f"{name}={_value(field)}" for name, field in fields if field is not None]
    return f"{type(value).__name__}({', '.join(parts)})"


def _value(field: Any) -> str:
    return function_name(field) if callable(field) else _short(repr(field))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
