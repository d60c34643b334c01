# SPDX-License-Identifier: Apache-2.0
"""Every function of `hotloop.ops` with torch's and JAX's arrays: the same bits, their own kind back, theirs kept."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import ops
from tests.ops.test_out import ALL, IN_PLACE, LOSSES, result, x_of

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")


@pytest.mark.parametrize("name", ALL)
def test_torch_in_and_out(name: str) -> None:
    x = x_of(np.float32)
    expected = result(name, x)
    tensor = torch.from_numpy(x.copy())
    found = result(name, tensor)
    assert isinstance(found, torch.Tensor)
    assert np.asarray(found).tobytes() == expected.tobytes()
    out = torch.full((6, 5), float("nan"))
    assert result(name, tensor, out=out) is out
    assert out.numpy().tobytes() == expected.tobytes()
    assert tensor.numpy().tobytes() == x.tobytes()
    with pytest.raises(TypeError, match="out requires grad"):
        result(name, tensor, out=torch.zeros(6, 5, requires_grad=True))
    with pytest.raises(hl.DeviceError, match="has no memory to read"):
        result(name, tensor, out=torch.zeros(6, 5, device="meta"))


@pytest.mark.parametrize("name", ALL)
def test_jax_in_and_out_and_never_written(name: str) -> None:
    x = x_of(np.float32)
    expected = result(name, x)
    array = jax.numpy.asarray(x)
    before = np.asarray(array).tobytes()
    found = result(name, array)
    assert isinstance(found, jax.Array)
    assert np.asarray(found).tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match=rf"\[ops.{name}\] out is read-only"):
        result(name, array, out=jax.numpy.zeros((6, 5)))
    with pytest.raises(ValueError, match=r"out is read-only|out overlaps"):
        result(name, array, out=array)
    assert np.asarray(array).tobytes() == before


@pytest.mark.parametrize("name", sorted(IN_PLACE))
def test_updates_write_to_torch_and_refuse_jax(name: str) -> None:
    def call(param: Any, grad: Any, *moments: Any) -> None:
        if name == "sgd_":
            ops.sgd_(param, grad, moments[0], lr=0.1, momentum=0.9)
        else:
            getattr(ops, name)(param, grad, *moments, step=1, lr=0.1)

    def arrays(kind: Any) -> list[Any]:
        return [kind(np.full(7, value, np.float32)) for value in (1.0, 0.5, 0.0, 0.0)]

    expected, ours = arrays(np.array), arrays(torch.from_numpy)
    call(*expected)
    call(*ours)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(expected, ours))
    jaxs = arrays(jax.numpy.asarray)
    with pytest.raises(ValueError, match="param is read-only"):
        call(*jaxs)
    assert all(np.array_equal(a, b) for a, b in zip(jaxs, arrays(np.array)))


def test_results_and_parameters_outlive_whoever_made_them() -> None:
    x = x_of(np.float32)
    step = hl.TrainStep(hl.nn.Linear(5, 3), "mse", "sgd")
    step(x, np.zeros((6, 3), np.float32))
    values = step.flat_params.copy()
    tensor, array = torch.from_dlpack(step.flat_params), jax.dlpack.from_dlpack(ops.relu(x))
    tensor += 1  # torch writes to our parameters
    assert np.array_equal(step.flat_params, values + 1)
    expected = step.predict(x)
    again = hl.TrainStep(hl.nn.Linear(5, 3), "mse", "sgd")
    again.predict(x)
    again.flat_params[...] = tensor.numpy()
    assert np.array_equal(again.predict(x), expected)
    del step, again
    gc.collect()
    noise = [np.full(64, 7.0, np.float32) for _ in range(200)]
    assert np.array_equal(tensor.numpy(), values + 1) and len(noise) == 200
    assert np.array_equal(np.asarray(array), np.maximum(x, 0))


def test_what_a_loss_of_torch_tensors_is() -> None:
    for name in LOSSES:
        loss, grad = ALL[name](torch.from_numpy(x_of(np.float32)))
        assert isinstance(loss, float) and isinstance(grad, torch.Tensor)
        assert loss == ALL[name](x_of(np.float32))[0]
