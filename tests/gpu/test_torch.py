# SPDX-License-Identifier: Apache-2.0
"""`hotloop.torch` for tensors on a CUDA device, on the emulator: its device memory is the host's, so that tensors of the
CPU stand for CUDA's once `cuda.is_there` and `cuda.place`, the border, say so. A real GPU has not run this."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import hotloop as hl  # noqa: E402
import hotloop.torch as ht  # noqa: E402
from hotloop import _core  # noqa: E402
from hotloop.ops import device as on_device  # noqa: E402
from hotloop.torch import cuda, functional, optim  # noqa: E402
from tests.gpu.kernel_harness import LIBRARIES  # noqa: E402
from tests.gpu.test_ops_arrays import Recorder  # noqa: E402

pytestmark = pytest.mark.skipif(not LIBRARIES["simt"].exists(), reason="the emulator is not built")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tensors are on a device, whose current stream belongs to this queue."""
    monkeypatch.setattr(on_device, "KIND", "simt")
    queue = _core.DeviceEager(on_device.open_device("simt", "test"))
    monkeypatch.setattr(cuda, "is_there", lambda x: True)
    monkeypatch.setattr(cuda, "place", lambda x: (0, queue.stream))

    def update(groups: Any, state: Any, team: Any, begins: Any = None) -> Any:
        """The native update, which at its first look sees that a tensor is not in the memory of the CPU."""
        places = [(g, i, p) for g, (params, _) in enumerate(groups) for i, p in enumerate(params)]
        odd = [
            (g, i)
            for g, i, p in places
            if isinstance(p, torch.Tensor) and p.grad is not None and (cuda.is_there(p) or not state[p])
        ]
        return ([], odd) if odd and begins is None else _core.update_tensors(groups, state, team, begins)

    monkeypatch.setattr(optim, "_core", SimpleNamespace(update_tensors=update))
    return queue


def tensor(*shape: int, seed: int = 0) -> Any:
    array = np.random.default_rng((seed, *shape)).standard_normal(shape)
    return torch.from_numpy(array.astype(np.float32)).requires_grad_()


X, W, B, G = tensor(7, 10), tensor(6, 10, seed=1), tensor(6, seed=2), tensor(10, seed=3)
LABELS = torch.tensor([0, 9, 3, -100, 3, 1, 5])
CLASS_WEIGHTS = torch.linspace(0.5, 2.0, 10)
F = torch.nn.functional
CALLS: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
    "gelu": (lambda x, w, b: ht.linear_gelu(x, w, b), lambda x, w, b: F.gelu(F.linear(x, w, b)), (X, W, B)),
    "gelu tanh, no bias": (
        lambda x, w: ht.linear_gelu(x, w, None, "tanh"),
        lambda x, w: F.gelu(F.linear(x, w), approximate="tanh"),
        (X, W),
    ),
    "gelu of more dimensions": (
        lambda x, w, b: ht.linear_gelu(x, w, b),
        lambda x, w, b: F.gelu(F.linear(x, w, b)),
        (tensor(2, 3, 10), W, B),
    ),
    "gelu of a transposed input": (
        lambda x, w, b: ht.linear_gelu(x.t(), w, b),
        lambda x, w, b: F.gelu(F.linear(x.t(), w, b)),
        (tensor(10, 5), W, B),
    ),
    "layer_norm": (
        lambda x, w, b: ht.layer_norm(x, 10, w, b),
        lambda x, w, b: F.layer_norm(x, (10,), w, b),
        (X, G, tensor(10, seed=4)),
    ),
    "layer_norm without parameters": (
        lambda x: ht.layer_norm(x, 10),
        lambda x: F.layer_norm(x, (10,)),
        (X,),
    ),
    "cross_entropy": (lambda x: ht.cross_entropy(x, LABELS), lambda x: F.cross_entropy(x, LABELS), (X,)),
    "cross_entropy with weights": (
        lambda x: ht.cross_entropy(x, LABELS, 0.1, CLASS_WEIGHTS),
        lambda x: F.cross_entropy(x, LABELS, CLASS_WEIGHTS, label_smoothing=0.1),
        (X,),
    ),
    "cross_entropy of probabilities": (
        lambda x: ht.cross_entropy(x, torch.softmax(X.detach() * 2, 1), 0.2),
        lambda x: F.cross_entropy(x, torch.softmax(X.detach() * 2, 1), label_smoothing=0.2),
        (X,),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_and_gradients_are_torchs(name: str, theirs: Any) -> None:
    mine, torchs, arguments = CALLS[name]
    found, wanted = [], []
    for function, results in ((mine, found), (torchs, wanted)):
        leaves = [a.detach().clone().requires_grad_() for a in arguments]
        out = function(*leaves)
        (out * torch.arange(out.numel()).view(out.shape)).sum().backward()
        results += [out, *(leaf.grad for leaf in leaves)]
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_dropout_draws_the_numbers_of_the_cpu(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = X.detach().clone().requires_grad_()
    got = ht.dropout(there, 0.25, seed=7)
    got.sum().backward()
    monkeypatch.undo()
    here = X.detach().clone().requires_grad_()
    want = ht.dropout(here, 0.25, seed=7)
    want.sum().backward()
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(there.grad, here.grad)


@pytest.mark.parametrize("name", ["gelu", "layer_norm", "cross_entropy"])
def test_the_dispatcher_goes_there_too(name: str, theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional.eager, "direct", lambda *_: False)
    test_functions_and_gradients_are_torchs(name, theirs)
    assert torch._C._dispatch_has_kernel_for_dispatch_key("hotloop::layer_norm_backward", "CUDA")


def test_kernels_come_after_torchs_stream_and_before_its_next(
    theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(on_device._queue(0, "test"))
    monkeypatch.setattr(on_device, "_queue", lambda *_: recorder)
    ht.layer_norm(X.detach(), 10)
    kinds = [kind for kind, _ in recorder.log]
    launch = kinds.index("launch")
    assert set(recorder.log[:launch]) == {("after", theirs.stream)}
    assert recorder.log[launch + 1 :] == [("before", theirs.stream)]
    recorder.log.clear()
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    ht.SGD([weight], lr=0.5).step()
    assert recorder.log == [("after", theirs.stream), ("update_list", "sgd"), ("before", theirs.stream)]
    assert weight.tolist() == [0.5] * 3


RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", dict(lr=0.01, weight_decay=0.1)),
    "adam-maximize": ("Adam", dict(lr=0.01, weight_decay=0.1, maximize=True)),
    "sgd": ("SGD", dict(lr=0.05, weight_decay=0.1)),
    "sgd-dampening": ("SGD", dict(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.1)),
    "sgd-nesterov": ("SGD", dict(lr=0.05, momentum=0.9, nesterov=True)),
}


def parameters() -> list[Any]:
    """One without elements, one that has no order of its own, one that lies in another order than its gradient."""
    plain = [tensor(*shape) for shape in ((3, 4), (7,), (), (0, 2), (200, 3))]
    odd = [tensor(6, 8).detach()[:, ::2], tensor(4, 3, 5, 5).detach().to(memory_format=torch.channels_last)]
    return [torch.nn.Parameter(p.detach().clone() if p.is_contiguous() else p) for p in (*plain, *odd)]


@pytest.mark.parametrize("form", RULES)
def test_optimisers_are_torchs(form: str, theirs: Any) -> None:
    name, options = RULES[form]
    mine, expected = parameters(), parameters()
    for params, kind in ((mine, getattr(ht, name)), (expected, getattr(torch.optim, name))):
        groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.02}]
        rule = kind(groups, **options)
        for step in range(5):
            for i, p in enumerate(params):
                p.grad = tensor(*p.shape, seed=10 * step + i).detach() if (i, step) != (1, 2) else None
            rule.step()
            if step == 2:  # what was saved goes on
                rule.load_state_dict(copy.deepcopy(rule.state_dict()))
    for p, q in zip(mine, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-6)
        assert p.stride() == q.stride()


def test_parameters_here_and_there_in_one_step(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, expected = parameters(), parameters()
    there = {id(p) for p in mine[::2]}
    monkeypatch.setattr(cuda, "is_there", lambda x: id(x) in there)
    for params, kind in ((mine, ht.AdamW), (expected, torch.optim.AdamW)):
        rule = kind(params, lr=0.1)
        for step in range(3):
            for p in params:
                p.grad = tensor(*p.shape, seed=step).detach()
            rule.step()
    for p, q in zip(mine, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-6)


def test_what_devices_do_not_take_is_refused_before_anything_changes(theirs: Any) -> None:
    with pytest.raises(hl.DTypeError, match=r"x is torch.float64 on cpu; allowed there torch.float32"):
        ht.layer_norm(X.detach().double(), 10)
    good, bad = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    for p in (good, bad):
        p.grad = torch.ones_like(p)
    with pytest.raises(hl.DTypeError, match=r"a parameter is torch\.float64"):
        ht.SGD([good, bad], lr=0.1).step()
    assert good.tolist() == [1.0, 1.0]
    with pytest.raises(hl.LabelError, match=r"target\[1\] is 10; allowed 0 to 9"):
        ht.cross_entropy(X, torch.tensor([0, 10, 0, 0, 0, 0, 0]))


def test_a_build_without_devices_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise hl.DeviceError("there is no NVIDIA GPU")

    monkeypatch.setattr(on_device, "open_device", refuse)
    monkeypatch.setattr(on_device, "_queues", {})
    monkeypatch.setattr(cuda, "is_there", lambda x: True)
    monkeypatch.setattr(cuda, "place", lambda x: (0, 0))
    with pytest.raises(hl.DeviceError, match=r"\[torch.layer_norm\] x .*there is no NVIDIA GPU"):
        ht.layer_norm(X, 10)
