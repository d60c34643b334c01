# SPDX-License-Identifier: Apache-2.0
"""What a device refuses, and what a kernel breaks: each function of the device table fails in turn, at each of its
calls in a run. A run then either ends on the same bits by another way, or in a `DeviceError` with the cause and what
to do; the model is what it was at the last whole epoch, nothing leaks, and the next run works."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.runtime.executable import OnDevice
from tests.gpu.kernel_harness import LIBRARIES
from tests.simt import faults
from tests.simt.faults import FAULT, MEMORY, failing

pytestmark = pytest.mark.skipif(not LIBRARIES["simt"].exists(), reason="the emulator is not built")

RNG = np.random.default_rng(5)
X = RNG.standard_normal((45, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
#: Of each function about so many of its calls fail, evenly over a run; all of them in the deep tests.
FEW, ALL = 3, 1000


def trainer(**how: Any) -> hl.Trainer:
    model = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.ReLU(), hl.nn.Linear(8, 2))
    how = {"device": "simt", "seed": 3, "progress": False} | how
    return hl.Trainer(model, "cross_entropy", optimizer=hl.optim.AdamW(0.01), **how)


def fit(one: hl.Trainer) -> Any:
    return one.fit(X, Y, validation=0.2, epochs=2, batch_size=8).history


def weights(one: Any) -> np.ndarray:
    return np.concatenate([value.ravel() for value in one.model.state_dict().values()])


class Fit:
    """A run; its result is the history and the weights."""

    def __init__(self) -> None:
        self.one = trainer()

    def __call__(self) -> tuple[Any, bytes]:
        return fit(self.one), weights(self.one).tobytes()


class Steps:
    """Steps by hand, and predictions of two sizes."""

    def __init__(self) -> None:
        model = hl.nn.Sequential(hl.nn.Linear(6, 8), hl.nn.ReLU(), hl.nn.Linear(8, 2))
        self.one = hl.TrainStep(model, "cross_entropy", device="simt", seed=3)

    def __call__(self) -> tuple[Any, bytes]:
        losses = [self.one(X[:20], Y[:20]), self.one(X[:9], Y[:9])]
        return losses, self.one.predict(X[:5]).tobytes() + weights(self.one).tobytes()


@pytest.fixture(autouse=True, scope="module")
def young_collector() -> Iterator[None]:
    """What lives when the module begins is left out of collections, of which the tests make hundreds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=["resident", "streamed", "steps"])
def work(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Makes what is to be run."""
    if request.param == "streamed":
        whole = OnDevice.source
        monkeypatch.setattr(OnDevice, "source", lambda self, arrays: whole(self, arrays, budget=1))
    return Steps if request.param == "steps" else Fit


def one_run(make: Callable[[], Any]) -> tuple[Any, str, Any]:
    """(what was run, "same" or the error's text, the result)."""
    run = make()
    try:
        return run, "", run()
    except hl.DeviceError as error:
        return run, str(error), None


#: The functions, and what a run without failures has of their results: "same" bits by another way, or an error.
FALL_BACK = ("capture_begin", "capture_after", "capture_tail", "capture_end")
CALLS = (
    *FALL_BACK, "allocate", "allocate_pinned", "copy", "fill", "stream_create", "stream_wait", "event_create",
    "event_record", "event_wait", "stream_wait_event", "graph_launch", "launch_status",
)  # fmt: skip


@pytest.mark.parametrize("places", [FEW, pytest.param(ALL, marks=pytest.mark.deep)])
@pytest.mark.parametrize("call", CALLS)
def test_a_failure_leaves_nothing_behind(work: Callable[[], Any], call: str, places: int) -> None:
    _, error, expected = one_run(work)
    assert not error
    baseline, before = faults.live(), faults.calls(call)
    one_run(work)
    count = faults.calls(call) - before
    outcomes = set()
    for status, lasts in ((MEMORY, False), (FAULT, True), *(((FAULT, False),) if places == ALL else ())):
        for after in range(0, count, max(count // places, 1)):
            with failing(call, status, after=after, lasts=lasts):
                run, error, found = one_run(work)
                if lasts:
                    del run
                    assert faults.live() == baseline, (call, after)
            if error:
                assert "injected failure of" in error and error.startswith("[device] could not "), error
                assert ("is lost: make the trainer or step anew" in error) == (status == FAULT), error
                assert ("a smaller batch" in error) == (status == MEMORY), error
            else:
                assert found == expected, (call, status, after)
            outcomes.add(bool(error))
            if not lasts:
                assert np.isfinite(weights(run.one)).all()
                run()  # the device works again, and so does what failed on it
                del run
                assert faults.live() == baseline, (call, after)
            gc.collect()
    if call in FALL_BACK and count:
        assert False in outcomes  # without a graph the same launches go one by one
    elif count:
        assert True in outcomes


def watched() -> tuple[hl.Trainer, list[np.ndarray]]:
    """A trainer, and the weights at the begin and at the end of each epoch."""
    seen: list[np.ndarray] = []
    one = trainer(callbacks=[lambda state: seen.append(weights(one))])
    one.model.initialize(3)
    seen.append(weights(one))
    return one, seen


@pytest.mark.parametrize("call", ["graph_launch", "allocate", "event_record"])
@pytest.mark.parametrize("validation", [None, 0.2])
def test_a_run_that_fails_ends_on_its_last_whole_epoch(call: str, validation: Any) -> None:
    """Without validation; with it on the best one so far."""
    before = faults.calls(call)
    watched()[0].fit(X, Y, validation=validation, epochs=4, batch_size=8)
    count = faults.calls(call) - before
    epochs = set()
    for after in range(0, count, max(count // (2 * FEW), 1)):
        one, seen = watched()
        with failing(call, MEMORY, after=after):
            try:
                one.fit(X, Y, validation=validation, epochs=4, batch_size=8)
            except hl.DeviceError:
                kept = seen[-1:] if validation is None else seen
                assert any(np.array_equal(weights(one), each) for each in kept), after
                epochs.add(len(seen) - 1)
    assert len(epochs) > (call != "allocate")  # of which all are at the begin of a run


def test_a_broken_device_is_told_of_once_and_the_cpu_goes_on(tmp_path: Path) -> None:
    """What was written to a checkpoint is there, whatever the device has lost."""
    seen: dict[int, np.ndarray] = {}
    with ExitStack() as stack:

        def epoch_end(state: Any) -> None:
            seen[state.epoch] = weights(one)
            if state.epoch == 3:
                stack.enter_context(failing("graph_launch", FAULT, lasts=True))

        one = trainer(callbacks=[epoch_end])
        with pytest.raises(
            hl.DeviceError, match=r"graph_launch; what is in the device's memory is lost"
        ) as error:
            one.fit(X, Y, epochs=4, batch_size=8, checkpoint=hl.Checkpoint(tmp_path, every="epoch"))
        assert error.value.__context__ is None  # nothing that went wrong after it stands before it
        with pytest.raises(hl.DeviceError, match=r"is lost"):
            one.predict(X)
        with pytest.raises(hl.DeviceError, match=r"is lost"):
            one.model.state_dict()
        files = sorted(tmp_path.glob("*.safetensors"))
        kept = hl.load(files[-1])
        assert np.array_equal(weights(kept), seen[max(seen)])
        assert kept.predict(X).shape == (45, 2)
        assert trainer(device="cpu").fit(X, Y, epochs=1).stop_reason == "epochs"


def test_a_second_fit_after_out_of_memory_is_a_first_one() -> None:
    expected = fit(trainer())
    one = trainer()
    with failing("allocate", MEMORY), pytest.raises(hl.DeviceError, match=r"device memory.*a smaller batch"):
        fit(one)
    assert fit(one) == expected
