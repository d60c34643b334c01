# SPDX-License-Identifier: Apache-2.0
"""The fused operators beside torch's own functions: values, gradients, the compiler, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import hotloop as hl  # noqa: E402
import hotloop.torch as ours  # noqa: E402

F = torch.nn.functional


def randn(*shape: int, dtype: Any = torch.float64, seed: int = 0) -> Any:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def labels(rows: int, classes: int) -> Any:
    return torch.arange(rows) * 7 % classes


def probabilities(rows: int, classes: int, dtype: Any) -> Any:
    return randn(rows, classes, dtype=dtype, seed=3).softmax(1)


def ignoring(rows: int, classes: int) -> Any:
    target = labels(rows, classes)
    target[::3] = -100
    return target


# name -> (ours, torch's, inputs that take gradients)
Case = tuple[Callable[..., Any], Callable[..., Any], Callable[[Any], list[Any]]]


def loss_case(target: Callable[[int, int, Any], Any], weighted: bool = False, smoothing: float = 0.0) -> Case:
    rows, classes = 9, 37

    def options(x: Any) -> dict[str, Any]:
        weight = torch.linspace(0.5, 2, classes, dtype=x.dtype) if weighted else None
        return dict(label_smoothing=smoothing, weight=weight)

    return (
        lambda x: ours.cross_entropy(x, target(rows, classes, x.dtype), **options(x)),
        lambda x: F.cross_entropy(x, target(rows, classes, x.dtype), **options(x)),
        lambda dtype: [3 * randn(rows, classes, dtype=dtype)],
    )


CASES: dict[str, Case] = {
    "linear_gelu": (
        ours.linear_gelu,
        lambda x, w, b: F.gelu(F.linear(x, w, b)),
        lambda dtype: [randn(5, 6, 7, dtype=dtype), randn(9, 7, dtype=dtype, seed=1), randn(9, dtype=dtype)],
    ),
    "linear_gelu tanh, no bias": (
        lambda x, w: ours.linear_gelu(x, w, approximate="tanh"),
        lambda x, w: F.gelu(F.linear(x, w), approximate="tanh"),
        lambda dtype: [randn(33, 70, dtype=dtype), randn(40, 70, dtype=dtype, seed=1)],
    ),
    "linear_gelu, one row, strides": (
        lambda x, w, b: ours.linear_gelu(x[0, ::2], w.t(), b),
        lambda x, w, b: F.gelu(F.linear(x[0, ::2], w.t(), b)),
        lambda dtype: [randn(2, 14, dtype=dtype), randn(7, 4, dtype=dtype), randn(4, dtype=dtype)],
    ),
    "layer_norm": (
        lambda x, w, b: ours.layer_norm(x, (6, 7), w, b),
        lambda x, w, b: F.layer_norm(x, (6, 7), w, b),
        lambda dtype: [randn(5, 6, 7, dtype=dtype), randn(6, 7, dtype=dtype, seed=1), randn(6, 7, dtype=dtype)],
    ),
    "layer_norm, plain, strides": (
        lambda x: ours.layer_norm(x.t(), 33, eps=1e-3),
        lambda x: F.layer_norm(x.t(), (33,), eps=1e-3),
        lambda dtype: [randn(33, 65, dtype=dtype)],
    ),
    "layer_norm, weight alone": (
        lambda x, w: ours.layer_norm(x, [40], w),
        lambda x, w: F.layer_norm(x, [40], w),
        lambda dtype: [randn(70, 40, dtype=dtype), randn(40, dtype=dtype, seed=1)],
    ),
    "cross_entropy": loss_case(lambda r, c, d: labels(r, c)),
    "cross_entropy, smooth": loss_case(lambda r, c, d: labels(r, c), smoothing=0.1),
    "cross_entropy, weights": loss_case(lambda r, c, d: ignoring(r, c), weighted=True),
    "cross_entropy, weights, smooth": loss_case(lambda r, c, d: ignoring(r, c), weighted=True, smoothing=0.2),
    "cross_entropy, ignored, smooth": loss_case(lambda r, c, d: ignoring(r, c), smoothing=0.2),
    "cross_entropy, probabilities": loss_case(probabilities, smoothing=0.1),
    "cross_entropy, probabilities, weights": loss_case(probabilities, weighted=True, smoothing=0.1),
    "dropout": (
        lambda x: ours.dropout(x, 0.3, seed=5),
        lambda x: x * (ours.dropout(torch.ones_like(x), 0.3, seed=5)),
        lambda dtype: [randn(30, 7, dtype=dtype)],
    ),
}  # fmt: skip


@pytest.fixture(params=["direct", "dispatched"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The functions' short cut, or the operators as the compiler calls them."""
    if request.param == "dispatched":
        monkeypatch.setattr("hotloop.torch.eager.direct", lambda *tensors: False)
    return str(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name: str, dtype: Any, way: str) -> None:
    mine, theirs, make = CASES[name]
    a, b = ([x.requires_grad_() for x in make(dtype)] for _ in range(2))
    y, expected = mine(*a), theirs(*b)
    # Sums of products of up to some hundred terms, in another order than torch's.
    tolerance = dict(rtol=1e-5, atol=5e-5) if dtype == torch.float32 else dict(rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(y, expected, **tolerance)
    seed = torch.randn_like(expected)
    y.backward(seed)
    expected.backward(seed)
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p.grad, q.grad, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(mine(*a), y)


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    mine, _, make = CASES[name]
    assert torch.autograd.gradcheck(mine, [x.requires_grad_() for x in make(torch.float64)])


@pytest.mark.parametrize("name", ["linear_gelu", "layer_norm", "cross_entropy"])
def test_second_derivatives_are_refused_and_not_wrong(name: str, way: str) -> None:
    mine, _, make = CASES[name]
    inputs = [x.requires_grad_() for x in make(torch.float64)]
    grads = torch.autograd.grad(mine(*inputs).square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match=r"second derivative|once_differentiable"):
        sum(g.square().sum() for g in grads).backward()


def test_transforms_and_modes_go_through_the_dispatcher() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    x = randn(4, 3)
    y = torch.func.functional_call(torch.nn.LayerNorm(3).double(), {}, (x,))
    with FlopCounterMode(display=False):
        torch.testing.assert_close(ours.layer_norm(x, 3), y.detach())
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = ours.linear_gelu(torch.empty(2, 3), torch.empty(5, 3))
    assert fake.shape == (2, 5) and type(fake) is not torch.Tensor


def test_only_the_gradients_that_are_asked_for(way: str) -> None:
    x, w, b = randn(4, 3), randn(5, 3).requires_grad_(), randn(5).requires_grad_()
    (db,) = torch.autograd.grad(ours.linear_gelu(x, w, b).sum(), [b])
    z = F.linear(x, w.detach(), b.detach()).requires_grad_()
    (dz,) = torch.autograd.grad(F.gelu(z).sum(), [z])
    torch.testing.assert_close(db, dz.sum(0))
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (dw,) = torch.autograd.grad(ours.layer_norm(x, 3, scale).square().sum(), [scale])
    torch.testing.assert_close(dw, 2 * F.layer_norm(x, (3,)).square().sum(0))


OPS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "linear_gelu": lambda: (randn(4, 3).requires_grad_(), randn(5, 3).requires_grad_(), randn(5), False, True),
    "cross_entropy": lambda: (randn(4, 3).requires_grad_(), labels(4, 3), None, 0.1, -100),
    "layer_norm": lambda: (randn(4, 3).requires_grad_(), 1, randn(3).requires_grad_(), None, 1e-5),
    "dropout": lambda: (randn(4, 3).requires_grad_(), 0.5, torch.tensor(3)),
    "linear_gelu_backward": lambda: (
        randn(4, 5), randn(4, 3), randn(5, 3), randn(4, 5), True, [True, False, True]
    ),
    "cross_entropy_backward": lambda: (randn(), randn(4, 3), labels(4, 3), None, 0.0, -100),
    "layer_norm_backward": lambda: (
        randn(4, 3), randn(4, 3), randn(4), randn(4), 1, None, [True, True, False]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_opcheck(name: str) -> None:
    torch.library.opcheck(getattr(torch.ops.hotloop, name).default, OPS[name]())


def network(x: Any, w: Any, b: Any, scale: Any, target: Any) -> Any:
    h = ours.layer_norm(ours.linear_gelu(x, w, b), scale.shape, scale)
    return ours.cross_entropy(ours.dropout(h, 0.25), target, label_smoothing=0.1)


def network_inputs() -> list[Any]:
    torch.manual_seed(0)
    tensors = [torch.randn(16, 8), torch.randn(12, 8), torch.randn(12), torch.rand(12)]
    return [*(t.requires_grad_() for t in tensors), labels(16, 12)]


@pytest.mark.filterwarnings("default::DeprecationWarning")  # of torch's own, inside its compiler
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_the_compiler_keeps_each_as_one_node(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")

    def counting(graph: Any, inputs: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    torch._dynamo.reset()
    if backend == "inductor":  # its own random numbers would be others
        import torch._inductor.config as inductor

        monkeypatch.setattr(inductor, "fallback_random", True)
    compiled = torch.compile(network, backend=counting, fullgraph=True)
    mine, expected = network_inputs(), network_inputs()
    torch.manual_seed(4)
    y = compiled(*mine)
    y.backward()
    torch.manual_seed(4)
    z = network(*expected)
    z.backward()
    torch.testing.assert_close(y, z)
    for p, q in zip(mine[:4], expected[:4], strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    ops = [name for name in seen if name.startswith("hotloop")]
    assert sorted(name.split(".")[1] for name in ops) == [
        "cross_entropy", "dropout", "layer_norm", "linear_gelu"
    ]  # fmt: skip
    assert compiled(*mine).item() != compiled(*mine).item()  # the mask is drawn anew in compiled code


def test_dropout_follows_its_seed_or_torchs(way: str) -> None:
    x = torch.ones(10_000)
    y = ours.dropout(x, 0.25, seed=1)
    assert torch.equal(y, ours.dropout(x, 0.25, seed=1))
    assert not torch.equal(y, ours.dropout(x, 0.25, seed=2))
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.manual_seed(0)
    z = ours.dropout(x, 0.25)
    assert not torch.equal(z, ours.dropout(x, 0.25))
    torch.manual_seed(0)
    assert torch.equal(z, ours.dropout(x, 0.25))
    assert ours.dropout(x, 0.25, training=False) is x
    assert torch.equal(ours.dropout(x, 1.0), torch.zeros(10_000))


def test_empty_inputs(way: str) -> None:
    x = torch.empty(0, 3, requires_grad=True)
    y = ours.linear_gelu(x, torch.ones(4, 3, requires_grad=True), torch.ones(4, requires_grad=True))
    y.sum().backward()
    assert y.shape == (0, 4) and x.grad.shape == (0, 3)
    assert ours.layer_norm(torch.empty(0, 3), 3).shape == (0, 3)
    assert ours.dropout(torch.empty(0), 0.5).shape == (0,)
    none = ours.cross_entropy(torch.ones(2, 3), torch.full((2,), -100))
    assert torch.isnan(none)  # as torch's


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ours.linear_gelu(torch.ones(2, 3), torch.ones(4, 2)), hl.ShapeError, r"got \(2, 3\) and"),
        (lambda: ours.linear_gelu(torch.ones(2, 3), torch.ones(4, 3), torch.ones(3)), hl.ShapeError, "bias"),
        (lambda: ours.linear_gelu(torch.ones(3), torch.ones(4, 3), approximate="erf"), ValueError, "'tanh'"),
        (lambda: ours.layer_norm(torch.ones(2, 3), 4), hl.ShapeError, r"end in the dimensions \(4,\)"),
        (lambda: ours.layer_norm(torch.ones(2, 3), 3, torch.ones(2)), hl.ShapeError, "weight must be"),
        (lambda: ours.layer_norm(torch.ones(2, 3), 3, randn(3)), hl.DTypeError, "float64 beside torch.float32"),
        (lambda: ours.dropout(torch.ones(3).bfloat16()), hl.DTypeError, "x is torch.bfloat16; allowed"),
        (lambda: ours.dropout(torch.ones(3), 1.5), ValueError, "p must be"),
        (lambda: ours.dropout([1.0]), TypeError, "x must be a tensor, got list"),
        (
            lambda: ours.cross_entropy(torch.ones(2, 3), torch.tensor([0, 3])),
            hl.LabelError, r"target\[1\] is 3; allowed 0 to 2",
        ),
        (lambda: ours.cross_entropy(torch.ones(2, 3), torch.zeros(2, 1).long()), hl.ShapeError, "target must"),
        (lambda: ours.cross_entropy(torch.ones(2, 3), torch.ones(2).byte()), hl.DTypeError, "target.long"),
        (lambda: ours.cross_entropy(torch.ones(2, 3, 4), torch.ones(2)), hl.ShapeError, "movedim"),
        (
            lambda: ours.cross_entropy(torch.ones(2, 3), torch.ones(2, 3, requires_grad=True)),
            ValueError, "target requires grad",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_imaginary_parts_of_conjugates_have_their_signs() -> None:
    """They lie in memory with the other sign, and torch notes that beside them."""
    z = torch.complex(torch.randn(4, 6), torch.randn(4, 6)).conj()
    weight = torch.randn(3, 6)
    for x in (z.imag, torch._neg_view(torch.randn(4, 6))):
        assert x.is_neg()
        plain = x.clone()
        for function in (
            lambda v: ours.layer_norm(v, 6, v[0], v[1]),
            lambda v: ours.linear_gelu(v, weight),
            lambda v: ours.cross_entropy(v, torch.tensor([0, 5, 2, 1])),
            lambda v: ours.dropout(v, 0.5, seed=1),
        ):
            torch.testing.assert_close(function(x), function(plain))


def test_gradients_that_arrive_with_the_other_sign() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    found = []
    for turn in (torch._neg_view, torch.neg):
        out = ours.layer_norm(x, 6) + ours.dropout(x, 0.25, seed=2)
        found.append(torch.autograd.grad(out, x, turn(torch.ones(4, 6)))[0])
    torch.testing.assert_close(*found)
