# SPDX-License-Identifier: Apache-2.0
"""``hotloop export``: a model for other programs, by the suffix of the file: ONNX, or the weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hotloop.cli.console import Result
from hotloop.cli.options import COMMON, Common

EXAMPLES = """Examples:
  hotloop export penguins.safetensors penguins.onnx
  hotloop export penguins.safetensors weights.safetensors"""


def export(model: str, out: str, *, common: Common = COMMON) -> Result:
    """Write a trained model for other programs.

    OUT.onnx holds the network for any ONNX runtime. OUT.safetensors holds the weights alone, under torch's
    names, which torch and every reader of the format load.

    Parameters
    ----------
    model
        A file that hotloop wrote, or a folder of checkpoints.
    out
        The file to write; .onnx or .safetensors.
    """
    import hotloop

    path = Path(out)
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".safetensors"):
        raise ValueError(f"[export] {out!r} has the suffix {suffix!r}; allowed: .onnx, .safetensors")
    if path.exists() and Path(model).exists() and path.samefile(model):
        raise ValueError(f"[export] {out} is the model itself, which would be lost; give another name")
    trainer = hotloop.load(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"model": model, "out": out, "format": suffix[1:]}
    if suffix == ".onnx":
        trainer.model.export_onnx(path)
        return Result(f"network written to {out}", data)
    tensors = trainer.model.state_dict()
    hotloop.save_safetensors(tensors, path)
    data["tensors"] = {name: list(array.shape) for name, array in tensors.items()}
    return Result(f"{len(tensors)} tensors written to {out}", data)
