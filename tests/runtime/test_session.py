# SPDX-License-Identifier: Apache-2.0
"""The session: who owns the numbers, what a snapshot holds, who may enter."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import env
from hotloop.compile import compile_plan
from hotloop.compile.plan import PlanSpec
from hotloop.runtime import threads
from hotloop.runtime.session import Session


def make_session(module: Any, optimizer: Any = None, **options: Any) -> Session:
    return Session(module, optimizer or hl.optim.AdamW(), **{"seed": 0, "threads": None, **options})


def opened(toy: Any, module: Any, **options: Any) -> Session:
    X, _ = toy.classes(8)
    session = make_session(module, **options)
    session.graph_for({"x": X}, "test")
    return session


def test_parameters_and_buffers_become_views_with_the_same_values(toy: Any) -> None:
    module = toy.batch_norm().initialize(3)
    before = module.state_dict()
    session = opened(toy, module)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    for parameter in module.parameters():
        assert np.shares_memory(parameter.data, session.memory.native.parameters)
    session.memory.native.parameters[...] = 7.0
    assert (next(module.parameters()).data == 7.0).all()
    for name, buffer in module.named_buffers():
        assert np.shares_memory(buffer.data, session.memory.native.state) == (not name.endswith("tracked"))


def test_uninitialised_modules_get_the_sessions_seed_and_given_values_stay(toy: Any) -> None:
    expected = toy.mlp(6, 4, 3).initialize(5).state_dict()
    module = toy.mlp(6, 4, 3)
    opened(toy, module, seed=5)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value, expected[name])


def test_the_module_is_the_source_of_truth_between_entries(toy: Any) -> None:
    module = toy.mlp(6, 4, 3)
    first, second = opened(toy, module), opened(toy, module)  # the second takes the arrays over
    weight = next(module.parameters())
    assert np.shares_memory(weight.data, second.memory.native.parameters)
    weight.data[...] = 3.0
    with first.entered("test"):
        assert np.shares_memory(weight.data, first.memory.native.parameters)
        assert (weight.data == 3.0).all()
    weight.bind(np.full(weight.shape, 5.0, np.float32))
    with second.entered("test"):
        assert (weight.data == 5.0).all()
        assert np.shares_memory(weight.data, second.memory.native.parameters)


def test_a_copy_of_a_trained_model_stands_alone(toy: Any) -> None:
    X, y = toy.classes(64)
    trainer = hl.Trainer(toy.batch_norm())
    trainer.fit(X, y, epochs=1)
    before = trainer.model.state_dict()
    for other in (copy.deepcopy(trainer.model), pickle.loads(pickle.dumps(trainer.model))):
        np.testing.assert_array_equal(hl.Trainer(other).predict(X), trainer.predict(X))
        for parameter in other.parameters():
            parameter.data[...] = 0.0
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_snapshot_and_restore_cover_everything_that_training_changes(toy: Any, digest: Any) -> None:
    X, y = toy.classes()
    trainer = hl.Trainer(toy.batch_norm())
    trainer.fit(X, y, epochs=1)
    session, before = trainer._session, digest(trainer)
    snapshot = session.memory.snapshot()
    trainer.fit(X, y, epochs=2, reset_optimizer=False)
    changed = trainer.model.state_dict()
    assert digest(trainer) != before
    assert changed["1.num_batches_tracked"] == 30  # 10 steps an epoch
    session.memory.restore(snapshot)
    assert digest(trainer) == before
    assert trainer.model.state_dict()["1.num_batches_tracked"] == 10
    native = snapshot.native
    assert session.memory.snapshot(snapshot).native is native  # reused, not allocated again


def test_optimizer_state_has_torchs_names_and_round_trips(toy: Any) -> None:
    X, y = toy.classes(64)
    trainer = hl.Trainer(toy.mlp(6, 4, 3), optimizer=hl.optim.AdamW(decay="weights"))
    trainer.fit(X, y, epochs=1)
    state = trainer.optimizer_state()
    names = [n for n, _ in trainer.model.named_parameters()]
    assert set(state) == {f"{n}.{part}" for n in names for part in ("exp_avg", "exp_avg_sq", "step")}
    assert state["0.weight.exp_avg"].shape == (4, 6)
    assert [int(state[f"{n}.step"]) for n in names] == [2] * len(names)
    assert (state["0.weight.exp_avg_sq"] > 0).any()
    session = trainer._session.memory
    session.reset_optimizer()
    assert all(not value.any() for value in session.optimizer_state().values())
    session.load_optimizer_state(state, "test")
    for key, value in session.optimizer_state().items():
        np.testing.assert_array_equal(value, state[key])
    for bad in ({**state, "odd": 1}, {**state, "0.bias.step": np.zeros(2)}, {}):
        with pytest.raises(ValueError, match=r"\[test\]"):
            session.load_optimizer_state(bad, "test")


@pytest.mark.parametrize(
    ("optimizer", "parts"),
    [(hl.optim.SGD(0.1), set()), (hl.optim.SGD(0.1, momentum=0.9), {"momentum_buffer"}),
     (hl.optim.RMSprop(0.01), {"square_avg"})],
)  # fmt: skip
def test_other_optimizers_state(toy: Any, optimizer: Any, parts: set[str]) -> None:
    X, y = toy.classes(64)
    trainer = hl.Trainer(toy.mlp(6, 3), optimizer=optimizer)
    trainer.fit(X, y, epochs=1)
    assert set(trainer.optimizer_state()) == {
        f"0.{n}.{p}" for n in ("weight", "bias") for p in {*parts, "step"}
    }


def test_a_second_thread_is_turned_away_and_the_same_thread_is_not(toy: Any) -> None:
    X, y = toy.classes()
    trainer = hl.Trainer(toy.mlp(6, 4, 3))
    seen: list[Any] = []

    def other_thread() -> None:
        try:
            hl.Trainer(trainer.model).predict(X)  # another trainer of the same model
        except RuntimeError as error:
            seen.append(str(error))

    def on_epoch_end(state: Any) -> None:
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        seen.append(trainer.evaluate(X, y)["loss"])
        with pytest.raises(RuntimeError, match="a callback may not call fit"):
            trainer.fit(X, y)

    trainer.callbacks = (hl.Trainer(trainer.model, callbacks=[on_epoch_end]).callbacks)[:1]
    trainer.fit(X, y, epochs=1)
    assert "[predict] this model is in use in another thread" in seen[0]
    assert np.isfinite(seen[1])
    other_thread()
    assert len(seen) == 2  # free again


def test_models_in_threads_of_their_own_give_serial_bits(toy: Any, digest: Any) -> None:
    X, y = toy.classes(400, 16, 4)

    def train(seed: int) -> Any:
        trainer = hl.Trainer(toy.mlp(16, 64, 4, dropout=0.1), seed=seed, threads=2)
        run = trainer.fit(X, y, validation=0.2, epochs=5)
        return digest(trainer), run.history["val_loss"]

    serial = [train(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(train, range(4))) == serial
    assert len({d for d, _ in serial}) == 4


def test_the_gil_is_free_while_an_epoch_runs(toy: Any) -> None:
    X, y = toy.classes(16_000, 64, 10)
    trainer = hl.Trainer(toy.mlp(64, 256, 10), threads=1)
    trainer.fit(X, y, epochs=1, dry_run=True)
    ticks: set[int] = set()  # the milliseconds in which the other thread ran
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            ticks.add(int(time.perf_counter() * 1e3))

    thread = threading.Thread(target=count)
    thread.start()
    begin = time.perf_counter()
    trainer.fit(X, y, epochs=1, batch_size=8)
    end = time.perf_counter()
    done.set()
    thread.join()
    assert end - begin > 0.02  # long enough to tell
    quarter = (end - begin) / 4
    # The middle half lies inside the one native call: if that held the GIL, nothing else would have run.
    alive = sum(begin + quarter < tick / 1e3 < end - quarter for tick in ticks)
    assert alive >= 3


def test_params_table_rows(toy: Any) -> None:
    X, _ = toy.classes(8)
    module = hl.nn.Sequential(hl.nn.Linear(6, 4), hl.nn.Dropout(0.25), hl.nn.Linear(4, 4), hl.nn.Dropout(0.5))
    session = make_session(module, hl.optim.AdamW(0.1, weight_decay=0.3, decay="weights"))
    graph = session.graph_for({"x": X}, "test")
    spec = PlanSpec("vjp", 8, optimizer=session.optimizer.spec())
    table = session.params_table(compile_plan(graph, spec), graph, [1.0, 0.5])
    np.testing.assert_allclose(table, [[0.1, 0.3, 0.1, 0, 0.25, 0.5], [0.05, 0.3, 0.05, 0, 0.25, 0.5]])


def test_threads_follow_cost_unless_told(toy: Any, monkeypatch: Any) -> None:
    X, _ = toy.classes(8)
    session = make_session(toy.mlp(6, 8, 3))
    graph = session.graph_for({"x": X}, "test")
    monkeypatch.setattr(threads, "_chosen", None)
    small, large = (compile_plan(graph, PlanSpec("predict", rows)) for rows in (8, 4096))
    assert small.flops.at(8) / 2 < threads.ONE_THREAD_BELOW < large.flops.at(4096) / 2
    assert [threads.threads_for(p) for p in (small, large)] == [1, threads.default_threads()]
    assert threads.threads_for(small, 5) == 5
    for expected in (3, 2):  # a change counts from the next call on
        hl.set_num_threads(expected)
        with session.entered("test"):
            assert session.program(graph, PlanSpec("predict", 4096)).team.threads == expected
    hl.set_num_threads(None)
    assert hl.get_num_threads() == threads.default_threads()
    for bad in (0, -1, 1.5, True, 1000):
        with pytest.raises((TypeError, ValueError), match="threads must be"):
            hl.set_num_threads(bad)


def test_environment_limits_the_default(monkeypatch: Any) -> None:
    monkeypatch.setattr(threads._core, "cpu_count", lambda: 8)
    for own, omp, expected in (
        ("", "", 8),
        ("3", "", 3),
        ("", "2,4", 2),
        ("5", "4", 4),
        ("64", "", 8),
        ("", "x", 8),
    ):
        monkeypatch.setenv(env.NUM_THREADS, own)
        monkeypatch.setenv(env.OMP_NUM_THREADS, omp)
        assert threads.default_threads() == expected
    monkeypatch.setenv(env.NUM_THREADS, "many")
    with pytest.raises(ValueError, match="HOTLOOP_NUM_THREADS must be a positive integer, got 'many'"):
        threads.default_threads()


def test_devices_and_config(capsys: Any) -> None:
    cpu, cuda = hl.devices()
    assert (cpu.kind, cpu.available) == ("cpu", True)
    words = "(NVIDIA|this build of hotloop has no CUDA part)"
    assert cuda.kind == "cuda"
    assert cuda.available or re.search(words, cuda.detail)
    hl.show_config()
    text = capsys.readouterr().out
    assert hl.__version__ in text
    assert "HOTLOOP_ISA" in text
    for where in (hl.Trainer, hl.TrainStep):
        if not cuda.available:
            with pytest.raises(hl.DeviceError, match=f"{words}.*device='cpu' works"):
                where(hl.nn.Linear(1, 1), "mse", device="cuda")
        with pytest.raises(ValueError, match="device must be one of"):
            where(hl.nn.Linear(1, 1), "mse", device="tpu")


def test_isa_variable_chooses_the_kernels(toy: Any) -> None:
    code = (
        "import numpy as np, hotloop as hl\n"
        "s = hl.TrainStep(hl.nn.Linear(2, 1), 'mse')\n"
        "s(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32))\n"
        "print(next(iter(s._session._programs.values())).program.isa)"
    )
    env_ = {**os.environ, "HOTLOOP_ISA": "generic"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=env_, capture_output=True, text=True, timeout=120, check=True
    )
    assert found.stdout.strip() == "generic"


def test_inputs_may_change_shape_but_not_the_parameters(toy: Any) -> None:
    class Mean(hl.nn.Module):
        def __init__(self) -> None:
            self.linear = hl.nn.Linear(3, 2)

        def forward(self, x: Any) -> Any:
            return self.linear(x).mean(1)

    trainer = hl.Trainer(Mean(), "mse")
    rng = np.random.Generator(np.random.PCG64(0))
    for length in (4, 7):
        X = rng.normal(size=(5, length, 3)).astype(np.float32)
        w, b = (p.data for p in trainer.model.parameters())
        np.testing.assert_allclose(trainer.predict(X), (X @ w.T + b).mean(1), rtol=1e-5, atol=1e-6)
    trainer.model.linear = hl.nn.Linear(3, 2).initialize(8)  # a fresh head of the same shape
    w, b = (p.data.copy() for p in trainer.model.parameters())
    np.testing.assert_allclose(trainer.predict(X), (X @ w.T + b).mean(1), rtol=1e-5, atol=1e-6)
    trainer.fit(X, np.zeros((5, 2)), epochs=1)
    assert not np.array_equal(trainer.model.linear.weight.data, w)
    trainer.model.linear = hl.nn.Linear(5, 4)  # other parameters: other memory
    X = rng.normal(size=(2, 4, 5)).astype(np.float32)
    assert trainer.predict(X).shape == (2, 4)
    w, b = (p.data.copy() for p in trainer.model.parameters())
    np.testing.assert_allclose(trainer.predict(X), (X @ w.T + b).mean(1), rtol=1e-5, atol=1e-6)


def test_other_parameters_are_refused_where_views_of_them_are_out() -> None:
    model = hl.nn.Sequential(hl.nn.Linear(3, 2))
    step = hl.TrainStep(model, "mse")
    x = np.ones((4, 3), np.float32)
    step(x, np.zeros((4, 2)))
    before = step.flat_params.copy()
    model[0] = hl.nn.Linear(3, 5)
    with pytest.raises(hl.GraphError, match="other parameters than"):
        step.predict(x)
    np.testing.assert_array_equal(step.flat_params, before)


def test_reserved_input_names() -> None:
    class Bad(hl.nn.Module):
        def forward(self, target: Any) -> Any:
            return target * 2

    with pytest.raises(hl.GraphError, match="may not be named 'target'"):
        hl.Trainer(Bad(), "mse").predict({"target": np.ones((2, 2), np.float32)})


def test_an_attribute_set_later_counts() -> None:
    model = hl.nn.Sequential(hl.nn.Linear(4, 64), hl.nn.Dropout(0.0), hl.nn.Linear(64, 2))
    step = hl.TrainStep(model, "mse", hl.optim.SGD(0.0))
    x = np.ones((8, 4), dtype=np.float32)
    whole = step.forward(x)
    model[1].p = 0.5
    dropped = step.forward(x)
    assert not np.array_equal(whole, dropped), "the new drop probability had no effect"
    model[1].p = 0.0
    np.testing.assert_array_equal(step.forward(x), whole)
