# SPDX-License-Identifier: Apache-2.0
"""One contestant in a process of its own: python -m hotloop.benchmarks.worker CONTESTANT THREADS

Thread pools, affinities and compiler flags cannot be changed once a library has used them, and idle threads
of one library would disturb the next; so each contestant with each thread count has its own process, which
works only when asked. Requests and answers are lines of JSON on standard input and output. The library is
imported once; each network runs in a fork of that, so that its memory is its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hotloop.benchmarks.contestants import Library, Runner, library
from hotloop.benchmarks.networks import Network, loss_value

#: An idle library's threads spin for some milliseconds (OpenBLAS for about 25); the process is quiet when it
#: has used less than a tenth of this time.
QUIET_S = 0.01
QUIET_AT_LATEST_S = 0.5


def memory_bytes(field: str) -> int:
    """VmRSS (resident now) or VmHWM (at most so far) of this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def settle() -> None:
    """Returns once this process's threads have gone to sleep, so that the next contestant has the machine."""
    deadline = time.perf_counter() + QUIET_AT_LATEST_S
    while time.perf_counter() < deadline:
        used = time.process_time()
        time.sleep(QUIET_S)
        if time.process_time() - used < QUIET_S / 10:
            return


@dataclass
class Job:
    """A network being trained. ``base``: resident bytes before it, of the interpreter and its libraries."""

    network: Network
    runner: Runner
    base: int
    epochs: int = 1  # of one round

    def prepare(self, curve_epochs: int) -> dict[str, Any]:
        """Compile, then train some epochs in the order of the rows: the loss before and after each."""
        first = self.runner.first_step()
        self.runner.reset()
        curve = [loss_value(self.network, self.runner.weights())]
        for _ in range(curve_epochs):
            self.runner.run(1, shuffle=False)
            curve.append(loss_value(self.network, self.runner.weights()))
        settle()
        return {"first_step_s": first, "curve": curve}

    def calibrate(self, seconds: float) -> dict[str, Any]:
        """Warm up, and find the epochs that fill a round."""
        self.runner.run(1, shuffle=True)
        while (taken := self._timed(self.epochs)) < seconds / 2 and self.epochs < 1 << 20:
            self.epochs = max(self.epochs + 1, int(self.epochs * min(8.0, seconds / max(taken, 1e-6))))
        settle()
        return {"epochs": self.epochs}

    def round(self) -> dict[str, Any]:
        """One timed call; wall and processor seconds of a step, threads all together."""
        used = time.process_time()
        taken = self._timed(self.epochs)
        used = time.process_time() - used
        steps = self.network.steps * self.epochs
        settle()
        return {"seconds": taken / steps, "cpu_s": used / steps}

    def finish(self) -> dict[str, Any]:
        return {"peak_bytes": memory_bytes("VmHWM"), "base_bytes": self.base}

    def _timed(self, epochs: int) -> float:
        begin = time.perf_counter()
        self.runner.run(epochs, shuffle=True)
        return time.perf_counter() - begin


def serve(job: Job, requests: TextIO, answers: TextIO) -> None:
    """Answer what is asked about one network until "finish" or the end of the input."""
    for line in requests:
        request = json.loads(line)
        name = request.pop("do")
        answers_to: dict[str, Callable[..., dict[str, Any]]] = {
            "prepare": job.prepare, "calibrate": job.calibrate, "round": job.round, "finish": job.finish,
        }  # fmt: skip
        answer = answers_to[name](**request)
        print(json.dumps(answer), file=answers, flush=True)
        if name == "finish":
            return


def run_job(
    source: Library, contestant: str, threads: int | None, request: dict[str, Any], pipes: tuple[TextIO, TextIO]
) -> None:  # fmt: skip
    """Serve one network; what goes wrong is an answer too."""
    requests, answers = pipes
    try:
        network = Network(**{**request, "sizes": tuple(request["sizes"])})
        base = memory_bytes("VmRSS")
        job = Job(network, source.make(network, contestant, threads), base)
        print(json.dumps({"ready": True}), file=answers, flush=True)
        serve(job, requests, answers)
    except Exception as error:
        traceback.print_exc()
        first_line = (str(error).splitlines() or [""])[0]
        print(json.dumps({"error": f"{type(error).__name__}: {first_line}"}), file=answers, flush=True)


def main() -> None:
    contestant, count = sys.argv[1:]
    threads = None if count == "auto" else int(count)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    source = library(contestant.partition(",")[0])
    source.prepare(contestant, threads)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            run_job(source, contestant, threads, json.loads(line), (sys.stdin, answers))
            os._exit(0)  # no exit handlers: a library may wait there for threads that the fork has not
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != 0:  # it could not say so itself
            print(json.dumps({"error": f"ended with status {status}"}), file=answers, flush=True)


if __name__ == "__main__":
    main()
