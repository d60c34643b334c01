# SPDX-License-Identifier: Apache-2.0
"""`hotloop.torch.Module` beside the same network in torch: outputs, gradients, training and inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import hotloop as hl

torch = pytest.importorskip("torch")

from hotloop.torch import Module, from_torch  # noqa: E402
from tests.interop.torch_networks import NETS, ROWS, close, features, pair, same_gradients, tanh_net  # noqa: E402

# --- values and gradients ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_outputs_and_all_gradients_are_torchs(name: str, training: bool) -> None:
    ours, theirs = pair(name)
    ours.train(training)
    theirs.train(training)
    x = features().requires_grad_()
    peer = x.detach().double().requires_grad_()
    got, want = ours(x), theirs(peer)
    close(got, want)
    weight = features(seed=1, width=3)
    (got * weight).sum().backward()
    (want * weight.double()).sum().backward()
    same_gradients(ours, theirs)
    close(x.grad, peer.grad)
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key], value)  # running statistics moved alike


def test_parameters_lie_in_the_native_memory() -> None:
    ours, _ = pair()
    ours(features())
    network = ours.hotloop_model
    for name, item in network.named_parameters():
        assert ours.get_parameter(name).data_ptr() == item.data.__array_interface__["data"][0]
    with torch.no_grad():
        ours.get_parameter("0.weight").fill_(0.25)
    assert (network.state_dict()["0.weight"] == 0.25).all()
    assert list(ours.state_dict()) == list(network.state_dict())


def test_gradients_are_the_flat_buffer_itself_where_nobody_holds_older_ones() -> None:
    ours, _ = pair()
    x = features()
    ours(x).sum().backward()
    memory = ours._native.session.memory
    begin = memory.native.gradients.__array_interface__["data"][0]
    end = begin + memory.native.gradients.nbytes
    assert all(begin <= p.grad.data_ptr() < end for p in ours.parameters())


def test_gradients_add_up_until_they_are_let_go() -> None:
    ours, theirs = pair()
    for seed in range(3):
        x = features(seed=seed)
        ours(x).square().mean().backward()
        theirs(x.double()).square().mean().backward()
    same_gradients(ours, theirs)
    kept = [p.grad for p in ours.parameters()]
    values = [g.clone() for g in kept]
    ours.zero_grad(set_to_none=True)
    theirs.zero_grad(set_to_none=True)
    ours(features(seed=9)).square().mean().backward()
    theirs(features(seed=9).double()).square().mean().backward()
    same_gradients(ours, theirs)
    for held, value in zip(kept, values, strict=True):
        assert torch.equal(held, value)  # what somebody held on to was not written over


def test_gradients_zeroed_in_place_start_anew() -> None:
    ours, theirs = pair()
    for module, x in ((ours, features()), (theirs, features().double())):
        module(x).sum().backward()
        module.zero_grad(set_to_none=False)
        (2 * module(x)).sum().backward()
    same_gradients(ours, theirs)


def test_one_module_twice_in_one_graph() -> None:
    ours, theirs = pair()
    a, b = features(seed=1), features(rows=5, seed=2)
    ours(a).square().sum().add(ours(b).exp().sum()).backward()
    theirs(a.double()).square().sum().add(theirs(b.double()).exp().sum()).backward()
    same_gradients(ours, theirs)


def test_a_module_of_its_own_output() -> None:
    torch.manual_seed(2)
    nn = torch.nn
    theirs = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 6))
    ours = Module(from_torch(theirs))
    theirs.double()
    x, peer = features(), features().double()
    for _ in range(4):
        x, peer = ours(x), theirs(peer)
    x.square().sum().backward()
    peer.square().sum().backward()
    same_gradients(ours, theirs)


def test_outstanding_passes_of_other_sizes_in_any_order() -> None:
    ours, theirs = pair("norm")
    batches = [features(rows, seed=rows) for rows in (3, 40, 7, 100)]
    outputs = [ours(x) for x in batches]
    peers = [theirs(x.double()) for x in batches]
    for i in (2, 0, 3, 1):
        (outputs[i].square().sum() / len(batches[i])).backward()
        (peers[i].square().sum() / len(batches[i])).backward()
    same_gradients(ours, theirs)


def test_gradients_by_name_leave_grad_alone() -> None:
    ours, theirs = pair()
    x, peer = features().requires_grad_(), features().double().requires_grad_()
    (got,) = torch.autograd.grad(ours(x).square().sum(), x)
    (want,) = torch.autograd.grad(theirs(peer).square().sum(), peer)
    close(got, want)
    assert all(p.grad is None for p in ours.parameters())
    wanted = ["0.weight", "3.bias"]
    got = torch.autograd.grad(ours(x).sum(), [ours.get_parameter(n) for n in wanted])
    want = torch.autograd.grad(theirs(peer).sum(), [theirs.get_parameter(n) for n in wanted])
    for g, w in zip(got, want, strict=True):
        close(g, w)


def test_a_retained_graph_serves_twice() -> None:
    ours, theirs = pair("norm")
    x = features().requires_grad_()
    peer = x.detach().double().requires_grad_()
    for module, value in ((ours, x), (theirs, peer)):
        loss = module(value).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
    same_gradients(ours, theirs)
    close(x.grad, peer.grad)
    # the repetition is no batch of its own
    assert int(ours.get_buffer("1.num_batches_tracked")) == 1
    close(ours.get_buffer("1.running_var"), theirs.get_buffer("1.running_var"))
    loss = ours(x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.filterwarnings("ignore:Input #0 requires gradient and is not a double")
def test_gradcheck_of_a_small_network() -> None:
    torch.manual_seed(0)
    ours = Module(
        from_torch(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)))
    )
    x = features(rows=2, width=3).requires_grad_()
    # float32: a step of 1e-2 leaves differences with about three digits
    assert torch.autograd.gradcheck(ours, (x,), eps=1e-2, atol=2e-3, rtol=2e-2, fast_mode=False)


@pytest.mark.parametrize(
    "frozen", [("0.weight",), ("0.weight", "0.bias", "2.weight"), ("5.weight", "5.bias")]
)
def test_frozen_parameters_get_no_gradient(frozen: Sequence[str]) -> None:
    ours, theirs = pair()
    for name in frozen:
        ours.get_parameter(name).requires_grad_(False)
        theirs.get_parameter(name).requires_grad_(False)
    ours(features()).square().sum().backward()
    theirs(features().double()).square().sum().backward()
    same_gradients(ours, theirs)


def test_a_frozen_batch_norm_follows_the_batch_as_in_torch() -> None:
    ours, theirs = pair("norm")
    for module in (ours, theirs):
        module.get_parameter("1.weight").requires_grad_(False)
        module.get_parameter("1.bias").requires_grad_(False)
    got, want = ours(features()), theirs(features().double())
    close(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    same_gradients(ours, theirs)
    close(ours.get_buffer("1.running_mean"), theirs.get_buffer("1.running_mean"))


def test_all_frozen_only_the_input_has_a_gradient() -> None:
    ours, theirs = pair()
    ours.requires_grad_(False)
    theirs.requires_grad_(False)
    assert not ours(features()).requires_grad
    x, peer = features().requires_grad_(), features().double().requires_grad_()
    ours(x).square().sum().backward()
    theirs(peer).square().sum().backward()
    close(x.grad, peer.grad)
    assert all(p.grad is None for p in ours.parameters())


def test_without_grad_and_in_inference_mode() -> None:
    ours, theirs = pair("norm")
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            got = ours(features())  # training: statistics of the batch, which move the running ones
            close(got, theirs(features().double()))
            assert not got.requires_grad
    ours.eval(), theirs.eval()
    with torch.no_grad():
        close(ours(features()), theirs(features().double()))
        ours.get_parameter("0.weight").mul_(2.0)  # what was packed from it is packed anew
        theirs.get_parameter("0.weight").mul_(2.0)
        close(ours(features()), theirs(features().double()))
        ours.get_parameter("0.weight").data.mul_(0.5)
        theirs.get_parameter("0.weight").data.mul_(0.5)
        close(ours(features()), theirs(features().double()))


# --- training ---

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.05),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETS)
def test_two_hundred_steps_beside_torch(name: str, optimizer: str) -> None:
    ours, exact = pair(name)
    plain = copy.deepcopy(exact).float()
    rng = np.random.default_rng(3)
    X = torch.from_numpy(rng.standard_normal((64, 6)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 3, 64))
    for module, real in ((ours, torch.float32), (plain, torch.float32), (exact, torch.float64)):
        stepper = OPTIMIZERS[optimizer](module.parameters())
        for step in range(200):
            rows = slice(16 * (step % 4), 16 * (step % 4) + 16)
            stepper.zero_grad()
            torch.nn.functional.cross_entropy(module(X[rows].to(real)), y[rows]).backward()
            stepper.step()
    for key, value in exact.state_dict().items():
        away = (ours.state_dict()[key].double() - value).abs().max()
        torchs = (plain.state_dict()[key].double() - value).abs().max()
        # no further from float64 than a small multiple of torch's own float32, or of rounding itself
        assert away <= 4 * torchs + 2e-5, key


def test_dropout_is_drawn_from_torchs_generator() -> None:
    model = hl.nn.Sequential(hl.nn.Linear(6, 500), hl.nn.Dropout(0.3))
    ours = Module(model)
    x = features(rows=40)
    torch.manual_seed(1)
    first, second = ours(x), ours(x)
    torch.manual_seed(1)
    assert torch.equal(ours(x), first)
    assert not torch.equal(first, second)
    assert abs(float((first == 0).double().mean()) - 0.3) < 0.02
    ours.eval()
    before = torch.get_rng_state()
    assert not (ours(x) == 0).any()
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn where nothing is dropped
    # the mask of backward is that of forward, also when the pass is repeated
    ours.train()
    x = x.requires_grad_()
    output = ours(x)
    output.sum().backward(retain_graph=True)
    once = ours.get_parameter("0.bias").grad.clone()
    close(once, (output != 0).sum(0) / 0.7, 1e-4)
    output.sum().backward()
    close(ours.get_parameter("0.bias").grad, 2 * once)


def test_first_weights_come_from_torchs_generator() -> None:
    def build() -> Any:
        torch.manual_seed(11)
        return Module(hl.nn.Sequential(hl.nn.Linear(6, 5)))

    a, b = build(), build()
    assert torch.equal(a.get_parameter("0.weight"), b.get_parameter("0.weight"))
    assert float(a.get_parameter("0.weight").detach().abs().max()) > 0


def test_between_layers_of_torch() -> None:
    torch.manual_seed(4)
    nn = torch.nn
    theirs = nn.Sequential(nn.Linear(5, 6), tanh_net(), nn.Linear(3, 2))
    ours = copy.deepcopy(theirs)
    ours[1] = Module(from_torch(ours[1]))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.double()
    x = features(width=5)
    ours(x).square().sum().backward()
    theirs(x.double()).square().sum().backward()
    same_gradients(ours, theirs)


# --- inputs ---


class Mixed(hl.nn.Module):
    """Numbers and ids."""

    def __init__(self) -> None:
        self.table = hl.nn.Embedding(7, 4)
        self.head = hl.nn.Linear(6, 2)

    def forward(self, num: Any, cat: Any) -> Any:
        return self.head(hl.nn.functional.concat([num, self.table(cat)], -1))


def test_named_inputs_and_ids() -> None:
    ours = Module(Mixed())
    num, cat = features(width=2).requires_grad_(), torch.arange(ROWS) % 7
    by_position = ours(num, cat)
    assert torch.equal(ours(num=num, cat=cat.int()), by_position)
    assert torch.equal(ours({"cat": cat, "num": num}), by_position)
    state = {k: v.detach().double() for k, v in ours.state_dict().items()}
    peer = {k: v.clone().requires_grad_() for k, v in state.items()}
    x = num.detach().double().requires_grad_()
    want = torch.cat([x, peer["table.weight"][cat]], -1) @ peer["head.weight"].T + peer["head.bias"]
    close(by_position, want)
    by_position.square().sum().backward()
    want.square().sum().backward()
    close(num.grad, x.grad)
    for name, value in peer.items():
        close(ours.get_parameter(name).grad, value.grad)
    with pytest.raises(hl.LabelError, match=r"\[1\] = 7 is not an index into table.weight"):
        ours(num[:2], torch.tensor([0, 7]))
    assert torch.equal(ours(num, cat), by_position)  # the refusal left nothing behind
    with pytest.raises(hl.ShapeError, match="differ in length"):
        ours(num, cat[:3])
    with pytest.raises(TypeError, match="not both"):
        ours(num, cat=cat)


def test_inputs_that_do_not_lie_in_order() -> None:
    ours, theirs = pair()
    wide = features(rows=6, width=ROWS)
    for x in (wide.T, features(width=12)[:, ::2], features(rows=1).expand(ROWS, 6)):
        close(ours(x), theirs(x.double()))
        x = x.detach().requires_grad_()
        peer = x.detach().double().requires_grad_()
        ours(x).sum().backward()  # the gradient of a sum does not lie in order either
        theirs(peer).sum().backward()
        close(x.grad, peer.grad)


def test_batches_grow_and_shrink() -> None:
    ours, theirs = pair()
    for rows in (1, 3, 200, 5, 1000, 1):
        x = features(rows, seed=rows)
        close(ours(x), theirs(x.double()))
    ours(features(2)).sum().backward()


def test_a_changed_input_is_noticed() -> None:
    ours, _ = pair()
    x = features()
    output = ours(x)
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    output = ours(x)
    with torch.no_grad():
        ours.get_parameter("0.weight").add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "float64": (lambda: features().double(), hl.DTypeError, r"use x.float\(\)"),
    "bool": (lambda: features() > 0, hl.DTypeError, "torch.bool"),
    "width": (lambda: features(width=5), hl.ShapeError, "6"),
    "rank": (lambda: features()[0], hl.ShapeError, "unsqueeze"),
    "sparse": (lambda: features().to_sparse(), hl.DTypeError, "to_dense"),
    "array": (lambda: features().numpy(), TypeError, "ndarray"),
    "meta": (lambda: features().to("meta"), hl.DeviceError, "lies on meta"),
    "empty": (lambda: features(rows=0), hl.ShapeError, "0 rows"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("used", [False, True])
def test_inputs_that_do_not_fit(case: str, used: bool) -> None:
    make, error, text = BAD[case]
    ours, theirs = pair()
    if used:
        ours(features())
    with pytest.raises(error, match=text):
        ours(make())
    close(ours(features()), theirs(features().double()))


def test_a_batch_norm_does_not_train_on_one_row() -> None:
    ours, theirs = pair("norm")
    ours(features())
    with pytest.raises(hl.ShapeError, match="BatchNorm"):
        ours(features(rows=1))
    ours.eval(), theirs.eval()
    with torch.no_grad():
        theirs(features().double())
    assert ours(features(rows=1)).shape == (1, 3)
