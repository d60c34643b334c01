# SPDX-License-Identifier: Apache-2.0
"""FreezePlan as data, and what becomes of it for a model: phases, rates, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotloop as hl
from hotloop.runtime.grouping import Phase, group

NAMES = ["embed.weight", "body.0.weight", "body.0.bias", "head.weight", "head.bias"]
RULES = st.fixed_dictionaries(
    {},
    optional={
        "until_epoch": st.none() | st.integers(0, 9),
        "lr_scale": st.floats(1e-6, 100, allow_nan=False),
    },
)
PLANS = st.dictionaries(st.sampled_from([*NAMES, "*", "body", "*.bias", "head.*"]), RULES, max_size=5)


@settings(deadline=None)
@given(PLANS)
def test_a_plan_is_equal_to_what_its_json_gives(rules: dict[str, Any]) -> None:
    plan = hl.FreezePlan(rules)
    again = hl.FreezePlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan and hash(again) == hash(plan)
    assert eval(repr(plan), {"FreezePlan": hl.FreezePlan}) == plan
    assert plan != hl.FreezePlan({**rules, "embed": {"lr_scale": 1000.0}})


@settings(deadline=None)
@given(PLANS, st.sets(st.sampled_from(NAMES)), st.integers(1, 12))
def test_phases_say_of_every_epoch_what_the_rules_say(
    rules: dict[str, Any], frozen: set[str], epochs: int
) -> None:
    plan = hl.FreezePlan(rules)

    def expected(name: str, epoch: int) -> bool:
        rule = plan.rules_of(NAMES).get(name)
        until = 0 if rule is None else rule.until_epoch
        return name in frozen or until is None or epoch <= until

    empty = any(all(expected(n, e) for n in NAMES) for e in range(1, epochs + 1))
    winners = plan.rules_of(NAMES)
    meant = {rule: {n for n in NAMES if winners.get(n) == rule} for rule in winners.values()}
    if empty or any(rule.until_epoch and names <= frozen for rule, names in meant.items()):
        with pytest.raises(ValueError, match=r"nothing to train|would be trained after"):
            group(NAMES, frozen, plan, epochs=epochs)
        return
    grouping = group(NAMES, frozen, plan, epochs=epochs)
    for epoch in range(1, epochs + 1):
        assert grouping.phase(epoch).frozen == tuple(n for n in NAMES if expected(n, epoch))
    assert grouping.phases[0].first_epoch == 1 and grouping.phases[-1].first_epoch <= epochs
    assert all(a.frozen != b.frozen for a, b in zip(grouping.phases, grouping.phases[1:], strict=False))
    assert grouping.scales[0] == 1.0 and len(set(grouping.scales)) == len(grouping.scales)
    rates = dict(grouping.rates)
    for name in NAMES:
        rule = plan.rules_of(NAMES).get(name)
        assert grouping.scales[rates.get(name, 0)] == (1.0 if rule is None else rule.lr_scale)


def test_the_last_matching_pattern_wins() -> None:
    general_first = hl.FreezePlan({"*": {"until_epoch": None}, "head": {}})
    assert group(NAMES, plan=general_first).phases == (Phase(1, tuple(NAMES[:3])),)
    with pytest.raises(ValueError, match="in epoch 1 every parameter is frozen"):
        group(NAMES, plan=hl.FreezePlan({"head": {}, "*": {"until_epoch": None}}))


def test_gradual_and_discriminative() -> None:
    layers = ["embed", "body.0", "head"]
    plan = hl.FreezePlan.gradual(layers, every=3, decay=0.5)
    assert [(r.pattern, r.until_epoch, r.lr_scale) for r in plan.rules] == [
        ("embed", 6, 0.25),
        ("body.0", 3, 0.5),
        ("head", 0, 1.0),
    ]
    rates = [rule.lr_scale for rule in hl.FreezePlan.discriminative(layers, decay=0.1).rules]
    assert rates == pytest.approx([0.01, 0.1, 1.0])
    model = hl.nn.Sequential(hl.nn.Linear(3, 3), hl.nn.ReLU(), hl.nn.LayerNorm(3), hl.nn.Linear(3, 2))
    assert hl.FreezePlan.gradual(model) == hl.FreezePlan.gradual(["0", "2", "3"])
    assert hl.FreezePlan.discriminative(model) == hl.FreezePlan.discriminative(["0", "2", "3"])
    alone = hl.FreezePlan.gradual(hl.nn.Linear(3, 2))  # no module has a name: the parameters have
    assert [rule.pattern for rule in alone.rules] == ["weight", "bias"]


BAD: list[tuple[Any, str]] = [
    (lambda: hl.FreezePlan([("a", {})]), "rules must be a mapping"),
    (lambda: hl.FreezePlan({"a": 3}), r"rule of 'a' must be a mapping .* got 3"),
    (lambda: hl.FreezePlan({"a": {"until": 3}}), r"rule of 'a' must be a mapping of 'until_epoch' and"),
    (lambda: hl.FreezePlan({3: {}}), "pattern must be text, got 3"),
    (lambda: hl.FreezePlan({"a": {"until_epoch": -1}}), r"FreezePlan 'a'\] until_epoch must be >= 0, got -1"),
    (lambda: hl.FreezePlan({"a": {"until_epoch": 1.5}}), "until_epoch must be a whole number"),
    (lambda: hl.FreezePlan({"a": {"lr_scale": 0}}), "lr_scale must be > 0, got 0; until_epoch=None"),
    (lambda: hl.FreezePlan({"a": {"lr_scale": -1}}), "lr_scale must be finite and >= 0"),
    (lambda: hl.FreezePlan.gradual("body"), "several patterns or a model, got 'body'"),
    (lambda: hl.FreezePlan.gradual([]), "at least one layer"),
    (lambda: hl.FreezePlan.gradual(["a"], every=0), "every must be >= 1"),
    (lambda: hl.FreezePlan.discriminative(["a"], decay=0), "decay must be > 0"),
    (lambda: hl.FreezePlan.discriminative(["a"], decay=2), "decay must be between 0 and 1"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_plans_say_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_plans_that_do_not_fit_the_model_are_refused_before_anything_changes(toy: Any, digest: Any) -> None:
    X, y = toy.classes(40)
    for plan, frozen, message in (
        (
            {"1": {}},
            (),
            r"\[FreezePlan\] pattern '1' matches no parameter; .*there are 0.weight, 0.bias, 2.w",
        ),
        ({"*": {"until_epoch": 3}}, (), "in epoch 1 every parameter is frozen"),
        ({"2": {"until_epoch": None}}, ("0",), "in epoch 1 every parameter is frozen"),
        (
            {"0": {"until_epoch": 3}},
            ("0",),
            r"'0' would be trained after epoch 3, .* call model.unfreeze\('0'\)",
        ),
        (None, ("*",), "every parameter is frozen, so there is nothing to train"),
    ):
        model = toy.mlp(6, 5, 3).initialize(1)
        if frozen:
            model.freeze(*frozen)
        trainer = hl.Trainer(model, freeze=plan)
        trainer.predict(X)
        before = digest(trainer)
        with pytest.raises(ValueError, match=message):
            trainer.fit(X, y, epochs=5)
        assert digest(trainer) == before and trainer.history is None
        with pytest.raises(ValueError, match=r"frozen|pattern"):
            trainer.plan(X, y)
