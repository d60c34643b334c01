# SPDX-License-Identifier: Apache-2.0
"""`Module(..., direct_grad=True)`: gradients that backward writes itself, beside those that autograd adds up."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import hotloop as hl

torch = pytest.importorskip("torch")

import hotloop.torch as ht  # noqa: E402
from hotloop.torch import Module, from_torch  # noqa: E402
from tests.interop.torch_networks import NETS, close, features, pair, same_gradients  # noqa: E402


def direct(name: str = "tanh") -> tuple[Any, Any]:
    """A module with gradients of its own, and the same network in torch, float64."""
    ours, theirs = pair(name)
    return Module(copy.deepcopy(ours.hotloop_model), direct_grad=True), theirs


def flat_range(module: Any) -> range:
    gradients = module._native.session.memory.native.gradients
    begin = gradients.__array_interface__["data"][0]
    return range(begin, begin + gradients.nbytes)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_torchs_and_lie_in_the_flat_buffer(name: str, training: bool) -> None:
    ours, theirs = direct(name)
    ours.train(training), theirs.train(training)
    x = features().requires_grad_()
    peer = x.detach().double().requires_grad_()
    got, want = ours(x), theirs(peer)
    close(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    same_gradients(ours, theirs)
    close(x.grad, peer.grad)
    where = flat_range(ours)
    assert all(p.grad.data_ptr() in where for p in ours.parameters())


@pytest.mark.parametrize("how", ["none", "zero", "some", "foreign", "never"])
def test_gradients_add_up_whatever_was_there(how: str) -> None:
    ours, theirs = direct()
    for round_ in range(3):
        for seed in (1, 2):
            x = features(seed=10 * round_ + seed)
            ours(x).square().mean().backward()
            theirs(x.double()).square().mean().backward()
            same_gradients(ours, theirs)
        for module in (ours, theirs):
            if how in ("none", "zero"):
                module.zero_grad(set_to_none=how == "none")
            elif how == "some":
                module.get_parameter("0.weight").grad = None
            elif how == "foreign":
                for p in module.parameters():
                    p.grad = torch.full_like(p, 0.5)
    ours(features()).sum().backward()
    begin = ours.get_parameter("0.weight").grad.data_ptr()
    assert (begin in flat_range(ours)) == (how != "foreign")


def test_passes_that_wait_and_a_module_used_twice() -> None:
    ours, theirs = direct("norm")
    batches = [features(rows, seed=rows) for rows in (3, 40, 7)]
    outputs, peers = [ours(x) for x in batches], [theirs(x.double()) for x in batches]
    for i in (2, 0, 1):
        outputs[i].square().mean().backward()
        peers[i].square().mean().backward()
    same_gradients(ours, theirs)
    ours.zero_grad(), theirs.zero_grad()
    a, b = features(seed=1), features(rows=5, seed=2)
    ours(a).square().sum().add(ours(b).exp().sum()).backward()
    theirs(a.double()).square().sum().add(theirs(b.double()).exp().sum()).backward()
    same_gradients(ours, theirs)


RULES: dict[str, Callable[[Any], Any]] = {
    "torch": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "torch fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "ours": lambda p: ht.AdamW(p, lr=1e-2),
    "ours sgd": lambda p: ht.SGD(p, lr=1e-2, momentum=0.9),
}


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_training_gives_the_bits_of_the_other_mode(rule: str, set_to_none: bool) -> None:
    plain, _ = pair()
    ours = Module(copy.deepcopy(plain.hotloop_model), direct_grad=True)
    for module in (plain, ours):
        stepper = RULES[rule](module.parameters())
        for step in range(12):
            module(features(seed=step)).square().mean().backward()
            if step % 3 == 2:  # three passes to an update
                norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 0.1)
                assert norm > 0.1
                stepper.step()
                stepper.zero_grad(set_to_none=set_to_none)
    for name, p in plain.named_parameters():
        assert torch.equal(p, ours.get_parameter(name)), name


def test_what_is_frozen_keeps_its_gradient() -> None:
    ours, theirs = direct()
    for module, x in ((ours, features()), (theirs, features().double())):
        module(x).square().sum().backward()
        module.get_parameter("0.weight").requires_grad_(False)
        module(x).square().sum().backward()
    same_gradients(ours, theirs)
    ours.requires_grad_(False)
    assert not ours(features()).requires_grad
    x = features().requires_grad_()
    before = [p.grad.clone() for p in ours.parameters()]
    ours(x).sum().backward()
    assert x.grad is not None
    assert all(torch.equal(p.grad, b) for p, b in zip(ours.parameters(), before, strict=True))


def test_without_grad_and_in_evaluation() -> None:
    ours, theirs = direct()
    with torch.no_grad():
        assert not ours(features()).requires_grad
    ours.eval(), theirs.eval()
    ours(features()).sum().backward()
    theirs(features().double()).sum().backward()
    same_gradients(ours, theirs)


def test_the_gradient_of_an_input_leaves_parameters_alone() -> None:
    ours, theirs = direct()
    x, peer = features().requires_grad_(), features().double().requires_grad_()
    (got,) = torch.autograd.grad(ours(x).square().sum(), x)
    (want,) = torch.autograd.grad(theirs(peer).square().sum(), peer)
    close(got, want)
    ours(x).square().sum().backward(inputs=[x])
    close(x.grad, want)
    assert all(p.grad is None for p in ours.parameters())
    (again,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    close(again, want)
    with pytest.raises(hl.GraphError, match="second derivatives are not available"):
        again.sum().backward()


def test_a_retained_graph_serves_twice_and_another_once() -> None:
    ours, theirs = direct("norm")
    for module, x in ((ours, features()), (theirs, features().double())):
        loss = module(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
    same_gradients(ours, theirs)


def test_what_only_autograd_could_do_is_refused_and_changes_nothing() -> None:
    ours, _ = direct()
    x = features()
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        torch.autograd.grad(ours(x).sum(), list(ours.parameters()))
    with pytest.raises(hl.GraphError, match="create_graph=True is not available with direct_grad=True"):
        ours(x).sum().backward(create_graph=True)
    weight = ours.get_parameter("0.weight")
    for register in (weight.register_hook, weight.register_post_accumulate_grad_hook):
        handle = register(lambda *_: None)
        with pytest.raises(hl.GraphError, match=r"\(16, 6\) has a hook, which direct_grad=True does not run"):
            ours(x).sum().backward()
        handle.remove()
    output = ours(x)
    with torch.no_grad():
        weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    assert all(p.grad is None for p in ours.parameters())
    ours(x).sum().backward()
    assert weight.grad is not None


def test_autograd_hears_of_gradients_that_change() -> None:
    ours, _ = direct()
    ours(features()).sum().backward()
    scale = torch.ones((), requires_grad=True)
    product = ours.get_parameter("0.weight").grad * scale  # keeps the gradient for its own backward
    ours(features()).sum().backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_keep_the_mode_and_stand_alone(way: str, used: bool) -> None:
    ours, _ = direct()
    if used:
        ours(features()).sum().backward()
    twin = copy.deepcopy(ours) if way == "deepcopy" else pickle.loads(pickle.dumps(ours))
    twin(features()).sum().backward()
    assert twin.get_parameter("0.weight").grad.data_ptr() in flat_range(twin)
    assert list(twin.state_dict()) == list(ours.state_dict())  # the anchor is no part of the model
    assert len(list(twin.parameters())) == len(list(ours.parameters()))


def test_a_trainer_in_between() -> None:
    ours, _ = direct()
    ours(features()).square().sum().backward()
    trainer = hl.Trainer(ours.hotloop_model, "mse", progress=False)
    trainer.fit(features(rows=50).numpy(), features(rows=50, width=3).numpy(), epochs=1)
    ours.zero_grad()
    ours(features()).square().sum().backward()
    peer = Module(copy.deepcopy(ours.hotloop_model))
    peer(features()).square().sum().backward()
    for name, p in peer.named_parameters():
        assert torch.equal(ours.get_parameter(name).grad, p.grad)


def test_between_layers_of_torch_and_under_a_scaler() -> None:
    torch.manual_seed(4)
    nn = torch.nn
    theirs = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    ours = nn.Sequential(copy.deepcopy(theirs[0]), Module(from_torch(theirs[1:]), direct_grad=True))
    stepper = torch.optim.SGD(ours.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x = features(width=5)
    scaler.scale(ours(x).square().sum()).backward()
    scaler.unscale_(stepper)
    theirs(x).square().sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(p.grad, q.grad)
