# SPDX-License-Identifier: Apache-2.0
"""`hotloop.torch.Module` beside the same network in torch: outputs, gradients, training, and torch's habits."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import hotloop as hl

torch = pytest.importorskip("torch")

from hotloop.torch import Module, from_torch, to_torch  # noqa: E402

ROWS = 12


def tanh_net() -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(6, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3)
    )


def norm_net() -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


NETS: dict[str, Callable[[], Any]] = {"tanh": tanh_net, "norm": norm_net}


def pair(name: str = "tanh") -> tuple[Any, Any]:
    """Ours and, with the same weights, torch's in float64."""
    torch.manual_seed(5)
    theirs = NETS[name]()
    return Module(from_torch(theirs)), theirs.double()


def features(rows: int = ROWS, seed: int = 0, width: int = 6) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32))


def close(got: Any, want: Any, tolerance: float = 2e-5, beside: float = 1e-3) -> None:
    want = want.detach().double().numpy()
    # float32 beside float64: rounding of sums of some dozen terms, next to the largest of them
    largest = max(beside, np.abs(want).max())
    np.testing.assert_allclose(got.detach().double().numpy(), want, rtol=tolerance, atol=tolerance * largest)


def same_gradients(ours: Any, theirs: Any) -> None:
    # a bias before a batch norm has no gradient but rounding, of sums of terms like those of the others
    largest = max(float(p.grad.abs().max()) for p in theirs.parameters() if p.grad is not None)
    for (name, p), (peer, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == peer
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            close(p.grad, q.grad, beside=largest)


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


# --- what torch and its users do to modules ---


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_computes() -> None:
    ours, _ = pair()
    want = ours(features()).detach()
    child = os.fork()
    if child == 0:
        try:
            good = torch.equal(ours(features()).detach(), want)
            ours(features()).sum().backward()
        except BaseException:
            good = False
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


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
