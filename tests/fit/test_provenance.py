# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from: digests of what was trained on, dates, versions; in files and after changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotloop as hl
from hotloop import _core
from hotloop.fit.provenance import DataRecord, Provenance, digest

MASK = (1 << 64) - 1


def fingerprint(data: bytes) -> tuple[int, int]:
    """csrc/core/fingerprint.h once more, in Python's integers."""

    def mix(x: int) -> int:
        x = ((x ^ (x >> 33)) * 0xFF51AFD7ED558CCD) & MASK
        x = ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & MASK
        return x ^ (x >> 33)

    def rotl(x: int, bits: int) -> int:
        return ((x << bits) | (x >> (64 - bits))) & MASK

    lanes = [mix(0x9E3779B97F4A7C15 * (i + 1) & MASK) for i in range(8)]
    padded = data + bytes(-len(data) % 64)
    for at in range(0, len(padded), 8):
        word, i = int.from_bytes(padded[at : at + 8], "little"), at // 8 % 8
        lanes[i] = rotl((lanes[i] + word * 0x243F6A8885A308D3) & MASK, 31) * 0x9E3779B97F4A7C15 & MASK
    hi, lo = mix(len(data)), mix(~len(data) & MASK)
    for lane in lanes:
        hi, lo = mix(hi ^ lane), mix((lo + rotl(lane, 32)) & MASK)
    return hi, lo


@given(st.binary(max_size=300))
def test_the_native_fingerprint_is_what_its_header_says(data: bytes) -> None:
    assert _core.fingerprint(np.frombuffer(data, np.uint8)) == fingerprint(data)


def test_digests_are_fixed_and_tell_arrays_apart() -> None:
    x = np.arange(12, dtype=np.float32)
    assert digest(x) == "b6cac46e9d971195eb524ec2b5b15394"  # written down in files
    others = [
        x.reshape(3, 4),
        x.reshape(4, 3),
        x.astype(np.float64),
        x.view(np.int32),
        -x,
        x[::-1].copy(),
        x[:-1],
    ]
    assert len({digest(array) for array in [x, *others]}) == len(others) + 1
    negated = [np.where(np.arange(12) % 2 == side, -x, x).astype(np.float32) for side in (0, 1)]
    assert digest(negated[0]) != digest(negated[1])


def test_a_fit_leaves_its_record(toy: Any) -> None:
    X, y = toy.classes(100)
    trainer = hl.Trainer(toy.mlp(6, 3), seed=4)
    assert trainer.provenance is None
    trainer.fit(X, y, epochs=1, validation={"a": (X[:7], y[:7]), "b": (X[:5], y[:5], np.ones(5))})
    found = trainer.provenance
    assert found is not None
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.fitted)
    assert found.versions["hotloop"] == hl.__version__
    assert found.versions["numpy"] == np.__version__
    assert found.versions["isa"] == _core.best_isa()
    assert found.data == DataRecord(100, {"x": digest(X), "target": digest(y.astype(np.int32))})
    assert {name: (part.rows, sorted(part.digests)) for name, part in found.validation.items()} == {
        "a": (7, ["target", "x"]), "b": (5, ["sample_weight", "target", "x"])
    }  # fmt: skip
    assert (found.held_out, found.seed) == (None, 4)
    assert Provenance.from_dict(found.to_dict()) == found
    trainer.fit(X, y, epochs=1, validation=0.2)
    assert trainer.provenance is not None
    assert (trainer.provenance.held_out, trainer.provenance.validation) == (0.2, {})
    assert trainer.provenance.data.rows == 100  # as given: who has the same data can check


def test_a_dry_run_and_a_refused_fit_leave_none(toy: Any) -> None:
    X, y = toy.classes(20)
    trainer = hl.Trainer(toy.mlp(6, 3))
    trainer.fit(X, y, dry_run=True)
    with pytest.raises(hl.LabelError):
        trainer.fit(X, y + 7)
    assert trainer.provenance is None


def test_what_happens_to_the_arrays_afterwards_is_noticed(toy: Any, tmp_path: Path) -> None:
    """The file keeps the digest of what was trained on, not of what the caller's array holds when it is saved."""
    X, y = toy.classes(100)
    original = X.copy()
    trainer = hl.Trainer(toy.mlp(6, 3))
    trainer.fit(X, y, epochs=1)
    assert trainer.was_trained_on(X, y)
    X[3, 2] += 1e-3
    assert not trainer.was_trained_on(X, y)
    trainer.save(tmp_path / "m")
    again = hl.load(tmp_path / "m")
    assert again.provenance == trainer.provenance
    assert not again.was_trained_on(X, y)
    for same in (original, original.astype(np.float64), np.asfortranarray(original), original.tolist()):
        assert again.was_trained_on(same, y)
    assert not again.was_trained_on(original, y, np.ones(100))
    assert not again.was_trained_on(original[::-1], y[::-1])  # the order decides on the batches
    with pytest.raises(hl.ShapeError):
        again.was_trained_on(original[:, :3], y)


def test_checkpoints_and_resumed_runs_have_it_too(tmp_path: Path) -> None:
    from tests import runs

    runs.interrupted("two_inputs", tmp_path, 7)
    found = hl.load(tmp_path).provenance
    assert found is not None and sorted(found.data.digests) == ["cat", "num", "target"]
    trainer, fit = runs.make("two_inputs")
    trainer.fit(**fit, resume=tmp_path)
    assert trainer.provenance.data == found.data
    assert trainer.was_trained_on(fit["X"], fit["y"])
