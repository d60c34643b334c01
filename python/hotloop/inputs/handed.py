# SPDX-License-Identifier: Apache-2.0
"""What `fit` and `evaluate` are handed, as checked data: arrays and whatever becomes some, or a stream.

Without y, X is a stream, and nothing else is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hotloop.data import stream
from hotloop.data.split import SealedData
from hotloop.engine.native import Data
from hotloop.engine.streams import Prepare, StreamData, open_stream
from hotloop.errors import ShapeError
from hotloop.fit.setup import ResolvedLoss, check_data, check_validation
from hotloop.graph import Graph
from hotloop.inputs import frames
from hotloop.losses import CallableLoss

if TYPE_CHECKING:
    from hotloop.predictor import Predictor
    from hotloop.trainer import Trainer


def for_fit(
    trainer: Trainer, X: Any, y: Any, weight: Any, names: frames.Names, epochs: int
) -> tuple[Data, Graph, ResolvedLoss, int | None]:
    """The training set, its graph and loss, and the batch size if a stream decides on it. The columns of a
    frame, or of a stream's first block, become ``names``. Raises as `Trainer.fit` says."""
    if _is_stream(X, y):
        return _opened(trainer, X, y, weight, trainer.loss, "fit", names, epochs)
    names.update(frames.names_of(trainer, X, "fit"))
    X, y = frames.ready_pair(trainer, X, y, "fit", expected=names)
    found = check_data(trainer._session, X, y, weight, trainer.loss, where="fit", in_blocks=True)
    return *found, None


def for_evaluate(owner: Predictor, X: Any, y: Any, weight: Any) -> tuple[Data, Graph, ResolvedLoss]:
    """A data set to evaluate. Raises as `Trainer.fit` says."""
    loss = owner._known_loss()
    if _is_stream(X, y):
        return _opened(owner, X, y, weight, loss, "evaluate", dict(owner.feature_names), 0)[:3]
    X, y = frames.ready_pair(owner, X, y, "evaluate", expected=owner.feature_names)
    return check_data(owner._session, X, y, weight, loss, where="evaluate", in_blocks=True)


def validation_sets(
    trainer: Trainer, validation: Any, train: Data, graph: Graph, loss: ResolvedLoss, names: frames.Names,
    epochs: int,
) -> tuple[Data, dict[str, Data]]:  # fmt: skip
    """The training set (less what is held out) and the named validation sets, some of which may be streams."""
    if isinstance(train, StreamData) and isinstance(validation, (float, int)):
        raise ValueError(
            f"[fit] validation={validation!r}: a stream cannot be split; give validation=(X, y), or another stream"
        )
    if stream.is_stream(validation):
        validation = {"val": validation}
    sets = frames.ready_sets(trainer, validation, names)
    found: dict[str, Data] = {}
    if isinstance(sets, Mapping):
        streams = {name: one for name, one in sets.items() if stream.is_stream(one)}
        for name, one in streams.items():
            found[name] = _validation_stream(trainer, one, name, graph, loss, names, epochs)
        order, sets = list(sets), {name: one for name, one in sets.items() if name not in streams}
        if streams and not sets:
            return train, found
        train, others = check_validation(trainer._session, sets, train, graph, loss, trainer.seed)
        found |= others
        return train, {name: found[name] for name in order}
    return check_validation(trainer._session, sets, train, graph, loss, trainer.seed)


def _validation_stream(
    trainer: Trainer, given: Any, name: str, graph: Graph, loss: ResolvedLoss, names: frames.Names,
    epochs: int,
) -> Data:  # fmt: skip
    source = stream.as_stream(given)
    if source.once and epochs > 1:
        raise ValueError(
            f"[fit] validation set {name!r} is {source!r}, which can be read once, and there are {epochs} epochs; "
            "give a function that returns a new iterator: hl.data.Stream(lambda: blocks())"
        )
    data, other, _, _ = _opened(trainer, source, None, None, loss, "fit", names, 0)
    if other.inputs != graph.inputs or other.types[other.output] != graph.types[graph.output]:
        raise ShapeError(f"[fit] validation set {name!r} has other inputs than the training set")
    return data


def _is_stream(X: Any, y: Any) -> bool:
    if isinstance(X, SealedData):
        raise TypeError("[fit] X is the sealed test set, which is not trained on; use split.train")
    return (y is None and stream.streams(X)) or isinstance(X, stream.Stream)


def _opened(
    owner: Predictor, X: Any, y: Any, weight: Any, loss: Any, where: str, names: frames.Names, epochs: int
) -> tuple[StreamData, Graph, ResolvedLoss, int | None]:
    """A stream whose blocks have columns of these names, or of those that the first block brings."""
    if y is not None or weight is not None:
        what = "y" if y is not None else "sample_weight"
        raise TypeError(
            f"[{where}] {what} is given beside a stream, whose blocks bring it: (X, y) or (X, y, weight)"
        )
    prepare = _preparer(owner, where, names)
    data, graph, resolved, own = open_stream(
        owner._session, stream.as_stream(X), loss, prepare, where=where, epochs=epochs
    )
    if isinstance(resolved, CallableLoss):
        raise ValueError(
            f"[{where}] a loss that is a Python function needs arrays, and X is a stream; use a loss of hl.losses, "
            "or hl.TrainStep on each block"
        )
    return data, graph, resolved, own


def _preparer(owner: Predictor, where: str, names: frames.Names) -> Prepare:
    """Makes blocks ready; the first one fills in the names where there are none."""

    def prepare(X: Any, y: Any) -> tuple[Any, Any]:
        if not names:
            names.update(frames.names_of(owner, X, where))
        return frames.ready_pair(owner, X, y, where, expected=names)

    return prepare
