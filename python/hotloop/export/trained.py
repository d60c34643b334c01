# SPDX-License-Identifier: Apache-2.0
"""What a trainer adds to its model's file: its preprocessing, and what its loss makes of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hotloop import losses
from hotloop.compile.plan import LossSpec
from hotloop.export import export_onnx
from hotloop.storage.files import Path

if TYPE_CHECKING:
    from hotloop.data.preprocess import Preprocessor
    from hotloop.graph import Graph
    from hotloop.nn import Module

_PROBABILITIES = {"cross_entropy": "softmax", "bce_with_logits": "sigmoid"}


def export_trained(
    model: Module,
    path: Path,
    *,
    graph: Graph | None,
    loss: Any,
    preprocessor: Preprocessor | None,
    preprocessing: bool | None,
    probabilities: bool | None,
    class_names: Sequence[str],
    **names: Any,
) -> None:
    """See `Trainer.export_onnx`, whose arguments these are; ``loss`` as the last run resolved it."""
    if graph is None:
        raise RuntimeError(
            "[export_onnx] the model has not seen data yet, so its inputs are unknown; call fit or predict first"
        )
    if preprocessing and preprocessor is None:
        raise ValueError(
            "[export_onnx] this trainer has no preprocessor; train on a table, or set trainer.preprocessor"
        )
    kind = _kind(loss)
    if probabilities and kind is None:
        raise ValueError("[export_onnx] the loss is not one of classes, so there are no probabilities")
    if probabilities is False:
        kind = None
    if kind is not None and not class_names and preprocessor is not None:
        class_names = preprocessor.class_names
    export_onnx(
        model, path, graph=graph, probabilities=kind, class_names=class_names,
        preprocessor=None if preprocessing is False else preprocessor, **names,
    )  # fmt: skip


def _kind(loss: Any) -> str | None:
    """What makes probabilities of the outputs; None where they are none."""
    resolved = None if loss == "auto" else losses.resolve(loss)
    return _PROBABILITIES.get(resolved.kind) if isinstance(resolved, LossSpec) else None
