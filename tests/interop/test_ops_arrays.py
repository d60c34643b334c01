# SPDX-License-Identifier: Apache-2.0
"""Arrays of torch and JAX as arguments: their own kind back, memory shared, nothing lost on the way."""

from __future__ import annotations

import numpy as np
import pytest

import hotloop as hl
from hotloop import ops


def test_torch_tensors_in_and_out_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    x = torch.randn(5, 7)
    y = ops.gelu(x)
    assert isinstance(y, torch.Tensor)
    torch.testing.assert_close(y, torch.nn.functional.gelu(x))
    out = torch.empty(5, 7)
    assert ops.relu(x, out=out) is out
    assert torch.equal(out, x.relu())
    assert ops.relu(x, out=x) is x
    assert torch.equal(x, out)
    a, b = torch.randn(40, 30), torch.randn(50, 30)
    torch.testing.assert_close(ops.matmul(a, b, transpose_b=True), a @ b.T)
    torch.testing.assert_close(ops.matmul(a, b.T), a @ b.T)  # a view with columns first
    loss, grad = ops.cross_entropy(a, torch.arange(40) % 30, return_grad=True)
    leaf = a.clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(leaf, torch.arange(40) % 30)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(grad, leaf.grad)


def test_an_optimiser_step_in_place_on_torch_memory_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    ours = torch.randn(1001)
    leaf = ours.clone().requires_grad_()
    rule = torch.optim.AdamW([leaf], lr=0.01, weight_decay=0.1)
    average, square = torch.zeros(1001), torch.zeros(1001)
    for step in range(1, 20):
        grad = torch.randn(1001)
        leaf.grad = grad.clone()
        rule.step()
        ops.adamw_(ours, grad, average, square, step=step, lr=0.01, weight_decay=0.1)
    torch.testing.assert_close(ours, leaf.detach(), rtol=1e-6, atol=1e-6)


def test_tensors_that_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"x requires grad.*pass x.detach\(\)"):
        ops.relu(torch.randn(3, requires_grad=True))
    with pytest.raises(hl.DTypeError, match="x cannot be read"):
        ops.relu(torch.randn(3).bfloat16())
    with pytest.raises(hl.DTypeError, match="x must be float32 or float64, got float16"):
        ops.relu(torch.randn(3).half())


def test_jax_arrays_in_and_out() -> None:
    jnp = pytest.importorskip("jax.numpy")
    import jax

    x = jnp.arange(-4.0, 4.0)
    y = ops.relu(x)
    assert isinstance(y, jax.Array)
    assert np.array_equal(np.asarray(y), np.maximum(np.asarray(x), 0))
    with pytest.raises(ValueError, match="out is read-only"):  # JAX arrays never change
        ops.relu(x, out=x)
