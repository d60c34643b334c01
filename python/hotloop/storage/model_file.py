# SPDX-License-Identifier: Apache-2.0
"""A trainer in a file: everything needed to predict, and to train on, without the code that made the model.

The model's tensors stand under torch's names, so that any safetensors reader finds them; what else there is
has a prefix with a slash, which no parameter's name holds. The graph, the choices and the history are JSON.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hotloop import losses, optim
from hotloop.data import border
from hotloop.data.preprocess import Preprocessor
from hotloop.data.split import SplitInfo
from hotloop.early_stopping import EarlyStopping
from hotloop.errors import CheckpointError, HotloopError
from hotloop.fit import context, hyper_schedules
from hotloop.fit.provenance import Provenance
from hotloop.freeze_plan import FreezePlan
from hotloop.graph import graph_from_json, graph_to_json
from hotloop.history import History
from hotloop.nn import GraphModule
from hotloop.storage.checkpoint import Folder
from hotloop.storage.files import Path as FilePath
from hotloop.storage.files import read_safetensors, write_safetensors

if TYPE_CHECKING:
    from hotloop.trainer import Trainer

_VERSION = 1
OPTIMIZER, _PREPROCESSOR = "optimizer/", "preprocessor/"
#: Arguments of Trainer that are stored as they are.
_PLAIN = ("monitor", "restore_best", "clip_norm", "clip_value", "accumulate", "ema", "on_divergence", "seed")


def save(trainer: Trainer, path: FilePath) -> None:
    """Write the trainer to ``path``; see `Trainer.save`."""
    if trainer.history is not None:
        trainer.history.complete()  # the file is read without the rows that it looks at
    write_safetensors(path, *contents(trainer, trainer.history))


def contents(trainer: Trainer, history: History | None) -> tuple[dict[str, border.Array], dict[str, str]]:
    """The tensors and the metadata of a trainer's file. Raises `RuntimeError` before the first use."""
    session = trainer._session
    if session.graph is None:
        raise RuntimeError("[save] the model has not seen data yet, so its graph is unknown; call fit first")
    tensors: dict[str, border.Array] = dict(trainer.model.state_dict())
    tensors.update({OPTIMIZER + key: value for key, value in session.memory.optimizer_state().items()})
    metadata = {
        "kind": "trainer",
        "version": str(_VERSION),
        "graph": graph_to_json(session.graph),
        "trainer": json.dumps(_describe(trainer, history)),
    }
    if trainer.preprocessor is not None:
        arrays, metadata["preprocessor"] = trainer.preprocessor.stored()
        tensors.update({_PREPROCESSOR + key: value for key, value in arrays.items()})
    return tensors, metadata


def _describe(trainer: Trainer, history: History | None) -> dict[str, Any]:
    loss = trainer._known_loss()
    return {
        **{name: getattr(trainer, name) for name in _PLAIN},
        "loss": loss if loss == "auto" else losses.to_dict(losses.resolve(loss)),
        "optimizer": trainer.optimizer.to_dict(),
        "schedule": trainer.schedule.to_dict(),
        "metrics": trainer.metrics,
        "freeze": trainer.freeze and trainer.freeze.to_dict(),
        "frozen": trainer.model.frozen_names(),
        "early_stopping": trainer.early_stopping and dataclasses.asdict(trainer.early_stopping),
        "history": history and history.to_dict(),
        "runs": trainer._runs,
        "provenance": trainer.provenance and trainer.provenance.to_dict(),
        "feature_names": {name: list(columns) for name, columns in trainer.feature_names.items()},
        "split": trainer.split and dataclasses.asdict(trainer.split),
        # in torch's order, which the file does not keep, and with the further names of shared tensors
        "tensors": list(trainer.model.state_dict()),
        "aliases": trainer.model.tied_names(),
    }


def load(path: FilePath, *, threads: int | None = None) -> Trainer:
    """The trainer that `Trainer.save` wrote: parameters, state, moments, counters and history. Of a folder of
    checkpoints it is the newest one that is whole (see `Checkpoint.latest`).

    Its model is a `hl.nn.GraphModule`, made from the stored graph, which predicts and trains without the
    code of the original. A loss or schedule that was a Python callable is known by name only: what needs it
    raises until ``trainer.loss`` or ``trainer.schedule`` is set. Raises `CheckpointError` if the file is not such a file, is damaged or newer, and `OSError`.

    >>> import tempfile, numpy as np, hotloop as hl
    >>> trainer = hl.Trainer(hl.nn.Linear(3, 1), "mse")
    >>> run = trainer.fit(np.eye(3), np.ones(3), epochs=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trainer.save(f"{folder}/model.safetensors")
    ...     again = hl.load(f"{folder}/model.safetensors")
    >>> bool((again.predict(np.eye(3)) == trainer.predict(np.eye(3))).all())
    True
    """
    path = pathlib.Path(path)
    if path.is_dir():
        tensors, metadata = Folder(path).newest(read_safetensors, stacklevel=2)
    else:
        tensors, metadata = read_safetensors(path)
    if metadata.get("kind") != "trainer":
        raise CheckpointError(f"[load] {path} holds tensors, not a trainer; use hl.load_safetensors")
    if not metadata.get("version", "").isdecimal() or int(metadata["version"]) > _VERSION:
        raise CheckpointError(
            f"[load] {path} has version {metadata.get('version')}; this hotloop reads {_VERSION}: upgrade it"
        )
    try:
        return _restore(tensors, metadata, threads)
    except (KeyError, TypeError, ValueError, HotloopError) as error:
        raise CheckpointError(f"[load] {path} does not hold a whole trainer: {error}") from None


def _restore(tensors: dict[str, border.Array], metadata: dict[str, str], threads: int | None) -> Trainer:
    from hotloop.trainer import Trainer

    data = json.loads(metadata["trainer"])
    graph = graph_from_json(metadata["graph"])
    stored = {name: tensors[name] for name in data["tensors"]}
    model = GraphModule(graph, stored, aliases=data["aliases"])
    stopping, metrics = data["early_stopping"], data["metrics"]
    for parameter in map(dict(model.named_parameters()).__getitem__, data.get("frozen", ())):
        parameter.frozen = True
    plan = data.get("freeze")
    trainer = Trainer(
        model,
        loss="auto" if data["loss"] == "auto" else losses.from_dict(data["loss"]),
        optimizer=optim.from_dict(data["optimizer"]),
        schedule=hyper_schedules.from_dict(data["schedule"]),
        freeze=None if plan is None else FreezePlan.from_dict(plan),
        metrics=tuple(metrics) if isinstance(metrics, list) else metrics,
        early_stopping=None if stopping is None else EarlyStopping(**stopping),
        threads=threads,
        **{name: data[name] for name in _PLAIN if name in data},  # else Trainer's own default
    )
    trainer._runs = int(data["runs"])
    trainer.history = None if data["history"] is None else History.from_dict(data["history"])
    trainer.feature_names = {name: tuple(columns) for name, columns in data.get("feature_names", {}).items()}
    if data.get("provenance") is not None:
        trainer.provenance = Provenance.from_dict(data["provenance"])
    if data.get("split") is not None:
        trainer.split = SplitInfo.from_dict(data["split"])
    trainer._session.open(graph)
    trainer._session.memory.load_optimizer_state(part(tensors, OPTIMIZER), "load")
    if "preprocessor" in metadata:
        arrays = part(tensors, _PREPROCESSOR)
        trainer.preprocessor = Preprocessor.from_stored(arrays, metadata["preprocessor"])
    context.remember_loaded(trainer)
    return trainer


def part(tensors: Mapping[str, border.Array], prefix: str) -> dict[str, border.Array]:
    """The tensors whose names begin with ``prefix``, under what follows it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
