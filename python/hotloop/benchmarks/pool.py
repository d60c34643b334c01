# SPDX-License-Identifier: Apache-2.0
"""The other end of the workers: start them, ask one at a time, end them whatever happens."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from hotloop.benchmarks.contestants import Entry
from hotloop.benchmarks.networks import Network

#: Longer than any compiler here takes; a worker that is silent for so long hangs.
ANSWER_WITHIN_S = 240.0


class WorkerError(Exception):
    """A contestant could not do what was asked; its own words."""


class Worker:
    """One process for one entry; `begin` a network, `ask`, `finish`, and so on with the next."""

    def __init__(self, entry: Entry, scratch: str) -> None:
        self.entry = entry
        self._errors = Path(scratch, f"{os.urandom(4).hex()}.stderr").open("w+")  # noqa: SIM115 (see close)
        count = "auto" if entry.threads is None else str(entry.threads)
        # torch.compile: its cache begins empty, so that a first step includes compiling, and it compiles in
        # the process that asked, so that no helper is left beside the timing.
        # JAX takes three quarters of a GPU's memory beforehand, where all contestants have to fit.
        environment = {
            "TORCHINDUCTOR_CACHE_DIR": scratch, "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.3",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "hotloop.benchmarks.worker", entry.contestant, count],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, bufsize=1,
            env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip

    def wait(self) -> None:
        """Until the library is imported. Raises `WorkerError`."""
        self._answer()

    def begin(self, network: Network) -> None:
        self._send(asdict(network))
        self._answer()

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Raises `WorkerError` with the worker's own words; it may begin another network afterwards."""
        self._send({"do": what, **details})
        return self._answer()

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, 9)  # itself and the fork that may be at work; a group of its own
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None

    def _answer(self) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], ANSWER_WITHIN_S)[0]:
            raise WorkerError(f"no answer within {ANSWER_WITHIN_S:.0f} s")
        line = stream.readline()
        if not line:
            raise WorkerError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "ended without a word"


class Pool:
    """Workers for some entries, by label; those that cannot even start are in ``failed`` with the reason."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.workers: dict[str, Worker] = {}
        self.failed: dict[str, str] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="hotloop-bench-")
        try:
            for entry in entries:  # all import at once
                self.workers[entry.label] = Worker(entry, self._scratch.name)
            for label in list(self.workers):
                try:
                    self.workers[label].wait()
                except WorkerError as error:
                    self.drop(label, str(error))
        except BaseException:
            self.close()
            raise

    def drop(self, label: str, reason: str) -> None:
        """Leave a contestant out from here on."""
        self.failed[label] = reason
        self.workers.pop(label).close()

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
        self._scratch.cleanup()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.close()
