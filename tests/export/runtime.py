# SPDX-License-Identifier: Apache-2.0
"""A model in onnxruntime beside ours: what the tests of the export share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import hotloop as hl

ROWS = (1, 2, 33)


def session(path: Path) -> Any:
    """The file in onnxruntime on one thread, checked once more as a file."""
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # its notes on constants that it folds
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(path: Path, feed: dict[str, Any]) -> dict[str, Any]:
    """All outputs of the file for these inputs, by name."""
    loaded = session(path)
    return dict(zip([o.name for o in loaded.get_outputs()], loaded.run(None, feed)))


def assert_equal_to_1e5(model: hl.nn.Module, X: Any, path: Path) -> None:
    """The model and its file give the same for 1, 2 and 33 of the rows; ``X``: an array or named ones."""
    inputs = X if isinstance(X, dict) else {"x": X}
    model.export_onnx(path, X)
    loaded = session(path)
    step = hl.TrainStep(model, "mse", "sgd")
    for rows in ROWS:
        part = {name: array[:rows] for name, array in inputs.items()}
        expected = step.predict(part if isinstance(X, dict) else part["x"])
        feed = {k: v.astype(np.int64 if v.dtype.kind in "iu" else np.float32) for k, v in part.items()}
        (found,) = loaded.run(None, feed)
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
