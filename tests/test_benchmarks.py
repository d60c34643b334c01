# SPDX-License-Identifier: Apache-2.0
"""`hotloop bench`: what it measures is what it says, contestants learn alike, and a bad one is left out.

Nothing here asserts a time. Peers that are not installed are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.benchmarks import chart, contestants, harness, networks, published, training_report
from hotloop.benchmarks.commands import time_kernels, train
from hotloop.benchmarks.contestants import Entry, library
from hotloop.benchmarks.harness import Row
from hotloop.benchmarks.kernels import measure
from hotloop.benchmarks.networks import NETWORKS, Network, loss_value
from hotloop.benchmarks.pool import Pool, Worker, WorkerError
from hotloop.benchmarks.run_hotloop import HotloopRunner
from hotloop.benchmarks.training import ADAM, CurveError, Options, Record, Training, check_curves
from hotloop.cli import main

SMALL = Network((6, 8, 8, 3), batch=16, steps=4)
PAIR = Network((6, 8, 2), batch=16, steps=4)
NUMBERS = Network((6, 8, 5), batch=16, steps=4, loss="mse", activation="tanh")
QUICK = Options(peers=(), counts=(1,), rounds=2, seconds=0.001)
NEEDED = {"torch": "torch", "jax": "jax", "sklearn": "sklearn"}


# --- networks ---


def test_names() -> None:
    assert [network.key for network in NETWORKS] == [
        "64-128-10", "10-32-32-10", "10-45-45-10", "10-46-46-10", "4-120-84-2", "784-30-10", "28-300x5-2",
        "784-512-512-10", "1024-4096-1024",
    ]  # fmt: skip
    assert NETWORKS[6].sizes == (28, *[300] * 5, 2)
    assert NETWORKS[0].name == "64-128-10, batch 32"


def test_operations_are_the_plans_without_the_first_input_gradient() -> None:
    """The compiled plan counts its products too; the floor may only be below it, and by the small kernels."""
    for network in (SMALL, NETWORKS[0]):
        runner = HotloopRunner(network, 1)
        plan = runner.trainer.plan(runner.x, runner.y, batch_size=network.batch)
        assert network.flops_per_step <= plan.flops_per_step < 1.5 * network.flops_per_step + 1e5
    assert SMALL.flops_per_step == 2 * 16 * (3 * (48 + 64 + 24) - 48)


def test_parameters() -> None:
    assert SMALL.parameters == sum(w.size + b.size for w, b in SMALL.weights())
    assert NETWORKS[0].parameters == 64 * 128 + 128 + 128 * 10 + 10


def test_data_can_be_learnt_and_has_the_right_kind() -> None:
    x, y = SMALL.data()
    assert x.shape == (64, 6) and x.dtype == np.float32
    assert y.shape == (64,) and set(y) <= {0, 1, 2}
    x, y = NUMBERS.data()
    assert y.shape == (64, 5) and y.dtype == np.float32


@pytest.mark.parametrize("network", [SMALL, PAIR, NUMBERS], ids=lambda n: n.key)
def test_the_judge_is_hotloops_own_loss(network: Network) -> None:
    runner = HotloopRunner(network, 1)
    x, y = network.data()
    for _ in range(2):  # before training and after
        assert runner.trainer.evaluate(x, y)["loss"] == pytest.approx(
            loss_value(network, runner.weights()), rel=1e-6
        )
        runner.run(2, shuffle=True)


def test_selection() -> None:
    assert networks.selected(None) == NETWORKS
    assert [n.key for n in networks.selected("784-30-10, 64-128-10")] == ["784-30-10", "64-128-10"]
    with pytest.raises(ValueError, match="no network '1-2'; allowed: 64-128-10"):
        networks.selected("64-128-10,1-2")


# --- contestants ---


def test_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "jax")
    found = contestants.entries(contestants.PEERS, (1, 2, 4))
    labels = [entry.label for entry in found]
    assert labels[:4] == ["hotloop / auto", "hotloop / 1", "hotloop / 2", "hotloop / 4"]
    assert "torch eager / 2" in labels and "torch compiled / 2" not in labels
    assert {"torch compiled / 4", "torch compiled, update too / 1", "scikit-learn / 4"} <= set(labels)
    assert not any("JAX" in label for label in labels)
    assert contestants.absent(contestants.PEERS) == ["jax"]
    assert not any("compiled" in e.label for e in contestants.entries(("torch",), (1,), variants=False))
    assert [e.label for e in contestants.entries((), (1,))] == ["hotloop / auto", "hotloop / 1"]


def runner_of(contestant: str, network: Network) -> Any:
    needs = contestants.BY_NAME[contestant].needs
    pytest.importorskip(needs)
    return library(contestant).make(network, contestant, 1)


@pytest.mark.parametrize("network", [SMALL, PAIR, NUMBERS], ids=lambda n: n.key)
@pytest.mark.parametrize("contestant", ["hotloop", "torch eager", "scikit-learn"])
def test_runner(contestant: str, network: Network) -> None:
    """First weights survive a first step and a reset; the order matters only if shuffled."""
    runner = runner_of(contestant, network)
    assert runner.first_step() > 0
    curves = []
    for shuffle in (False, False, True):
        runner.reset()
        assert loss_value(network, runner.weights()) == pytest.approx(
            loss_value(network, network.weights()), rel=1e-6
        )
        runner.run(1, shuffle=shuffle)
        runner.run(2, shuffle=shuffle)
        curves.append(loss_value(network, runner.weights()))
    assert curves[0] == curves[1] != curves[2]


# --- workers ---


@pytest.fixture(scope="module")
def pool() -> Any:
    with Pool([Entry("hotloop", 1)]) as found:
        yield found


def test_worker_serves_one_network_after_the_other(pool: Pool) -> None:
    worker = pool.workers["hotloop / 1"]
    for network in (SMALL, NUMBERS):
        worker.begin(network)
        answer = worker.ask("prepare", curve_epochs=2)
        assert len(answer["curve"]) == 3 and answer["first_step_s"] > 0
        assert answer["curve"][0] == pytest.approx(loss_value(network, network.weights()))
        assert worker.ask("calibrate", seconds=0.001)["epochs"] >= 1
        timed = worker.ask("round")
        assert timed["seconds"] > 0 and timed["cpu_s"] > 0
        memory = worker.ask("finish")
        assert memory["peak_bytes"] > memory["base_bytes"] > 0


def test_worker_says_what_failed_and_goes_on(pool: Pool) -> None:
    worker = pool.workers["hotloop / 1"]
    worker.begin(SMALL)
    with pytest.raises(WorkerError, match=r"TypeError: .*no_such"):
        worker.ask("prepare", no_such=1)
    worker.begin(SMALL)
    assert worker.ask("prepare", curve_epochs=1)["curve"]
    assert worker.ask("finish")


def test_a_worker_that_cannot_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = contestants.Contestant("absent", "torch", "run_absent", "numpy")
    monkeypatch.setattr(contestants, "CONTESTANTS", (missing,))
    with Pool([Entry("absent", 1)]) as found:
        assert found.workers == {}
        assert "KeyError" in found.failed["absent / 1"]


def test_closing_ends_the_process(tmp_path: Path) -> None:
    worker = Worker(Entry("hotloop", 1), str(tmp_path))
    worker.wait()
    worker.begin(SMALL)
    worker.close()
    assert worker._process.returncode is not None


# --- training ---


def record(entry: Entry, *curve: float) -> Record:
    return Record(entry, list(curve), 0.1)


def test_curves_must_agree() -> None:
    ours = [record(Entry("hotloop", n), 1.0, 0.5, 0.25) for n in (None, 1, 2)]
    torch, adam = Entry("torch eager", 1), record(ADAM, 1.0, 0.6, 0.35)
    sklearn = Entry("scikit-learn", 1)
    check_curves(SMALL, [*ours, record(torch, 1.0, 0.5001, 0.2501), adam, record(sklearn, 1.0, 0.6, 0.35)])
    with pytest.raises(CurveError, match=r"torch eager / 1 on 6-8-8-3, batch 16: loss 0\.2503 after 2"):
        check_curves(SMALL, [*ours, record(torch, 1.0, 0.5, 0.2503)])
    with pytest.raises(CurveError, match="scikit-learn / 1"):  # the path of AdamW is not its own
        check_curves(SMALL, [*ours, adam, record(sklearn, 1.0, 0.5, 0.25)])
    check_curves(PAIR, [*ours, adam, record(sklearn, 1.0, 0.5, 0.25)])
    with pytest.raises(CurveError, match="scikit-learn / 1"):
        check_curves(PAIR, [*ours, adam, record(sklearn, 1.1, 0.5, 0.25)])


def test_hotloops_curves_must_be_equal_to_the_bit() -> None:
    ours = record(Entry("hotloop", None), 1.0, 0.5)
    with pytest.raises(CurveError, match="hotloop / 2"):
        check_curves(SMALL, [ours, record(Entry("hotloop", 2), 1.0, np.nextafter(0.5, 1))])


def test_a_curve_must_fall() -> None:
    with pytest.raises(CurveError, match="does not fall"):
        check_curves(SMALL, [record(Entry("hotloop", 1), 1.0, 1.0)])


def test_measuring_hotloop_alone() -> None:
    lines: list[str] = []
    with Training(QUICK, lines.append) as training:
        rows = training.measure(SMALL)
        assert training.left_out == {}
    assert [(row.contestant, row.extra["threads"]) for row in rows] == [("hotloop", "auto"), ("hotloop", 1)]
    for row in rows:
        assert len(row.seconds) == 2 and row.best > 0 and row.extra["cpu_s"] > 0
        assert row.extra["floor_s"] == pytest.approx(SMALL.flops_per_step / (training.peaks[1] * 1e9))
        assert row.extra["loss"][1] < row.extra["loss"][0]
    assert "6-8-8-3, batch 16: round 2 of 2" in lines


@pytest.mark.parametrize("family", contestants.PEERS)
def test_measuring_a_peer(family: str) -> None:
    """Every peer that is installed learns the same, in a worker of its own."""
    pytest.importorskip(NEEDED[family])
    options = Options(peers=(family,), counts=(1,), rounds=1, seconds=0.001, variants=False)
    with Training(options) as training:
        for network in (SMALL, PAIR, NUMBERS):
            rows = training.measure(network)
            assert set(training.left_out.values()) <= {"not in a quick run"}
            assert {contestants.BY_NAME[r.contestant].family for r in rows} == {"hotloop", family}


@pytest.mark.deep
def test_measuring_compiled_torch() -> None:
    pytest.importorskip("torch")
    with Training(Options(peers=("torch",), counts=(1,), rounds=1, seconds=0.001)) as training:
        rows = training.measure(SMALL)
        assert training.left_out == {}
    assert {"torch compiled", "torch compiled, update too"} <= {row.contestant for row in rows}


def test_a_peer_that_fails_is_left_out_but_hotloop_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with Training(QUICK) as training:
        training._leave_out("torch eager / 1", SMALL, "no compiler")
        assert training.left_out == {"torch eager / 1 (6-8-8-3, batch 16)": "no compiler"}
        with pytest.raises(RuntimeError, match=r"\[bench\] hotloop / 1 failed on 6-8-8-3, batch 16: why"):
            training._leave_out("hotloop / 1", SMALL, "why")


# --- reports ---


def result_of(*settings: str) -> dict[str, Any]:
    """Two networks with every family; torch is best at two threads."""
    rows = []
    for index, setting in enumerate(settings):
        scale = 10.0**index * 1e-5
        extra = {"threads": 1, "cpu_s": scale, "first_step_s": 0.01, "peak_mb": 50.0, "base_mb": 20.0,
                 "floor_s": scale / 2, "floor_threads": 1}  # fmt: skip
        rows.append(Row(setting, "hotloop", (scale, 2 * scale), extra))
        rows.append(Row(setting, "torch eager", (9 * scale, 9 * scale), extra))
        rows.append(Row(setting, "torch compiled", (8 * scale, 9 * scale), {**extra, "threads": 2}))
        rows.append(Row(setting, "JAX scan", (2.5 * scale,), extra))
        rows.append(Row(setting, "scikit-learn", (7 * scale,), extra))
    stamp = {"cores": 2, "cpu": "c", "isa": "avx2", "versions": {"torch": "1"}, "fma_gflops": {"1": 100.0}}
    return json.loads(json.dumps(harness.record("train", rows, stamp)))  # type: ignore[no-any-return]


def test_summary_and_details() -> None:
    rows = result_of("a", "b")["rows"]
    lines = training_report.summary(rows).splitlines()
    assert lines[1].split() == ["a", "10.0", "1", "8.00", "2.50", "7.00", "2.00"]
    assert lines[2].split()[:2] == ["b", "100"]
    detail = training_report.details(rows, "a").splitlines()
    assert len(detail) == 6
    assert detail[3].split()[:5] == ["torch", "compiled", "2", "80.0", "85.0"]


def test_published_figures_are_quoted_with_their_source() -> None:
    text = training_report.orientation(result_of(published.MATRIX_EXPONENTIAL.name)["rows"])
    for figure in published.PUBLISHED:
        assert figure.source in text and figure.machine in text
    assert published.PUBLISHED[0].gflops == pytest.approx(
        2 * 10_000 * (3 * (128 + 512 + 64) - 128) / 41e-6 * 1e-9
    )


def test_markdown_leaves_out_what_only_orients() -> None:
    text = training_report.markdown(result_of("a", published.MATRIX_EXPONENTIAL.name))
    assert "| a | **10.0** | 80.0 (8.0x) | 25.0 (2.5x) | 70.0 (7.0x) | 5.0 (2.00x) |" in text
    assert published.MATRIX_EXPONENTIAL.name not in text


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_chart(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"c{suffix}"
    chart.draw(result_of("net a", "net b"), path)
    if suffix == ".svg":
        text = path.read_text(encoding="utf-8")
        ET.fromstring(text)
        for colour, _ in chart.STYLE.values():
            assert colour.lower() in text.lower()
    assert path.stat().st_size > 5000


def test_row() -> None:
    row = Row("s", "c", (4.0, 1.0, 2.0, 3.0))
    assert (row.best, row.median) == (1.0, 2.5)
    assert row.spread == pytest.approx((3.75 - 1.25) / 2 / 2.5)
    assert Row("s", "c", (1.0,)).spread is None


def test_a_kernel_is_checked_and_timed() -> None:
    row = measure("copy", harness.Limits(100.0, 50.0))
    assert row.best > 0 and row.extra["of stream"].endswith(" %")


# --- commands ---


def test_bench_train_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cyclopts")
    path = tmp_path / "out" / "r.json"
    command = ["bench", "train", "--quick", "--networks", "64-128-10", "--peers", "none", "--threads", "1"]
    assert main([*command, "--save", str(path)]) == 0
    out = capsys.readouterr().out
    assert "64-128-10, batch 32" in out and f"saved {path}" in out
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert {row["contestant"] for row in stored["rows"]} == {"hotloop"}
    assert stored["machine"]["versions"]["hotloop"] == hl.__version__
    assert path.with_suffix(".svg").exists() == bool(importlib.util.find_spec("matplotlib"))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("networks", "1-2", "no network '1-2'"),
        ("peers", "numpy", "no peer 'numpy'; allowed: torch, jax, sklearn, or none"),
        ("threads", "0", "--threads takes counts such as 1,2"),
        ("threads", "x", "--threads takes counts such as 1,2"),
    ],
)
def test_bad_options(option: str, value: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=words.split(";")[0].replace("(", r"\(")):
        train(**{option: value})  # type: ignore[arg-type]
    pytest.importorskip("cyclopts")
    assert main(["bench", "train", f"--{option}", value]) == 2
    assert words in capsys.readouterr().err


def test_bench_kernels_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hotloop.benchmarks import commands

    monkeypatch.setattr(commands, "SETTINGS", {"copy": commands.SETTINGS["copy"]})
    assert time_kernels(peers=False, save=str(tmp_path / "k.json")) == 0
    assert "of stream" in capsys.readouterr().out
    assert json.loads((tmp_path / "k.json").read_text(encoding="utf-8"))["rows"][0]["setting"] == "copy"
