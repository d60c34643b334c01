# SPDX-License-Identifier: Apache-2.0
"""`hotloop.torch.Module` on a CUDA device, on the emulator: tensors of the CPU that lie in its device memory stand for
CUDA's once `cuda`, the border, says so. A real GPU has not run this."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import hotloop as hl  # noqa: E402
from hotloop import _core  # noqa: E402
from hotloop.ops import device as on_device  # noqa: E402
from hotloop.torch import Module, cuda, from_torch  # noqa: E402
from hotloop.torch.there import check_number  # noqa: E402
from tests.gpu.device_plans import emulating  # noqa: E402
from tests.gpu.kernel_harness import LIBRARIES  # noqa: E402
from tests.interop.torch_networks import NETS, close, features, same_gradients  # noqa: E402

pytestmark = pytest.mark.skipif(not LIBRARIES["simt"].exists(), reason="the emulator is not built")


class Emulated:
    """What stands for CUDA in torch: a stream, and memory."""

    def __init__(self) -> None:
        self.queue = _core.DeviceEager(on_device.open_device("simt", "test"))
        self.held: list[Any] = []
        self.there = True

    def empty(self, shape: Sequence[int], device: Any = None, dtype: Any = torch.float32) -> Any:
        if 0 in shape:
            return torch.empty(tuple(shape), dtype=dtype)
        size = int(np.prod(shape, dtype=int)) * dtype.itemsize
        memory = self.queue.allocate(size)
        self.held.append(memory)
        raw = (ctypes.c_char * size).from_address(memory.address)
        return torch.frombuffer(raw, dtype=dtype, count=size // dtype.itemsize).view(*shape)

    def put(self, x: Any) -> Any:
        return self.empty(x.shape, dtype=x.dtype).copy_(x.detach()).requires_grad_(x.requires_grad)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    monkeypatch.setattr(on_device, "KIND", "simt")
    made = Emulated()
    monkeypatch.setattr(cuda, "is_there", lambda x: made.there)
    monkeypatch.setattr(cuda, "place", lambda x: (0, made.queue.stream))
    monkeypatch.setattr(cuda, "empty", made.empty)
    return made


def pair(name: str = "tanh", direct_grad: bool = False) -> tuple[Any, Any]:
    torch.manual_seed(5)
    theirs = NETS[name]()
    return Module(from_torch(theirs), direct_grad=direct_grad).to("cpu"), theirs.double()


@pytest.mark.parametrize("direct_grad", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_outputs_and_gradients_are_torchs(
    name: str, training: bool, direct_grad: bool, gpu: Emulated
) -> None:
    ours, theirs = pair(name, direct_grad)
    ours.train(training), theirs.train(training)
    x = gpu.put(features().requires_grad_())
    peer = x.detach().double().requires_grad_()
    for _ in range(2):
        got, want = ours(x), theirs(peer)
        close(got, want)
        weight = features(seed=1, width=3)
        got.backward(gpu.put(weight))
        want.backward(weight.double())
    same_gradients(ours, theirs)
    close(x.grad, peer.grad)
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key], value)  # running statistics and counts moved alike


def test_parameters_are_views_of_one_tensor_there(gpu: Emulated) -> None:
    ours, _ = pair()
    held = list(ours.parameters())
    ours(gpu.put(features()))
    flat = ours._native.there.parameters
    begin, end = flat.data_ptr(), flat.data_ptr() + flat.nbytes
    assert all(begin <= p.data_ptr() < end for p in held)
    assert all(p is q for p, q in zip(held, ours.parameters(), strict=True))


@pytest.mark.parametrize("direct_grad", [False, True])
def test_training_there_and_back(direct_grad: bool, gpu: Emulated) -> None:
    ours, theirs = pair("norm", direct_grad)
    rules = [
        (module, real, torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9))
        for module, real in ((ours, torch.float32), (theirs, torch.float64))
    ]
    for step in range(12):
        if step == 8:
            gpu.there = False
            ours.cpu()
        for module, real, rule in rules:
            rule.zero_grad(set_to_none=step % 2 == 0)
            x = features(seed=step)
            y = module(gpu.put(x) if module is ours and gpu.there else x.to(real))
            y.backward(gpu.put((2 * y).to(real)) if module is ours else 2 * y)
            rule.step()
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key], value, 1e-4)
    assert not ours._native.is_there


def test_passes_wait_and_are_repeated(gpu: Emulated) -> None:
    ours, theirs = pair("norm")
    batches = [features(rows, seed=rows) for rows in (3, 20, 7)]
    outputs, peers = [ours(gpu.put(x)) for x in batches], [theirs(x.double()) for x in batches]
    for i in (2, 0, 1):
        for retain in (True, False):
            outputs[i].backward(gpu.put(torch.ones_like(outputs[i])), retain_graph=retain)
            peers[i].backward(torch.ones_like(peers[i]), retain_graph=retain)
    same_gradients(ours, theirs)
    assert int(ours.get_buffer("1.num_batches_tracked")) == 3  # a repetition is no batch of its own
    close(ours.get_buffer("1.running_var"), theirs.get_buffer("1.running_var"))


def test_a_pass_ends_where_it_began(gpu: Emulated) -> None:
    gpu.there = False
    ours = Module(from_torch(NETS["tanh"]()))
    x = features().requires_grad_()
    output = ours(x)
    gpu.there = True
    ours.to("cpu")
    ours(gpu.put(features()))
    output.sum().backward()
    want = copy.deepcopy(x.grad)
    x.grad = None
    gpu.there = False
    ours.cpu()(x).sum().backward()
    close(x.grad, want)


def test_ids_are_read_and_checked(gpu: Emulated) -> None:
    model = hl.nn.Sequential(hl.nn.Embedding(7, 4), hl.nn.Linear(4, 2))
    here = Module(copy.deepcopy(model).initialize(3) or model)
    ids = torch.tensor([1, 6, 0])
    gpu.there = False
    here = Module(model)
    want = here(ids).detach()
    gpu.there = True
    here.to("cpu")
    for kind in (torch.int32, torch.int64):
        assert (
            torch.equal(here(gpu.put(ids.to(kind))).detach(), want)
            or (here(gpu.put(ids.to(kind))) - want).abs().max() < 1e-6
        )
    with pytest.raises(hl.LabelError, match=r"\[1\] = 7 is not an index"):
        here(gpu.put(torch.tensor([0, 7])))


def test_the_network_follows_and_copies_stand_alone(gpu: Emulated) -> None:
    ours, _ = pair("norm")
    ours(gpu.put(features()))
    with torch.no_grad():
        ours.get_parameter("0.weight").fill_(0.25)
    assert (ours.hotloop_model.state_dict()["0.weight"] == 0.25).all()
    assert int(ours.hotloop_model.state_dict()["1.num_batches_tracked"]) == 1
    twin = copy.deepcopy(ours)
    gpu.there = False
    ours.eval().cpu(), twin.eval()
    assert torch.equal(twin(features()), ours(features()))
    assert (twin.get_parameter("0.weight") == 0.25).all()


def test_work_comes_after_torchs_stream(gpu: Emulated) -> None:
    ours, theirs = pair()
    x = gpu.put(torch.zeros_like(features()))
    ours(x)
    with emulating("simt", "deferred"):
        gpu.queue.upload(x.data_ptr(), features().numpy())  # not done until somebody waits
        close(ours(x), theirs(features().double()))


def test_where_it_cannot_go_is_said(gpu: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair()
    with pytest.raises(hl.DTypeError, match="cannot become torch"):
        ours.half()
    with pytest.raises(hl.DeviceError, match="x lies on meta; allowed: cpu, where the module is"):
        ours(features().to("meta"))
    with pytest.raises(hl.DeviceError, match="cannot move to cuda:1; allowed: cpu and cuda:0"):
        check_number(torch.device("cuda:1"))
    gpu.there = False
    fresh = Module(from_torch(NETS["tanh"]()))
    gpu.there = True
    monkeypatch.setattr(on_device, "_queues", {})

    def refuse(*_: Any) -> Any:
        raise hl.DeviceError("there is no NVIDIA GPU")

    monkeypatch.setattr(on_device, "open_device", refuse)
    with pytest.raises(hl.DeviceError, match="there is no NVIDIA GPU"):
        fresh.to("cpu")
    gpu.there = False
    fresh(features()).sum().backward()  # it stayed where it was
