# SPDX-License-Identifier: Apache-2.0
"""hotloop.torch's optimisers beside torch's own: the same numbers, the same state, the same manners."""

from __future__ import annotations

import copy
import io
from collections import defaultdict
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import hotloop as hl  # noqa: E402
import hotloop.torch as ours  # noqa: E402

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", dict(lr=0.01, weight_decay=0.1)),
    "adamw-maximize": ("AdamW", dict(lr=0.01, betas=(0.8, 0.95), eps=1e-6, maximize=True)),
    "adam": ("Adam", dict(lr=0.01)),
    "adam-decay": ("Adam", dict(lr=torch.tensor(0.01), weight_decay=0.1)),
    "sgd": ("SGD", dict(lr=0.05)),
    "sgd-decay-maximize": ("SGD", dict(lr=0.05, weight_decay=0.1, maximize=True)),
    "sgd-momentum": ("SGD", dict(lr=0.05, momentum=0.9)),
    "sgd-dampening": ("SGD", dict(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.1, maximize=True)),
    "sgd-nesterov": ("SGD", dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)),
}


def tensors(dtype: Any = torch.float32) -> list[Any]:
    """Parameters of many sizes; one is not contiguous, one never has a gradient, one has it now and then."""
    torch.manual_seed(0)
    shapes = [(3, 4), (7,), (), (0, 2), (100, 101), (5,), (6,)]
    params = [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]
    image = torch.randn(4, 3, 5, 5, dtype=dtype).to(memory_format=torch.channels_last)
    return [*params, torch.nn.Parameter(image), torch.nn.Parameter(torch.randn(6, 8, dtype=dtype)[:, ::2])]


def give_gradients(params: list[Any], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for i, p in enumerate(params):
        g = torch.randn(p.shape, dtype=p.dtype, generator=generator)
        p.grad = None if i == 5 or (i == 6 and step % 3 == 0) else g


def steps(optimizer: Any, params: list[Any], begin: int, end: int) -> None:
    for step in range(begin, end):
        give_gradients(params, step)
        optimizer.step()


def assert_same(a: list[Any], b: list[Any]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.detach(), y.detach(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", FORMS)
def test_a_run_equals_torch(form: str, dtype: Any) -> None:
    name, options = FORMS[form]
    mine, theirs = tensors(dtype), tensors(dtype)
    for kind, params in ((getattr(ours, name), mine), (getattr(torch.optim, name), theirs)):
        groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.02, "weight_decay": 0.05}]
        steps(kind(groups, **options), params, 0, 12)
    assert_same(mine, theirs)
    assert mine[-2].is_contiguous(memory_format=torch.channels_last)
    assert mine[-1].stride() == theirs[-1].stride()


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_a_state_goes_to_the_other_and_on(form: str, ours_first: bool) -> None:
    name, options = FORMS[form]
    kinds = [getattr(ours, name), getattr(torch.optim, name)]
    first, second = kinds if ours_first else kinds[::-1]
    params, expected = tensors(), tensors()
    begun = first(params, **options)
    steps(begun, params, 0, 6)
    buffer = io.BytesIO()
    torch.save(begun.state_dict(), buffer)
    buffer.seek(0)
    gone_on = second(params, **options)
    gone_on.load_state_dict(torch.load(buffer, weights_only=True))
    steps(gone_on, params, 6, 12)
    whole = getattr(torch.optim, name)(expected, **options)
    steps(whole, expected, 0, 12)
    assert_same(params, expected)
    for mine, theirs in zip(
        gone_on.state_dict()["param_groups"], whole.state_dict()["param_groups"], strict=True
    ):
        assert mine.keys() == theirs.keys()
    for key, state in whole.state_dict()["state"].items():
        for entry, value in state.items():
            if value is not None:
                torch.testing.assert_close(
                    gone_on.state_dict()["state"][key][entry], value, rtol=2e-6, atol=2e-6
                )


def test_after_200_steps_no_further_from_float64_than_twice_torch() -> None:
    def train(kind: Any, dtype: Any) -> Any:
        torch.manual_seed(1)
        x, y = torch.randn(64, 10).to(dtype), torch.randn(64, 1).to(dtype)
        net = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).to(dtype)
        rule = kind(net.parameters(), lr=1e-3, weight_decay=0.01)
        for _ in range(200):
            rule.zero_grad()
            (net(x) - y).square().mean().backward()
            rule.step()
        return torch.cat([p.detach().flatten().double() for p in net.parameters()])

    exact = train(torch.optim.AdamW, torch.float64)
    torchs = (train(torch.optim.AdamW, torch.float32) - exact).norm()
    assert (train(ours.AdamW, torch.float32) - exact).norm() <= 2 * torchs


def test_schedulers_closures_hooks_and_the_profiler() -> None:
    weight, twin = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    rules = [ours.AdamW([weight], lr=0.1), torch.optim.AdamW([twin], lr=0.1)]
    schedules = [torch.optim.lr_scheduler.OneCycleLR(rule, max_lr=0.1, total_steps=8) for rule in rules]
    for _ in range(7):
        for p, rule, schedule in zip((weight, twin), rules, schedules, strict=True):

            def closure(p: Any = p, rule: Any = rule) -> Any:
                rule.zero_grad()
                loss = (p * p).sum()
                loss.backward()
                return loss

            assert rule.step(closure).item() > 0
            schedule.step()
    assert_same([weight], [twin])
    seen: list[str] = []
    rules[0].register_step_pre_hook(lambda *_: seen.append("before"))
    rules[0].register_step_post_hook(lambda *_: seen.append("after"))
    rules[0].step()
    assert seen == ["before", "after"]
    with torch.profiler.profile() as profile:
        ours.SGD([weight]).step()
    assert any("Optimizer.step#SGD" in event.key for event in profile.key_averages())


def test_gradient_scaling_goes_through_the_scaler() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    rule = ours.SGD([weight], lr=1.0, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(weight.sum()).backward()
    scaler.step(rule)
    assert weight.tolist() == [0.0] * 3


def test_autograd_sees_the_write() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    loss = (weight * weight).sum()
    weight.grad = torch.ones(3)
    ours.SGD([weight], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_storages_states_and_parameters_may_be_exchanged_between_steps() -> None:
    def run(kind: Any) -> list[Any]:
        torch.manual_seed(0)
        a, b = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(5))
        rule = kind([a, b], lr=0.1)
        for step in range(12):
            for p in rule.param_groups[0]["params"]:
                p.grad = torch.full_like(p, 0.1 * (step + 1))
            if step == 3:
                a.data = a.data.clone() + 1
            if step == 5:
                rule.state[a]["exp_avg"] = torch.ones(4)
                rule.state[b]["exp_avg_sq"].share_memory_()
            if step == 7:
                rule.state = defaultdict(dict)
            if step == 9:
                new = torch.nn.Parameter(torch.zeros(6))
                new.grad = torch.ones(6)
                rule.param_groups[0]["params"][1] = new
            rule.step()
        return [a, b, *rule.param_groups[0]["params"]]

    assert_same(run(ours.AdamW), run(torch.optim.AdamW))


def test_copies_pickles_and_older_states() -> None:
    params = tensors()
    rule = ours.Adam(params, lr=0.1)
    steps(rule, params, 0, 3)
    other = copy.deepcopy(rule)
    copied = other.param_groups[0]["params"]
    steps(rule, params, 3, 6)
    steps(other, copied, 3, 6)
    assert_same(params, copied)
    state = rule.state_dict()
    for entry in state["state"].values():
        entry["step"] = int(entry["step"])  # as before torch 1.12
    rule.load_state_dict(state)
    steps(rule, params, 6, 8)
    steps(other, copied, 6, 8)
    assert_same(params, copied)


def test_subclasses_of_tensors_take_the_way_by_numpy() -> None:
    class Labelled(torch.Tensor):
        pass

    def run(kind: Any) -> Any:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(5).as_subclass(Labelled))
        rule = kind([weight], lr=0.1)
        for _ in range(4):
            weight.grad = torch.ones(5)
            rule.step()
        return weight.detach().as_subclass(torch.Tensor)

    torch.testing.assert_close(run(ours.AdamW), run(torch.optim.AdamW))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: ours.AdamW(p, amsgrad=True), ValueError, "amsgrad must be False"),
        (lambda p: ours.Adam(p, capturable=True), ValueError, "capturable must be False"),
        (lambda p: ours.SGD(p, differentiable=True), ValueError, "differentiable must be False"),
        (lambda p: ours.SGD(p, nesterov=True), ValueError, "Nesterov"),
        (lambda p: ours.AdamW(p, lr=-1.0), ValueError, "learning rate"),
        (lambda p: ours.AdamW(p, fused=True, foreach=True), RuntimeError, "fused"),
    ],
)
def test_options_that_are_refused(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make([torch.nn.Parameter(torch.ones(2))])


def test_a_state_with_amsgrad_is_refused() -> None:
    theirs = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], amsgrad=True)
    with pytest.raises(ValueError, match="amsgrad must be False"):
        ours.AdamW([torch.nn.Parameter(torch.ones(2))]).load_state_dict(theirs.state_dict())


def test_what_cannot_be_updated_is_refused_before_anything_changes() -> None:
    def step(odd: Any, grad: Any) -> Any:
        good = torch.nn.Parameter(torch.ones(2))
        good.grad = torch.ones(2)
        odd.grad = grad
        rule = ours.AdamW([{"params": [good]}, {"params": [odd]}])
        try:
            rule.step()
        finally:
            assert good.tolist() == [1.0, 1.0]

    half = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    with pytest.raises(
        hl.DTypeError, match=r"parameter 0 of group 1 is torch.bfloat16; allowed torch.float32"
    ):
        step(half, torch.ones(3, dtype=torch.bfloat16))
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match=r"gradient of layout torch\.sparse_coo"):
        step(table.weight, table.weight.grad)
    elsewhere = torch.nn.Parameter(torch.ones(3, device="meta"))
    with pytest.raises(hl.DeviceError, match="is on meta"):
        step(elsewhere, torch.ones(3, device="meta"))


def test_threads_do_not_change_a_bit() -> None:
    def run(threads: int) -> Any:
        hl.set_num_threads(threads)
        try:
            torch.manual_seed(0)
            params = [torch.nn.Parameter(torch.randn(n)) for n in (200_000, 5, 70_001, 16_384)]
            steps(ours.AdamW(params, lr=0.1), params, 0, 4)
            return torch.cat([p.detach() for p in params])
        finally:
            hl.set_num_threads(None)

    assert torch.equal(run(1), run(3))


def test_a_single_number_whose_gradient_lies_with_the_other_sign() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    rule = ours.SGD([weight], lr=0.5)
    for gradient in (torch.ones(1), torch._neg_view(torch.ones(1)), torch._neg_view(torch.ones(1))):
        weight.grad = gradient
        rule.step()
    assert weight.item() == 1.0 - 0.5 + 0.5 + 0.5
