# SPDX-License-Identifier: Apache-2.0
"""Kernels beside their peers: who takes part, what is checked, and the picture. Times are nobody's business here."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hotloop import _core
from hotloop.benchmarks import blas, commands, peer_works, peers
from hotloop.benchmarks.harness import Limits
from hotloop.runtime.threads import get_num_threads


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ROUNDS", 2)
    monkeypatch.setattr(peers, "SAMPLE_S", 1e-5)


def work(name: str) -> peer_works.Work:
    return next(w for w in peer_works.works() if w.name == name)


def test_a_row_for_each_contestant_and_threads_as_before() -> None:
    before = get_num_threads()
    rows = peers.measure(work("matmul 32x128x64"), 1)
    assert {"hotloop", "numpy"} <= {row.contestant for row in rows}
    assert all(len(row.seconds) == 2 and row.extra["threads"] == 1 for row in rows)
    assert get_num_threads() == before
    text = peers.report(commands._plain(rows), Limits(100.0, 10.0))
    assert "numpy x" in text
    assert "numpy 1.3" in text


def test_a_peer_with_another_result_is_refused() -> None:
    wrong = peer_works.Work(
        "wrong", lambda: {"hotloop": lambda: np.ones(3), "numpy": lambda: np.zeros(3)}, 1.0
    )
    with pytest.raises(AssertionError, match="wrong: numpy"):
        peers.measure(wrong, 1)


@pytest.mark.skipif(_core.cpu_count() < 2, reason="needs two processors")
def test_beside_a_busy_process() -> None:
    rows = peers.measure_busy(work("matmul 64x64x64"))
    assert [row.contestant for row in rows] == ["1 thread", "2 threads"]
    assert "2 threads over it" in peers.busy_report(rows)


def multiply_as(order: str, calls: list[Any]) -> Any:
    """A function with the C interface of dnnl_sgemm or libxsmm_sgemm, in NumPy."""

    def matrix(pointer: ctypes.c_void_p, rows: int, columns: int) -> Any:
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (rows, columns))

    def value(x: Any) -> Any:
        return getattr(x, "_obj", x).value

    def sgemm(ta: Any, tb: Any, m: Any, n: Any, k: Any, alpha: Any, a: Any, lda: Any, b: Any, ldb: Any,
              beta: Any, c: Any, ldc: Any) -> int:  # fmt: skip
        t1, t2 = value(ta) == b"T", value(tb) == b"T"
        M, N, K = value(m), value(n), value(k)
        calls.append((M, N, K))
        if order == "rows":
            left, right = matrix(a, *((K, M) if t1 else (M, K))), matrix(b, *((N, K) if t2 else (K, N)))
            matrix(c, M, N)[...] = (left.T if t1 else left) @ (right.T if t2 else right)
        else:  # column-major: what is (rows, columns) there lies in memory as (columns, rows)
            left, right = matrix(a, *((M, K) if t1 else (K, M))), matrix(b, *((K, N) if t2 else (N, K)))
            matrix(c, N, M)[...] = (right.T if t2 else right) @ (left.T if t1 else left)
        return 0

    return sgemm


@pytest.mark.parametrize(("make", "order"), [(blas._onednn, "rows"), (blas._libxsmm, "columns")])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_arguments_of_foreign_products(make: Any, order: str, left: bool, right: bool) -> None:
    """The order of arguments, by a stand-in with the C interface: the libraries are seldom there."""
    calls: list[Any] = []
    sgemm = multiply_as(order, calls)
    product = make(SimpleNamespace(dnnl_sgemm=sgemm, libxsmm_sgemm=sgemm))
    rng = np.random.default_rng(0)
    a = rng.integers(-4, 5, (5, 3) if left else (3, 5)).astype(np.float32)
    b = rng.integers(-4, 5, (7, 5) if right else (5, 7)).astype(np.float32)
    out = np.empty((3, 7), np.float32)
    product(a, b, out, left, right)
    assert np.array_equal(out, (a.T if left else a) @ (b.T if right else b))
    assert len(calls) == 1


def test_libxsmm_takes_small_products_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "libraries", lambda: {"onednn": print, "libxsmm": print})
    assert set(blas.products(64, 64, 64, transposed=False)) == {"onednn", "libxsmm"}
    assert set(blas.products(64, 64, 65, transposed=False)) == {"onednn"}
    assert set(blas.products(8, 8, 8, transposed=True)) == {"onednn"}


def test_command_saves_numbers_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "kernels.json"
    assert commands.time_kernels(only="matmul 32x,adamw 64", threads="1", save=str(path)) == 0
    assert "matmul 32x128x64" in capsys.readouterr().out
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert {row["setting"] for row in rows} == {"matmul 32x128x64", "adamw 64 tensors, 100 k"}
    assert path.with_suffix(".svg").read_text(encoding="utf-8").startswith("<?xml")


def test_unknown_work_is_named() -> None:
    with pytest.raises(ValueError, match=r"'foo' is the beginning of no work; there are: matmul 1024"):
        commands.time_kernels(only="foo")
