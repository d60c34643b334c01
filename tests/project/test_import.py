# SPDX-License-Identifier: Apache-2.0
"""What importing costs: a few modules, no threads, little time. Each in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import hotloop as hl

FORBIDDEN = (
    "tensorboardX",
    "sklearn",
    "torch",
    "pandas",
    "rich",
    "matplotlib",
    "cyclopts",
    "scipy",
    "jinja2",
    "narwhals",
)


def in_fresh_python(code: str) -> Any:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_import_loads_no_optional_package_and_starts_no_thread() -> None:
    found = in_fresh_python(
        "import json, sys, threading, os\n"
        "import hotloop as hl\n"
        "[getattr(hl, name) for name in hl.__all__]\n"
        "tasks = len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1\n"
        f"loaded = [m for m in {FORBIDDEN!r} if m in sys.modules]\n"
        "others = sorted({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))\n"
        "print(json.dumps([loaded, threading.active_count(), tasks, others]))"
    )
    loaded, python_threads, tasks, others = found
    assert loaded == []
    assert python_threads == 1
    # numpy's BLAS may have a pool of its own; ours would come on top of it
    alone = in_fresh_python(
        "import json, os, numpy\n"
        "print(json.dumps(len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1))"
    )
    assert tasks == alone
    allowed = {"numpy", "safetensors", "hotloop", "__main__", "sitecustomize", "usercustomize"}
    assert not [m for m in others if m not in allowed and not m.startswith(("_", "pywin", "distutils"))]


def test_import_alone_is_below_100_ms_over_numpy() -> None:
    seconds = min(
        in_fresh_python(
            "import json, time, numpy\nt = time.perf_counter()\nimport hotloop\n"
            "print(json.dumps(time.perf_counter() - t))"
        )
        for _ in range(3)
    )
    assert seconds < 0.1


def test_every_public_name_exists_and_is_listed() -> None:
    assert len(set(hl.__all__)) == len(hl.__all__)
    for name in hl.__all__:
        assert getattr(hl, name) is not None
        assert name in dir(hl)
    with pytest.raises(AttributeError, match="no attribute 'Traner'"):
        hl.Traner  # noqa: B018


def test_errors_are_also_the_builtins_that_users_catch() -> None:
    bases = {
        hl.ShapeError: (ValueError,), hl.DTypeError: (TypeError, ValueError),
        hl.LabelError: (IndexError, ValueError), hl.CheckpointError: (ValueError,),
        hl.DivergenceError: (FloatingPointError,), hl.DeviceError: (RuntimeError,),
    }  # fmt: skip
    for error, builtins in bases.items():
        assert issubclass(error, (hl.HotloopError, *builtins))
        assert all(issubclass(error, builtin) for builtin in builtins)


def test_the_package_for_torch_loads_it_with_its_first_name() -> None:
    code = (
        "import json, sys\n{}import hotloop.torch as ht\n"
        "known = sorted(ht.__all__)\nloaded = 'torch' in sys.modules and sys.modules['torch'] is not None\n"
        "try:\n    ht.Module\n    text = ''\n"
        "except ModuleNotFoundError as error:\n    text = str(error)\n"
        "print(json.dumps([known, loaded, text]))"
    )
    known, loaded, text = in_fresh_python(code.format("sys.modules['torch'] = None\n"))  # as if not installed
    assert {"Module", "from_torch", "to_torch"} <= set(known)
    assert not loaded
    assert text.startswith("[hotloop.torch] Module needs PyTorch") and "pip install 'hotloop[torch]'" in text
    assert not in_fresh_python(code.split("try:")[0].format("") + "print(json.dumps([known, loaded]))")[1]
