# SPDX-License-Identifier: Apache-2.0
"""`Predictor`: what a trained model is used for, evaluation and prediction.

The half of `Trainer` that changes nothing: it reads the session's model, the loss and the metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from hotloop import classes, losses
from hotloop import metrics as metrics_
from hotloop.compile.plan import LossSpec
from hotloop.data import border
from hotloop.data.split import SealedData
from hotloop.engine.native import predict_any
from hotloop.fit.provenance import Provenance, was_trained_on
from hotloop.fit.setup import ResolvedLoss, make_engine
from hotloop.inputs import frames, handed
from hotloop.runtime.session import Session

if TYPE_CHECKING:
    from hotloop.data.preprocess import Preprocessor
    from hotloop.nn import Module
    from hotloop.storage.files import Path as FilePath


class Predictor:
    """Evaluates and predicts. Not to be made itself: `Trainer` is one."""

    model: Module
    loss: Any
    metrics: Union[str, Iterable[str], None]
    #: When and on what the last run began; None before the first.
    provenance: Provenance | None
    #: Input ("x" for X itself) -> columns of the frame that the last run was given; empty for arrays.
    feature_names: frames.Names
    preprocessor: Preprocessor | None
    _session: Session
    _resolved: tuple[Any, ResolvedLoss] | None  # a loss as given, and what it was in fit

    def evaluate(self, X: Any, y: Any = None, *, sample_weight: Any = None) -> dict[str, float]:
        """The loss and metrics on a data set, in evaluation mode. The sealed test set of `hl.split` may
        stand for X and y; each such look is counted. So may a stream (`hl.data.Stream`), which is read once.

        A frame goes through `preprocessor`, and so does its y; the numbers are then those of training, of a
        regression on the scaled target. Raises as `fit`."""
        if isinstance(X, SealedData):
            if y is not None:
                raise TypeError("[evaluate] the sealed test set holds its own y; call evaluate(split.test)")
            X, y = X.open("Trainer.evaluate")
        with self._session.entered("evaluate"):
            data, graph, loss = handed.for_evaluate(self, X, y, sample_weight)
            names = metrics_.resolve(self.metrics, loss, y)
            return make_engine(self._session, graph, loss, names).evaluate(data).metrics

    def predict(self, X: Any) -> border.Array:
        """Raw outputs of the model, float32 (n, ...), in evaluation mode; n may be 0.

        A frame is put in the order of the columns of training, or goes through `preprocessor`; of a regression
        the answer is then in the target's own unit, float64 (n,). Of a stream: the outputs of all blocks.
        Raises `ShapeError` with the first difference for a frame of other columns, and as `fit`."""
        if type(X) is not np.ndarray:
            return frames.predict(self, X)
        with self._session.entered("predict"):
            return predict_any(self._session, X, "predict")

    def predict_proba(self, X: Any) -> border.Array:
        """Class probabilities, float32 (n, C); two columns for a binary model of one output, and one per
        label (n, L) for several. Raises `ValueError` if the loss is not one of classes."""
        kind = self._class_loss("predict_proba")
        return classes.probabilities(self.predict(X), kind)

    def predict_label(self, X: Any) -> border.Array:
        """The most likely class of each row, int64 (n,); for several binary outputs 0 or 1 each, (n, L). Of a
        frame that `preprocessor` takes: the names of the classes (n,), as its ``class_names`` has them."""
        kind = self._class_loss("predict_label")
        named = None if type(X) is np.ndarray else frames.labels(self, X)
        if named is not None:
            return named
        return classes.labels(self.predict(X), kind)

    def export_onnx(
        self,
        path: FilePath,
        *,
        preprocessing: bool | None = None,
        probabilities: bool | None = None,
        class_names: Sequence[str] = (),
        input_names: Mapping[str, str] | None = None,
        output_name: str = "output",
    ) -> None:
        """Write the model, its preprocessing included, as an ONNX file (extra ``onnx``); see docs/onnx.md.

        Args:
            preprocessing: whether the file takes the columns of the table: float64 (batch,) and text (batch,)
                under their names, or "features" float64 (batch, d) if all are numbers. None: if the trainer
                has a `preprocessor`; False: what stands behind it.
            probabilities: whether there are the outputs "probabilities" and "label"; None: if the loss is one
                of classes. With preprocessing, a regression has "prediction" in the target's unit instead.
            class_names: names for the labels; by default those of the preprocessor, else labels are int64.
            input_names, output_name: see `hotloop.nn.Module.export_onnx`.

        Raises `RuntimeError` if the model has not seen data yet, `ValueError` for what is not there,
        `ShapeError` if model and preprocessor do not fit, `ImportError` without onnx, and `OSError`.
        """
        from hotloop.export.trained import export_trained  # which training does not need

        with self._session.entered("export_onnx"):
            export_trained(
                self.model, path, graph=self._session.graph, loss=self._known_loss(),
                preprocessor=self.preprocessor, preprocessing=preprocessing, probabilities=probabilities,
                class_names=class_names, input_names=input_names, output_name=output_name,
            )  # fmt: skip

    def was_trained_on(self, X: Any, y: Any, sample_weight: Any = None) -> bool:
        """Whether the last `fit` was given this data: values and order of the rows, by the digests that the
        model's file keeps. Raises as `fit` for data that does not fit the model."""
        X, y = frames.ready_pair(self, X, y, "was_trained_on", expected=self.feature_names)
        with self._session.entered("was_trained_on"):
            return was_trained_on(self._session, self._known_loss(), self.provenance, X, y, sample_weight)

    def _known_loss(self) -> Any:
        """The loss as the last fit resolved it, unless another was set since."""
        if self._resolved is not None and self._resolved[0] is self.loss:
            return self._resolved[1]
        return self.loss

    def _class_loss(self, where: str) -> str:
        loss = self._known_loss()
        if loss == "auto":
            raise RuntimeError(f"[{where}] the loss is not known yet; call fit first, or name it: loss=...")
        loss = losses.resolve(loss)
        if isinstance(loss, LossSpec) and loss.kind in ("cross_entropy", "bce_with_logits"):
            return loss.kind
        name = loss.kind if isinstance(loss, LossSpec) else loss.name
        raise ValueError(f"[{where}] a model with the loss {name!r} predicts no classes; use predict")
