# SPDX-License-Identifier: Apache-2.0
"""A run in a file: the model's file, and in it also what the run needs to go on.

The file's own tensors are the model that the run would end with there, its best epoch as a rule, so that
`hl.load` predicts with it. Beside them stand the state in training, where that is another one, the record,
and what a run must have in common with this one to end on the same bits.
"""

from __future__ import annotations

import json
import pathlib
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from hotloop import __version__, losses
from hotloop.data import border, lazy
from hotloop.engine.native import Data, check_totals
from hotloop.errors import CheckpointError, HotloopWarning
from hotloop.fit.job import FitJob, Resumed
from hotloop.fit.record import RunRecord
from hotloop.graph import graph_to_json, unnamed
from hotloop.runtime.memory import ModelMemory, Snapshot
from hotloop.storage import model_file
from hotloop.storage.checkpoint import Checkpoint, Folder, Timetable
from hotloop.storage.files import Path as FilePath
from hotloop.storage.files import digest, read_safetensors, write_safetensors

if TYPE_CHECKING:
    from hotloop.trainer import Trainer

_VERSION = 1
_TOTALS, _OTHER, _BUFFERS = "run/totals", "run/other/", "run/buffers/"
#: What the file's own tensors are, and how the other of both states is stored.
_Main = Literal["live", "kept"]
_Other = Union[Literal["same", "stored"], None]


def recorded(
    trainer: Trainer, job: FitJob, checkpoint: Checkpoint | None, stored: StoredRun | None, *, dry_run: bool
) -> FitJob:
    """The job with its checkpoints, and with the run that it goes on from. The model stays as it is."""
    settings = settings_of(trainer, job)
    if stored is not None:
        resumed = stored.resumed(job, settings)
        resumed.record.history.about = job.history.about  # this process and machine
        job = replace(job, resumed=resumed, history=job.history if dry_run else resumed.record.history)
    if checkpoint is not None:
        recorder = FolderRecorder(trainer, checkpoint, settings)
        recorder.open(job.run, None if stored is None else stored.path, dry_run=dry_run)
        job = replace(job, recorder=recorder)
    return job


# --- writing --------------------------------------------------------------------------------------


class FolderRecorder:
    """Writes the checkpoints of one run; see `fit.job.Recorder`."""

    def __init__(self, trainer: Trainer, checkpoint: Checkpoint, settings: Mapping[str, Any]) -> None:
        self.timetable = Timetable(checkpoint.every)
        self._trainer, self._memory = trainer, trainer._session.memory
        self._folder, self._choice = Folder(checkpoint.dir), checkpoint
        self._settings = settings

    def open(self, run: int, resumed_from: pathlib.Path | None, *, dry_run: bool) -> None:
        """Make the folder ready, or only try whether it could be. Raises `FileExistsError` and other `OSError`."""
        same = resumed_from is not None and resumed_from.parent.resolve() == self._folder.path.resolve()
        prepare = self._folder.try_out if dry_run else self._folder.open
        prepare(run, resumed=same)

    def write(self, record: RunRecord, kept: Snapshot | None, *, ends_on_kept: bool) -> None:
        live = _flat(self._memory, None)
        spare = None if kept is None else _flat(self._memory, kept)
        tensors, metadata = model_file.contents(self._trainer, record.history)
        main: _Main = "live"
        if spare is not None and ends_on_kept:
            main = "kept"
            aliases = self._trainer.model.tied_names()
            tensors.update({**spare, **{alias: spare[name] for alias, name in aliases.items()}})
            spare = live
        other: _Other = None
        if spare is not None:
            other = "same" if all(_same_bits(tensors[name], spare[name]) for name in spare) else "stored"
            if other == "stored":
                tensors.update({_OTHER + name: value for name, value in spare.items()})
        tensors[_TOTALS] = record.totals
        tensors.update({_BUFFERS + name: value for name, value in record.buffers.items()})
        metadata["run"] = json.dumps(
            {
                "version": _VERSION, "hotloop": __version__, "main": main, "other": other,
                "record": record.to_dict(), "settings": self._settings,
            }
        )  # fmt: skip
        write_safetensors(self._folder.file(record.run, record.step), tensors, metadata)
        best = record.best_step if self._choice.keep_best else None
        self._folder.prune(record.run, record.step, self._choice.keep, best)
        self.timetable.restart()


def _flat(memory: ModelMemory, snapshot: Snapshot | None) -> dict[str, border.Array]:
    """The tensors of a snapshot (None: the memory itself) under the names that they have in the file."""
    model, optimizer = memory.tensors(snapshot)
    return {**model, **{model_file.OPTIMIZER + name: value for name, value in optimizer.items()}}


def _same_bits(a: border.Array, b: border.Array) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredRun:
    """What a checkpoint holds, before it is compared with the run that wants to go on from it."""

    path: pathlib.Path
    tensors: Mapping[str, border.Array]
    record: RunRecord
    settings: Mapping[str, Any]
    main: _Main
    other: _Other

    def resumed(self, job: FitJob, settings: Mapping[str, Any]) -> Resumed:
        """The run, fit to go on as ``job``, which has these `settings_of`. Changes nothing.

        Raises `CheckpointError` where the job differs from the run that was stored, or is not whole.
        """
        found = difference(settings, with_absent(self.settings))
        if found is not None:
            what, got, allowed = found
            raise CheckpointError(
                f"[fit] cannot resume from {self.path}: {what} differs, got {got}; allowed {allowed}, as in the "
                "run that was stored; give the same, or start a new run without resume"
            )
        memory = job.session.memory
        own = {name: value for name, value in self.tensors.items() if not name.startswith("run/")}
        states: dict[str, Snapshot | None] = {"live": None, "kept": None}
        try:
            states[self.main] = _snapshot(memory, own)
            if self.other is not None:
                part = own if self.other == "same" else model_file.part(self.tensors, _OTHER)
                states["kept" if self.main == "live" else "live"] = _snapshot(memory, part)
            check_totals(self.record.totals, len(job.train_pass.totals()))
            job.buffers.check(self.record.buffers, self.record.batch)
            if states["live"] is None or self.record.batch > job.steps_per_epoch:
                raise ValueError("the state in training, or its position, is missing")
        except ValueError as error:
            raise CheckpointError(f"[fit] {self.path} does not hold a whole run: {error}") from None
        return Resumed(self.record, states["live"], states["kept"])


def _snapshot(memory: ModelMemory, tensors: Mapping[str, border.Array]) -> Snapshot:
    return memory.snapshot_of(tensors, model_file.part(tensors, model_file.OPTIMIZER))


def read(path: FilePath) -> StoredRun:
    """The run in a checkpoint, or in the newest one of a folder that is whole.

    Raises `CheckpointError` if there is none that is whole, and `OSError`. Damaged ones that were passed over
    are told in a `HotloopWarning`.
    """
    path = pathlib.Path(path)
    return Folder(path).newest(_read, stacklevel=3) if path.is_dir() else _read(path)


def _read(path: pathlib.Path) -> StoredRun:
    tensors, metadata = read_safetensors(path)
    if "run" not in metadata:
        raise CheckpointError(
            f"[fit] {path} holds no run to resume; give a file that hl.Checkpoint wrote, or train on the model "
            "of hl.load without resume"
        )
    try:
        data = json.loads(metadata["run"])
        if int(data["version"]) > _VERSION:
            raise CheckpointError(
                f"[fit] {path} has run version {data['version']}; this hotloop reads up to {_VERSION}: upgrade it"
            )
        buffers = model_file.part(tensors, _BUFFERS)
        record = RunRecord.from_dict(data["record"], tensors[_TOTALS], buffers)
        run = StoredRun(path, tensors, record, dict(data["settings"]), data["main"], data["other"])
        if run.main not in ("live", "kept") or run.other not in (None, "same", "stored"):
            raise ValueError(f"unknown states {run.main!r} and {run.other!r}")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"[fit] {path} does not hold a whole run: {error!r}") from None
    if data.get("hotloop") != __version__:
        warnings.warn(
            f"[fit] {path.name} was written by hotloop {data.get('hotloop')}, this is {__version__}: the run goes "
            "on, but its last bits may differ from those of an uninterrupted one",
            HotloopWarning,
            stacklevel=4,  # read, Trainer.fit, the caller
        )
    return run


# --- comparing ------------------------------------------------------------------------------------

#: Settings that older files lack, by their place in `settings_of`, and what their absence stands for. A setting
#: that is added to `settings_of`, or to what it is made of, gets a row, so that old runs go on.
ABSENT: dict[str, Any] = {"freeze": None, "frozen": [], "accumulate": 1, "ema": None}


def with_absent(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings with the rows of `ABSENT` that they lack, where there is a place for them.

    >>> ABSENT["optimizer.amsgrad"] = False
    >>> with_absent({"optimizer": {"lr": 0.1}})["optimizer"]
    {'lr': 0.1, 'amsgrad': False}
    >>> del ABSENT["optimizer.amsgrad"]
    """
    found: dict[str, Any] = json.loads(json.dumps(settings))
    for place, value in ABSENT.items():
        *parents, name = place.split(".")
        at: Any = found
        for parent in parents:
            at = at.get(parent) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at.setdefault(name, value)
    return found


def settings_of(trainer: Trainer, job: FitJob) -> dict[str, Any]:
    """All that decides on the bits of a run, as JSON data; Python callables by their names.

    The data stand for themselves by a BLAKE2b digest of their bytes, at one to three seconds per gigabyte.
    """
    stopping = job.early_stopping
    plain = {
        "graph": json.loads(graph_to_json(unnamed(job.graph))),
        "loss": losses.to_dict(job.engine.loss),
        "metrics": job.engine.metrics,
        "optimizer": job.session.optimizer.to_dict(),
        "schedule": trainer.schedule.to_dict(),
        "early_stopping": stopping and asdict(stopping),
        "monitor": job.monitor,
        "restore_best": job.restore_best,
        "epochs": job.epochs,
        "batch_size": job.batch_size,
        "shuffle": job.shuffle,
        "seed": job.session.seed,
        "clip_norm": trainer.clip_norm,
        "clip_value": trainer.clip_value,
        "freeze": trainer.freeze and trainer.freeze.to_dict(),
        "frozen": trainer.model.frozen_names(),
        "accumulate": trainer.accumulate,
        "ema": trainer.ema,
        "device": job.device.kind,
        "instruction set": job.train_pass.executable.program.isa,
        "training data": _describe(job.train),
        "validation": {name: _describe(data) for name, data in job.validation.items()},
    }
    if job.session.precision != "float32":
        plain["precision"] = job.session.precision
    return dict(json.loads(json.dumps(plain)))  # tuples become lists, as in a file


def _describe(data: Data) -> dict[str, Any]:
    if data.sample is not data:  # what a stream will give is not known; what it has to be like is
        kinds = {name: [array.dtype.str, array.shape[1:]] for name, array in data.arrays.items()}
        return {"stream": {"rows": data.rows, **kinds}}
    return {
        name: {"shape": array.shape, "dtype": array.dtype.str, "digest": _digest(array)}
        for name, array in data.arrays.items()
    }


def _digest(array: Any) -> str:
    if not lazy.is_lazy(array):
        return digest(np.ascontiguousarray(array))
    return digest(array, (block for _, block in lazy.blocks(array)))


def difference(got: Any, allowed: Any, where: str = "") -> tuple[str, str, str] | None:
    """(where, what is there, what should be) of the first place in which two JSON values differ.

    >>> difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]})
    ('a.1.b', '2', '3')
    """
    if isinstance(got, dict) and isinstance(allowed, dict):
        for key in [*allowed, *(key for key in got if key not in allowed)]:
            place = f"{where}.{key}" if where else str(key)
            if key not in got or key not in allowed:
                there = [f"{side[key]!r:.100}" if key in side else "nothing" for side in (got, allowed)]
                return place, there[0], there[1]
            found = difference(got[key], allowed[key], place)
            if found is not None:
                return found
        return None
    if isinstance(got, list) and isinstance(allowed, list) and len(got) == len(allowed):
        both = zip(got, allowed, strict=True)
        found_at = (difference(a, b, f"{where}.{i}") for i, (a, b) in enumerate(both))
        return next((found for found in found_at if found is not None), None)
    return None if got == allowed else (where, f"{got!r:.100}", f"{allowed!r:.100}")
