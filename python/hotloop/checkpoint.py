# SPDX-License-Identifier: Apache-2.0
"""`Checkpoint`: when to write the state of a run and how much of it to keep; and the folder it goes to.

A file's name holds the number of the run and of its last step, so that names sort as time does. Files are
written as all files are (whole or not at all), and an older one goes only when a newer one is on the disk.
"""

from __future__ import annotations

import pathlib
import re
import tempfile
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal, Union

from hotloop.arguments import count

if TYPE_CHECKING:
    from hotloop.files import Path

_NAME = re.compile(r"run(\d+)-step(\d+)\.safetensors")
#: What `files` leaves of a file when the process is killed in the midst of writing it.
_TORN = re.compile(rf"\.{_NAME.pattern}\..*\.tmp")


@dataclass(frozen=True)
class Checkpoint:
    """Write the state of a run to a folder, from which ``fit(resume=...)`` goes on with the same bits.

    dir    the folder; it is made if there is none
    every  "epoch", or a number of steps (batches, counted through the run). One more is written when the run
           ends, by Ctrl-C, by its time limit or by a callback too
    keep   how many of the newest files stay

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
    """

    dir: Path
    every: Union[int, Literal["epoch"]] = "epoch"
    _: KW_ONLY
    keep: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "dir", pathlib.Path(self.dir))
        if self.every != "epoch":
            if isinstance(self.every, str):
                raise ValueError(
                    f'[Checkpoint] every must be "epoch" or a number of steps, got {self.every!r}'
                )
            object.__setattr__(self, "every", count("Checkpoint", "every", self.every, low=1))
        object.__setattr__(self, "keep", count("Checkpoint", "keep", self.keep, low=1))


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

    def prune(self, run: int, step: int, keep: int) -> None:
        """Remove all but the ``keep`` newest up to a step. Later ones stay: they lead to the same end."""
        past = [path for position, path in self.files() if position <= (run, step)]
        for path in past[:-keep]:
            _remove(path)


def _remove(path: pathlib.Path) -> None:
    with suppress(FileNotFoundError):  # somebody else was faster
        path.unlink()
