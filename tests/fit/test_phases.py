# SPDX-License-Identifier: Apache-2.0
"""A FreezePlan in a run: one program for each phase over the same memory, and a resume in any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.callbacks import as_callbacks
from tests import runs
from tests.runs import interrupted, resumed, whole

PLAN = {"0": {"until_epoch": 2, "lr_scale": 0.25}, "2": {"until_epoch": 1}}


def layers() -> Any:
    return hl.nn.Sequential(
        hl.nn.Linear(6, 8), hl.nn.ReLU(), hl.nn.Linear(8, 5), hl.nn.Tanh(), hl.nn.Linear(5, 3)
    )


def by_hand(X: Any, y: Any, epochs: int, lr: float, scales: dict[str, float]) -> dict[str, np.ndarray]:
    """The same run in steps: flags set by hand between epochs, and rates by an update of each layer's own."""
    model = layers().initialize(0)
    peers = {
        scale: hl.TrainStep(model_copy(model), "mse", hl.optim.SGD(lr * scale)) for scale in scales.values()
    }
    main = peers[1.0]
    for epoch in range(1, epochs + 1):
        for rows in np.split(np.arange(len(X)), 4):
            _, gradients = main.loss_and_grads(X[rows], y[rows])
            state = main.model.state_dict()
            for name, gradient in gradients.items():
                rule = PLAN.get(name[0], {})
                if epoch > rule.get("until_epoch", 0):
                    state[name] = state[name] - np.float32(lr * scales[name[0]]) * gradient
            main.load_state_dict(state)
    return main.model.state_dict()


def model_copy(model: Any) -> Any:
    copy = layers()
    copy.load_state_dict(model.state_dict())
    return copy


def test_each_layer_is_trained_from_its_epoch_on_at_its_rate(toy: Any) -> None:
    X, labels = toy.classes(64)
    y = np.eye(3, dtype=np.float32)[labels]
    trainer = hl.Trainer(layers(), "mse", optimizer=hl.optim.SGD(0.1), freeze=PLAN, restore_best=False)
    start = trainer.model.initialize(0).state_dict()
    trainer.fit(X, y, epochs=4, batch_size=16, shuffle=False)
    want = by_hand(X, y, 4, 0.1, {"0": 0.25, "2": 1.0, "4": 1.0})
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_allclose(value, want[name], rtol=2e-6, atol=1e-7, err_msg=name)
        assert not np.array_equal(value, start[name])
    steps = {k: int(v) for k, v in trainer.optimizer_state().items()}
    assert steps == {
        "0.weight.step": 8, "0.bias.step": 8, "2.weight.step": 12, "2.bias.step": 12, "4.weight.step": 16,
        "4.bias.step": 16,
    }  # fmt: skip


def test_a_phase_is_the_run_of_a_model_that_is_frozen_there(toy: Any) -> None:
    """Epochs 1, 2, 3 ... of one run, and as many runs without a reset, with flags in place of the plan."""
    X, y = toy.classes(64)
    whole_run = hl.Trainer(
        layers(), freeze={"0": {"until_epoch": 2}, "2": {"until_epoch": 1}}, restore_best=False
    )
    whole_run.fit(X, y, epochs=3, batch_size=16, shuffle=False)
    model = layers()
    parts = hl.Trainer(model, restore_best=False)
    for frozen in (["0", "2"], ["0"], []):
        model.unfreeze()
        if frozen:
            model.freeze(*frozen)
        parts.fit(X, y, epochs=1, batch_size=16, shuffle=False, reset_optimizer=False)
    ours, theirs = whole_run.optimizer_state(), parts.optimizer_state()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert all(np.array_equal(v, model.state_dict()[n]) for n, v in whole_run.model.state_dict().items())


def test_one_program_a_phase_and_the_totals_are_the_phases(toy: Any) -> None:
    X, y = toy.classes(64)
    trainer = hl.Trainer(layers(), "cross_entropy", freeze=PLAN)
    run = trainer.fit(X, y, epochs=5, batch_size=16)
    specs = [spec for _, spec, _ in trainer._session._programs if spec.mode == "train"]
    frozen = [spec.trainable.frozen for spec in specs]
    assert frozen == [("0.weight", "0.bias", "2.weight", "2.bias"), ("0.weight", "0.bias"), ()]
    assert len(run.history["loss"]) == 5 and np.isfinite(run.history["loss"]).all()
    assert run.history["lr"] == [1e-3] * 5  # of what has no scale


def test_a_plan_costs_less_while_layers_are_frozen(toy: Any) -> None:
    X, y = toy.classes(64)
    frozen, free = hl.Trainer(layers(), freeze=PLAN), hl.Trainer(layers())
    assert frozen.plan(X, y).flops_per_step < 0.7 * free.plan(X, y).flops_per_step
    assert "linear_grad_weight" in frozen.plan(X, y).steps


def test_callbacks_may_look_at_plans_and_may_not_change_the_model(toy: Any) -> None:
    X, y = toy.classes(64)
    results = []
    for look in (False, True):
        model = toy.batch_norm()
        trainer = hl.Trainer(model, freeze={"1": {"until_epoch": 2}})
        if look:
            trainer.callbacks = as_callbacks([lambda state, t=trainer: t.plan(X, y)])
        trainer.fit(X, y, epochs=5, batch_size=16)
        results.append(trainer.model.state_dict())
        assert int(model[1].num_batches_tracked.data) == 3 * 4
    assert all(np.array_equal(results[0][name], value) for name, value in results[1].items())

    def change(state: Any) -> None:
        trainer.model.replace_head(hl.nn.Linear(8, 5))
        trainer.predict(X)

    trainer.callbacks = as_callbacks([change])
    with pytest.raises(hl.GraphError, match="other parameters than"):
        trainer.fit(X, y, epochs=2)
    assert trainer.predict(X).shape == (64, 5)


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 5, 7, 10, 14, 16, 20, 22])
def test_a_run_resumes_in_every_phase_and_in_mid_epoch(step: int, tmp_path: Path) -> None:
    """Five steps an epoch; layers are unfrozen after the first, second and fourth epoch."""
    interrupted("freezing", tmp_path, step)
    assert resumed("freezing", tmp_path) == whole("freezing")
    again, (_, fit) = hl.load(sorted(tmp_path.iterdir())[-1]), runs.make("freezing")
    run = again.fit(**fit, resume=tmp_path)  # plan and flags from the file, without the code
    assert runs.result(again, run, fit["X"]) == whole("freezing")


def test_a_callable_loss_has_phases_too(tmp_path: Path) -> None:
    def make() -> tuple[Any, Any, Any]:
        X, y, _ = runs._data(64, 6)
        plan = hl.FreezePlan({"0": {"until_epoch": 1, "lr_scale": 0.5}})
        model = hl.nn.Sequential(hl.nn.Linear(6, 4), hl.nn.Tanh(), hl.nn.Linear(4, 1))
        return hl.Trainer(model, runs.own_loss, freeze=plan), X, y.astype(np.float32)

    trainer, X, y = make()
    expected = runs.result(trainer, trainer.fit(X, y, epochs=3, batch_size=16), X)
    assert {int(v) for k, v in trainer.optimizer_state().items() if k.endswith("step")} == {8, 12}
    for step in (2, 6):
        trainer, X, y = make()
        with runs.stopping(step):
            trainer.fit(X, y, epochs=3, batch_size=16, checkpoint=hl.Checkpoint(tmp_path / str(step)))
        trainer, X, y = make()
        run = trainer.fit(X, y, epochs=3, batch_size=16, resume=tmp_path / str(step))
        assert runs.result(trainer, run, X) == expected


def test_another_plan_or_another_frozen_set_is_refused(tmp_path: Path, digest: Any) -> None:
    interrupted("freezing", tmp_path, 7)
    for change, message in (
        (lambda t: setattr(t, "freeze", None), "freeze differs, got None; allowed"),
        (
            lambda t: setattr(t, "freeze", {"0": {"until_epoch": 4, "lr_scale": 0.2}, "1": {"until_epoch": 2},
                                            "3": {"until_epoch": 1, "lr_scale": 0.5}}),
            r"freeze.rules.0.lr_scale differs, got 0.2; allowed 0.1",
        ),
        (lambda t: t.model.unfreeze(), r"frozen differs, got \[\]; allowed \['3.bias'\]"),
        (lambda t: t.model.freeze("1.bias"), "frozen differs"),
        (lambda t: setattr(t, "schedule", "cosine"), "schedule.kind differs, got 'cosine'; allowed 'mapping'"),
    ):  # fmt: skip
        trainer, fit = runs.make("freezing")
        change(trainer)
        trainer.fit(**fit, dry_run=True)
        before = digest(trainer)
        with pytest.raises(hl.CheckpointError, match=message):
            trainer.fit(**fit, resume=tmp_path)
        assert digest(trainer) == before


def test_what_is_tried_before_a_run_is_frozen_as_its_first_epoch(toy: Any, digest: Any) -> None:
    X, y = toy.classes(33)
    trainer = hl.Trainer(
        toy.batch_norm(), freeze={"1": {"until_epoch": None}, "0": {"until_epoch": 1, "lr_scale": 0.1}}
    )
    trainer.fit(X, y, epochs=3)
    before = digest(trainer)
    found = trainer.lr_find(X, y, batch_size=16, steps=10)  # the last batch has one row: the norm is frozen
    assert len(found.lrs) == 10 and np.isfinite(found.losses).all()
    assert trainer.overfit_batch(X, y, steps=20).losses[-1] > 0
    plan = trainer.fit(X, y, epochs=3, dry_run=True)
    assert plan.stop_reason == "dry_run"
    assert digest(trainer) == before
    trainer.freeze = None
    trainer.model.freeze()
    for call in (trainer.lr_find, trainer.overfit_batch):
        with pytest.raises(ValueError, match="every parameter is frozen"):
            call(X, y)


@pytest.mark.parametrize("threads", [1, 3])
def test_phases_share_updates_and_average_what_they_train(threads: int, toy: Any, tmp_path: Path) -> None:
    """With accumulated gradients and averaged weights, resumed within an update, in each phase."""
    X, y = toy.classes(90)

    def make() -> Any:
        plan = hl.FreezePlan({"0": {"until_epoch": 2, "lr_scale": 0.3}, "2": {"until_epoch": 1}})
        return hl.Trainer(
            layers(), freeze=plan, accumulate=3, ema=0.8, clip_norm=0.5, threads=threads, seed=2
        )

    fit = {"X": X, "y": y, "epochs": 4, "batch_size": 16, "validation": (X[:30], y[:30])}
    trainer = make()
    start = trainer.model.initialize(2).state_dict()
    expected = runs.result(trainer, trainer.fit(**fit), X)
    steps = {name[0]: int(v) for name, v in trainer.optimizer_state().items() if name.endswith(".step")}
    assert steps == {"0": 4, "2": 6, "4": 8}  # two updates an epoch
    assert not np.array_equal(trainer.model.state_dict()["0.weight"], start["0.weight"])
    for step in (2, 8, 13, 19):  # an epoch has six batches
        folder = tmp_path / str(step)
        with runs.stopping(step):
            make().fit(**fit, checkpoint=hl.Checkpoint(folder))
        again = make()
        assert runs.result(again, again.fit(**fit, resume=folder), X) == expected


def test_averages_of_frozen_parameters_stay(toy: Any) -> None:
    X, y = toy.classes(64)
    model = layers()
    model.freeze("0", "2")
    trainer = hl.Trainer(model, accumulate=2, ema=0.5)
    before = model.initialize(0).state_dict()
    trainer.fit(X, y, epochs=3, batch_size=16)
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        np.testing.assert_array_equal(model.state_dict()[name], before[name])
