# SPDX-License-Identifier: Apache-2.0
"""Frozen parameters: nothing is computed for them, nothing changes them, and everything else goes on as if
their gradients had been thrown away."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hotloop as hl
from hotloop.compile import compile_uncached, pass_through
from hotloop.compile.plan import TrainableSpec
from hotloop.storage.files import read_safetensors, write_safetensors
from tests.compile.graphs import ADAMW, batch, kernels, mlp, runner, train_spec

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
GRAPH = mlp((5, 6, 4, 3), "gelu", dropout=0.3)


def copies(model: Any) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in model.state_dict().items()}


def changed(before: dict[str, np.ndarray], model: Any) -> set[str]:
    now = model.state_dict()
    return {name for name, value in before.items() if value.tobytes() != now[name].tobytes()}


# --- the plan -------------------------------------------------------------------------------------


def products(*frozen: str) -> list[str]:
    """The notes of a training plan's matrix products in the backward section, in order."""
    plan = compile_uncached(GRAPH, train_spec(optimizer=ADAMW, trainable=TrainableSpec(frozen)))
    begin, end = plan.section("backward")
    return [step.note for step in plan.steps[begin:end] if step.kernel == "matmul"]


def test_nothing_below_the_lowest_trained_layer_is_differentiated() -> None:
    weight, data = "linear_grad_weight", "input_grad_fused"
    assert sorted(products()) == sorted([data, weight, data, weight, weight])
    assert sorted(products("0.weight", "0.bias")) == sorted([data, weight, weight])
    assert products(*NAMES[:4]) == [weight]
    # a frozen layer in the middle still passes its gradient down
    assert sorted(products(*NAMES[2:4])) == sorted([data, weight, data, weight])


def test_flops_and_steps_fall_with_every_layer() -> None:
    plans = [
        compile_uncached(GRAPH, train_spec(optimizer=ADAMW, trainable=TrainableSpec(tuple(NAMES[:n]))))
        for n in (0, 2, 4)
    ]
    flops = [plan.flops.at(6) for plan in plans]
    assert flops[0] > flops[1] > flops[2]
    forward = compile_uncached(GRAPH, type(train_spec())("predict", 6)).flops.at(6)
    head = 2 * 6 * 4 * 3
    assert flops[2] < flops[0] - 2 * 6 * (5 * 6 + 2 * 6 * 4)  # dW of both, dX of the upper one, are gone
    assert flops[2] > forward + head
    for plan, n in zip(plans, (0, 2, 4), strict=True):
        touched = {b.name for b in plan.buffers if b.name.startswith("grad:")}
        assert not touched & {f"grad:{name}" for name in NAMES[:n]}


def test_a_plan_that_freezes_nothing_is_the_plan_of_before() -> None:
    plain = compile_uncached(GRAPH, train_spec(optimizer=ADAMW, clip_norm=1.0))
    assert kernels(plain)[-3:] == ["square_sum", "optimizer_begin", "adam"]  # one pass over all parameters
    assert (plain.n_groups, dict(plain.steps[-1].fields)["n"].const) == (1, 128)
    trainer = hl.Trainer(hl.nn.Linear(4, 2), freeze={"weight": {"until_epoch": 0}})
    free = hl.Trainer(hl.nn.Linear(4, 2))
    X, y = np.ones((8, 4)), np.arange(8) % 2
    assert trainer.plan(X, y).steps == free.plan(X, y).steps


@settings(deadline=None, max_examples=40)
@given(st.sets(st.sampled_from(NAMES), max_size=5), st.booleans())
def test_every_other_gradient_and_update_is_what_it_was(frozen: set[str], clips: bool) -> None:
    # clipping by value does not mix parameters; by norm it does, see below
    spec = train_spec("cross_entropy", optimizer=ADAMW, clip_value=0.01 if clips else None)
    still = type(spec)(**{**vars(spec), "trainable": TrainableSpec(tuple(frozen))})
    inputs, params = batch(GRAPH, spec, 5), np.array([0.1, 0.5, 0.3, 0.3])
    free, held = runner(GRAPH, spec), runner(GRAPH, still)
    start = {kind: memory.copy() for kind, memory in held.memory.items()}
    for run in (free, held):
        run.run(5, inputs, params=params)
    at = 0
    for index, (name, shape) in enumerate(
        sorted(((n, GRAPH.types[v].shape) for n, v in GRAPH.parameters), key=lambda p: len(p[1]) == 1)
    ):
        size = int(np.prod(shape))  # type: ignore[arg-type]
        for kind in ("parameter", "gradient", "moment1", "moment2"):
            want = (start if name in frozen else free.memory)[kind][at : at + size]
            np.testing.assert_array_equal(held.memory[kind][at : at + size], want, err_msg=f"{kind} {name}")
        assert held.memory["counter"][index] == (name not in frozen)
        at += -(-size // 16) * 16


def test_the_norm_to_clip_is_of_the_trained_gradients() -> None:
    spec = train_spec("mse", optimizer=ADAMW, clip_norm=1e-3)
    still = type(spec)(**{**vars(spec), "trainable": TrainableSpec(("2.weight", "0.bias"))})
    run = runner(GRAPH, still)
    run.memory["gradient"][:] = 7.0  # of a time before they were frozen
    run.run(5, batch(GRAPH, spec, 5), params=np.array([0.0, 0.0, 0.3, 0.3]))
    gradient = run.memory["gradient"]
    trained = np.concatenate([gradient[:32], gradient[64:80], gradient[96:112], gradient[112:]])
    np.testing.assert_allclose(
        run.memory["moment1"][:30], 0.1 * gradient[:30] * 1e-3 / np.linalg.norm(trained), rtol=1e-2
    )
    assert kernels(run.plan).count("square_sum") == 3  # runs of neighbours


def test_a_frozen_batch_norm_evaluates_and_passes_the_gradient_on() -> None:
    model = hl.nn.Sequential(hl.nn.Linear(4, 5), hl.nn.BatchNorm1d(5), hl.nn.Linear(5, 2)).initialize(2)
    model[1].load_state_dict(
        {"weight": np.linspace(0.5, 2, 5, dtype=np.float32), "bias": np.ones(5, np.float32),
         "running_mean": np.linspace(-1, 1, 5, dtype=np.float32),
         "running_var": np.linspace(0.5, 3, 5, dtype=np.float32), "num_batches_tracked": np.array(7)},
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(6, 4))
    y = np.array([0, 1, 1, 0, 1, 1])
    model.freeze("1")
    step = hl.TrainStep(model, "cross_entropy", dtype="float64")
    loss, gradients = step.loss_and_grads(x, y)
    assert set(gradients) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    evaluated = hl.Trainer(copy.deepcopy(model), "cross_entropy").evaluate(x, y)["loss"]
    assert loss == pytest.approx(evaluated, rel=1e-6)  # the statistics are the running ones
    weight = model[0].weight.data
    for index in ((0, 0), (4, 3), (2, 1)):
        ends = []
        for sign in (1, -1):
            weight[index] += sign * 1e-6
            ends.append(step.loss_and_grads(x, y)[0])
            weight[index] -= sign * 1e-6
        assert gradients["0.weight"][index] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-9)
    before = copies(model)
    for _ in range(3):
        step(x, y)
    assert changed(before, model) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert int(model[1].num_batches_tracked.data) == 7
    model.unfreeze("1.bias")  # no longer frozen as a whole: it follows the batch again
    step(x, y)
    assert int(model[1].num_batches_tracked.data) == 8
    assert "1.weight" not in changed(before, model) and "1.running_mean" in changed(before, model)


def test_one_row_is_enough_for_a_frozen_batch_norm(toy: Any) -> None:
    X, y = toy.classes(33)
    model = toy.batch_norm()
    with pytest.raises(hl.ShapeError, match="BatchNorm needs"):
        hl.Trainer(model).fit(X, y, epochs=1, batch_size=32)
    with pytest.raises(hl.ShapeError, match="BatchNorm needs"):
        hl.Trainer(model, freeze={"1": {"until_epoch": 1}}).fit(X, y, epochs=2, batch_size=32)
    hl.Trainer(model, freeze={"1": {"until_epoch": None}}).fit(X, y, epochs=2, batch_size=32)
    model.freeze("1")
    hl.TrainStep(model)(X[:1], y[:1])


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_the_bits_of_what_is_frozen_stay(toy: Any, optimizer: str) -> None:
    X, y = toy.classes(100)
    for patterns in (("0",), ("*.bias",), ("0.weight", "3")):
        model = toy.mlp(6, 8, 8, 3, dropout=0.2).initialize(5)
        frozen = set(model.freeze(*patterns))
        before = copies(model)
        kind = type(hl.optim.resolve(optimizer))
        trainer = hl.Trainer(model, optimizer=kind(0.01, weight_decay=0.5), clip_norm=1.0)
        trainer.fit(X, y, epochs=3, batch_size=16)
        assert changed(before, model) == set(before) - frozen
        state = trainer.optimizer_state()
        for name in before:
            steps = 0 if name in frozen else 3 * 7
            assert int(state[f"{name}.step"]) == steps
            moments = [v for key, v in state.items() if key.startswith(name) and not key.endswith(".step")]
            assert all(np.any(m) == (name not in frozen) for m in moments)


def test_threads_do_not_change_a_bit(toy: Any, digest: Any) -> None:
    X, y = toy.classes(200)
    digests = set()
    for threads in (1, 2, 3, 7):
        model = hl.nn.Sequential(
            hl.nn.Linear(6, 64), hl.nn.BatchNorm1d(64), hl.nn.GELU(), hl.nn.Linear(64, 64), hl.nn.Dropout(0.1),
            hl.nn.Linear(64, 3),
        )  # fmt: skip
        plan = hl.FreezePlan(
            {
                "0.bias": {"until_epoch": None},
                "1": {"until_epoch": 2},
                "3": {"until_epoch": 1, "lr_scale": 0.1},
            }
        )
        trainer = hl.Trainer(model, freeze=plan, clip_norm=0.5, threads=threads)
        trainer.fit(X, y, epochs=3)
        digests.add(digest(trainer))
    assert len(digests) == 1


def test_unfreezing_goes_on_with_each_parameters_own_steps(toy: Any) -> None:
    """Two runs without a reset, frozen and then not, and the same with a TrainStep."""
    X, y = toy.classes(64)
    model = toy.mlp(6, 8, 3)
    model.freeze("0")
    trainer = hl.Trainer(model, optimizer=hl.optim.AdamW(0.01), restore_best=False)
    trainer.fit(X, y, epochs=2, batch_size=16, shuffle=False)
    model.unfreeze()
    trainer.fit(X, y, epochs=1, batch_size=16, shuffle=False, reset_optimizer=False)
    steps = {k: int(v) for k, v in trainer.optimizer_state().items() if k.endswith(".step")}
    assert steps == {"0.weight.step": 4, "0.bias.step": 4, "2.weight.step": 12, "2.bias.step": 12}

    peer = toy.mlp(6, 8, 3)
    step = hl.TrainStep(peer, "cross_entropy", hl.optim.AdamW(0.01))
    peer.freeze("0")
    for epoch in range(3):
        if epoch == 2:
            peer.unfreeze("0")
        for rows in np.split(np.arange(64), 4):
            step(X[rows], y[rows])
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(peer.state_dict()[name], value, err_msg=name)
    peer.freeze("2")  # and back: other parameters are now equally old, others not
    step(X, y)
    peer.unfreeze()
    step(X, y)
    steps = {k: int(v) for k, v in step.optimizer_state().items() if k.endswith(".step")}
    assert steps == {"0.weight.step": 6, "0.bias.step": 6, "2.weight.step": 13, "2.bias.step": 13}


def test_train_step_in_parts(toy: Any) -> None:
    X, y = toy.classes(32)
    model = toy.mlp(6, 8, 3).initialize(1)
    step = hl.TrainStep(model, "cross_entropy", hl.optim.AdamW(0.01, weight_decay=0.3))
    everything = step.loss_and_grads(X, y)[1]
    model.freeze("0.weight", "2.bias")
    some = step.loss_and_grads(X, y)[1]
    assert set(some) == {"0.bias", "2.weight"}
    assert all(np.array_equal(some[name], everything[name]) for name in some)
    offset, shape = step.layout["0.weight"]
    assert not step.flat_grads[offset : offset + int(np.prod(shape))].any()
    before = copies(model)
    step.update()
    assert changed(before, model) == {"0.bias", "2.weight"}
    output = step.forward(X)
    assert set(step.backward(np.ones_like(output))) == {"0.bias", "2.weight"}
    model.freeze()
    with pytest.raises(ValueError, match=r"\[TrainStep\] every parameter is frozen"):
        step(X, y)
    with pytest.raises(ValueError, match=r"\[forward\] every parameter is frozen"):
        step.forward(X)
    assert step.predict(X).shape == (32, 3)


def test_loaded_optimizer_state_may_have_steps_of_any_number(toy: Any) -> None:
    X, y = toy.classes(32)
    model = toy.mlp(6, 8, 3)
    step = hl.TrainStep(model, "cross_entropy", "adamw")
    for _ in range(3):
        step(X, y)
    state = step.optimizer_state()
    for at, name in enumerate(("0.weight", "0.bias", "2.weight", "2.bias")):
        state[f"{name}.step"] = np.array(10 * at)
    step.load_optimizer_state(state)
    step(X, y)
    steps = [int(step.optimizer_state()[f"{n}.step"]) for n in ("0.weight", "0.bias", "2.weight", "2.bias")]
    assert steps == [1, 11, 21, 31]


# --- the flag -------------------------------------------------------------------------------------


def test_the_flag_is_torchs_requires_grad_and_no_part_of_the_state(toy: Any) -> None:
    model = toy.mlp(6, 8, 3).initialize(0)
    names = list(model.state_dict())
    assert model.freeze("0.*") == ("0.weight", "0.bias") == model.frozen_names()
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert list(model.state_dict()) == names
    model[0].weight.requires_grad = True
    assert model.frozen_names() == ("0.bias",)
    model.load_state_dict(toy.mlp(6, 8, 3).state_dict())
    assert model.frozen_names() == ("0.bias",)
    assert model.freeze() == tuple(names) == model.unfreeze("*")
    with pytest.raises(ValueError, match=r"\[unfreeze\] pattern '1.\*' matches no parameter"):
        model.unfreeze("2.*", "1.*")


def test_the_flag_stays_with_copies_and_files(toy: Any, tmp_path: Path) -> None:
    X, y = toy.classes(40)
    model = toy.mlp(6, 8, 3)
    model.freeze("0.weight")
    assert copy.deepcopy(model).frozen_names() == ("0.weight",)
    trainer = hl.Trainer(model, freeze={"2": {"until_epoch": 1, "lr_scale": 0.5}})
    trainer.fit(X, y, epochs=2)
    assert pickle.loads(pickle.dumps(model)).frozen_names() == ("0.weight",)
    trainer.save(tmp_path / "m.safetensors")
    again = hl.load(tmp_path / "m.safetensors")
    assert again.model.frozen_names() == ("0.weight",) and again.freeze == trainer.freeze
    before = copies(again.model)
    again.fit(X, y, epochs=2)
    trainer.fit(X, y, epochs=2)
    assert "0.weight" not in changed(before, again.model)
    assert changed(copies(again.model), model) == set()
    again.model.unfreeze("*")
    again.fit(X, y, epochs=2)
    assert "0.weight" in changed(before, again.model)


def test_files_of_before_there_was_freezing_load(toy: Any, tmp_path: Path) -> None:
    X, y = toy.classes(40)
    trainer = hl.Trainer(toy.mlp(6, 8, 8, 3, dropout=0.2))
    trainer.fit(X, y, epochs=1)
    trainer.save(tmp_path / "m")
    tensors, metadata = read_safetensors(tmp_path / "m")
    data, graph = json.loads(metadata["trainer"]), json.loads(metadata["graph"])
    del data["freeze"], data["frozen"]
    for node in graph["nodes"]:  # layers had no names
        node["attrs"] = [pair for pair in node["attrs"] if pair[0] != "name"]
    write_safetensors(
        tmp_path / "m", tensors, {**metadata, "trainer": json.dumps(data), "graph": json.dumps(graph)}
    )
    again = hl.load(tmp_path / "m")
    assert (again.freeze, again.model.frozen_names()) == (None, ())
    assert again.model.set_dropout(0.2) == ("dropout0", "dropout1")
    for each in (trainer, again):
        each.fit(X, y, epochs=1)
    np.testing.assert_array_equal(again.predict(X), trainer.predict(X))


def test_a_shared_parameter_is_frozen_under_each_of_its_names() -> None:
    class Tied(hl.nn.Module):
        def __init__(self) -> None:
            self.first, self.second = hl.nn.Linear(4, 4), hl.nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x: Any) -> Any:
            return self.second(hl.nn.functional.relu(self.first(x)))

    model = Tied()
    assert model.freeze("second.weight") == ("second.weight",)
    assert model.frozen_names() == ("first.weight",)
    before = copies(model.initialize(1))
    hl.Trainer(model, "mse").fit(np.ones((8, 4)), np.zeros((8, 4)), epochs=2)
    assert changed(before, model) == {"first.bias", "second.bias"}


def test_freezing_in_a_callback_waits_for_the_next_run(toy: Any) -> None:
    X, y = toy.classes(40)
    model = toy.mlp(6, 8, 3)
    trainer = hl.Trainer(model, callbacks=[lambda state: state.model.freeze("0")])
    trainer.fit(X, y, epochs=2)
    assert int(trainer.optimizer_state()["0.weight.step"]) == 4
    before = copies(model)
    trainer.fit(X, y, epochs=1)
    assert changed(before, model) == {"2.weight", "2.bias"}


def test_passes_agree_with_the_oracle_for_every_frozen_set() -> None:
    """Fused and unfused plans of each set of frozen layers, in the interpreter."""
    for n in range(3):
        for layers in itertools.combinations("024", n):
            frozen = tuple(name for name in NAMES if name[0] in layers)
            spec = train_spec("mse", optimizer=ADAMW, trainable=TrainableSpec(frozen))
            runs = [runner(GRAPH, spec, fused=fused) for fused in (True, False)]
            for run in runs:
                run.run(4, batch(GRAPH, spec, 4), params=np.array([0.1, 0.5, 0.3, 0.3]))
            np.testing.assert_allclose(runs[0].memory["parameter"], runs[1].memory["parameter"], rtol=1e-12)
            last = list(pass_through(GRAPH, spec))[-1][1]
            assert {n for n, _ in last.outputs if n.startswith("grad:")} == {
                f"grad:{n}" for n in NAMES if n not in frozen
            }
