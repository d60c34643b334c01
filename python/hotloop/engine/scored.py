# SPDX-License-Identifier: Apache-2.0
"""An engine whose evaluations also hold scikit-learn's scores: one more native prediction, then scoring.py.

Only evaluation sets are scored. During training there are no predictions of one set of weights, and a second
pass over the training data for the sake of a number would cost a third of the run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Union

import numpy as np

from hotloop import scoring
from hotloop.compile.plan import LossSpec
from hotloop.data import border
from hotloop.engine.callable import CallableEngine
from hotloop.engine.native import Data, Engine, NativeEngine, PassResult, TrainPass, predict
from hotloop.errors import HotloopWarning
from hotloop.graph import Graph
from hotloop.losses import CallableLoss
from hotloop.runtime.grouping import Grouping
from hotloop.runtime.session import Session


@dataclass(frozen=True)
class ScoredEngine:
    """``lenient``: a score that cannot be had is NaN, with a warning, rather than an error: what could be
    known before the run was refused then, and an epoch is no reason to end one."""

    engine: Union[NativeEngine, CallableEngine]
    scorers: tuple[str, ...]
    lenient: bool = False

    @property
    def session(self) -> Session:
        return self.engine.session

    @property
    def graph(self) -> Graph:
        return self.engine.graph

    @property
    def loss(self) -> Union[LossSpec, CallableLoss]:
        return self.engine.loss

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*self.engine.metrics, *self.scorers)

    def on(self, session: Session) -> ScoredEngine:
        return replace(self, engine=self.engine.on(session))

    @property
    def grouping(self) -> Grouping:
        return self.engine.grouping

    def prepare(self, data: Data, batch_size: int, *, shuffle: bool, run: int) -> TrainPass:
        return self.engine.prepare(data, batch_size, shuffle=shuffle, run=run)

    def evaluate(self, data: Data, stop: Any = None) -> PassResult:
        self._refuse_stream(data)
        status, metrics = self.engine.evaluate(data, stop)
        if status == "stopped":
            return PassResult(status, metrics)
        inputs = {name: data.arrays[name] for name, _ in self.graph.inputs}
        outputs = predict(self.session, self.graph, inputs)
        return PassResult(status, {**metrics, **self._scores(data, outputs)})

    def _scores(self, data: Data, outputs: border.Array, of: str = "these data") -> dict[str, float]:
        target, weight = data.arrays["target"], data.arrays.get("sample_weight")
        scores: dict[str, float] = {}
        for name, value in scoring.score(self.scorers, self._task(target), outputs, target, weight).items():
            if isinstance(value, Exception):
                message = f"[metrics] {name!r} cannot score {of}: {value}"
                if not self.lenient:
                    raise ValueError(f"{message}; leave it out, or choose one that fits") from value
                warnings.warn(f"{message}; it is NaN in this epoch", HotloopWarning, stacklevel=2)
                value = math.nan
            scores[name] = value
        return scores

    def _refuse_stream(self, data: Data) -> None:
        if data.sample is not data:
            raise ValueError(
                f"[metrics] the scorer {self.scorers[0]!r} needs all predictions at once, which a stream is there to "
                "avoid; leave it out, or give (X, y)"
            )

    def _task(self, target: border.Array) -> scoring.Task:
        if isinstance(self.loss, CallableLoss):
            return "labels" if target.dtype.kind in "iub" else "regression"
        if self.loss.kind == "cross_entropy":
            return "cross_entropy"
        return "bce_with_logits" if self.loss.kind == "bce_with_logits" else "regression"

    def check(self, sets: Mapping[str, Data]) -> None:
        """Score each set with outputs of one. Raises `ValueError` for scorers that fit no such data."""
        shape = border.row_shape(self.graph.types[self.graph.output])
        for name, data in sets.items():
            self._refuse_stream(data)
            outputs = np.ones((data.rows, *shape), np.float32)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that constant predictions score badly is no news
                self._scores(data, outputs, f"the validation set {name!r}")


def without_scores(engine: Engine) -> Engine:
    """The engine itself, or the one that this one scores."""
    return engine.engine if isinstance(engine, ScoredEngine) else engine


def for_run(engine: Engine, sets: Mapping[str, Data]) -> Engine:
    """The engine of a run over these validation sets, each of which its scorers fit."""
    if not isinstance(engine, ScoredEngine):
        return engine
    if not sets:
        raise ValueError(
            f"[fit] the scorer {engine.scorers[0]!r} is computed on validation data, and there is none; pass "
            "validation=0.15, or leave it out"
        )
    engine.check(sets)
    return replace(engine, lenient=True)
