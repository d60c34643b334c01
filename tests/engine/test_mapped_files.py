# SPDX-License-Identifier: Apache-2.0
"""Files larger than memory: the bits of the arrays in them, and how little memory they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.data import lazy
from hotloop.fit.provenance import digest

_RNG = np.random.Generator(np.random.PCG64(2))
X = _RNG.normal(size=(303, 12))
IDS = _RNG.integers(0, 50, size=(303, 12))
y = (X[:, 0] > 0).astype(np.int64)


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Writes an array to a file and maps it; blocks are so small that there are many."""
    monkeypatch.setattr(lazy, "BLOCK_BYTES", 1 << 12)

    def write(array: Any) -> Any:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, array)
        return np.load(path, mmap_mode="r")

    return write


def trainer(**options: Any) -> Any:
    model = hl.nn.Sequential(hl.nn.Linear(12, 8), hl.nn.ReLU(), hl.nn.Dropout(0.1), hl.nn.Linear(8, 2))
    return hl.Trainer(model, "cross_entropy", **options)


def same(a: Any, b: Any) -> bool:
    states = a.model.state_dict(), b.model.state_dict()
    equal = all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    return equal and a.history.history == b.history.history


FORMS: dict[str, Callable[[Any], Any]] = {
    "float32": lambda x: x.astype(np.float32),
    "float64": lambda x: x,
    "float16": lambda x: x.astype(np.float16),
    "big endian": lambda x: x.astype(">f8"),
    "columns first": np.asfortranarray,
    "uint8": lambda x: (x * 20).clip(0, 255).astype(np.uint8),
    "int16": lambda x: (x * 20).astype(np.int16),
    "int32": lambda x: (x * 20).astype(np.int32),
    "int64": lambda x: (x * 20).astype(np.int64),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("settings", [{"validation": 0.2}, {"shuffle": False}], ids=["held out", "in order"])
def test_a_mapped_file_gives_the_bits_of_its_array(
    form: str, settings: dict[str, Any], mapped: Callable[[Any], Any]
) -> None:
    data = FORMS[form](X)
    options = {"accumulate": 3, "schedule": "cosine"}
    array, file = trainer(**options), trainer(**options)
    array.fit(data, y, epochs=3, **settings)
    file.fit(mapped(data), mapped(y), epochs=3, **settings)
    assert same(array, file)
    assert file.evaluate(mapped(data), y) == array.evaluate(data, y)
    assert np.array_equal(file.predict(mapped(data)), array.predict(data))
    assert file.was_trained_on(data, y)
    assert array.was_trained_on(mapped(data), mapped(y))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, ">i4"])
def test_mapped_ids_index_an_embedding(dtype: Any, mapped: Callable[[Any], Any]) -> None:
    def embedded() -> Any:
        model = hl.nn.Sequential(hl.nn.Embedding(50, 3), hl.nn.Flatten(), hl.nn.Linear(36, 2))
        return hl.Trainer(model, "cross_entropy")

    array, file = embedded(), embedded()
    array.fit(IDS.astype(dtype), y, epochs=2, validation=0.2)
    file.fit(mapped(IDS.astype(dtype)), y, epochs=2, validation=0.2)
    assert same(array, file)
    bad = IDS.copy()
    bad[301, 2] = 77
    with pytest.raises(hl.LabelError, match=r"= 77 is not an index"):
        embedded().fit(mapped(bad.astype(dtype)), y)


def test_targets_as_wide_as_the_inputs_and_weights_may_be_files_too(mapped: Callable[[Any], Any]) -> None:
    array, file = (hl.Trainer(hl.nn.Linear(12, 12), "mse") for _ in range(2))
    weight = np.linspace(0.1, 1, 303)
    array.fit(X, X, epochs=2, sample_weight=weight, validation=0.1)
    file.fit(mapped(X), mapped(X), epochs=2, sample_weight=mapped(weight), validation=0.1)
    assert same(array, file)


def test_a_loss_in_python_reads_rows_as_well(mapped: Callable[[Any], Any]) -> None:
    def loss(prediction: Any, target: Any) -> Any:
        error = prediction - target
        return (error**2).mean(axis=1), 2 * error / error.shape[1]

    array, file = (hl.Trainer(hl.nn.Linear(12, 12), loss) for _ in range(2))
    array.fit(X, X, epochs=2, validation=0.1)
    file.fit(mapped(X), mapped(X), epochs=2, validation=0.1)
    assert same(array, file)


def test_the_first_bad_value_is_found_in_any_block(mapped: Callable[[Any], Any]) -> None:
    bad = X.copy()
    bad[300, 3] = np.nan
    for form in (np.float32, np.float64, ">f8"):
        with pytest.raises(hl.NonFiniteError, match=r"X\[300, 3\] = nan is not a finite float32"):
            trainer().fit(mapped(bad.astype(form)), y)
    bad[300, 3] = 1e300
    with pytest.raises(hl.NonFiniteError, match=r"X\[300, 3\] = 1e\+300 is not a finite float32"):
        trainer().fit(mapped(bad), y)


def test_a_run_over_a_file_resumes(mapped: Callable[[Any], Any], tmp_path: Path) -> None:
    whole = trainer()
    whole.fit(
        mapped(X), y, epochs=3, validation=0.2, checkpoint=hl.Checkpoint(tmp_path / "run", every=7, keep=9)
    )
    for file in sorted((tmp_path / "run").glob("*.safetensors")):
        again = trainer()
        again.fit(mapped(X), y, epochs=3, validation=0.2, resume=file)
        assert same(again, whole)


def test_a_digest_in_blocks_is_that_of_the_array(mapped: Callable[[Any], Any]) -> None:
    part = _RNG.permutation(303)[:150]
    rows = lazy.LazyRows(mapped(X.astype(np.float16)), np.float32, part)
    assert digest(rows) == digest(X.astype(np.float16)[part].astype(np.float32))  # type: ignore[arg-type]
    assert digest(mapped(X)) == digest(X.astype(np.float32))
    assert digest(mapped(X)) != digest(X.astype(np.float32) + 1)


SCRIPT = """
import json, os, sys, threading, time
import numpy as np
import hotloop as hl

def anonymous():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous")) * 1024

if sys.argv[1].endswith("npz"):
    from scipy import sparse

    X = sparse.load_npz(sys.argv[1])
else:
    X = np.load(sys.argv[1], mmap_mode="r")
y = (np.arange(X.shape[0]) % 2).astype(np.int64)
model = hl.nn.Sequential(hl.nn.Linear(X.shape[1], 8), hl.nn.ReLU(), hl.nn.Linear(8, 2))
trainer = hl.Trainer(model, "cross_entropy")
before, peak, done = anonymous(), {}, threading.Event()
phase = "fit"

def watch():
    while not done.is_set():
        peak[phase] = max(peak.get(phase, 0), anonymous() - before)
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
settings = {"epochs": 1, "batch_size": 512}
trainer.fit(X, y, **settings)
phase = "fit with validation and a checkpoint"
trainer.fit(X, y, validation=0.1, checkpoint=hl.Checkpoint(sys.argv[2]), **settings)
phase = "evaluate"
trainer.evaluate(X, y)
phase = "predict"
trainer.predict(X)
done.set()
watcher.join()
print(json.dumps(peak))
"""


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="its allocator keeps what is freed")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_private_memory_stays_below_a_quarter_of_the_file(dtype: str, tmp_path: Path) -> None:
    path, columns = tmp_path / "large.npy", 512
    rows = (224 << 20) // (columns * np.dtype(dtype).itemsize)
    file = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=(rows, columns))
    block = _RNG.integers(0, 100, size=(256, columns)).astype(dtype)
    for first in range(0, rows, 256):
        file[first : first + 256] = block[: rows - first]
    del file
    for phase, peak in peaks(path).items():
        assert peak < path.stat().st_size / 4, f"{phase}: {peak >> 20} MiB"


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="its allocator keeps what is freed")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_sparse_matrix_is_never_dense_as_a_whole(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    rows, columns = 60_000, 1000
    path = tmp_path / "sparse.npz"
    at = _RNG.integers(0, columns, 2 * rows)  # two values a row
    matrix = (np.ones(2 * rows, np.float32), at, np.arange(0, 2 * rows + 1, 2))
    sparse.save_npz(path, sparse.csr_matrix(matrix, shape=(rows, columns)), compressed=False)
    for phase, peak in peaks(path).items():
        assert peak < 4 * rows * columns / 4, f"{phase}: {peak >> 20} MiB"


def peaks(path: Path) -> dict[str, int]:
    """Private bytes at most, beyond those before, in each phase of `SCRIPT` on the data of a file."""
    command = [sys.executable, "-c", SCRIPT, str(path), str(path.parent / "run")]
    # blocks of freed memory that the allocator keeps for each thread are none of the data
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    assert set(found) == {"fit", "fit with validation and a checkpoint", "evaluate", "predict"}
    return found
