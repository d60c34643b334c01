# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from: when it was trained, on what data, with which versions.

Taken by every `fit` of the arrays that it really trains on, so that nothing that happens to the caller's arrays
afterwards can make a file lie; the native fingerprint makes that cheaper than the checks of the same arrays.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hotloop import _core
from hotloop.data import lazy
from hotloop.fit.setup import check_data

if TYPE_CHECKING:
    from hotloop.data import border
    from hotloop.engine.native import Data
    from hotloop.runtime.session import Session


@dataclass(frozen=True)
class DataRecord:
    """A data set as `fit` sees it.

    rows     number of rows
    digests  input, "target" or "sample_weight" -> 32 hexadecimal digits, of dtype, shape and bytes after
             conversion (float64 and float32 of equal values have the same); of a stream none
    """

    rows: int
    digests: Mapping[str, str]

    @classmethod
    def of(cls, data: Data) -> DataRecord:
        if data.sample is not data:
            return cls(data.rows, {})
        return cls(data.rows, {name: digest(array) for name, array in data.arrays.items()})

    def __str__(self) -> str:
        digests = [f"{name} {text[:12]}" for name, text in self.digests.items()] or ["of a stream"]
        return f"{self.rows} rows, {', '.join(digests)}"


@dataclass(frozen=True)
class Provenance:
    """Of the last `fit` of a model.

    fitted      when it began, UTC, such as "2026-11-21T08:15:30Z"
    versions    "hotloop", "numpy", "python" -> version; "isa" -> the kernels; "platform"
    data        what was given as X, y and sample_weight
    validation  each validation set that was given
    held_out    the fraction of the rows that `fit` held out for validation instead (see `seed`), or None
    seed        of the trainer: initial weights, shuffles, dropout and what was held out
    """

    fitted: str
    versions: Mapping[str, str]
    data: DataRecord
    validation: Mapping[str, DataRecord]
    held_out: float | None
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` gives an equal one back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Provenance:
        """Raises `KeyError`, `TypeError` or `ValueError` for data that `to_dict` did not give."""
        return cls(
            fitted=str(data["fitted"]),
            versions=dict(data["versions"]),
            data=DataRecord(**data["data"]),
            validation={name: DataRecord(**record) for name, record in data["validation"].items()},
            held_out=data["held_out"],
            seed=int(data["seed"]),
        )


def digest(array: border.Array) -> str:
    """32 hexadecimal digits of an array's dtype, shape and bytes; not cryptographic.

    >>> digest(np.zeros(3, np.float32)) == digest(np.zeros(3, np.int32))
    False
    """
    # a mapped file of doubles is what it becomes, as an array of them would have on its way in
    dtype = np.dtype(np.float32) if lazy.is_mapped(array) and array.dtype == np.float64 else array.dtype
    head = np.frombuffer(f"{dtype.str}{array.shape}".encode(), np.uint8)
    state = _core.Fingerprinter()
    for _, block in lazy.blocks(array) if lazy.is_lazy(array) or dtype != array.dtype else [(0, array)]:
        state.add(np.ascontiguousarray(block, dtype))
    words = np.array([*_core.fingerprint(head), *state.read()], np.uint64)
    return "".join(f"{word:016x}" for word in _core.fingerprint(words))


def provenance_of(
    data: Data, validation: Mapping[str, Data], *, held_out: float | None, seed: int, isa: str
) -> Provenance:
    """The record of a run that begins now."""
    return Provenance(
        fitted=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions=_versions(isa),
        data=DataRecord.of(data),
        validation={name: DataRecord.of(part) for name, part in validation.items()},
        held_out=held_out,
        seed=seed,
    )


@lru_cache
def _versions(isa: str) -> Mapping[str, str]:
    return {
        "hotloop": _core.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "isa": isa,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def was_trained_on(
    session: Session, loss: Any, provenance: Provenance | None, X: Any, y: Any, weight: Any
) -> bool:
    """See `Trainer.was_trained_on`."""
    data, _, _ = check_data(session, X, y, weight, loss, where="was_trained_on")
    return provenance is not None and provenance.data == DataRecord.of(data)
