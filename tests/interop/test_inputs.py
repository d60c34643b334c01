# SPDX-License-Identifier: Apache-2.0
"""torch tensors, torch's DataLoader and JAX arrays as data: the bits of the arrays that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.data import border

torch = pytest.importorskip("torch")

_RNG = np.random.Generator(np.random.PCG64(3))
X = _RNG.normal(size=(150, 6)).astype(np.float32)
y = (X @ _RNG.normal(size=(6, 3))).argmax(axis=1)


def trainer() -> Any:
    model = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.ReLU(), hl.nn.Dropout(0.1), hl.nn.Linear(8, 3))
    return hl.Trainer(model, "cross_entropy", optimizer=hl.optim.AdamW(0.01))


def same(a: Any, b: Any) -> bool:
    states = a.model.state_dict(), b.model.state_dict()
    equal = all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    return equal and a.history.history == b.history.history


TENSORS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "torch": lambda: (torch.from_numpy(X), torch.from_numpy(y)),
    "torch float64": lambda: (torch.from_numpy(X).double(), torch.from_numpy(y).int()),
    "columns first": lambda: (torch.from_numpy(np.asfortranarray(X)), torch.from_numpy(y)),
    "every second": lambda: (torch.from_numpy(np.repeat(X, 2, axis=0))[::2], torch.from_numpy(y)),
    "detached": lambda: (torch.from_numpy(X).requires_grad_().detach(), torch.from_numpy(y)),
    "dlpack": lambda: (Producer(X), Producer(y)),
    "read-only dlpack": lambda: (Producer(read_only(X)), y),
}  # fmt: skip


class Producer:
    """An array of some other library: DLPack is all that it offers."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def read_only(array: Any) -> Any:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_give_the_bits_of_their_arrays(kind: str) -> None:
    given, target = TENSORS[kind]()
    array, other = trainer(), trainer()
    array.fit(X, y, epochs=3, validation=0.2)
    other.fit(given, target, epochs=3, validation=0.2)
    assert same(array, other)
    assert other.evaluate(given, target) == array.evaluate(X, y)
    assert np.array_equal(other.predict(given), array.predict(X))
    auto = hl.Trainer(trainer().model)
    auto.fit({"x": given}, target, epochs=1)
    assert auto._known_loss().kind == "cross_entropy"
    assert hl.TrainStep(trainer().model, "cross_entropy")(given, target) > 0


def test_jax_arrays_give_the_bits_of_their_arrays() -> None:
    jnp = pytest.importorskip("jax.numpy")
    array, other = trainer(), trainer()
    array.fit(X, y, epochs=2)
    other.fit(jnp.asarray(X), jnp.asarray(y), epochs=2)
    assert same(array, other)
    assert np.array_equal(other.predict(jnp.asarray(X)), array.predict(X))


def test_a_tensor_is_used_where_it_lies() -> None:
    tensor = torch.from_numpy(X.copy())
    assert border.as_array(tensor, "X", where="test").ctypes.data == tensor.data_ptr()


REFUSED: list[tuple[Callable[[], Any], Callable[[], Any], type[Exception], str]] = [
    (lambda: torch.from_numpy(X).requires_grad_(), lambda: y, TypeError, r"requires grad.*X.detach\(\)"),
    (lambda: X, lambda: torch.zeros(150, requires_grad=True), TypeError, r"requires grad.*y.detach\(\)"),
    (lambda: torch.from_numpy(X).bfloat16(), lambda: y, hl.DTypeError, r"bfloat16.*X.float\(\)"),
    (lambda: torch.from_numpy(X).to_sparse(), lambda: y, hl.DTypeError, r"sparse tensor.*to_dense\(\)"),
    (lambda: torch.zeros(150, 6, device="meta"), lambda: y, hl.DeviceError, r"X is on meta.*X.cpu\(\)"),
    (lambda: torch.zeros(150, 6, dtype=torch.bool), lambda: y, hl.DTypeError, "X has dtype bool"),
    (lambda: torch.from_numpy(X) * torch.nan, lambda: y, hl.NonFiniteError, r"X\[0, 0\] = nan"),
]


@pytest.mark.parametrize(("given", "target", "error", "message"), REFUSED)
def test_tensors_that_are_refused(
    given: Callable[[], Any], target: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trainer().fit(given(), target())


def data_set() -> Any:
    return torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))


def test_each_batch_of_a_loader_is_a_step() -> None:
    loader = torch.utils.data.DataLoader(data_set(), batch_size=32)
    array, loaded = trainer(), trainer()
    array.fit(X, y, epochs=3, batch_size=32, shuffle=False, validation={"val": (X, y)})
    loaded.fit(loader, epochs=3, validation=loader)
    assert same(array, loaded)
    assert loaded.evaluate(loader) == array.evaluate(X, y)
    assert np.array_equal(loaded.predict(loader), array.predict(X))
    assert np.array_equal(loaded.predict_proba(loader), array.predict_proba(X))


def test_a_loader_that_shuffles_steps_through_its_own_batches() -> None:
    def loader() -> Any:
        generator = torch.Generator().manual_seed(5)
        return torch.utils.data.DataLoader(
            data_set(), batch_size=40, shuffle=True, drop_last=True, generator=generator
        )

    model = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.Tanh(), hl.nn.Linear(8, 3))
    stepped = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.Tanh(), hl.nn.Linear(8, 3))
    run = hl.Trainer(model, "cross_entropy").fit(loader(), epochs=2)
    step, same_batches = hl.TrainStep(stepped, "cross_entropy"), loader()
    for _ in range(2):
        for batch in same_batches:
            step(*batch)
    assert run.epochs == 2
    assert run.about["configuration"]["settings"]["steps per epoch"] == 3
    assert run.about["cost"]["rows"] == 120
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, stepped.state_dict()[name])


class Endless(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
    """Rows without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.from_numpy(X[i]), int(y[i])) for i in range(130)])


def test_a_loader_without_a_length_is_counted() -> None:
    loader = torch.utils.data.DataLoader(Endless(), batch_size=32)
    array, loaded = trainer(), trainer()
    array.fit(X[:130], y[:130], epochs=2, batch_size=32, shuffle=False)
    loaded.fit(loader, epochs=2)
    assert same(array, loaded)


def test_batches_of_a_sampler_and_of_a_collate_function() -> None:
    sampler = [list(range(50)), list(range(50, 60)), list(range(60, 150))]
    loader = torch.utils.data.DataLoader(data_set(), batch_sampler=sampler)
    run = trainer().fit(loader, epochs=2)
    assert run.evidence is not None
    assert (run.evidence.setup.steps_per_epoch, run.evidence.setup.batch_size) == (3, 90)
    named = torch.utils.data.DataLoader(
        data_set(), batch_size=50, collate_fn=lambda rows: dict(x=torch.stack([row[0] for row in rows]))
    )
    with pytest.raises(TypeError, match=r"block 0 of the stream is of type dict.*collate_fn"):
        trainer().fit(named)
    with pytest.raises(TypeError, match="y is given beside a stream"):
        trainer().fit(hl.data.Stream(loader), y)


def test_a_last_batch_of_one_row_is_refused_by_batch_norm() -> None:
    model = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.BatchNorm1d(8), hl.nn.Linear(8, 3))
    loader = torch.utils.data.DataLoader(data_set(), batch_size=149)
    with pytest.raises(hl.ShapeError, match="BatchNorm needs at least 2"):
        hl.Trainer(model, "cross_entropy").fit(loader)
