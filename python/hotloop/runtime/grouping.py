# SPDX-License-Identifier: Apache-2.0
"""What a run trains, and at which rate: the model's frozen parameters and a FreezePlan, made definite.

Phases follow one another by epoch; each is one program over the same flat buffers. The factors of the learning
rate are those of the run, so that all phases read the same table of step parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hotloop.compile.layout import kinds_of_decay
from hotloop.compile.plan import TrainableSpec
from hotloop.freeze_plan import FreezePlan, FreezeRule
from hotloop.optim import Optimizer

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Phase:
    """From ``first_epoch`` (1-based) on these parameters are frozen, in the order of the model."""

    first_epoch: int
    frozen: tuple[str, ...]


@dataclass(frozen=True)
class Grouping:
    """``scales``: factors of the learning rate, the first one 1; ``rates``: (name, number of its factor)
    where that is not the first."""

    phases: tuple[Phase, ...] = (Phase(1, ()),)
    scales: tuple[float, ...] = (1.0,)
    rates: tuple[tuple[str, int], ...] = ()

    def phase(self, epoch: int) -> Phase:
        """The phase of an epoch (1-based)."""
        return next(phase for phase in reversed(self.phases) if phase.first_epoch <= epoch)

    @property
    def always_frozen(self) -> tuple[str, ...]:
        """What no phase trains."""
        return self.phases[-1].frozen  # layers are only ever unfrozen

    def spec(self, epoch: int, ages: Iterable[tuple[str, int]] = ()) -> TrainableSpec:
        """What the training plan of an epoch is compiled for."""
        return TrainableSpec(self.phase(epoch).frozen, len(self.scales), self.rates, tuple(ages))


#: Everything is trained alike.
PLAIN = Grouping()


def group(
    names: Sequence[str],
    frozen: Collection[str] = (),
    plan: FreezePlan | None = None,
    *,
    epochs: int = 1,
    where: str = "fit",
) -> Grouping:
    """The grouping of a run over parameters of these names, of which the model itself holds some ``frozen``.

    Raises `ValueError` if a pattern matches nothing, if a rule would unfreeze what the model holds frozen, or
    if an epoch had nothing to train.

    >>> group(["a", "b"], plan=FreezePlan({"a": {"until_epoch": 2, "lr_scale": 0.1}}), epochs=9).phases
    (Phase(first_epoch=1, frozen=('a',)), Phase(first_epoch=3, frozen=()))
    """
    rules = {} if plan is None else plan.rules_of(names)
    _check_conflicts(rules, frozen)
    ends = {rule.until_epoch for rule in rules.values() if rule.until_epoch is not None}
    phases: list[Phase] = []
    for first in sorted({1, *(end + 1 for end in ends if end < epochs)}):
        now = tuple(name for name in names if name in frozen or _is_frozen(rules.get(name), first))
        if names and len(now) == len(names):
            of = f"in epoch {first} every" if plan is not None and len(frozen) < len(names) else "every"
            raise ValueError(
                f"[{where}] {of} parameter is frozen, so there is nothing to train; "
                "leave one out, or call model.unfreeze(pattern)"
            )
        if not phases or phases[-1].frozen != now:
            phases.append(Phase(first, now))
    others = {rule.lr_scale for rule in rules.values()} - {1.0}
    scales = (1.0, *sorted(others, reverse=True))
    rates = [(name, scales.index(rules[name].lr_scale)) for name in names if name in rules]
    return Grouping(tuple(phases), scales, tuple((name, rate) for name, rate in rates if rate))


def fill_groups(
    table: Array, optimizer: Optimizer, scales: Sequence[float], rates: Array | float, decay: Array | float
) -> None:
    """Write learning rate and weight decay of every group into a table of step parameters (steps, columns):
    column pairs [rate, decay], one after the other as `n_groups` of compile/layout.py numbers them.

    ``rates`` and ``decay``: one for all steps, or (steps,).
    """
    kinds = kinds_of_decay(optimizer.spec())
    for number, scale in enumerate(scales):
        for kind in range(kinds):
            column = 2 * (number * kinds + kind)
            table[:, column] = rates if scale == 1.0 else rates * scale
            table[:, column + 1] = decay if kind == 0 else 0.0


def _is_frozen(rule: FreezeRule | None, epoch: int) -> bool:
    return rule is not None and (rule.until_epoch is None or epoch <= rule.until_epoch)


def _check_conflicts(rules: Mapping[str, FreezeRule], frozen: Collection[str]) -> None:
    """A rule that is to unfreeze something and cannot, because the model holds all of it frozen."""
    for rule in dict.fromkeys(rules.values()):
        named = [name for name, its in rules.items() if its is rule]
        if rule.until_epoch and all(name in frozen for name in named):
            raise ValueError(
                f"[FreezePlan] {rule.pattern!r} would be trained after epoch {rule.until_epoch}, but model.freeze "
                f"holds {named[0]!r} frozen; call model.unfreeze({rule.pattern!r}): the plan freezes it by itself"
            )
