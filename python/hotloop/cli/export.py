# SPDX-License-Identifier: Apache-2.0
"""``hotloop export``: a model for other programs, by the suffix of the file: ONNX, or the weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hotloop.cli.console import Result
from hotloop.cli.options import COMMON, Common

EXAMPLES = """Examples:
  hotloop export penguins.safetensors penguins.onnx
  hotloop export penguins.safetensors network.onnx --no-preprocessing
  hotloop export penguins.safetensors weights.safetensors"""


def export(model: str, out: str, *, preprocessing: bool = True, common: Common = COMMON) -> Result:
    """Write a trained model for other programs.

    OUT.onnx holds preprocessing and network for any ONNX runtime: columns of a table in, classes with their
    probabilities or values in the target's unit out. OUT.safetensors holds the weights alone, under torch's
    names, which torch and every reader of the format load.

    Parameters
    ----------
    model
        A file that hotloop train wrote.
    out
        The file to write; .onnx or .safetensors.
    preprocessing
        Whether the ONNX file takes columns of a table, or what preprocessing makes of them.
    """
    import hotloop

    path = Path(out)
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".safetensors"):
        raise ValueError(f"[export] cannot write {out!r}; allowed: .onnx, .safetensors")
    if path.exists() and Path(model).exists() and path.samefile(model):
        raise ValueError(f"[export] {out} is the model itself, which would be lost; give another name")
    trainer = hotloop.load(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"model": model, "out": out, "format": suffix[1:]}
    if suffix == ".onnx":
        trainer.export_onnx(path, preprocessing=preprocessing and trainer.preprocessor is not None)
        names = _names(path)
        text = "\n".join(f"  {side:<8} {', '.join(names[side])}" for side in names)
        return Result(f"model written to {out}\n{text}", {**about, **names})
    tensors = trainer.model.state_dict()
    hotloop.save_safetensors(tensors, path)
    shapes = {name: list(array.shape) for name, array in tensors.items()}
    return Result(f"{len(tensors)} tensors written to {out}", {**about, "tensors": shapes})


def _names(path: Path) -> dict[str, list[str]]:
    """What the file takes and gives."""
    import onnx

    graph = onnx.load(path).graph
    return {
        "inputs": [value.name for value in graph.input],
        "outputs": [value.name for value in graph.output],
    }
