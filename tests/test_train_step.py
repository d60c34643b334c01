# SPDX-License-Identifier: Apache-2.0
"""TrainStep: steps, their parts, and losses of one's own, against formulas and each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hotloop as hl


def logits_gradient(z: Any, y: Any) -> tuple[Any, Any]:
    """(cross-entropy per row, its gradient) of logits (n, C) and labels (n,)."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    rows = np.arange(len(z))
    gradient = p.copy()
    gradient[rows, y] -= 1
    return -np.log(p[rows, y]), gradient


def test_sgd_step_is_the_formula() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    X, y, w0 = rng.normal(size=(10, 3)), rng.normal(size=(10, 2)), rng.normal(size=(2, 3)).astype(np.float32)
    weight = rng.uniform(0.5, 2, 10)
    model = hl.nn.Linear(3, 2, bias=False)
    model.load_state_dict({"weight": w0})
    step = hl.TrainStep(model, "mse", hl.optim.SGD(0.1), dtype="float64")
    for _ in range(3):
        w = model.weight.data.astype(np.float64).copy()
        error = X @ w.T - y
        share = weight / weight.sum()
        loss = step(X, y, weight)
        assert loss == pytest.approx(np.sum(share * (error**2).mean(axis=1)), rel=1e-12)
        expected = w - 0.1 * (share[:, None] * error).T @ X
        np.testing.assert_allclose(model.weight.data, expected, rtol=1e-12)


def test_gradients_match_differences_of_the_loss(toy: Any) -> None:
    X, y = toy.classes(12)
    model = hl.nn.Sequential(
        hl.nn.Linear(6, 5), hl.nn.GELU(), hl.nn.Dropout(0.3), hl.nn.LayerNorm(5), hl.nn.Linear(5, 3)
    )
    step = hl.TrainStep(model, "cross_entropy", dtype="float64", seed=2)
    _, gradients = step.loss_and_grads(X, y)
    flat = step.flat_params
    for name, (offset, shape) in step.layout.items():
        for i in (0, int(np.prod(shape)) - 1):
            values = []
            for h in (1e-6, -1e-6):
                kept = flat[offset + i]
                flat[offset + i] += h
                values.append(step.loss_and_grads(X, y)[0])
                flat[offset + i] = kept
            slope = (values[0] - values[1]) / 2e-6
            assert gradients[name].ravel()[i] == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def test_parts_are_the_whole(toy: Any) -> None:
    X, y = toy.classes(20)
    weight = np.linspace(0, 1, 20).astype(np.float32)
    whole, parts, mixed = (
        hl.TrainStep(
            toy.mlp(6, 8, 3, dropout=0.2).initialize(4), "cross_entropy", hl.optim.AdamW(0.01), seed=9
        )
        for _ in range(3)
    )
    for _ in range(4):
        loss = whole(X, y, weight)
        z = parts.forward(X)
        row_loss, gradient = logits_gradient(z, y)
        share = (weight / weight.sum()).astype(np.float32)
        parts.backward(gradient * share[:, None])
        parts.update()
        other, _ = mixed.loss_and_grads(X, y, weight)
        mixed.update()
        assert loss == pytest.approx(np.dot(share, row_loss), rel=1e-5)
        assert other == loss
    np.testing.assert_array_equal(whole.flat_params, mixed.flat_params)
    np.testing.assert_allclose(whole.flat_params, parts.flat_params, rtol=2e-3, atol=2e-5)


def test_a_forward_pass_serves_one_backward_pass(toy: Any) -> None:
    X, _ = toy.classes(20)
    step = hl.TrainStep(toy.mlp(6, 8, 3), "cross_entropy")
    doutput = np.ones_like(step.forward(X))
    first = step.backward(doutput)
    with pytest.raises(RuntimeError, match="each serves once"):
        step.backward(doutput)
    step.forward(X)
    second = step.backward(doutput)
    for name, gradient in first.items():
        np.testing.assert_array_equal(gradient, second[name])


def test_dropout_masks_change_with_every_update_and_only_then(toy: Any) -> None:
    X, y = toy.classes(20)
    step = hl.TrainStep(toy.mlp(6, 32, 3, dropout=0.5), "cross_entropy", hl.optim.SGD(0.0))
    losses = [step.loss_and_grads(X, y)[0] for _ in range(2)]
    assert losses[0] == losses[1]
    step.update()  # at a rate of 0: the same weights, another mask
    assert step.loss_and_grads(X, y)[0] != losses[0]
    assert step(X, y) != step(X, y)


def test_callable_loss_is_the_built_in_one(toy: Any) -> None:
    X, y = toy.classes(20)
    weight = np.linspace(0, 1, 20).astype(np.float32)
    seen: list[Any] = []

    def loss(z: Any, target: Any) -> Any:
        seen.append((z.shape, target.dtype.kind))
        return logits_gradient(z.astype(np.float64), target)

    ours, theirs = (
        hl.TrainStep(toy.mlp(6, 8, 3).initialize(1), loss_, hl.optim.SGD(0.1), dtype="float64")
        for loss_ in ("cross_entropy", loss)
    )
    for _ in range(3):
        assert theirs(X, y, weight) == pytest.approx(ours(X, y, weight), rel=1e-10)
    np.testing.assert_allclose(theirs.flat_params, ours.flat_params, rtol=1e-10, atol=1e-12)
    assert set(seen) == {((20, 3), "i")}
    value, gradients = theirs.loss_and_grads(X, y)
    expected, others = ours.loss_and_grads(X, y)
    assert value == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(gradients["0.weight"], others["0.weight"], rtol=1e-8, atol=1e-12)


def test_flat_views_are_the_parameters_and_the_gradients(toy: Any) -> None:
    X, y = toy.classes(8)
    step = hl.TrainStep(toy.mlp(6, 3), "cross_entropy", hl.optim.SGD(0.0))
    with pytest.raises(RuntimeError, match="has not seen data"):
        step.flat_params  # noqa: B018
    step(X, y)
    assert np.shares_memory(step.flat_params, step.model[0].weight.data)
    offset, shape = step.layout["0.weight"]
    assert shape == (3, 6)
    step.flat_params[offset : offset + 18] = 2.0
    assert (step.model[0].weight.data == 2.0).all()
    _, gradients = step.loss_and_grads(X, y)
    np.testing.assert_array_equal(step.flat_grads[offset : offset + 18].reshape(3, 6), gradients["0.weight"])
    step.flat_grads[...] = 0.5  # as an all-reduce would
    step.update(lr=1.0)
    assert (step.model[0].weight.data == 1.5).all()
    assert not np.shares_memory(step.state_dict()["0.weight"], step.flat_params)


def test_batches_may_grow_and_shrink(toy: Any) -> None:
    X, y = toy.classes(100)
    step = hl.TrainStep(toy.mlp(6, 4, 3), "cross_entropy", hl.optim.SGD(0.0))
    for rows in (3, 1, 17, 100, 2):
        expected, _ = logits_gradient(step.predict(X[:rows]).astype(np.float64), y[:rows])
        assert step(X[:rows], y[:rows]) == pytest.approx(expected.mean(), rel=1e-5)
    assert step.predict(X[:0]).shape == (0, 3)


def test_state_travels(toy: Any) -> None:
    X, y = toy.classes(16)
    first = hl.TrainStep(toy.batch_norm(), "cross_entropy", seed=1)
    for _ in range(3):
        first(X, y)
    second = hl.TrainStep(toy.batch_norm(), "cross_entropy", seed=2)
    second(X, y)
    second.load_state_dict(first.state_dict())
    second.load_optimizer_state(first.optimizer_state())
    assert first(X, y) == second(X, y)
    np.testing.assert_array_equal(first.flat_params, second.flat_params)
    assert int(second.optimizer_state()["0.weight.step"]) == 4
    assert int(second.state_dict()["1.num_batches_tracked"]) == 4


def test_lr_is_settable_and_checked(toy: Any) -> None:
    X, y = toy.classes(8)
    step = hl.TrainStep(toy.mlp(6, 3), "cross_entropy", hl.optim.SGD(0.1))
    step.lr = 0.0
    step(X, y)
    before = step.flat_params.copy()
    step(X, y)
    np.testing.assert_array_equal(step.flat_params, before)
    step.lr = 0.1
    step(X, y)
    assert not np.array_equal(step.flat_params, before)
    step.lr = -1.0
    with pytest.raises(ValueError, match="lr must be"):
        step(X, y)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda s, X, y: s(X, y + 5), hl.LabelError, "not a class index"),
        (lambda s, X, y: s(X[:4], y), hl.ShapeError, "4 rows and y has 8"),
        (lambda s, X, y: s(X[:, :3], y), hl.ShapeError, "3"),
        (lambda s, X, y: s(X * np.nan, y), hl.NonFiniteError, "nan"),
        (lambda s, X, y: s(X, y, -np.ones(8)), ValueError, "negative"),
        (lambda s, X, y: s.update(), RuntimeError, "no gradients to apply"),
        (lambda s, X, y: s.backward(np.zeros((8, 3))), RuntimeError, "call forward"),
        (lambda s, X, y: (s.forward(X), s.backward(np.zeros((8, 2)))), hl.ShapeError, r"\(8, 2\).*\(8, 3\)"),
        (lambda s, X, y: s(X, None), TypeError, "y is missing"),
    ],
)  # fmt: skip
def test_bad_calls_change_nothing(toy: Any, call: Any, error: Any, text: str) -> None:
    X, y = toy.classes(8)
    step = hl.TrainStep(toy.mlp(6, 3), "cross_entropy")
    step(X, y)
    before = step.flat_params.copy()
    with pytest.raises(error, match=text):
        call(step, X, y)
    np.testing.assert_array_equal(step.flat_params, before)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"dtype": "float16"}, "dtype"), ({"threads": 0}, "threads"), ({"seed": -1}, "seed"),
     ({"seed": 2**64}, "seed"), ({"loss": "mze"}, "unknown loss"), ({"optimizer": "adamx"}, "optimizer")],
)  # fmt: skip
def test_bad_arguments(toy: Any, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        hl.TrainStep(toy.mlp(2, 2), **{"loss": "mse", **arguments})


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(toy: Any, threads: int) -> None:
    X, y = toy.classes(64, 32, 10)
    flats = []
    for count in (1, threads):
        step = hl.TrainStep(toy.mlp(32, 64, 10, dropout=0.1), "cross_entropy", threads=count)
        for _ in range(5):
            step(X, y)
        flats.append(step.flat_params.copy())
    np.testing.assert_array_equal(*flats)


def test_a_single_row_is_refused_for_batch_norm() -> None:
    step = hl.TrainStep(hl.nn.Sequential(hl.nn.Linear(3, 4), hl.nn.BatchNorm1d(4)), "mse")
    before = step.predict(np.ones((2, 3)))
    with pytest.raises(hl.ShapeError, match=r"\[TrainStep\] X has 1 row, and BatchNorm needs at least 2"):
        step(np.ones((1, 3)), np.ones((1, 4)))
    np.testing.assert_array_equal(step.predict(np.ones((2, 3))), before)


def test_a_callable_loss_without_any_weight_changes_nothing() -> None:
    def loss(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        error = prediction - target
        return (error**2).mean(axis=1), 2 * error

    step = hl.TrainStep(hl.nn.Linear(3, 1), loss, hl.optim.AdamW(0.1, weight_decay=0.5))
    step(np.ones((2, 3)), np.zeros((2, 1)))
    before = step.flat_params.copy()
    assert step(np.ones((2, 3)), np.zeros((2, 1)), np.zeros(2)) == 0.0
    np.testing.assert_array_equal(step.flat_params, before)


def test_a_batch_without_any_weight_changes_nothing() -> None:
    step = hl.TrainStep(hl.nn.Linear(3, 1), "mse", hl.optim.AdamW(0.1, weight_decay=0.5))
    step(np.ones((2, 3)), np.zeros((2, 1)))
    before, state = step.flat_params.copy(), step.optimizer_state()
    assert step(np.ones((2, 3)), np.zeros((2, 1)), np.zeros(2)) == 0.0
    np.testing.assert_array_equal(step.flat_params, before)
    for name, value in step.optimizer_state().items():
        np.testing.assert_array_equal(value, state[name])


# --- direct calls ---


def twins(toy: Any, make: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Two equal TrainSteps; the second forgets after each call what it was given, and goes the long way."""
    return hl.TrainStep(make(), *args, **options), hl.TrainStep(make(), *args, **options)


def forget(step: Any) -> Any:
    step._session.direct.clear()
    return step


MODELS: dict[str, Any] = {
    "dropout": lambda toy: toy.mlp(6, 8, 3, dropout=0.3),
    "batch norm": lambda toy: toy.batch_norm(),
    "linear": lambda toy: hl.nn.Linear(6, 3),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "x_type", "y_type"),
    [("cross_entropy", "float32", "int64"), ("cross_entropy", "float64", "int32"),
     ("cross_entropy", "uint8", "float32"), ("mse", "float32", "float64"),
     ("bce_with_logits", "float32", "float32")],
)  # fmt: skip
@pytest.mark.parametrize("model", MODELS)
def test_direct_steps_have_the_bits_of_the_long_way(
    toy: Any, model: str, loss: str, x_type: str, y_type: str, weighted: bool
) -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    fast, slow = twins(toy, lambda: MODELS[model](toy), loss, hl.optim.AdamW(0.02), seed=4)
    losses = []
    for i, rows in enumerate([8, 8, 8, 5, 8, 2, 13, 13, 8]):  # 13: more than there was room for
        x = (rng.normal(size=(rows, 6)) * 20 + 128).astype(x_type)
        y: Any = rng.dirichlet(np.ones(3), rows).astype(y_type)
        if y_type.startswith("int"):
            y = rng.integers(0, 3, rows).astype(y_type)
        weight = rng.uniform(0, 2, rows).astype(np.float32) if weighted else None
        fast.lr = slow.lr = 0.02 / (1 + i % 3)
        losses.append((fast(x, y, weight), forget(slow)(x, y, weight)))
        assert len(fast._session.direct["step"]) >= 1
    assert all(a == b for a, b in losses)
    np.testing.assert_array_equal(fast.flat_params, slow.flat_params)
    for ours, theirs in (
        (fast.state_dict(), slow.state_dict()),
        (fast.optimizer_state(), slow.optimizer_state()),
    ):
        for name, value in ours.items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_the_second_call_needs_no_border(toy: Any, monkeypatch: Any) -> None:
    X, y = toy.classes(40)
    step = hl.TrainStep(toy.two_inputs(), "cross_entropy")
    named = {"num": X[:, :2].copy(), "cat": np.arange(40) % 4}
    labels, weight = y % 2, np.ones(40, np.float32)
    step(named, labels)
    step(named, labels, weight)
    step.loss_and_grads(named, labels)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("this call took the long way")

    monkeypatch.setattr("hotloop.train_step.check_data", refuse)
    half = {key: value[:20] for key, value in named.items()}
    for _ in range(3):
        step(half, labels[:20])
        step(named, labels, weight)
        step.loss_and_grads(half, labels[:20])
        step.update()


def test_direct_gradients_are_those_of_the_long_way(toy: Any) -> None:
    X, y = toy.classes(16)
    fast, slow = twins(toy, lambda: toy.mlp(6, 8, 3, dropout=0.2), "cross_entropy", hl.optim.SGD(0.1), seed=4)
    for _ in range(3):
        ours, theirs = fast.loss_and_grads(X, y), forget(slow).loss_and_grads(X, y)
        assert ours[0] == theirs[0]
        for name, gradient in ours[1].items():
            np.testing.assert_array_equal(gradient, theirs[1][name])
        fast.flat_grads[...] *= 0.5
        slow.flat_grads[...] *= 0.5
        fast.update()
        slow.update()
        with pytest.raises(RuntimeError, match="no gradients to apply"):
            fast.update()
    np.testing.assert_array_equal(fast.flat_params, slow.flat_params)


@pytest.mark.parametrize(
    ("loss", "spoil", "error", "text"),
    [("cross_entropy", lambda x, y, w: y.__setitem__(3, 3), hl.LabelError, r"y\[3\] = 3 is not a class index"),
     ("cross_entropy", lambda x, y, w: y.__setitem__(0, -1), hl.LabelError, r"y\[0\] = -1 "),
     ("cross_entropy", lambda x, y, w: x.__setitem__((2, 1), np.nan), hl.NonFiniteError, r"X\[2, 1\] = nan"),
     ("cross_entropy", lambda x, y, w: w.__setitem__(1, -0.5), ValueError, r"sample_weight\[1\] = -0.5"),
     ("cross_entropy", lambda x, y, w: w.__setitem__(1, np.inf), hl.NonFiniteError, r"sample_weight\[1\] = inf"),
     ("mse", lambda x, y, w: y.__setitem__((1, 2), -np.inf), hl.NonFiniteError, r"y\[1, 2\] = -inf"),
     ("bce_with_logits", lambda x, y, w: y.__setitem__((1, 2), 1.5), hl.LabelError, r"y\[1, 2\] = 1.5")],
)  # fmt: skip
def test_what_is_not_clean_is_refused_and_changes_nothing(
    toy: Any, loss: str, spoil: Any, error: type[Exception], text: str
) -> None:
    x = np.ones((4, 6), np.float32)
    y = np.zeros(4, np.int64) if loss == "cross_entropy" else np.zeros((4, 3), np.float32)
    weight = np.ones(4, np.float32)
    step = hl.TrainStep(toy.batch_norm(), loss)
    for _ in range(2):
        step(x, y, weight)
    before, params = step.state_dict(), step.flat_params.copy()
    spoil(x, y, weight)
    for _ in range(2):
        with pytest.raises(error, match=text):
            step(x, y, weight)
        with pytest.raises(error, match=text):
            step.loss_and_grads(x, y, weight)
    np.testing.assert_array_equal(step.flat_params, params)
    for name, value in step.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_other_arguments_are_refused_as_ever(toy: Any) -> None:
    X, y = toy.classes(8)
    step = hl.TrainStep(toy.batch_norm(), "cross_entropy")
    for _ in range(2):
        step(X, y)
    with pytest.raises(hl.ShapeError, match="X has 8 rows and y has 7"):
        step(X, y[:7])
    with pytest.raises(hl.ShapeError, match="BatchNorm needs at least 2"):
        step(X[:1], y[:1])
    with pytest.raises(hl.ShapeError, match="0 rows"):
        step(X[:0], y[:0])
    with pytest.raises(TypeError, match="y is missing"):
        step(X, None)
    for lr, error in ((-1.0, ValueError), (float("nan"), ValueError), ("fast", TypeError)):
        step.lr = lr  # type: ignore[assignment]
        with pytest.raises(error, match="lr"):
            step(X, y)


def test_dropout_changes_with_each_direct_step(toy: Any) -> None:
    X, y = toy.classes(32)
    step = hl.TrainStep(toy.mlp(6, 32, 3, dropout=0.5), "cross_entropy", hl.optim.SGD(0.0))
    losses = [step(X, y) for _ in range(6)]
    assert len(set(losses)) == 6
    assert step.loss_and_grads(X, y)[0] == step.loss_and_grads(X, y)[0]
    step.model[2].p = 0.0
    assert step(X, y) == step(X, y)


def test_direct_forward_and_backward_are_those_of_the_long_way(toy: Any) -> None:
    X, _ = toy.classes(16)
    fast, slow = twins(toy, lambda: MODELS["batch norm"](toy), "mse", hl.optim.SGD(0.1), seed=4)
    for rows in (16, 16, 9):
        outputs = fast.forward(X[:rows]), forget(slow).forward(X[:rows])
        np.testing.assert_array_equal(*outputs)
        ours, theirs = fast.backward(outputs[0]), slow.backward(outputs[1])
        for name, gradient in ours.items():
            np.testing.assert_array_equal(gradient, theirs[name])
        if rows != 9:
            fast.update()
            slow.update()
    assert len(fast._session.direct["forward"]) == 1
    for name, value in fast.state_dict().items():
        np.testing.assert_array_equal(value, slow.state_dict()[name])
    with pytest.raises(hl.ShapeError, match=r"the output of forward had \(9, 3\)"):
        fast.backward(outputs[0][:4])
