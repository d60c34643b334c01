# SPDX-License-Identifier: Apache-2.0
"""hotloop trains neural networks at the speed of the hardware: whole epochs run in native code.

>>> import hotloop as hl
>>> model = hl.nn.Sequential(hl.nn.Linear(64, 128), hl.nn.ReLU(), hl.nn.Linear(128, 10))
>>> trainer = hl.Trainer(model, loss="cross_entropy")

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hotloop.errors import (
    CheckpointError,
    DeviceError,
    DivergenceError,
    DTypeError,
    GraphError,
    HotloopError,
    HotloopWarning,
    InternalError,
    LabelError,
    NonFiniteError,
    ShapeError,
)

if TYPE_CHECKING:
    from hotloop import callbacks as callbacks
    from hotloop import data as data
    from hotloop import diagnosis as diagnosis
    from hotloop import losses as losses
    from hotloop import nn as nn
    from hotloop import ops as ops
    from hotloop import optim as optim
    from hotloop import schedules as schedules
    from hotloop import torch as torch
    from hotloop.callbacks import Callback as Callback
    from hotloop.callbacks import FitState as FitState
    from hotloop.data.split import Split as Split
    from hotloop.data.split import split as split
    from hotloop.data.table_check import TableCheck as TableCheck
    from hotloop.data.table_check import check as check
    from hotloop.early_stopping import EarlyStopping as EarlyStopping
    from hotloop.fit.cost import CostPlan as CostPlan
    from hotloop.freeze_plan import FreezePlan as FreezePlan
    from hotloop.history import History as History
    from hotloop.ops.device import DeviceArray as DeviceArray
    from hotloop.probes.dry_result import DryRun as DryRun
    from hotloop.probes.lr_result import LrFind as LrFind
    from hotloop.probes.overfit import OverfitCheck as OverfitCheck
    from hotloop.runtime.device import Device as Device
    from hotloop.runtime.device import devices as devices
    from hotloop.runtime.device import show_config as show_config
    from hotloop.runtime.threads import get_num_threads as get_num_threads
    from hotloop.runtime.threads import set_num_threads as set_num_threads
    from hotloop.sklearn import MLPClassifier as MLPClassifier
    from hotloop.sklearn import MLPRegressor as MLPRegressor
    from hotloop.sklearn import cross_validate as cross_validate
    from hotloop.storage.checkpoint import Checkpoint as Checkpoint
    from hotloop.storage.files import load_safetensors as load_safetensors
    from hotloop.storage.files import save_safetensors as save_safetensors
    from hotloop.storage.model_file import load as load
    from hotloop.train_step import TrainStep as TrainStep
    from hotloop.trainer import Trainer as Trainer

_MODULES = ("callbacks", "data", "diagnosis", "losses", "nn", "ops", "optim", "schedules", "torch")
_HOMES = {
    "Callback": "callbacks",
    "Checkpoint": "storage.checkpoint",
    "CostPlan": "fit.cost",
    "Device": "runtime.device",
    "DeviceArray": "ops.device",
    "DryRun": "probes.dry_result",
    "EarlyStopping": "early_stopping",
    "FitState": "callbacks",
    "FreezePlan": "freeze_plan",
    "History": "history",
    "LrFind": "probes.lr_result",
    "OverfitCheck": "probes.overfit",
    "Split": "data.split",
    "TableCheck": "data.table_check",
    "TrainStep": "train_step",
    "Trainer": "trainer",
    "check": "data.table_check",
    "devices": "runtime.device",
    "get_num_threads": "runtime.threads",
    "load": "storage.model_file",
    "load_safetensors": "storage.files",
    "save_safetensors": "storage.files",
    "set_num_threads": "runtime.threads",
    "show_config": "runtime.device",
    "split": "data.split",
}
#: What needs an optional package, which `from hotloop import *` must not load.
_OPTIONAL = {
    "MLPClassifier": "sklearn.classifier",
    "MLPRegressor": "sklearn.regressor",
    "cross_validate": "sklearn.cross_validation",
}

__all__ = [
    "CheckpointError", "DTypeError", "DeviceError", "DivergenceError", "GraphError", "HotloopError",
    "HotloopWarning", "InternalError", "LabelError", "NonFiniteError", "ShapeError", "__version__",
    *_MODULES, *_HOMES,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(f"hotloop.{name}")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"hotloop.{_HOMES[name]}"), name)
    elif name in _OPTIONAL:
        value = getattr(importlib.import_module(f"hotloop.{_OPTIONAL[name]}"), name)
    elif name == "__version__":
        value = importlib.import_module("hotloop._core").__version__
    else:
        raise AttributeError(f"module 'hotloop' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_OPTIONAL})
