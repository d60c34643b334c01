# SPDX-License-Identifier: Apache-2.0
"""What torch and its users do to modules, done to `hotloop.torch.Module`."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import hotloop as hl

torch = pytest.importorskip("torch")

from hotloop.torch import Module, from_torch, to_torch  # noqa: E402
from tests.interop.torch_networks import ROWS, close, features, pair, same_gradients  # noqa: E402


def test_second_derivatives_are_refused_where_they_are_taken() -> None:
    ours, _ = pair()
    x = features().requires_grad_()
    (gradient,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    close(gradient, torch.autograd.grad(ours(x).square().sum(), x)[0])
    with pytest.raises(hl.GraphError, match="second derivatives are not available"):
        gradient.square().sum().backward()


def test_other_dtypes_and_devices_are_refused() -> None:
    ours, theirs = pair()
    for call in (lambda: ours.half(), lambda: ours.double(), lambda: ours.to(torch.bfloat16)):
        with pytest.raises(hl.DTypeError, match="cannot become torch"):
            call()
    with pytest.raises(hl.DeviceError, match="cannot move to meta"):
        ours.to("meta")
    close(ours.to("cpu").float()(features()), theirs(features().double()))


def test_state_dicts_go_both_ways() -> None:
    ours, theirs = pair("norm")
    other, _ = pair("norm")
    theirs.float()
    theirs(features(seed=8))  # running statistics of its own
    with torch.no_grad():
        theirs[0].weight.add_(0.5)
    for used in (False, True):
        if used:
            ours(features())
        ours.load_state_dict(theirs.state_dict())
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value)
        other.load_state_dict(ours.state_dict())
        ours.eval(), theirs.eval(), other.eval()
        close(ours(features()), theirs(features()))
        close(other(features()), theirs(features()))
        ours.train(), other.train()
    assert (
        ours.hotloop_model.state_dict()["0.weight"].tobytes() == theirs[0].weight.detach().numpy().tobytes()
    )


@pytest.mark.parametrize("used", [False, True])
def test_values_put_elsewhere_come_home(used: bool) -> None:
    ours, theirs = pair()
    if used:
        ours(features())
    state = {k: v.detach().clone() + 0.1 for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    ours.load_state_dict(state, assign=True)
    close(ours(features()), theirs(features().double()))
    flat = torch.nn.utils.parameters_to_vector(ours.parameters()).detach() * 1.5
    torch.nn.utils.vector_to_parameters(flat, ours.parameters())
    torch.nn.utils.vector_to_parameters(flat.double(), theirs.parameters())
    close(ours(features()), theirs(features().double()))
    parameter = ours.get_parameter("0.weight")
    parameter.data = torch.zeros(16, 6)
    with torch.no_grad():
        theirs[0].weight.zero_()
    close(ours(features()), theirs(features().double()))
    assert parameter is ours.get_parameter("0.weight")  # an optimiser still holds the right one


def test_replaced_parameters_are_refused() -> None:
    ours, _ = pair()
    x = features()
    tensors = {name: p.detach().clone() for name, p in ours.named_parameters()}
    with pytest.raises(hl.GraphError, match="functional_call"):
        torch.func.functional_call(ours, tensors, (x,))
    ours(x)  # which put the parameters back


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_stand_alone(way: str, used: bool) -> None:
    ours, _ = pair("norm")
    ours.get_parameter("0.bias").requires_grad_(False)
    if used:
        ours(features())
    ours.eval()
    twin = copy.deepcopy(ours) if way == "deepcopy" else pickle.loads(pickle.dumps(ours))
    assert not twin.training
    assert not twin.get_parameter("0.bias").requires_grad
    assert torch.equal(twin(features()), ours(features()))
    with torch.no_grad():
        twin.get_parameter("0.weight").zero_()
    assert not torch.equal(twin(features()), ours(features()))


def test_tied_weights_stay_tied() -> None:
    class Tied(hl.nn.Module):
        def __init__(self) -> None:
            self.one = hl.nn.Linear(6, 6)
            self.two = hl.nn.Linear(6, 6)
            self.two.weight = self.one.weight

        def forward(self, x: Any) -> Any:
            return self.two(hl.nn.functional.tanh(self.one(x)))

    ours = Module(Tied())
    assert ours.get_parameter("one.weight") is ours.get_parameter("two.weight")
    assert sorted(ours.state_dict()) == ["one.bias", "one.weight", "two.bias", "two.weight"]
    ours(features()).square().sum().backward()
    state = {k: v.detach().double().requires_grad_() for k, v in ours.state_dict().items()}
    w = state["one.weight"]
    inner = torch.tanh(features().double() @ w.T + state["one.bias"])
    (inner @ w.T + state["two.bias"]).square().sum().backward()
    close(ours.get_parameter("one.weight").grad, w.grad)


def test_one_model_under_a_trainer_and_in_torch() -> None:
    ours, _ = pair()
    x = features()
    before = ours(x)
    rng = np.random.default_rng(0)
    trainer = hl.Trainer(ours.hotloop_model, "mse", progress=False)
    trainer.fit(rng.standard_normal((50, 6)).astype(np.float32), rng.standard_normal((50, 3)), epochs=2)
    ours.eval()
    with torch.no_grad():
        after = ours(x)
    assert not torch.equal(before, after)
    np.testing.assert_allclose(after.numpy(), trainer.predict(x.numpy()), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's compiler looks at .grad of tensors without
def test_compile_leaves_the_module_as_it_is() -> None:
    ours, theirs = pair()

    def loss(x: Any) -> Any:
        return (ours(x * 2.0) + 1.0).square().mean()

    compiled = torch.compile(loss, backend="eager")
    for _ in range(2):
        compiled(features()).backward()
    (2 * (theirs(features().double() * 2.0) + 1.0).square().mean()).backward()
    same_gradients(ours, theirs)


def test_threads_wait_for_one_another() -> None:
    ours, theirs = pair()
    inputs = [features(seed=i) for i in range(4)]
    wants = [theirs(x.double()) for x in inputs]
    failures: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for _ in range(50):
                x = inputs[i].clone().requires_grad_()
                output = ours(x)
                close(output, wants[i])
                torch.autograd.grad(output.sum(), x)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures, failures[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_team_of_threads_computes_the_same(threads: int) -> None:
    torch.manual_seed(6)
    nn = torch.nn
    theirs = nn.Sequential(nn.Linear(60, 128), nn.Tanh(), nn.Linear(128, 30))
    ours = Module(from_torch(theirs), threads=threads)
    theirs.double()
    x = features(rows=300, width=60).requires_grad_()
    peer = x.detach().double().requires_grad_()
    ours(x).square().mean().backward()
    theirs(peer).square().mean().backward()
    same_gradients(ours, theirs)
    close(x.grad, peer.grad)


#: In a process of its own: this one may hold libraries whose threads a fork would break.
FORKED = """
import os, torch, hotloop as hl
net = hl.torch.Module(hl.nn.Sequential(hl.nn.Linear(4, 8), hl.nn.ReLU(), hl.nn.Linear(8, 3)))
x = torch.linspace(-1, 1, 20).reshape(5, 4)
want = net(x).detach()
net(x).sum().backward()
child = os.fork()
if child == 0:
    good = torch.equal(net(x).detach(), want)
    net(x).sum().backward()
    os._exit(0 if good else 1)
raise SystemExit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes() -> None:
    assert subprocess.run([sys.executable, "-c", FORKED], timeout=120, check=False).returncode == 0


def test_passes_that_nobody_goes_back_from_give_their_memory_back() -> None:
    ours, _ = pair()
    for _ in range(3):
        outputs = [ours(features(seed=i)) for i in range(5)]
        del outputs
    gc.collect()
    ours(features()).sum().backward()
    kinds = list(ours._native._kinds.values())
    assert len(kinds) == 1
    assert kinds[0].passes.arenas == 5  # as many as ever waited at once, used again


def test_one_network_has_one_module() -> None:
    ours, _ = pair()
    with pytest.raises(hl.GraphError, match="inside of another Module"):
        Module(ours.hotloop_model)
    network = ours.hotloop_model
    del ours
    assert Module(network)(features()).shape == (ROWS, 3)


def test_checkpointing_repeats_a_pass_with_its_dropout() -> None:
    ours = Module(hl.nn.Sequential(hl.nn.Linear(6, 50), hl.nn.Dropout(0.5)))
    torch.manual_seed(3)
    output = torch.utils.checkpoint.checkpoint(ours, features().requires_grad_(), use_reentrant=False)
    output.sum().backward()
    close(ours.get_parameter("0.bias").grad, (output != 0).sum(0) / 0.5)


def test_hooks_of_modules_and_parameters_see_gradients() -> None:
    ours, _ = pair()
    seen: list[Any] = []
    ours.get_parameter("0.bias").register_hook(lambda gradient: gradient * 2)
    ours.register_full_backward_hook(lambda module, given, got: seen.append((given[0], got[0])))
    x = features().requires_grad_()
    ours(x).sum().backward()
    assert torch.equal(seen[0][0], x.grad)
    doubled = ours.get_parameter("0.bias").grad.clone()
    twin = copy.deepcopy(pair()[0])
    twin(features()).sum().backward()
    close(doubled, 2 * twin.get_parameter("0.bias").grad)


def test_torchs_default_dtype_does_not_matter() -> None:
    ours, theirs = pair()
    x, peer = features().requires_grad_(), features().double().requires_grad_()
    torch.set_default_dtype(torch.float64)
    try:
        output = ours(x)
        output.sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    theirs(peer).sum().backward()
    assert output.dtype == torch.float32
    close(x.grad, peer.grad)
    same_gradients(ours, theirs)


def test_its_text_is_the_network() -> None:
    ours = Module(hl.nn.Sequential(hl.nn.Linear(2, 3), hl.nn.ReLU()))
    linear = "(0): Linear(in_features=2, out_features=3, bias=True)"
    assert repr(ours) == f"Module(\n  Sequential(\n    {linear}\n    (1): ReLU()\n  )\n)"
    assert "    (1): ReLU()" in repr(torch.nn.Sequential(ours))


def test_what_the_network_had_frozen_begins_frozen() -> None:
    network = hl.nn.Sequential(hl.nn.Linear(6, 4), hl.nn.Linear(4, 3))
    network.freeze("0")
    ours = Module(network)
    ours(features()).sum().backward()
    assert [name for name, p in ours.named_parameters() if p.grad is None] == ["0.weight", "0.bias"]


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(hl.GraphError, match="from_torch converts"):
        Module(torch.nn.Linear(2, 2))
    ours, _ = pair()
    with pytest.raises(hl.GraphError, match="call the whole module"):
        dict(ours.named_modules())["0"](features())


@pytest.mark.parametrize(
    ("rows", "sizes"), list(itertools.product((1, 33), [(4, 120, 84, 2), (784, 30, 10)]))
)
def test_the_networks_of_the_benchmark(rows: int, sizes: tuple[int, ...]) -> None:
    layers: list[Any] = []
    torch.manual_seed(0)
    for a, b in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    theirs = torch.nn.Sequential(*layers[:-1])
    ours = Module(from_torch(theirs))
    theirs.double()
    x = features(rows, width=sizes[0])
    ours(x).square().sum().backward()
    theirs(x.double()).square().sum().backward()
    same_gradients(ours, theirs)
    close(to_torch(ours.hotloop_model)(x), theirs(x.double()))
