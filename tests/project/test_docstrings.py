# SPDX-License-Identifier: Apache-2.0
"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import hotloop as hl

MODULES = [
    m.name
    for m in pkgutil.walk_packages(hl.__path__, "hotloop.")
    # Libraries of device kernels are no modules; runners of the benchmarks load torch, JAX and scikit-learn, and
    # have no examples.
    if not m.name.endswith(("_core", "_cuda", "_simt", "__main__")) and ".benchmarks.run_" not in m.name
]
#: The parts of hotloop.torch; the package itself loads none of them.
OF_TORCH = {name for name in MODULES if name.startswith("hotloop.torch.")}
#: Modules that load a library of an extra at once: name -> library.
NEEDS = {**dict.fromkeys(OF_TORCH, "torch"), "hotloop.data.arrow_files": "pyarrow"}

HAS_ONNX = importlib.util.find_spec("onnx") is not None  # one example needs it


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to write in, with the files that examples of reading name."""
    monkeypatch.chdir(tmp_path)
    for name in ("m.safetensors", "eye.safetensors"):
        hl.save_safetensors({"w": np.eye(2)}, name)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["hotloop", *MODULES])
def test_examples(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(
        importlib.import_module(name), extraglobs={"hl": hl, "np": np, "__name__": "__main__"}
    ):
        if HAS_ONNX or "export_onnx" not in (test.docstring or ""):
            runner.run(test)
    assert runner.summarize().failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        t
        for name in MODULES
        if name not in NEEDS
        for t in finder.find(importlib.import_module(name))
        if t.examples
    ]
    assert len(found) > 40
