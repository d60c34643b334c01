# SPDX-License-Identifier: Apache-2.0
"""`Checkpoint`: when to write the state of a run and how much of it to keep; and the folder it goes to.

A file's name holds the number of the run and of its last step, so that names sort as time does. Files are
written as all files are (whole or not at all), and an older one goes only when a newer one is on the disk.
Which file is the best one is written in each file, so that no mark can be left behind or be missing.
"""

from __future__ import annotations

import errno
import json
import pathlib
import re
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Union

from hotloop.arguments import count
from hotloop.errors import CheckpointError, HotloopWarning

if TYPE_CHECKING:
    from hotloop.storage.files import Path

T = TypeVar("T")
_NAME = re.compile(r"run(\d+)-step(\d+)\.safetensors")
#: What `files` leaves of a file when the process is killed in the midst of writing it.
_TORN = re.compile(rf"\.{_NAME.pattern}\..*\.tmp")
_DURATION = re.compile(r"(\d+(?:\.\d*)?)\s*(s|sec|min|h)")
_SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
_ALLOWED = '"epoch", a number of steps, or a time such as "10min" (s, min, h) or a timedelta'


@dataclass(frozen=True)
class Checkpoint:
    """Write the state of a run to a folder, from which ``fit(resume=...)`` goes on with the same bits.

    dir        the folder; it is made if there is none
    every      "epoch", a number of steps (batches, counted through the run), or a time from the end of one
               writing to the next: "30s", "10min", "2h" or a timedelta. One more is written when the run ends,
               by Ctrl-C, by its time limit or by a callback too
    keep       how many of the newest files stay
    keep_best  keep the file that was written at the end of the best epoch too, as long as it is the best

    Each file is also a model file: `hl.load` gives the trainer that the run would have ended with there.
    Raises `TypeError` or `ValueError` for another ``every`` and numbers below 1.

    >>> import tempfile, numpy as np, hotloop as hl
    >>> X, folder = np.eye(4), tempfile.mkdtemp()
    >>> whole = hl.Trainer(hl.nn.Linear(4, 1), "mse").fit(X, X[:, 0], epochs=6)
    >>> class Stop(hl.Callback):
    ...     def on_epoch_end(self, state):
    ...         return state.epoch == 2
    >>> first = hl.Trainer(hl.nn.Linear(4, 1), "mse", callbacks=[Stop()])
    >>> first.fit(X, X[:, 0], epochs=6, checkpoint=hl.Checkpoint(folder)).epochs
    2
    >>> rest = hl.Trainer(hl.nn.Linear(4, 1), "mse").fit(X, X[:, 0], epochs=6, resume=folder)
    >>> rest.history == whole.history
    True
    >>> hl.Checkpoint.latest(folder).name, hl.Checkpoint.best(folder).name
    ('run0000-step000000000002.safetensors', 'run0000-step000000000002.safetensors')
    """

    dir: Path
    every: Union[int, str, timedelta] = "epoch"
    _: KW_ONLY
    keep: int = 2
    keep_best: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "dir", pathlib.Path(self.dir))
        object.__setattr__(self, "every", _checked_every(self.every))
        object.__setattr__(self, "keep", count("Checkpoint", "keep", self.keep, low=1))
        object.__setattr__(self, "keep_best", bool(self.keep_best))

    @staticmethod
    def latest(dir: Path) -> pathlib.Path:
        """The newest checkpoint of a folder that is whole, which is what ``fit(resume=dir)`` and
        ``hl.load(dir)`` take.

        Damaged files that are passed over are told in a `HotloopWarning`. Raises `CheckpointError` if all are
        damaged, `FileNotFoundError` if there are none, and other `OSError`.
        """
        return Folder(dir).newest(_metadata, stacklevel=2)[0]

    @staticmethod
    def best(dir: Path) -> pathlib.Path:
        """The checkpoint whose model is that of the best epoch of the folder's newest run.

        It is the file written at the end of that epoch; without one (``keep_best=False``, or ``every`` is not
        "epoch") the newest, if its model is that epoch's, as it is where training restores the best epoch.
        Raises as `latest`, and `FileNotFoundError` if no file holds that epoch's model.
        """
        folder = Folder(dir)
        newest, metadata = folder.newest(_metadata, stacklevel=2)
        run = json.loads(metadata["run"]) if "run" in metadata else {}
        record, step = run.get("record", {}), run.get("record", {}).get("best_step")
        if step is not None:
            file = folder.file(record["run"], step)
            if file.exists():
                return file
        if run.get("main") == "kept" and record["kept_epoch"] == record["best"]["epoch"]:
            return newest
        raise FileNotFoundError(
            errno.ENOENT, "[Checkpoint] no checkpoint holds the model of the best epoch", str(dir)
        )


def _metadata(path: pathlib.Path) -> tuple[pathlib.Path, dict[str, str]]:
    """The metadata of a file whose digests are right."""
    from hotloop.storage.files import read_safetensors  # with hashing, which training does not need

    return path, read_safetensors(path)[1]


def _checked_every(every: Any) -> Union[int, str, timedelta]:
    if isinstance(every, str) and every != "epoch":
        found = _DURATION.fullmatch(every.strip())
        if found is None:
            raise ValueError(f"[Checkpoint] every must be {_ALLOWED}, got {every!r}")
        every = timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    if isinstance(every, timedelta):
        if every <= timedelta(0):
            raise ValueError(f"[Checkpoint] every must be longer than nothing, got {every}")
        return every
    return every if every == "epoch" else count("Checkpoint", "every", every, low=1)


class Timetable:
    """When checkpoints are due in one run: by epochs, steps or time.

    ``seconds_left`` and ``batches_left`` say when the loop has to pause, ``is_due`` whether to write there.
    """

    def __init__(
        self, every: Union[int, str, timedelta], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._steps = every if isinstance(every, int) else None
        self._seconds = every.total_seconds() if isinstance(every, timedelta) else None
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Time counts from here: a checkpoint is on the disk. What writing takes is not counted, so that a slow
        disk cannot make a run do nothing else."""
        self._begin = self._clock()

    def batches_left(self, step: int) -> int:
        """Batches from a step of the run to the next checkpoint that is due by their number; -1: none is."""
        return -1 if self._steps is None else self._steps - step % self._steps

    def seconds_left(self) -> list[float]:
        """Seconds until the next checkpoint that is due by the clock: one number or none."""
        if self._seconds is None:
            return []
        return [max(self._begin + self._seconds - self._clock(), 0.0)]

    def is_due(self, step: int, *, epoch_end: bool = False) -> bool:
        """Whether to write after a step of the run."""
        if self._steps is not None:
            return step % self._steps == 0
        if self._seconds is not None:
            return self._clock() >= self._begin + self._seconds
        return epoch_end


class Folder:
    """The checkpoints of a folder."""

    def __init__(self, path: Path) -> None:
        self.path = pathlib.Path(path)

    def file(self, run: int, step: int) -> pathlib.Path:
        """Where the checkpoint of a step of a run belongs."""
        return self.path / f"run{run:04d}-step{step:012d}.safetensors"

    def files(self) -> list[tuple[tuple[int, int], pathlib.Path]]:
        """((run, step), path) of each checkpoint, in that order. Raises `OSError`."""
        found = [(_NAME.fullmatch(path.name), path) for path in self.path.iterdir()]
        return sorted(((int(m[1]), int(m[2])), path) for m, path in found if m)

    def newest(self, read: Callable[[pathlib.Path], T], *, stacklevel: int = 1) -> T:
        """What ``read`` makes of the newest file that it does not raise `CheckpointError` for.

        Raises as `Checkpoint.latest`; ``stacklevel`` is the warning's, counted from the caller.
        """
        files = [file for _, file in self.files()]
        if not files:
            raise FileNotFoundError(errno.ENOENT, "[Checkpoint] no checkpoint in this folder", str(self.path))
        first: CheckpointError | None = None
        for file in reversed(files):
            try:
                found = read(file)
            except CheckpointError as error:
                first = first or error
                continue
            if first is not None:
                warnings.warn(
                    f"{first}. Taking {file.name} instead", HotloopWarning, stacklevel=stacklevel + 1
                )
            return found
        assert first is not None  # there is at least one file
        raise first

    def open(self, run: int, *, resumed: bool) -> None:
        """Make the folder, and clear away what a killed process left half-written.

        Raises `FileExistsError` if it holds this run already and the run is not ``resumed``: two runs in one
        folder could not be told apart.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._refuse(run, resumed=resumed)
        for path in self.path.iterdir():
            if _TORN.fullmatch(path.name):
                _remove(path)

    def try_out(self, run: int, *, resumed: bool) -> None:
        """Raises what `open` and writing would raise, `OSError`, and leaves nothing behind: a file is written
        to the folder, or to the one in which it would be made, and removed."""
        place = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        import tempfile  # with much that training does not need

        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"hotloop")
        if place == self.path:
            self._refuse(run, resumed=resumed)

    def _refuse(self, run: int, *, resumed: bool) -> None:
        there = [path for (other, _), path in self.files() if other >= run]
        if there and not resumed:
            raise FileExistsError(
                f"[fit] {self.path} already holds checkpoints of such a run, as {there[-1].name}; "
                "go on with resume=, or choose another folder"
            )

    def prune(self, run: int, step: int, keep: int, best: int | None = None) -> None:
        """Remove all but the ``keep`` newest up to a step, and that of the ``best`` step. Later ones stay:
        they lead to the same end."""
        past = [(at, path) for at, path in self.files() if at <= (run, step)]
        for at, path in past[:-keep]:
            if at != (run, best):
                _remove(path)


def _remove(path: pathlib.Path) -> None:
    with suppress(FileNotFoundError):  # somebody else was faster
        path.unlink()
