# SPDX-License-Identifier: Apache-2.0
"""`FreezePlan`: until when layers are frozen and how fast they learn then, as data.

Data, not callbacks: it is stored with the model and the checkpoints, compared on resume, and a function of the
epoch alone, so that a run that goes on is frozen where an uninterrupted one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Union

from hotloop.arguments import count, number
from hotloop.patterns import matches, matching


class HasParameters(Protocol):
    """A model, as far as it matters here."""

    def named_parameters(self) -> Iterable[tuple[str, Any]]: ...


@dataclass(frozen=True)
class FreezeRule:
    """What holds for the parameters of one pattern.

    until_epoch  frozen in epochs 1 ... until_epoch, trained after; 0: never frozen; None: always
    lr_scale     times the learning rate, once trained; > 0
    """

    pattern: str
    until_epoch: int | None = 0
    lr_scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or not self.pattern:
            raise TypeError(f"[FreezePlan] a pattern must be text, got {self.pattern!r:.80}")
        where = f"FreezePlan {self.pattern!r}"
        if self.until_epoch is not None:
            object.__setattr__(self, "until_epoch", count(where, "until_epoch", self.until_epoch))
        object.__setattr__(self, "lr_scale", number(where, "lr_scale", self.lr_scale, low=0))
        if self.lr_scale == 0:
            raise ValueError(f"[{where}] lr_scale must be > 0, got 0; until_epoch=None freezes for ever")


@dataclass(frozen=True, init=False, repr=False)
class FreezePlan:
    """Which parameters are frozen in which epochs of a run, and how fast each learns once it is trained.

    Args:
        rules: pattern -> {"until_epoch": k, "lr_scale": s}, either of them optional. Frozen in epochs
            1 ... k (None: always; left out: never), trained after, at s times the learning rate. A pattern is
            a parameter's name, a prefix of whole parts, or has the wildcards of `fnmatch`. Where several match
            a parameter, **the last one wins**: first the rule, then the exceptions. What none matches is
            trained at the full rate.

    Parameters that `Module.freeze` froze stay so, whatever the plan says. Raises `TypeError` or `ValueError`
    for rules that cannot work; patterns are held against the model when `fit` begins.

    >>> import hotloop as hl
    >>> plan = hl.FreezePlan({"encoder.*": {"until_epoch": 5, "lr_scale": 0.1}, "encoder.norm": {}})
    >>> plan == hl.FreezePlan.from_dict(plan.to_dict())
    True
    """

    rules: tuple[FreezeRule, ...]

    def __init__(self, rules: Mapping[str, Mapping[str, Any]]) -> None:
        if not isinstance(rules, Mapping):
            raise TypeError(
                "[FreezePlan] rules must be a mapping such as {'encoder.*': {'until_epoch': 5}}, "
                f"got {rules!r:.80}"
            )
        made = []
        for pattern, fields in rules.items():
            if not isinstance(fields, Mapping) or set(fields) - {"until_epoch", "lr_scale"}:
                raise TypeError(
                    f"[FreezePlan] the rule of {pattern!r} must be a mapping of 'until_epoch' and 'lr_scale', "
                    f"got {fields!r:.80}"
                )
            made.append(FreezeRule(pattern, **fields))
        object.__setattr__(self, "rules", tuple(made))

    @classmethod
    def gradual(
        cls, layers: Union[HasParameters, Iterable[str]], *, every: int = 2, decay: float = 1.0
    ) -> FreezePlan:
        """Unfreeze from the head down (Howard and Ruder 2018): the last layer is trained from the start, each
        one before it ``every`` epochs later than the one after it.

        ``layers``: patterns from the input to the head, or a model, which gives one for each module that has
        parameters. ``decay`` times the learning rate for each step down, as in `discriminative`.

        >>> FreezePlan.gradual(["embed", "body", "head"], every=2)
        FreezePlan({'embed': {'until_epoch': 4}, 'body': {'until_epoch': 2}, 'head': {}})
        """
        every = count("FreezePlan.gradual", "every", every, low=1)
        decay = _decay("FreezePlan.gradual", decay)
        names = _layers("FreezePlan.gradual", layers)
        below = range(len(names) - 1, -1, -1)  # layers above each one
        return cls(
            {n: {"until_epoch": i * every, "lr_scale": decay**i} for n, i in zip(names, below, strict=True)}
        )

    @classmethod
    def discriminative(cls, layers: Union[HasParameters, Iterable[str]], *, decay: float = 0.5) -> FreezePlan:
        """The full rate for the last layer, ``decay`` times it for the one before, ``decay**2`` before that,
        and so on (Howard and Ruder 2018, who take 1/2.6). ``layers`` as in `gradual`.

        >>> FreezePlan.discriminative(["embed", "body", "head"], decay=0.5)
        FreezePlan({'embed': {'lr_scale': 0.25}, 'body': {'lr_scale': 0.5}, 'head': {}})
        """
        decay = _decay("FreezePlan.discriminative", decay)
        names = _layers("FreezePlan.discriminative", layers)
        below = range(len(names) - 1, -1, -1)
        return cls({name: {"lr_scale": decay**i} for name, i in zip(names, below, strict=True)})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, in the order of the rules; `from_dict` gives an equal plan back."""
        return {"rules": [asdict(rule) for rule in self.rules]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FreezePlan:
        """The plan that `to_dict` described. Raises `KeyError`, `TypeError` or `ValueError` for bad data."""
        rules = [dict(rule) for rule in data["rules"]]
        return cls({rule.pop("pattern"): rule for rule in rules})

    def rules_of(self, names: Iterable[str]) -> dict[str, FreezeRule]:
        """Name -> the rule that wins, for the parameters that have one. Raises `ValueError` if a pattern
        matches none of the names."""
        names = list(names)
        matching((rule.pattern for rule in self.rules), names, where="FreezePlan")
        return {name: rule for rule in self.rules for name in names if matches(rule.pattern, name)}

    def __repr__(self) -> str:
        def fields(rule: FreezeRule) -> dict[str, Any]:
            until = {} if rule.until_epoch == 0 else {"until_epoch": rule.until_epoch}
            return until | ({} if rule.lr_scale == 1 else {"lr_scale": rule.lr_scale})

        rules = {rule.pattern: fields(rule) for rule in self.rules}
        return f"FreezePlan({rules})"


def resolve(plan: Union[FreezePlan, Mapping[str, Mapping[str, Any]], None]) -> FreezePlan | None:
    """The plan itself, or the one that a mapping describes."""
    return plan if plan is None or isinstance(plan, FreezePlan) else FreezePlan(plan)


def _decay(where: str, decay: float) -> float:
    value = number(where, "decay", decay, low=0, high=1)
    if value == 0:
        raise ValueError(f"[{where}] decay must be > 0, got 0")
    return value


def _layers(where: str, layers: Union[HasParameters, Iterable[str]]) -> list[str]:
    """Patterns from the input to the head: as given, or the modules of a model that have parameters."""
    if isinstance(layers, str):
        raise TypeError(f"[{where}] layers must be several patterns or a model, got {layers!r}")
    if hasattr(layers, "named_parameters"):
        names = [name for name, _ in layers.named_parameters()]
        found = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    else:
        found = list(layers)
    if not found:
        raise ValueError(f"[{where}] layers must name at least one layer, got none")
    return found
