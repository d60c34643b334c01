# SPDX-License-Identifier: Apache-2.0
"""``hotloop info``: this installation, or what a model file holds."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import platform
from typing import Any

from hotloop import _core, env
from hotloop.cli.console import Result
from hotloop.cli.options import COMMON, Common

EXAMPLES = """Examples:
  hotloop info
  hotloop info hotloop-model/digits.safetensors --json"""


def info(model: str | None = None, *, common: Common = COMMON) -> Result:
    """Show this installation (version, kernels, threads, devices), or what a model file holds.

    Parameters
    ----------
    model
        A file that hotloop wrote, or a folder of checkpoints.
    """
    import hotloop

    if model is None:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            hotloop.show_config()
        return Result(text.getvalue().rstrip("\n"), _installation())
    known = hotloop.load(model).info
    return Result(f"{model}: {known}", {"model": model, **_model(known)})


def _installation() -> dict[str, Any]:
    import hotloop

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "kernels": env.isa() or _core.best_isa(),
        "isas": list(_core.isas()),
        "processors": _core.cpu_count(),
        "threads": hotloop.get_num_threads(),
        "devices": [dataclasses.asdict(device) for device in hotloop.devices()],
    }


def _model(known: Any) -> dict[str, Any]:
    data = {
        name: getattr(known, name)
        for name in ("parameters", "loss", "optimizer", "schedule", "task", "target")
    }
    history = known.history
    return {
        **data,
        "features": list(known.features),
        "classes": list(known.classes),
        "tensors": {name: list(shape) for name, shape in known.tensors.items()},
        "runs": known.runs,
        "split": known.split and dataclasses.asdict(known.split),
        "provenance": known.provenance and known.provenance.to_dict(),
        "run": None
        if history is None
        else {
            "epochs": history.epochs,
            "best_epoch": history.best_epoch,
            "stop_reason": history.stop_reason,
            "seconds": history.seconds,
            "history": history.history,
        },
    }
